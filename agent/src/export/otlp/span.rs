//! A connection, or a stretch of one, as a span: what a span contains is said here, once, and visited by whoever makes something of it
//! ([`encode`] bytes, the tests OpenTelemetry's own types).

use opentelemetry::trace::{SpanId, SpanKind, TraceFlags, TraceId};

use super::ids::Ids;
use super::sampling::{Kept, Terms};
use crate::clock::Offset;
use crate::event::{Direction, State};
pub use crate::export::attribute::Value;
use crate::ledger::{Connection, End, Role, Side, seconds};
use crate::status::Status;

mod encode;
mod text;

pub(super) use encode::{SpanFields, attribute};
use text::Address;

/// What a span is about, as it waits for export. What must not change between attempts is fixed when it is handed over: ids,
/// and the wall clock of that moment.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What the ledger knew of the connection.
    pub connection: Connection,
    /// Which part of its life it is about.
    pub part: Part,
    /// Wall clock against monotonic clock then.
    pub offset: Offset,
    /// The place of the whole connection in the traces.
    pub ids: Ids,
    /// Why sampling kept it.
    pub kept: Kept,
}

/// A part of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, when it has ended in this way.
    Whole(End),
    /// What lies before a checkpoint, the last that the connection has had. `CLOCK_MONOTONIC` nanoseconds.
    Stretch {
        /// From the checkpoint before, or its first event,
        from_ns: u64,
        /// to this one.
        to_ns: u64,
    },
}

impl Part {
    /// How the connection ended, if it has.
    pub const fn end(self) -> Option<End> {
        match self {
            Self::Whole(end) => Some(end),
            Self::Stretch { .. } => None,
        }
    }
}

/// Flags of the trace context: sampled, and the low 56 bits of the trace id are random (W3C Trace Context 2).
const FLAGS: TraceFlags = TraceFlags::new(0x03);

/// All of a span but its attributes and events.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// Its place in the traces.
    pub ids: Ids,
    /// Whether there is a parent: it may be another agent's.
    pub remote_parent: bool,
    /// Flags of the trace context.
    pub flags: TraceFlags,
    /// `tracestate`.
    pub trace_state: &'a str,
    /// What kind of connections this is one of.
    pub name: &'static str,
    /// Which part this end had.
    pub kind: SpanKind,
    /// First event, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Last event, nanoseconds since the Unix epoch.
    pub end_unix_ns: u64,
    /// If the status is an error: which, in words.
    pub error: Option<&'static str>,
}

