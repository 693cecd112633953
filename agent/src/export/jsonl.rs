//! JSON lines, as docs/EVENTS.md describes them. Keys that are not known are absent.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;
use synfin_common::event::NO_REASON;

use crate::clock::Offset;
use crate::event::{Cause, Ends, Event, EventKind, Measures, Reset, Retransmit, State, Task, Transition, error_type};
use crate::health::Probe;
use crate::ledger::{Applied, Connection, Ended, Role, Side, seconds};
use crate::status::{Loss, Status};
use crate::tally::{Tallied, What};

/// Version of the contract.
pub const VERSION: u32 = 1;

/// Keys of every line.
#[derive(Serialize)]
struct Line<T> {
    r#type: &'static str,
    version: u32,
    time: String,
    #[serde(rename = "linux.time.monotonic")]
    monotonic: u64,
    #[serde(flatten)]
    body: T,
}

/// Keys of every line about a socket.
#[derive(Serialize)]
struct Socket {
    #[serde(rename = "network.transport")]
    transport: &'static str,
    #[serde(rename = "network.type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(rename = "network.local.address", skip_serializing_if = "Option::is_none")]
    local_address: Option<IpAddr>,
    #[serde(rename = "network.local.port", skip_serializing_if = "is_zero")]
    local_port: u16,
    #[serde(rename = "network.peer.address", skip_serializing_if = "Option::is_none")]
    peer_address: Option<IpAddr>,
    #[serde(rename = "network.peer.port", skip_serializing_if = "is_zero")]
    peer_port: u16,
    #[serde(rename = "network.tcp.handshake.role", skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(rename = "linux.netns.inode", skip_serializing_if = "is_zero")]
    netns: u32,
    #[serde(rename = "linux.socket.cookie", skip_serializing_if = "is_zero")]
    cookie: u64,
    #[serde(rename = "linux.cgroup.id", skip_serializing_if = "is_zero")]
    cgroup: u64,
}

#[derive(Serialize)]
struct TransitionBody {
    #[serde(flatten)]
    socket: Socket,
    #[serde(rename = "network.tcp.state.previous")]
    previous: &'static str,
    #[serde(rename = "network.connection.state")]
    state: &'static str,
    #[serde(rename = "network.tcp.state.duration", skip_serializing_if = "Option::is_none")]
    in_state: Option<f64>,
    #[serde(flatten)]
    owner: Owner,
    #[serde(rename = "linux.task.pid", skip_serializing_if = "Option::is_none")]
    task_pid: Option<u32>,
    #[serde(rename = "linux.task.name", skip_serializing_if = "Option::is_none")]
    task_name: Option<String>,
    #[serde(flatten)]
    error: ErrorKeys,
    #[serde(rename = "network.tcp.fin.received", skip_serializing_if = "std::ops::Not::not")]
    fin_received: bool,
    #[serde(flatten)]
    measures: Option<MeasureKeys>,
}

#[derive(Default, Serialize)]
struct Owner {
    #[serde(rename = "process.pid", skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(rename = "process.executable.name", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "owner.source", skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
}

#[derive(Serialize)]
struct ErrorKeys {
    #[serde(rename = "linux.errno", skip_serializing_if = "is_zero")]
    errno: u16,
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    error_type: Option<&'static str>,
}

/// The kernel's measures of a connection.
#[derive(Serialize)]
pub(super) struct MeasureKeys {
    #[serde(rename = "network.tcp.rtt.smoothed", skip_serializing_if = "Option::is_none")]
    srtt: Option<f64>,
    #[serde(rename = "network.tcp.rtt.deviation", skip_serializing_if = "Option::is_none")]
    mdev: Option<f64>,
    #[serde(rename = "network.tcp.bytes_acked")]
    bytes_acked: u64,
    #[serde(rename = "network.tcp.bytes_received")]
    bytes_received: u64,
    #[serde(rename = "network.tcp.bytes_sent")]
    bytes_sent: u64,
    #[serde(rename = "network.tcp.bytes_retrans")]
    bytes_retrans: u64,
    #[serde(rename = "network.tcp.segs_out")]
    segs_out: u32,
    #[serde(rename = "network.tcp.segs_in")]
    segs_in: u32,
    #[serde(rename = "network.tcp.total_retrans")]
    retrans: u32,
    #[serde(rename = "network.tcp.out_of_order")]
    ooo: u32,
    #[serde(rename = "network.tcp.snd_cwnd")]
    snd_cwnd: u32,
    #[serde(rename = "network.tcp.snd_una", skip_serializing_if = "Option::is_none")]
    snd_una: Option<u32>,
    #[serde(rename = "network.tcp.snd_nxt", skip_serializing_if = "Option::is_none")]
    snd_nxt: Option<u32>,
    #[serde(rename = "network.tcp.rcv_nxt", skip_serializing_if = "Option::is_none")]
    rcv_nxt: Option<u32>,
}

