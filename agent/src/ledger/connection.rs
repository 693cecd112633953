//! One connection, from its first event to its end.

use super::counts::carried;
use crate::event::{Ends, Measures, State, Task};

/// `network.tcp.handshake.role`: which part this end had in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It opened.
    Client,
    /// It accepted.
    Server,
}

impl Role {
    /// Every role, in the order of [`Role::index`].
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// Position in an array of two.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of `network.tcp.handshake.role`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This end.
    Local,
    /// The other end.
    Peer,
}

impl Side {
    /// The value of `network.tcp.close.first`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Peer => "peer",
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Normal close; this end keeps TIME_WAIT (RFC 9293 §3.6).
    TimeWait,
    /// This end closed and is an orphan; the kernel keeps a minisock that waits for the peer's FIN.
    FinWait2,
    /// Normal close; the peer keeps TIME_WAIT.
    Closed,
    /// The peer answered the SYN with RST.
    Refused,
    /// No answer until the kernel gave up.
    TimedOut,
    /// The peer sent RST.
    ResetReceived,
    /// This end sent RST.
    ResetSent,
    /// This end gave up without a word: closed before the handshake, disconnected, aborted by an administrator.
    Aborted,
    /// Another error of the network or the host, see the errno.
    Failed,
    /// A newer connection or the end of the socket showed that its end was missed.
    Lost,
    /// Pushed out of a full ledger.
    Folded,
}

impl End {
    /// Every end, in the order of [`End::index`].
    pub const ALL: [Self; 11] = [
        Self::TimeWait,
        Self::FinWait2,
        Self::Closed,
        Self::Refused,
        Self::TimedOut,
        Self::ResetReceived,
        Self::ResetSent,
        Self::Aborted,
        Self::Failed,
        Self::Lost,
        Self::Folded,
    ];

    /// Position in an array of as many as [`End::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of `network.connection.end`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TimeWait => "time_wait",
            Self::FinWait2 => "fin_wait_2",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::ResetReceived => "reset_received",
            Self::ResetSent => "reset_sent",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Folded => "folded",
        }
    }

    /// Whether both sides closed in good order.
    pub const fn is_normal(self) -> bool {
        matches!(self, Self::TimeWait | Self::FinWait2 | Self::Closed)
    }

    /// Whether the kernel reported the end; the others are the ledger's own conclusions.
    pub const fn is_seen(self) -> bool {
        !matches!(self, Self::Lost | Self::Folded)
    }

    /// `error.type` of an end that is an error; None for a normal one and for what is no failure of the connection.
    pub const fn error_type(self, errno: u16) -> Option<&'static str> {
        match self {
            Self::TimeWait | Self::FinWait2 | Self::Closed | Self::Aborted | Self::Lost | Self::Folded => None,
            Self::Refused => Some("connection_refused"),
            Self::TimedOut => Some("timed_out"),
            Self::ResetReceived | Self::ResetSent => Some("connection_reset"),
            Self::Failed => match crate::event::error_type(errno) {
                None => Some("_OTHER"),
                some => some,
            },
        }
    }
}

/// A connection that lives long, at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Checkpoint {
    /// What was known of it then.
    pub connection: Connection,
    /// The stretch of its life that this checkpoint ends: from the last one (or its first event), `CLOCK_MONOTONIC` nanoseconds,
    pub from_ns: u64,
    /// to this one.
    pub to_ns: u64,
}

/// What the ledger knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connection {
    /// The two ends, filled in as the kernel learns them.
    pub ends: Ends,
    /// Part in the handshake, where its beginning was seen.
    pub role: Option<Role>,
    /// Its state; CLOSED once ended.
    pub state: State,
    /// Time of its first event, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// The first event was its birth: age and durations are exact. Otherwise they count from when it was first seen.
    pub birth_seen: bool,
    /// When each state was entered, by [`State::index`]; 0 for never seen.
    pub entered_ns: [u64; State::LIMIT],
    /// Time of its last event.
    pub last_ns: u64,
    /// Time of the transition to CLOSED, 0 while it lives.
    pub closed_ns: u64,
    /// Who sent the first FIN.
    pub closed_first: Option<Side>,
    /// Both FINs crossed (RFC 9293 §3.6 case 3).
    pub simultaneous: bool,
    /// The peer's FIN has come.
    pub fin_received: bool,
    /// No process held the socket when it closed.
    pub orphan: bool,
    /// Neither errno nor flags of its socket could be read.
    pub blind: bool,
    /// State before CLOSED.
    pub left: State,
    /// `sk_err` at the end, 0 for none.
    pub errno: u16,
    /// Segments that were sent again: those that carried SYN.
    pub retransmits_syn: u32,
    /// Segments that were sent again: others.
    pub retransmits_data: u32,
    /// Time of the first retransmit, 0 for none.
    pub first_retransmit_ns: u64,
    /// Checkpoints that it has had.
    pub checkpoints: u32,
    /// RSTs sent.
    pub resets_sent: u16,
    /// RSTs received.
    pub resets_received: u16,
    /// Kernel reason of the last RST sent.
    pub reset_reason: Option<u32>,
    /// Initial sequence numbers as both ends know them at ESTABLISHED: (`snd_una`, `rcv_nxt`) of the client, which the
    /// server sees as (`rcv_nxt`, `snd_una`). Unknown after a fast open with data, which moves them.
    pub sequence_pair: Option<(u32, u32)>,
    /// The kernel's measures, latest first.
    pub measures: Option<Measures>,
    /// The peer's FIN had come when these were taken, so that they count it: not each event has measures.
    pub fin_measured: bool,
    /// A process that is known to use (or have used) the socket.
    pub owner: Option<Task>,
    /// cgroup v2 id of the socket, 0 where unknown.
    pub cgroup: u64,
}

