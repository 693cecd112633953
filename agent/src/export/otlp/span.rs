//! A connection as a span.

use std::time::SystemTime;

use opentelemetry::trace::{Event, SpanContext, SpanKind, Status as SpanStatus, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::ids::{Ids, Sampler};
use super::queue::Item;
use crate::clock::Offset;
use crate::event::{Direction, State};
use crate::ledger::{Connection, End, Role};
use crate::status::Status;

/// A connection that ended, as it waits for export. What must not change between attempts is fixed when it ended: its
/// ids, and the wall clock of that moment.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What the ledger knew of it.
    pub connection: Connection,
    /// How it ended.
    pub end: End,
    /// Wall clock against monotonic clock when it ended.
    pub offset: Offset,
    /// Its place in the traces.
    pub ids: Ids,
}

impl Ended {
    /// Something went wrong that somebody will want to look at. That the ledger lost sight of a connection is no
    /// property of the connection, and comes in masses when it happens.
    pub fn is_abnormal(&self) -> bool {
        (self.end.is_seen() && !self.end.is_normal()) || self.connection.retransmits() > 0
    }
}

impl Item for Ended {
    fn is_precious(&self) -> bool {
        self.is_abnormal()
    }
}

/// Flags of the trace context: sampled, and the low 56 bits of the trace id are random (W3C Trace Context 2).
const FLAGS: TraceFlags = TraceFlags::new(0x03);

/// The span of a connection. `status` gives names to reset reasons.
pub fn span(ended: &Ended, sampler: Sampler, scope: &InstrumentationScope, status: &Status) -> SpanData {
    let Ended { connection, end, offset, ids } = ended;
    let ended_ns = if connection.closed_ns == 0 { connection.last_ns } else { connection.closed_ns };
    // Both ends by the same offset: whatever the wall clock did meanwhile, a span does not end before it starts.
    let (start, finish) = (connection.first_ns, ended_ns.max(connection.first_ns));
    let trace_state = sampler
        .trace_state(ended.is_abnormal())
        .and_then(|value| TraceState::from_key_value([("ot", value)]).ok())
        .unwrap_or_default();
    let error = end.error_type(connection.errno);
    SpanData {
        span_context: SpanContext::new(ids.trace, ids.span, FLAGS, false, trace_state),
        parent_span_id: ids.parent,
        parent_span_is_remote: connection.role == Some(Role::Server),
        span_kind: kind(connection.role),
        name: name(connection.role).into(),
        start_time: offset.system_time(start),
        end_time: offset.system_time(finish),
        attributes: attributes(connection, *end, error),
        dropped_attributes_count: 0,
        events: events(connection, status, |ns| offset.system_time(ns.clamp(start, finish)), finish),
        links: SpanLinks::default(),
        // By the conventions a clean end stays Unset; Ok is for users.
        status: error.map_or(SpanStatus::Unset, |_| SpanStatus::error(description(*end))),
        instrumentation_scope: scope.clone(),
    }
}

/// Never an address: names of spans are for grouping.
const fn name(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Client) => "tcp connect",
        Some(Role::Server) => "tcp accept",
        None => "tcp connection",
    }
}

const fn kind(role: Option<Role>) -> SpanKind {
    match role {
        Some(Role::Client) => SpanKind::Client,
        Some(Role::Server) => SpanKind::Server,
        None => SpanKind::Internal,
    }
}

/// An end that is an error, in words.
const fn description(end: End) -> &'static str {
    match end {
        End::Refused => "the peer refused the connection",
        End::TimedOut => "the peer did not answer until the kernel gave up",
        End::ResetReceived => "the peer reset the connection",
        End::ResetSent => "this host reset the connection",
        End::Failed => "the network or the host failed the connection",
        End::TimeWait | End::FinWait2 | End::Closed | End::Aborted | End::Lost | End::Folded => "",
    }
}

/// Keys of docs/EVENTS.md. What is unknown is absent.
fn attributes(connection: &Connection, end: End, error: Option<&'static str>) -> Vec<KeyValue> {
    let mut list = List(Vec::with_capacity(40));
    list.add("network.transport", "tcp");
    list.add("network.connection.end", end.name());
    list.add_some("error.type", error);
    add_ends(&mut list, connection);
    list.add_some("network.tcp.handshake.role", connection.role.map(Role::name));
    list.add("linux.netns.inode", i64::from(connection.ends.netns));
    list.add_some("linux.socket.cookie", known(connection.ends.cookie));
    list.add_some("linux.cgroup.id", known(connection.cgroup));
    if let Some(owner) = &connection.owner {
        list.add("process.pid", i64::from(owner.pid));
        list.add("process.executable.name", owner.name().into_owned());
    }
    list.add_some("network.tcp.handshake.duration", connection.handshake_seconds());
    list.add_some("network.connection.duration", connection.duration_seconds());
    list.add_some("network.tcp.close.first", connection.closed_first.map(crate::ledger::Side::name));
    if connection.simultaneous {
        list.add("network.tcp.close.simultaneous", true);
    }
    list.add("network.tcp.retransmits", i64::from(connection.retransmits()));
    list.add("network.tcp.resets", i64::from(connection.resets_sent) + i64::from(connection.resets_received));
    if connection.errno != 0 {
        list.add("linux.errno", i64::from(connection.errno));
    }
    add_measures(&mut list, connection);
    list.0
}