#[derive(Serialize)]
struct RetransmitBody {
    #[serde(flatten)]
    socket: Socket,
    #[serde(rename = "network.tcp.segment.type")]
    segment: &'static str,
    #[serde(rename = "network.tcp.segments")]
    segments: u64,
    #[serde(rename = "network.tcp.total_retrans", skip_serializing_if = "Option::is_none")]
    total: Option<u32>,
    #[serde(rename = "network.connection.state", skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(rename = "network.tcp.retransmit.type", skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(rename = "linux.tcp.ca_state", skip_serializing_if = "Option::is_none")]
    ca_state: Option<&'static str>,
}

#[derive(Serialize)]
struct ResetBody<'a> {
    #[serde(flatten)]
    socket: Socket,
    #[serde(rename = "network.io.direction")]
    direction: &'static str,
    #[serde(rename = "network.tcp.resets")]
    resets: u64,
    #[serde(rename = "network.tcp.reset.reason", skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(rename = "network.connection.state", skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

#[derive(Serialize)]
struct ConnectionBody {
    #[serde(flatten)]
    socket: Socket,
    #[serde(rename = "network.connection.duration", skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    #[serde(rename = "network.tcp.handshake.duration", skip_serializing_if = "Option::is_none")]
    handshake: Option<f64>,
    #[serde(rename = "network.connection.end")]
    end: &'static str,
    #[serde(rename = "network.tcp.close.first", skip_serializing_if = "Option::is_none")]
    first: Option<&'static str>,
    #[serde(rename = "network.tcp.close.simultaneous", skip_serializing_if = "std::ops::Not::not")]
    simultaneous: bool,
    #[serde(rename = "network.tcp.state.durations")]
    durations: BTreeMap<&'static str, f64>,
    #[serde(rename = "network.tcp.retransmits", skip_serializing_if = "is_zero")]
    retransmits: u32,
    #[serde(rename = "network.tcp.resets", skip_serializing_if = "is_zero")]
    resets: u32,
    #[serde(flatten)]
    error: ErrorKeys,
    #[serde(flatten)]
    owner: Owner,
    #[serde(flatten)]
    measures: Option<MeasureKeys>,
}

#[derive(Serialize)]
struct LossBody {
    #[serde(rename = "synfin.loss.reason")]
    reason: &'static str,
    #[serde(rename = "synfin.event.kind", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(rename = "synfin.loss.count")]
    count: u64,
}

#[derive(Serialize)]
struct StartBody<'a> {
    #[serde(rename = "synfin.version")]
    synfin: &'static str,
    #[serde(rename = "linux.kernel.release")]
    kernel: &'a str,
    #[serde(rename = "synfin.probes")]
    probes: BTreeMap<&'static str, &'static str>,
    #[serde(rename = "synfin.rungs")]
    rungs: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct EndBody {
    #[serde(rename = "synfin.events")]
    events: BTreeMap<&'static str, u64>,
    #[serde(rename = "synfin.lost")]
    lost: BTreeMap<&'static str, u64>,
}

pub(super) fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// Writes a line.
pub(super) fn line<T: Serialize>(
    out: &mut BytesMut,
    offset: Offset,
    kind: &'static str,
    time_ns: u64,
    body: T,
) -> io::Result<()> {
    let line = Line { r#type: kind, version: VERSION, time: offset.rfc3339(time_ns), monotonic: time_ns, body };
    serde_json::to_writer(out.writer(), &line)?;
    out.put_u8(b'\n');
    Ok(())
}

/// Writes JSON lines into a buffer of the caller's.
#[derive(Debug)]
pub struct Writer<'a> {
    /// Wall clock for this batch of lines.
    pub offset: Offset,
    /// Kernel names of reset reasons.
    pub reset_reasons: &'a [String],
}