impl Connection {
    /// A connection between these ends of which nothing is known but that it was in `state` at `first_ns`
    /// (`CLOCK_MONOTONIC` nanoseconds).
    pub const fn new(ends: Ends, state: State, first_ns: u64) -> Self {
        Self {
            ends,
            role: None,
            state,
            first_ns,
            birth_seen: false,
            entered_ns: [0; State::LIMIT],
            last_ns: first_ns,
            closed_ns: 0,
            closed_first: None,
            simultaneous: false,
            fin_received: false,
            orphan: false,
            blind: false,
            left: state,
            errno: 0,
            retransmits_syn: 0,
            retransmits_data: 0,
            first_retransmit_ns: 0,
            checkpoints: 0,
            resets_sent: 0,
            resets_received: 0,
            reset_reason: None,
            sequence_pair: None,
            measures: None,
            fin_measured: false,
            owner: None,
            cgroup: 0,
        }
    }

    /// Seconds from SYN sent to ESTABLISHED, of a client whose birth was seen.
    pub fn handshake_seconds(&self) -> Option<f64> {
        let established = self.entered_ns[State::Established.index()];
        let sent = self.entered_ns[State::SynSent.index()];
        (established != 0 && sent != 0).then(|| seconds(established.saturating_sub(sent)))
    }

    /// Seconds from its birth to its end (or last event), where the birth was seen.
    pub fn duration_seconds(&self) -> Option<f64> {
        let end = if self.closed_ns == 0 { self.last_ns } else { self.closed_ns };
        self.birth_seen.then(|| seconds(end.saturating_sub(self.first_ns)))
    }

    /// The states it went through with the time at which each was entered, in order.
    pub fn path(&self) -> impl Iterator<Item = (State, u64)> + '_ {
        let mut path: [(u64, State); State::LIMIT] = [(0, State::Closed); State::LIMIT];
        let mut len = 0;
        for state in State::ALL {
            let at = self.entered_ns[state.index()];
            if at != 0 {
                path[len] = (at, state);
                len += 1;
            }
        }
        path[..len].sort_by_key(|(at, _)| *at);
        path.into_iter().take(len).map(|(at, state)| (state, at))
    }

    /// From when on its checkpoints are counted: what it is called by does not change any more. None while it has none.
    const fn settled_ns(&self) -> Option<u64> {
        match (self.state, self.entered_ns[State::Established.index()]) {
            (State::Listen | State::SynSent | State::SynReceived | State::Closed, _) => None,
            (_, 0) => Some(self.first_ns),
            (_, established_ns) => Some(established_ns),
        }
    }

    /// Takes the checkpoint that became due after `previous_ns` and up to `now_ns`: the last one of those that come every
    /// `interval_ns` after it was established, or first seen. Whoever calls this has done so at `previous_ns` too; at none before,
    /// how many of them were missed in a life that began unseen is no question.
    pub(super) fn checkpoint(&mut self, interval_ns: u64, previous_ns: Option<u64>, now_ns: u64) -> Option<Checkpoint> {
        let since_ns = self.settled_ns()?;
        let passed = |at_ns: u64| at_ns.saturating_sub(since_ns) / interval_ns.max(1);
        let now = passed(now_ns);
        let before = match previous_ns {
            Some(previous_ns) => passed(previous_ns),
            None if self.birth_seen => 0,
            None => now,
        };
        if now <= before {
            return None;
        }
        let at = |number: u64| since_ns.saturating_add(number.saturating_mul(interval_ns));
        let from_ns = if self.checkpoints == 0 { self.first_ns } else { at(before) };
        self.checkpoints = self.checkpoints.saturating_add(1);
        Some(Checkpoint { connection: *self, from_ns, to_ns: at(now) })
    }

    /// Whether the kernel has reported its close.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether it is a listener, no connection.
    pub(super) const fn is_listener(&self) -> bool {
        matches!((self.state, self.left), (State::Listen, _) | (State::Closed, State::Listen))
    }

    /// Bytes that it has carried, by [`crate::event::Direction::index`]: each once, however often it was sent.
    pub fn bytes(&self) -> [u64; 2] {
        self.measures.map_or([0; 2], |measures| carried(&measures, self.fin_measured))
    }

    /// Segments that were sent again.
    pub const fn retransmits(&self) -> u32 {
        self.retransmits_syn.saturating_add(self.retransmits_data)
    }
}

/// Nanoseconds as seconds.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