fn add_ends(list: &mut List, connection: &Connection) {
    let ends = &connection.ends;
    // Port 0 and the unspecified address mean that the kernel did not know them (yet).
    let address = |address: std::net::IpAddr| (!address.is_unspecified()).then(|| address.to_string());
    let local = (address(ends.local_address()), known(ends.local_port.into()));
    let peer = (address(ends.peer_address()), known(ends.peer_port.into()));
    if local.0.is_some() || peer.0.is_some() {
        list.add("network.type", ends.network_type());
    }
    match connection.role {
        Some(Role::Client) => {
            list.add_end("client.address", "client.port", local.clone());
            list.add_end("server.address", "server.port", peer.clone());
        }
        Some(Role::Server) => {
            list.add_end("client.address", "client.port", peer.clone());
            list.add_end("server.address", "server.port", local.clone());
        }
        None => {}
    }
    list.add_end("network.local.address", "network.local.port", local);
    list.add_end("network.peer.address", "network.peer.port", peer);
}

fn add_measures(list: &mut List, connection: &Connection) {
    let Some(measures) = &connection.measures else { return };
    // Without a sample the kernel has 0, which no round trip takes.
    if measures.srtt_us != 0 {
        list.add("network.tcp.rtt.smoothed", f64::from(measures.srtt_us) / 1e6);
        list.add("network.tcp.rtt.deviation", f64::from(measures.mdev_us) / 1e6);
    }
    list.add("network.tcp.bytes_acked", measures.bytes_acked as i64);
    list.add("network.tcp.bytes_received", measures.bytes_received as i64);
    list.add("network.tcp.bytes_sent", measures.bytes_sent as i64);
    list.add("network.tcp.bytes_retrans", measures.bytes_retrans as i64);
    list.add("network.tcp.segs_out", i64::from(measures.segs_out));
    list.add("network.tcp.segs_in", i64::from(measures.segs_in));
    list.add("network.tcp.total_retrans", i64::from(measures.retrans));
    list.add("network.tcp.out_of_order", i64::from(measures.ooo));
    list.add("network.tcp.snd_cwnd", i64::from(measures.snd_cwnd));
}

/// Each state entered, the first retransmit, and resets, in the order of time.
fn events(connection: &Connection, status: &Status, time: impl Fn(u64) -> SystemTime, finish: u64) -> SpanEvents {
    let mut events = Vec::with_capacity(8);
    if connection.first_retransmit_ns != 0 {
        let count = KeyValue::new("network.tcp.retransmits", i64::from(connection.retransmits()));
        events.push(Event::new("tcp.retransmit", time(connection.first_retransmit_ns), vec![count], 0));
    }
    // The ledger keeps no time for resets: they go with the end, which they nearly always are.
    let reason = connection.reset_reason.and_then(|reason| status.reset_reason(reason));
    for (direction, count, reason) in
        [(Direction::Transmit, connection.resets_sent, reason), (Direction::Receive, connection.resets_received, None)]
    {
        if count != 0 {
            let mut list = List(Vec::with_capacity(3));
            list.add("network.io.direction", direction.name());
            list.add("network.tcp.resets", i64::from(count));
            list.add_some("network.tcp.reset.reason", reason.map(str::to_owned));
            events.push(Event::new("tcp.reset", time(finish), list.0, 0));
        }
    }
    for (state, at) in connection.path() {
        events.push(Event::new(state_event(state), time(at), vec![state_attribute(state)], 0));
    }
    // Stable: what happened at the moment of a transition led to it.
    events.sort_by_key(|event| event.timestamp);
    let mut list = SpanEvents::default();
    list.events = events;
    list
}

/// Name of the event that a state was entered.
const fn state_event(state: State) -> &'static str {
    match state {
        State::Established => "tcp.established",
        State::SynSent => "tcp.syn_sent",
        State::SynReceived => "tcp.syn_received",
        State::FinWait1 => "tcp.fin_wait_1",
        State::FinWait2 => "tcp.fin_wait_2",
        State::TimeWait => "tcp.time_wait",
        State::Closed => "tcp.closed",
        State::CloseWait => "tcp.close_wait",
        State::LastAck => "tcp.last_ack",
        State::Listen => "tcp.listen",
        State::Closing => "tcp.closing",
    }
}

fn state_attribute(state: State) -> KeyValue {
    KeyValue::new("network.connection.state", state.name())
}

/// Zero is how the kernel says that it does not know.
fn known(value: u64) -> Option<i64> {
    (value != 0).then_some(value as i64)
}

/// Attributes under construction.
struct List(Vec<KeyValue>);

impl List {
    fn add(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn add_some(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn add_end(&mut self, address: &'static str, port: &'static str, end: (Option<String>, Option<i64>)) {
        self.add_some(address, end.0);
        self.add_some(port, end.1);
    }
}

#[cfg(test)]
mod tests;
