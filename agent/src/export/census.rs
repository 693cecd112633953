//! `synfin census --json`: a line for each group of sockets, each listener, the ports of each namespace and the walk itself, as
//! docs/EVENTS.md describes them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use bytes::BytesMut;
use serde::Serialize;

use super::jsonl::{is_zero, line};
use crate::census::holders::Holder;
use crate::census::{Census, Ephemeral, Form, Group, Listener, Listing, Strays};
use crate::clock::Offset;
use crate::source::Chosen;

#[derive(Serialize)]
struct GroupBody<'a> {
    #[serde(rename = "network.transport")]
    transport: &'static str,
    #[serde(rename = "network.connection.state")]
    state: &'static str,
    #[serde(rename = "network.type")]
    kind: &'static str,
    #[serde(rename = "linux.socket.form")]
    form: &'static str,
    #[serde(rename = "network.local.port", skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(flatten)]
    place: PlaceKeys<'a>,
    #[serde(rename = "linux.cgroup.id", skip_serializing_if = "is_zero")]
    cgroup: u64,
    count: u64,
    #[serde(rename = "network.tcp.receive_queue")]
    receive_queue: u64,
    #[serde(rename = "network.tcp.send_queue")]
    send_queue: u64,
}

#[derive(Serialize)]
struct ListenerBody<'a> {
    #[serde(rename = "network.transport")]
    transport: &'static str,
    #[serde(rename = "network.type")]
    kind: &'static str,
    #[serde(rename = "network.local.address")]
    address: IpAddr,
    #[serde(rename = "network.local.port")]
    port: u16,
    #[serde(flatten)]
    place: PlaceKeys<'a>,
    #[serde(rename = "linux.socket.cookie", skip_serializing_if = "is_zero")]
    cookie: u64,
    #[serde(rename = "linux.cgroup.id", skip_serializing_if = "is_zero")]
    cgroup: u64,
    #[serde(rename = "user.id")]
    uid: u32,
    #[serde(rename = "network.tcp.accept_queue.length")]
    accept_queue: u32,
    #[serde(rename = "network.tcp.accept_queue.limit")]
    accept_limit: u32,
    #[serde(rename = "network.tcp.half_open")]
    half_open: u32,
    #[serde(rename = "network.tcp.half_open.oldest", skip_serializing_if = "Option::is_none")]
    oldest: Option<f64>,
    holders: Vec<HolderKeys<'a>>,
}

#[derive(Serialize)]
struct EphemeralBody<'a> {
    #[serde(rename = "network.transport")]
    transport: &'static str,
    #[serde(flatten)]
    place: PlaceKeys<'a>,
    #[serde(rename = "network.tcp.ephemeral_port.usage")]
    taken: u64,
    #[serde(rename = "network.tcp.ephemeral_port.limit")]
    limit: u64,
}

/// A network namespace.
#[derive(Serialize)]
pub(super) struct PlaceKeys<'a> {
    #[serde(rename = "linux.netns.inode")]
    pub(super) netns: u32,
    #[serde(rename = "linux.netns.name", skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
}

/// A process.
#[derive(Serialize)]
pub(super) struct HolderKeys<'a> {
    #[serde(rename = "process.pid")]
    pub(super) pid: u32,
    #[serde(rename = "process.executable.name")]
    pub(super) name: &'a str,
}

#[derive(Serialize)]
struct WalkBody {
    #[serde(rename = "synfin.census.source")]
    source: &'static str,
    #[serde(rename = "synfin.census.namespaces")]
    namespaces: usize,
    #[serde(rename = "synfin.census.duration")]
    duration: f64,
    /// Namespaces that could not be walked.
    #[serde(rename = "synfin.census.failed")]
    failed: BTreeMap<u32, String>,
    /// Processes whose namespaces could not be asked for.
    #[serde(rename = "synfin.census.hidden")]
    hidden: usize,
    /// Sockets that were met and could not be told.
    #[serde(rename = "synfin.census.stray")]
    stray: BTreeMap<&'static str, u64>,
}