/// Makes something of a span that is described to it: first the head, then attributes, events in the order of time, links.
pub trait Visit {
    /// All but attributes and events.
    fn head(&mut self, head: &Head<'_>);
    /// An attribute, with a key that did not come before.
    fn attribute(&mut self, key: &'static str, value: Value<'_>);
    /// An event, at nanoseconds since the Unix epoch.
    fn event(&mut self, name: &'static str, unix_ns: u64, attributes: &[(&'static str, Value<'_>)]);
    /// A link to another span of the same trace.
    fn link(&mut self, trace: TraceId, span: SpanId);
}

/// Describes a span. `status` gives names to reset reasons. Nothing is allocated on the way (but for a process name that is no
/// UTF-8).
pub fn describe(subject: &Subject, terms: Terms, status: &Status, to: &mut impl Visit) {
    let Subject { connection, part, offset, ids, kept } = subject;
    let role = connection.role;
    let ended_ns = if connection.closed_ns == 0 { connection.last_ns } else { connection.closed_ns };
    let (start, finish, name, kind) = match *part {
        Part::Whole(_) => (connection.first_ns, ended_ns, name(role), kind(role)),
        Part::Stretch { from_ns, to_ns } => (from_ns, to_ns, "tcp checkpoint", SpanKind::Internal),
    };
    // Both ends by the same offset: whatever the wall clock did meanwhile, a span does not end before it starts.
    let finish = finish.max(start);
    let error = part.end().and_then(|end| Some((end, end.error_type(connection.errno)?)));
    to.head(&Head {
        ids: own(*ids, connection, *part),
        remote_parent: part.end().is_some() && ids.parent != SpanId::INVALID,
        flags: FLAGS,
        trace_state: terms.state(*kept).as_str(),
        name,
        kind,
        start_unix_ns: offset.unix_ns(start),
        end_unix_ns: offset.unix_ns(finish),
        error: error.map(|(end, _)| description(end)),
    });
    describe_attributes(&mut Attributes(to), connection, *part, error.map(|(_, name)| name));
    if let Kept::Abnormal(why) = kept {
        to.attribute("synfin.sampling.reason", Value::Text(why.name()));
    }
    describe_events(to, connection, status, *part, |ns| offset.unix_ns(ns.clamp(start, finish)), finish);
    // To the last checkpoint before the end, or before this one.
    let before = connection.checkpoints.saturating_sub(part.end().is_none().into());
    if before > 0 {
        to.link(ids.trace, ids.checkpoint(before));
    }
}

/// The place of the span itself. A checkpoint is a child of its connection, whose span comes when it has ended.
fn own(ids: Ids, connection: &Connection, part: Part) -> Ids {
    match part {
        Part::Whole(_) => ids,
        Part::Stretch { .. } => Ids { span: ids.checkpoint(connection.checkpoints), parent: ids.span, ..ids },
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

/// Attributes of the span, with the keys of docs/EVENTS.md. What is unknown is absent.
fn describe_attributes(
    list: &mut Attributes<'_, impl Visit>,
    connection: &Connection,
    part: Part,
    error: Option<&'static str>,
) {
    list.text("network.transport", "tcp");
    match part {
        Part::Whole(end) => list.text("network.connection.end", end.name()),
        Part::Stretch { .. } => {
            list.text("network.connection.state", connection.state.name());
            list.integer("synfin.checkpoint.number", connection.checkpoints);
        }
    }
    list.some_text("error.type", error);
    describe_ends(list, connection);
    list.some_text("network.tcp.handshake.role", connection.role.map(Role::name));
    list.integer("linux.netns.inode", connection.ends.netns);
    list.known("linux.socket.cookie", connection.ends.cookie);
    list.known("linux.cgroup.id", connection.cgroup);
    if let Some(owner) = &connection.owner {
        list.integer("process.pid", owner.pid);
        list.text("process.executable.name", &owner.name());
    }
    list.some_real("network.tcp.handshake.duration", connection.handshake_seconds());
    let duration = match part {
        Part::Whole(_) => connection.duration_seconds(),
        Part::Stretch { to_ns, .. } => {
            connection.birth_seen.then(|| seconds(to_ns.saturating_sub(connection.first_ns)))
        }
    };
    list.some_real("network.connection.duration", duration);
    list.some_text("network.tcp.close.first", connection.closed_first.map(Side::name));
    if connection.simultaneous {
        list.0.attribute("network.tcp.close.simultaneous", Value::Flag(true));
    }
    list.integer("network.tcp.retransmits", connection.retransmits());
    list.integer("network.tcp.resets", u32::from(connection.resets_sent) + u32::from(connection.resets_received));
    list.known("linux.errno", connection.errno.into());
    describe_measures(list, connection);
}

fn describe_ends(list: &mut Attributes<'_, impl Visit>, connection: &Connection) {
    let ends = &connection.ends;
    // Port 0 and the unspecified address mean that the kernel did not know them (yet).
    let address = |address: std::net::IpAddr| (!address.is_unspecified()).then(|| Address::of(address));
    let (local, peer) = (address(ends.local_address()), address(ends.peer_address()));
    let local = (local.as_ref().map(Address::as_str), ends.local_port);
    let peer = (peer.as_ref().map(Address::as_str), ends.peer_port);
    if local.0.is_some() || peer.0.is_some() {
        list.text("network.type", ends.network_type());
    }
    let roles = match connection.role {
        Some(Role::Client) => Some((local, peer)),
        Some(Role::Server) => Some((peer, local)),
        None => None,
    };
    if let Some((client, server)) = roles {
        list.some_text("client.address", client.0);
        list.known("client.port", client.1.into());
        list.some_text("server.address", server.0);
        list.known("server.port", server.1.into());
    }
    list.some_text("network.local.address", local.0);
    list.known("network.local.port", local.1.into());
    list.some_text("network.peer.address", peer.0);
    list.known("network.peer.port", peer.1.into());
}

fn describe_measures(list: &mut Attributes<'_, impl Visit>, connection: &Connection) {
    let Some(measures) = &connection.measures else { return };
    // Without a sample the kernel has 0, which no round trip takes.
    if measures.srtt_us != 0 {
        list.some_real("network.tcp.rtt.smoothed", Some(f64::from(measures.srtt_us) / 1e6));
        list.some_real("network.tcp.rtt.deviation", Some(f64::from(measures.mdev_us) / 1e6));
    }
    list.count("network.tcp.bytes_acked", measures.bytes_acked);
    list.count("network.tcp.bytes_received", measures.bytes_received);
    list.count("network.tcp.bytes_sent", measures.bytes_sent);
    list.count("network.tcp.bytes_retrans", measures.bytes_retrans);
    list.integer("network.tcp.segs_out", measures.segs_out);
    list.integer("network.tcp.segs_in", measures.segs_in);
    list.integer("network.tcp.total_retrans", measures.retrans);
    list.integer("network.tcp.out_of_order", measures.ooo);
    list.integer("network.tcp.snd_cwnd", measures.snd_cwnd);
}

/// What an event of the span tells.
#[derive(Clone, Copy)]
enum Moment {
    /// The first retransmit.
    Retransmit,
    /// So many resets.
    Resets(Direction, u16),
    /// A state was entered.
    Entered(State),
}

/// One for each state, the first retransmit, and resets of both directions.
const MOST_MOMENTS: usize = State::LIMIT + 3;

/// Each state entered, the first retransmit, and resets, in the order of time.
fn describe_events(
    to: &mut impl Visit,
    connection: &Connection,
    status: &Status,
    part: Part,
    time: impl Fn(u64) -> u64,
    finish: u64,
) {
    let mut moments = [(0, Moment::Retransmit); MOST_MOMENTS];
    let mut count = 0;
    let mut add = |at, moment| {
        // Each is told by one checkpoint, and by the whole.
        if let Part::Stretch { from_ns, to_ns } = part
            && !(from_ns..to_ns).contains(&at)
        {
            return;
        }
        moments[count] = (time(at), moment);
        count += 1;
    };
    if connection.first_retransmit_ns != 0 {
        add(connection.first_retransmit_ns, Moment::Retransmit);
    }
    // The ledger keeps no time for resets: they go with the end, which they nearly always are, and never into a checkpoint.
    for (direction, resets) in
        [(Direction::Transmit, connection.resets_sent), (Direction::Receive, connection.resets_received)]
    {
        if resets != 0 {
            add(finish, Moment::Resets(direction, resets));
        }
    }
    for (state, at) in connection.path() {
        add(at, Moment::Entered(state));
    }
    let moments = &mut moments[..count];
    // Stable: what happened at the moment of a transition led to it.
    moments.sort_by_key(|(at, _)| *at);
    for (at, moment) in moments {
        describe_event(to, connection, status, *at, *moment);
    }
}

fn describe_event(to: &mut impl Visit, connection: &Connection, status: &Status, at: u64, moment: Moment) {
    match moment {
        Moment::Retransmit => {
            let count = Value::Integer(connection.retransmits().into());
            to.event("tcp.retransmit", at, &[("network.tcp.retransmits", count)]);
        }
        Moment::Resets(direction, count) => {
            let attributes = [
                ("network.io.direction", Value::Text(direction.name())),
                ("network.tcp.resets", Value::Integer(count.into())),
            ];
            // The kernel gives a reason for what it sends.
            let reason = connection.reset_reason.and_then(|reason| status.reset_reason(reason));
            match (direction, reason) {
                (Direction::Transmit, Some(reason)) => {
                    let [direction, count] = attributes;
                    to.event("tcp.reset", at, &[direction, count, ("network.tcp.reset.reason", Value::Text(reason))]);
                }
                _ => to.event("tcp.reset", at, &attributes),
            }
        }
        Moment::Entered(state) => {
            to.event(state_event(state), at, &[("network.connection.state", Value::Text(state.name()))]);
        }
    }
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

/// Attributes by the types that connections have.
struct Attributes<'a, V>(&'a mut V);

impl<V: Visit> Attributes<'_, V> {
    #[inline]
    fn text(&mut self, key: &'static str, value: &str) {
        self.0.attribute(key, Value::Text(value));
    }

    #[inline]
    fn some_text(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    #[inline]
    fn some_real(&mut self, key: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.0.attribute(key, Value::Real(value));
        }
    }

    #[inline]
    fn integer(&mut self, key: &'static str, value: u32) {
        self.0.attribute(key, Value::Integer(value.into()));
    }

    /// OTLP has no unsigned integers; no count gets that far, and ids keep their bits.
    #[inline]
    fn count(&mut self, key: &'static str, value: u64) {
        self.0.attribute(key, Value::Integer(value as i64));
    }

    /// Zero is how the kernel says that it does not know.
    #[inline]
    fn known(&mut self, key: &'static str, value: u64) {
        if value != 0 {
            self.count(key, value);
        }
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod sdk;
#[cfg(test)]
mod tests;
