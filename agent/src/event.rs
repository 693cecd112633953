//! What happened in the kernel, as the agent speaks of it: records of the ring after `decode` has checked them.
//!
//! Knows nothing of how events come in or go out.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

pub use synfin_common::event::Measures;
use synfin_common::event::state;

/// A state of RFC 9293 §3.3.2, numbered as in the kernel (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// ESTABLISHED.
    Established = state::ESTABLISHED,
    /// SYN-SENT.
    SynSent = state::SYN_SENT,
    /// SYN-RECEIVED.
    SynReceived = state::SYN_RECV,
    /// FIN-WAIT-1.
    FinWait1 = state::FIN_WAIT1,
    /// FIN-WAIT-2.
    FinWait2 = state::FIN_WAIT2,
    /// TIME-WAIT.
    TimeWait = state::TIME_WAIT,
    /// CLOSED.
    Closed = state::CLOSE,
    /// CLOSE-WAIT.
    CloseWait = state::CLOSE_WAIT,
    /// LAST-ACK.
    LastAck = state::LAST_ACK,
    /// LISTEN.
    Listen = state::LISTEN,
    /// CLOSING.
    Closing = state::CLOSING,
}

impl State {
    /// One more than the largest number: the length of arrays indexed by [`State::index`].
    pub const LIMIT: usize = 12;

    /// Every state, in the order of a connection's life.
    pub const ALL: [Self; 11] = [
        Self::Listen,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::Closing,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
    ];

    /// Position in an array of [`State::LIMIT`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of `network.connection.state` (OpenTelemetry semantic conventions).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::FinWait1 => "fin_wait_1",
            Self::FinWait2 => "fin_wait_2",
            Self::TimeWait => "time_wait",
            Self::Closed => "closed",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
        }
    }

    /// The state of this [`State::name`]; upper case and `-` for `_` are taken too, as `ss` and the kernel print them.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase().replace('-', "_");
        let name = match name.as_str() {
            "close" => "closed",
            "syn_recv" => "syn_received",
            "fin_wait1" => "fin_wait_1",
            "fin_wait2" => "fin_wait_2",
            other => other,
        };
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl TryFrom<u8> for State {
    type Error = UnknownState;

    fn try_from(number: u8) -> Result<Self, UnknownState> {
        Ok(match number {
            state::ESTABLISHED => Self::Established,
            state::SYN_SENT => Self::SynSent,
            // A request socket is half open like a full socket in SYN_RECV; RFC 9293 has one name for both.
            state::SYN_RECV | state::NEW_SYN_RECV => Self::SynReceived,
            state::FIN_WAIT1 => Self::FinWait1,
            state::FIN_WAIT2 => Self::FinWait2,
            state::TIME_WAIT => Self::TimeWait,
            state::CLOSE => Self::Closed,
            state::CLOSE_WAIT => Self::CloseWait,
            state::LAST_ACK => Self::LastAck,
            state::LISTEN => Self::Listen,
            state::CLOSING => Self::Closing,
            other => return Err(UnknownState(other)),
        })
    }
}

/// A state number that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown TCP state number {0}")]
pub struct UnknownState(pub u8);

/// The two ends of a connection as known at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Socket cookie; 0 while the kernel has not settled it.
    pub cookie: u64,
    /// Address of `struct sock`: links neighbouring records of one socket, identifies nothing.
    pub sock: u64,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Local port, 0 while unknown.
    pub local_port: u16,
    /// Peer port, 0 while unknown.
    pub peer_port: u16,
    /// Local address, v4-mapped for IPv4.
    pub local: [u8; 16],
    /// Peer address, v4-mapped for IPv4.
    pub peer: [u8; 16],
}

impl Ends {
    /// Local address; a v4-mapped one as IPv4.
    pub fn local_address(&self) -> IpAddr {
        Ipv6Addr::from(self.local).to_canonical()
    }

    /// Peer address; a v4-mapped one as IPv4.
    pub fn peer_address(&self) -> IpAddr {
        Ipv6Addr::from(self.peer).to_canonical()
    }

    /// `network.type`: `ipv4` if either end is, because the kernel may not know the other yet.
    pub fn network_type(&self) -> &'static str {
        if self.local_address().is_ipv4() || self.peer_address().is_ipv4() { "ipv4" } else { "ipv6" }
    }
}

/// A task, by its thread group and command name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Thread group id (what people call pid).
    pub pid: u32,
    /// Command name, NUL-padded, any bytes.
    pub comm: [u8; 16],
}

impl Task {
    /// Command name as text; bytes that are not UTF-8 become U+FFFD.
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        let end = self.comm.iter().position(|byte| *byte == 0).unwrap_or(self.comm.len());
        String::from_utf8_lossy(&self.comm[..end])
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pid, self.name())
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// The connection.
    pub ends: Ends,
    /// State left.
    pub old: State,
    /// State entered.
    pub new: State,
    /// `sk_err`, 0 for none.
    pub errno: u16,
    /// The peer's FIN has come.
    pub fin_received: bool,
    /// No process holds the socket any more.
    pub orphan: bool,
    /// Neither this nor the flags above nor the errno are known.
    pub blind: bool,
    /// `task` uses the socket; otherwise it merely was current.
    pub owner_context: bool,
    /// The task that was current.
    pub task: Task,
    /// cgroup v2 id of the socket, 0 where unknown.
    pub cgroup: u64,
    /// The kernel's measures, at ESTABLISHED and CLOSED.
    pub measures: Option<Measures>,
}

