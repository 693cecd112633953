//! `synfin census --by KEY --json`: a line for each key and state, as docs/EVENTS.md describes it.

use std::io;
use std::net::IpAddr;

use bytes::BytesMut;
use serde::Serialize;

use super::census::{Missing, end};
use super::jsonl::{is_zero, line};
use crate::census::Listing;
use crate::clock::Offset;
use crate::owner::{Counts, Key};
use crate::source::Chosen;

#[derive(Serialize)]
struct CountBody<'a> {
    #[serde(rename = "network.transport")]
    transport: &'static str,
    #[serde(rename = "synfin.census.by")]
    by: &'static str,
    #[serde(flatten)]
    key: KeyKeys<'a>,
    #[serde(rename = "network.connection.state")]
    state: &'static str,
    count: u64,
    #[serde(rename = "network.tcp.receive_queue")]
    receive_queue: u64,
    #[serde(rename = "network.tcp.send_queue")]
    send_queue: u64,
    #[serde(rename = "synfin.socket.quiet", skip_serializing_if = "Option::is_none")]
    quiet: Option<f64>,
    #[serde(rename = "synfin.census.shared", skip_serializing_if = "is_zero")]
    shared: u64,
}

#[derive(Default, Serialize)]
struct KeyKeys<'a> {
    #[serde(rename = "process.pid", skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(rename = "process.executable.name", skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(rename = "linux.cgroup.id", skip_serializing_if = "Option::is_none")]
    cgroup: Option<u64>,
    #[serde(rename = "linux.cgroup.path", skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(rename = "container.id", skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(rename = "k8s.pod.uid", skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(rename = "linux.netns.inode", skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(rename = "linux.netns.name", skip_serializing_if = "Option::is_none")]
    netns_name: Option<&'a str>,
    #[serde(rename = "network.local.address", skip_serializing_if = "Option::is_none")]
    local_address: Option<IpAddr>,
    #[serde(rename = "network.local.port", skip_serializing_if = "Option::is_none")]
    local_port: Option<u16>,
    #[serde(rename = "network.peer.address", skip_serializing_if = "Option::is_none")]
    peer_address: Option<IpAddr>,
    /// Why there is no key: `none`, `unknown`.
    #[serde(rename = "synfin.census.missing", skip_serializing_if = "Option::is_none")]
    missing: Option<&'static str>,
}

/// Writes all lines.
///
/// # Errors
/// Never in practice: writing into memory.
pub fn lines(
    out: &mut BytesMut,
    counts: &Counts,
    listing: &Listing,
    source: &Chosen,
    offset: Offset,
) -> io::Result<()> {
    for row in &counts.rows {
        for (state, sum) in &row.states {
            let body = CountBody {
                transport: "tcp",
                by: counts.by.name(),
                key: keys(&row.key, listing),
                state: state.name(),
                count: sum.sockets,
                receive_queue: sum.receive_queue,
                send_queue: sum.send_queue,
                quiet: sum.quiet_ns.map(|ns| ns as f64 / 1e9),
                shared: sum.shared,
            };
            line(out, offset, "census", listing.ended_ns, body)?;
        }
    }
    let times = (listing.began_ns, listing.ended_ns);
    end(out, offset, source, times, listing.places.len(), Missing::of(listing))
}

fn keys<'a>(key: &'a Key, listing: &'a Listing) -> KeyKeys<'a> {
    let none = KeyKeys::default();
    match key {
        Key::Process { pid, name } => KeyKeys { pid: Some(*pid), name: Some(name), ..none },
        Key::Cgroup { id, path } => KeyKeys { cgroup: Some(*id), path: path.as_deref(), ..none },
        Key::Container { id, pod } => KeyKeys { container: Some(id), pod: pod.as_deref(), ..none },
        Key::Pod(uid) => KeyKeys { pod: Some(uid), ..none },
        Key::Listener { netns, port } => {
            let mut addresses: Vec<IpAddr> =
                listing.bound(*netns, *port).iter().map(crate::census::Bound::address).collect();
            addresses.dedup();
            KeyKeys {
                netns: Some(*netns),
                netns_name: listing.name(*netns),
                local_port: Some(*port),
                // Of several none would be right.
                local_address: if let [one] = *addresses { Some(one) } else { None },
                ..none
            }
        }
        Key::Peer(address) => KeyKeys { peer_address: Some(*address), ..none },
        Key::None(netns) => KeyKeys {
            netns: *netns,
            netns_name: netns.and_then(|netns| listing.name(netns)),
            missing: Some("none"),
            ..none
        },
        Key::Unknown => KeyKeys { missing: Some("unknown"), ..none },
    }
}
