//! `synfin census --sockets --json`: a line for each socket, as docs/EVENTS.md describes it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;

use bytes::BytesMut;
use serde::Serialize;

use super::census::{HolderKeys, Missing, PlaceKeys, end, form};
use super::jsonl::{MeasureKeys, is_zero, line, measures};
use crate::census::holders::Holder;
use crate::census::{Listing, Socket};
use crate::clock::Offset;
use crate::event::State;
use crate::source::Chosen;

/// Bytes that are written at once.
const CHUNK: usize = 64 << 10;

#[derive(Serialize)]
struct SocketBody<'a> {
    #[serde(rename = "network.transport")]
    transport: &'static str,
    #[serde(rename = "network.type")]
    kind: &'static str,
    #[serde(rename = "network.connection.state")]
    state: &'static str,
    #[serde(rename = "network.local.address")]
    local_address: IpAddr,
    #[serde(rename = "network.local.port")]
    local_port: u16,
    #[serde(rename = "network.peer.address", skip_serializing_if = "Option::is_none")]
    peer_address: Option<IpAddr>,
    #[serde(rename = "network.peer.port", skip_serializing_if = "Option::is_none")]
    peer_port: Option<u16>,
    #[serde(flatten)]
    place: PlaceKeys<'a>,
    #[serde(rename = "linux.cgroup.id", skip_serializing_if = "is_zero")]
    cgroup: u64,
    #[serde(rename = "linux.socket.cookie", skip_serializing_if = "is_zero")]
    cookie: u64,
    #[serde(rename = "linux.socket.inode", skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(rename = "user.id", skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(rename = "linux.socket.form")]
    form: &'static str,
    #[serde(rename = "synfin.socket.timer", skip_serializing_if = "Option::is_none")]
    timer: Option<&'static str>,
    #[serde(rename = "synfin.socket.timer.remaining", skip_serializing_if = "Option::is_none")]
    remaining: Option<f64>,
    #[serde(rename = "synfin.socket.unanswered")]
    unanswered: u8,
    #[serde(rename = "network.tcp.accept_queue.length", skip_serializing_if = "Option::is_none")]
    accept_queue: Option<u32>,
    #[serde(rename = "network.tcp.accept_queue.limit", skip_serializing_if = "Option::is_none")]
    accept_limit: Option<u32>,
    #[serde(rename = "network.tcp.receive_queue", skip_serializing_if = "Option::is_none")]
    receive_queue: Option<u32>,
    #[serde(rename = "network.tcp.send_queue", skip_serializing_if = "Option::is_none")]
    send_queue: Option<u32>,
    #[serde(rename = "synfin.socket.quiet", skip_serializing_if = "Option::is_none")]
    quiet: Option<f64>,
    #[serde(rename = "synfin.socket.age", skip_serializing_if = "Option::is_none")]
    age: Option<f64>,
    #[serde(flatten)]
    holder: Option<HolderKeys<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    holders: Vec<HolderKeys<'a>>,
    #[serde(flatten)]
    measures: Option<MeasureKeys>,
}

/// Writes all lines.
///
/// # Errors
/// What `out` says.
pub fn lines(
    out: &mut dyn Write,
    listing: &Listing,
    holders: &BTreeMap<u64, Vec<Holder>>,
    source: &Chosen,
    offset: Offset,
) -> io::Result<()> {
    let names: BTreeMap<u32, &str> =
        listing.places.iter().filter_map(|place| Some((place.inode, place.name.as_deref()?))).collect();
    let mut buffer = BytesMut::with_capacity(CHUNK * 2);
    for socket in &listing.sockets {
        let netns = socket.ends.netns;
        let place = PlaceKeys { netns, name: names.get(&netns).copied() };
        line(&mut buffer, offset, "socket", socket.time_ns, body(socket, place, holders))?;
        if buffer.len() >= CHUNK {
            out.write_all(&buffer)?;
            buffer.clear();
        }
    }
    let times = (listing.began_ns, listing.ended_ns);
    end(&mut buffer, offset, source, times, listing.places.len(), Missing::of(listing))?;
    out.write_all(&buffer)
}