pub(super) const fn form(form: Form) -> &'static str {
    match form {
        Form::Full => "full",
        Form::Timewait => "timewait",
        Form::Request => "request",
    }
}

/// Writes all lines.
///
/// # Errors
/// Never in practice: writing into memory.
pub fn lines(
    out: &mut BytesMut,
    census: &Census,
    holders: &BTreeMap<u64, Vec<Holder>>,
    source: &Chosen,
    offset: Offset,
) -> io::Result<()> {
    let place = |netns| PlaceKeys {
        netns,
        name: census.places.iter().find(|place| place.inode == netns).and_then(|place| place.name.as_deref()),
    };
    for group in &census.sums.groups {
        let Group { netns, state, form: of, network, port, cgroup, sockets, receive_queue, send_queue } = *group;
        let body = GroupBody {
            transport: "tcp",
            state: state.name(),
            kind: network.name(),
            form: form(of),
            port,
            place: place(netns),
            cgroup,
            count: sockets,
            receive_queue,
            send_queue,
        };
        line(out, offset, "census", census.ended_ns, body)?;
    }
    for row in &census.sums.listeners {
        line(out, offset, "listener", census.ended_ns, listener(census, row, place(row.netns), holders))?;
    }
    for of in &census.places {
        if let Some(Ephemeral { taken, limit }) = of.ephemeral {
            let body = EphemeralBody { transport: "tcp", place: place(of.inode), taken, limit };
            line(out, offset, "ephemeral_ports", census.ended_ns, body)?;
        }
    }
    let Census { began_ns, ended_ns, ref places, ref failures, hidden, .. } = *census;
    let missing = Missing { failures, hidden, strays: census.sums.strays };
    end(out, offset, source, (began_ns, ended_ns), places.len(), missing)
}

/// What a walk could not tell.
pub(super) struct Missing<'a> {
    /// Namespaces that could not be walked.
    pub(super) failures: &'a [(u32, String)],
    /// Processes whose namespaces could not be asked for.
    pub(super) hidden: usize,
    /// Sockets that could not be told.
    pub(super) strays: Strays,
}

/// The last line, with the times between which the tables were walked.
pub(super) fn end(
    out: &mut BytesMut,
    offset: Offset,
    source: &Chosen,
    (began_ns, ended_ns): (u64, u64),
    namespaces: usize,
    Missing { failures, hidden, strays }: Missing<'_>,
) -> io::Result<()> {
    let body = WalkBody {
        source: source.name(),
        namespaces,
        duration: ended_ns.saturating_sub(began_ns) as f64 / 1e9,
        failed: failures.iter().cloned().collect(),
        hidden,
        stray: [("group", strays.groups), ("listener", strays.listeners), ("unreadable", strays.unreadable)].into(),
    };
    line(out, offset, "census_end", ended_ns, body)
}

impl<'a> Missing<'a> {
    /// Of a listing.
    pub(super) fn of(listing: &'a Listing) -> Self {
        Self { failures: &listing.failures, hidden: listing.hidden, strays: Strays::default() }
    }
}

fn listener<'a>(
    census: &Census,
    row: &Listener,
    place: PlaceKeys<'a>,
    holders: &'a BTreeMap<u64, Vec<Holder>>,
) -> ListenerBody<'a> {
    let holders = holders.get(&row.inode).into_iter().flatten();
    ListenerBody {
        transport: "tcp",
        kind: if row.address().is_ipv4() { "ipv4" } else { "ipv6" },
        address: row.address(),
        port: row.port,
        place,
        cookie: row.cookie,
        cgroup: row.cgroup,
        uid: row.uid,
        accept_queue: row.accept_queue,
        accept_limit: row.accept_limit,
        half_open: row.half_open,
        oldest: row.oldest_ns.map(|since| census.ended_ns.saturating_sub(since) as f64 / 1e9),
        holders: holders.map(|holder| HolderKeys { pid: holder.pid, name: &holder.name }).collect(),
    }
}