impl Writer<'_> {
    fn line<T: Serialize>(&self, out: &mut BytesMut, kind: &'static str, time_ns: u64, body: T) -> io::Result<()> {
        line(out, self.offset, kind, time_ns, body)
    }

    /// An event, with what the ledger knows about it. A destroyed socket makes no line: its last transition did.
    pub fn event(&self, out: &mut BytesMut, event: &Event, applied: &Applied<'_>) -> io::Result<()> {
        match event {
            Event::Transition(event) => self.line(out, "transition", event.time_ns, transition(event, applied)),
            Event::Retransmit(event) => self.line(out, "retransmit", event.time_ns, retransmit(event, applied)),
            Event::Reset(event) => self.line(out, "reset", event.time_ns, self.reset(event, applied)),
            Event::Destroy(_) => Ok(()),
        }
    }

    fn reset(&self, event: &Reset, applied: &Applied<'_>) -> ResetBody<'_> {
        ResetBody {
            socket: socket(&event.ends, applied.connection),
            direction: event.direction.name(),
            resets: 1,
            reason: event.reason.and_then(|reason| self.reason(reason)),
            state: Some(event.state.name()),
        }
    }

    fn reason(&self, reason: u32) -> Option<&str> {
        self.reset_reasons.get(reason as usize).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// What the kernel has summed up since the last look.
    pub fn tallied(&self, out: &mut BytesMut, time_ns: u64, row: &Tallied) -> io::Result<()> {
        let mut socket = no_socket(row.netns);
        match row.what {
            What::SynAckRetransmit { port, ipv6 } => {
                socket.local_port = port;
                // A dual-stack listener serves IPv4 too, so that an IPv6 one says nothing about the peer.
                socket.kind = (!ipv6).then_some("ipv4");
                let body = RetransmitBody {
                    socket,
                    segment: "syn_ack",
                    segments: row.count,
                    total: None,
                    state: None,
                    cause: Some(Cause::Timeout.name()),
                    ca_state: None,
                };
                self.line(out, "retransmit", time_ns, body)
            }
            What::ResetWithoutSocket { reason } => {
                let reason = if reason == NO_REASON { None } else { self.reason(reason) };
                let body = ResetBody { socket, direction: "transmit", resets: row.count, reason, state: None };
                self.line(out, "reset", time_ns, body)
            }
        }
    }

    /// A connection that ended.
    pub fn ended(&self, out: &mut BytesMut, ended: &Ended) -> io::Result<()> {
        let Ended { connection, end } = ended;
        let body = ConnectionBody {
            socket: socket(&connection.ends, Some(connection)),
            duration: connection.duration_seconds(),
            handshake: connection.handshake_seconds(),
            end: end.name(),
            first: connection.closed_first.map(Side::name),
            simultaneous: connection.simultaneous,
            durations: durations(connection),
            retransmits: connection.retransmits(),
            resets: u32::from(connection.resets_sent) + u32::from(connection.resets_received),
            error: ErrorKeys { errno: connection.errno, error_type: end.error_type(connection.errno) },
            owner: connection.owner.map(|task| owner(&task, "connection")).unwrap_or_default(),
            measures: connection.measures.as_ref().map(measures),
        };
        self.line(out, "connection", connection.closed_ns.max(connection.last_ns), body)
    }

    /// Something lost since the last such line.
    pub fn loss(&self, out: &mut BytesMut, time_ns: u64, loss: &Loss) -> io::Result<()> {
        let body = LossBody { reason: loss.reason.name(), kind: loss.kind.map(EventKind::name), count: loss.count };
        self.line(out, "loss", time_ns, body)
    }

    /// The first line: everything is attached.
    pub fn start(&self, out: &mut BytesMut, time_ns: u64, kernel: &str, probes: &[Probe]) -> io::Result<()> {
        let rungs = probes.iter().filter_map(|probe| Some((probe.name, probe.verdict.rung()?.name()))).collect();
        let probes = probes.iter().map(|probe| (probe.name, probe.verdict.name())).collect();
        self.line(out, "start", time_ns, StartBody { synfin: env!("CARGO_PKG_VERSION"), kernel, probes, rungs })
    }

    /// The last line: what was seen and what was lost.
    pub fn end(&self, out: &mut BytesMut, time_ns: u64, status: &Status) -> io::Result<()> {
        let kinds = EventKind::ALL;
        let events = kinds.into_iter().map(|kind| (kind.name(), status.events[kind.index()])).collect();
        let mut lost = BTreeMap::new();
        for loss in &status.losses {
            *lost.entry(loss.reason.name()).or_default() += loss.count;
        }
        self.line(out, "end", time_ns, EndBody { events, lost })
    }
}

fn transition(event: &Transition, applied: &Applied<'_>) -> TransitionBody {
    let known = applied.connection.and_then(|connection| connection.owner);
    let (owner, stranger) = match known {
        _ if event.owner_context => (owner(&event.task, "context"), None),
        Some(task) => (owner(&task, "connection"), Some(event.task)),
        None => (Owner::default(), Some(event.task)),
    };
    let mut socket = socket(&event.ends, applied.connection);
    socket.cgroup = event.cgroup;
    TransitionBody {
        socket,
        previous: event.old.name(),
        state: event.new.name(),
        in_state: applied.in_state_ns.map(seconds),
        owner,
        task_pid: stranger.map(|task| task.pid),
        task_name: stranger.map(|task| task.name().into_owned()),
        error: ErrorKeys { errno: event.errno, error_type: error_type(event.errno) },
        fin_received: event.fin_received,
        measures: event.measures.as_ref().map(measures),
    }
}

fn retransmit(event: &Retransmit, applied: &Applied<'_>) -> RetransmitBody {
    RetransmitBody {
        socket: socket(&event.ends, applied.connection),
        segment: if event.syn { "syn" } else { "data" },
        segments: u64::from(event.segments),
        total: Some(event.total),
        state: Some(event.state.name()),
        cause: event.cause().map(Cause::name),
        ca_state: ["open", "disorder", "cwr", "recovery", "loss"].get(usize::from(event.ca_state)).copied(),
    }
}

/// A socket as an event tells it; what the event does not know comes from the ledger.
fn socket(ends: &Ends, connection: Option<&Connection>) -> Socket {
    let known = |address: IpAddr| (!address.is_unspecified()).then_some(address);
    let listening = connection.is_some_and(|connection| connection.state == State::Listen);
    Socket {
        transport: "tcp",
        kind: Some(ends.network_type()),
        // A listener on all addresses has an address: the unspecified one.
        local_address: if listening { Some(ends.local_address()) } else { known(ends.local_address()) },
        local_port: ends.local_port,
        peer_address: known(ends.peer_address()),
        peer_port: ends.peer_port,
        role: connection.and_then(|connection| connection.role).map(Role::name),
        netns: ends.netns,
        cookie: ends.cookie,
        cgroup: connection.map_or(0, |connection| connection.cgroup),
    }
}

fn no_socket(netns: u32) -> Socket {
    Socket {
        transport: "tcp",
        kind: None,
        local_address: None,
        local_port: 0,
        peer_address: None,
        peer_port: 0,
        role: None,
        netns,
        cookie: 0,
        cgroup: 0,
    }
}

fn owner(task: &Task, source: &'static str) -> Owner {
    Owner { pid: Some(task.pid), name: Some(task.name().into_owned()), source: Some(source) }
}

pub(super) fn measures(measures: &Measures) -> MeasureKeys {
    // Before its first sample the kernel has 0 and a guess of 250 ms: nothing was measured.
    let micros = |us: u32| (measures.srtt_us != 0).then(|| f64::from(us) / 1e6);
    MeasureKeys {
        srtt: micros(measures.srtt_us),
        mdev: micros(measures.mdev_us),
        bytes_acked: measures.bytes_acked,
        bytes_received: measures.bytes_received,
        bytes_sent: measures.bytes_sent,
        bytes_retrans: measures.bytes_retrans,
        segs_out: measures.segs_out,
        segs_in: measures.segs_in,
        retrans: measures.retrans,
        ooo: measures.ooo,
        snd_cwnd: measures.snd_cwnd,
        snd_una: Some(measures.snd_una),
        snd_nxt: Some(measures.snd_nxt),
        rcv_nxt: Some(measures.rcv_nxt),
    }
}

impl MeasureKeys {
    /// For a source that does not tell sequence numbers.
    pub(super) fn without_sequence(self) -> Self {
        Self { snd_una: None, snd_nxt: None, rcv_nxt: None, ..self }
    }
}

/// Seconds in each state that was both entered and left.
fn durations(connection: &Connection) -> BTreeMap<&'static str, f64> {
    let path: Vec<(State, u64)> = connection.path().collect();
    path.windows(2).map(|pair| (pair[0].0.name(), seconds(pair[1].1.saturating_sub(pair[0].1)))).collect()
}