/// An skb was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmit {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// The connection.
    pub ends: Ends,
    /// Segments, as RetransSegs counts.
    pub segments: u32,
    /// All of this connection so far.
    pub total: u32,
    /// State of the socket.
    pub state: State,
    /// The segment carries SYN.
    pub syn: bool,
    /// `icsk_ca_state`: 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss; another number where it is not known.
    pub ca_state: u8,
}

/// Why a segment was sent again: `network.tcp.retransmit.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The retransmission timer ran out, or the path's MTU was too large (`tcp_simple_retransmit`), and all that was declared lost then (RFC 6298).
    Timeout,
    /// Duplicate or selective acknowledgements told of a loss (RFC 5681, RFC 8985): the kernel's TCPFastRetrans.
    Fast,
    /// A probe for a lost tail (RFC 8985 §7).
    TailLossProbe,
}

impl Cause {
    /// All, in the order of [`Cause::index`].
    pub const ALL: [Self; 3] = [Self::Timeout, Self::Fast, Self::TailLossProbe];

    /// Position in an array of as many as [`Cause::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of `network.tcp.retransmit.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Fast => "fast",
            Self::TailLossProbe => "tail_loss_probe",
        }
    }
}

impl Retransmit {
    /// Why, by the state of congestion control in which the kernel sends again (`tcp_enter_loss`, `tcp_xmit_retransmit_queue`,
    /// `tcp_send_loss_probe`); None where that is not known.
    pub const fn cause(&self) -> Option<Cause> {
        match self.ca_state {
            // A SYN is sent again by its timer alone, in whatever state.
            _ if self.syn => Some(Cause::Timeout),
            0..=2 => Some(Cause::TailLossProbe),
            3 => Some(Cause::Fast),
            4 => Some(Cause::Timeout),
            _ => None,
        }
    }
}

/// Which way a RST went: `network.io.direction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sent by this host.
    Transmit,
    /// Received.
    Receive,
}

impl Direction {
    /// Position in an array of two.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of `network.io.direction`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transmit => "transmit",
            Self::Receive => "receive",
        }
    }
}

/// A RST of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// The connection.
    pub ends: Ends,
    /// Which way it went.
    pub direction: Direction,
    /// `enum sk_rst_reason` of this kernel, where it gives one.
    pub reason: Option<u32>,
    /// State of the socket.
    pub state: State,
}

/// End of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destroy {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// Address of `struct sock`.
    pub sock: u64,
    /// Network namespace (inode number).
    pub netns: u32,
}

/// One record of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A change of state.
    Transition(Transition),
    /// An skb was sent again.
    Retransmit(Retransmit),
    /// A RST.
    Reset(Reset),
    /// End of a socket.
    Destroy(Destroy),
}

impl Event {
    /// When the kernel wrote it, `CLOCK_MONOTONIC` nanoseconds.
    pub const fn time_ns(&self) -> u64 {
        match self {
            Self::Transition(transition) => transition.time_ns,
            Self::Retransmit(retransmit) => retransmit.time_ns,
            Self::Reset(reset) => reset.time_ns,
            Self::Destroy(destroy) => destroy.time_ns,
        }
    }

    /// Which kind it is.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Transition(_) => EventKind::Transition,
            Self::Retransmit(_) => EventKind::Retransmit,
            Self::Reset(_) => EventKind::Reset,
            Self::Destroy(_) => EventKind::Destroy,
        }
    }
}

/// Kinds of events, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A change of state.
    Transition,
    /// An skb was sent again.
    Retransmit,
    /// A RST.
    Reset,
    /// End of a socket.
    Destroy,
}

impl EventKind {
    /// Every kind, in the order of [`EventKind::index`].
    pub const ALL: [Self; 4] = [Self::Transition, Self::Retransmit, Self::Reset, Self::Destroy];

    /// Position in an array of as many as [`EventKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of `synfin.event.kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::Retransmit => "retransmit",
            Self::Reset => "reset",
            Self::Destroy => "destroy",
        }
    }
}

/// The value of `error.type` for an errno, in the spelling of the conventions for sockets.
pub const fn error_type(errno: u16) -> Option<&'static str> {
    Some(match errno as i32 {
        0 => return None,
        libc::ECONNREFUSED => "connection_refused",
        libc::ETIMEDOUT => "timed_out",
        libc::ECONNRESET => "connection_reset",
        libc::EHOSTUNREACH => "host_unreachable",
        libc::ENETUNREACH => "network_unreachable",
        libc::ENETDOWN => "network_down",
        libc::ECONNABORTED => "connection_aborted",
        libc::EPIPE => "broken_pipe",
        libc::EADDRNOTAVAIL => "address_not_available",
        libc::EADDRINUSE => "address_already_in_use",
        libc::EACCES | libc::EPERM => "access_denied",
        _ => "_OTHER",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_name_of_its_own_that_leads_back() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
            assert_eq!(State::try_from(state as u8), Ok(state));
        }
        assert_eq!(State::from_name("FIN-WAIT-1"), Some(State::FinWait1));
        assert_eq!(State::from_name("CLOSE"), Some(State::Closed));
        assert_eq!(State::try_from(13), Err(UnknownState(13)));
    }

    #[test]
    fn a_command_name_may_be_any_bytes() {
        let mut comm = [b'x'; 16];
        assert_eq!(Task { pid: 1, comm }.name(), "x".repeat(16));
        comm[1] = 0xff;
        comm[2] = 0;
        assert_eq!(Task { pid: 1, comm }.name(), "x\u{fffd}");
    }
}