fn body<'a>(socket: &Socket, place: PlaceKeys<'a>, holders: &'a BTreeMap<u64, Vec<Holder>>) -> SocketBody<'a> {
    let ends = &socket.ends;
    let is_listener = socket.state == State::Listen;
    let holders = holders.get(&socket.inode).map(Vec::as_slice).unwrap_or_default();
    let keys = |holder: &'a Holder| HolderKeys { pid: holder.pid, name: &holder.name };
    SocketBody {
        transport: "tcp",
        kind: ends.network_type(),
        state: socket.state.name(),
        local_address: ends.local_address(),
        local_port: ends.local_port,
        peer_address: (!is_listener).then(|| ends.peer_address()),
        peer_port: (!is_listener).then_some(ends.peer_port),
        place,
        cgroup: socket.cgroup,
        cookie: ends.cookie,
        inode: socket.inode,
        // Without a file the kernel says 0, which is root.
        uid: socket.is_held().then_some(socket.uid),
        form: form(socket.form),
        timer: socket.timer.map(|(timer, _)| timer.name()),
        remaining: socket.timer.map(|(_, left)| left),
        unanswered: socket.unanswered,
        accept_queue: is_listener.then_some(socket.receive_queue),
        accept_limit: is_listener.then_some(socket.send_queue),
        receive_queue: (!is_listener).then_some(socket.receive_queue),
        send_queue: (!is_listener).then_some(socket.send_queue),
        quiet: socket.quiet_ns().map(|ns| ns as f64 / 1e9),
        age: socket.time_wait_seconds(),
        holder: holders.first().map(keys),
        holders: if holders.len() > 1 { holders.iter().map(keys).collect() } else { Vec::new() },
        measures: socket.measures.as_ref().map(|all| measures(all).without_sequence()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::census::{Form, sample};
    use crate::event::Measures;

    #[test]
    fn unknown_keys_are_absent() {
        let mut connection = sample(State::Established, Form::Full, 4, 9);
        connection.measures = Some(Measures { srtt_us: 1500, bytes_sent: 7, snd_una: 3, ..Measures::default() });
        let sockets =
            vec![sample(State::Listen, Form::Full, 1, 0), connection, sample(State::TimeWait, Form::Timewait, 0, 0)];
        let listing = Listing { sockets, ..Listing::default() };
        let holder = |pid| Holder { pid, name: "x".to_owned() };
        let holders = BTreeMap::from([(1, vec![holder(8)]), (4, vec![holder(5), holder(6)])]);
        let mut out = Vec::new();
        lines(&mut out, &listing, &holders, &Chosen::Iterator, Offset::from_nanos(0)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("null"), "{text}");
        let read: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [listener, connection, minisock, end] = read.as_slice() else { panic!("{text}") };
        let has = |line: &Value, key: &str| line.get(key).is_some();
        assert!(!has(listener, "network.peer.address") && !has(listener, "network.peer.port"), "{listener}");
        assert_eq!((&listener["process.pid"], has(listener, "holders")), (&8.into(), false), "{listener}");
        assert_eq!((&connection["process.pid"], &connection["holders"][1]["process.pid"]), (&5.into(), &6.into()));
        assert_eq!(connection["network.tcp.rtt.smoothed"], 0.0015);
        assert_eq!(connection["network.tcp.bytes_sent"], 7);
        assert!(!has(connection, "network.tcp.snd_una"), "not every source tells it: {connection}");
        assert_eq!((&connection["user.id"], &connection["linux.cgroup.id"]), (&0.into(), &9.into()));
        for key in ["user.id", "linux.socket.inode", "linux.cgroup.id", "synfin.socket.quiet", "process.pid"] {
            assert!(!has(minisock, key), "{key}: {minisock}");
        }
        assert_eq!(minisock["synfin.socket.timer"], "timewait");
        assert_eq!((&minisock["synfin.socket.age"], &minisock["linux.socket.form"]), (&1.0.into(), &"timewait".into()));
        assert_eq!(end["type"], "census_end");
    }
}
