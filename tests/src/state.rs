//! TCP states under the names of docs/EVENTS.md, and counts of transitions between them.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, bail};

/// A state of the kernel's `enum`, ordered as in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are RFC 9293's")]
pub enum State {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Closed = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    NewSynReceived = 12,
}

const NAMES: &[(State, &str)] = &[
    (State::Established, "established"),
    (State::SynSent, "syn_sent"),
    (State::SynReceived, "syn_received"),
    (State::FinWait1, "fin_wait_1"),
    (State::FinWait2, "fin_wait_2"),
    (State::TimeWait, "time_wait"),
    (State::Closed, "closed"),
    (State::CloseWait, "close_wait"),
    (State::LastAck, "last_ack"),
    (State::Listen, "listen"),
    (State::Closing, "closing"),
    (State::NewSynReceived, "new_syn_received"),
];

impl State {
    /// By the number that the kernel's tracepoints and /proc/net/tcp use.
    pub fn from_kernel(number: u64) -> Result<Self> {
        let (state, _) = NAMES
            .iter()
            .find(|(state, _)| *state as u64 == number)
            .with_context(|| format!("{number} is no TCP state"))?;
        Ok(*state)
    }

    /// By the name that the kernel's trace prints: `TCP_FIN_WAIT1`.
    pub fn from_trace(name: &str) -> Result<Self> {
        let state = match name {
            "TCP_ESTABLISHED" => Self::Established,
            "TCP_SYN_SENT" => Self::SynSent,
            "TCP_SYN_RECV" => Self::SynReceived,
            "TCP_FIN_WAIT1" => Self::FinWait1,
            "TCP_FIN_WAIT2" => Self::FinWait2,
            "TCP_TIME_WAIT" => Self::TimeWait,
            "TCP_CLOSE" => Self::Closed,
            "TCP_CLOSE_WAIT" => Self::CloseWait,
            "TCP_LAST_ACK" => Self::LastAck,
            "TCP_LISTEN" => Self::Listen,
            "TCP_CLOSING" => Self::Closing,
            "TCP_NEW_SYN_RECV" => Self::NewSynReceived,
            _ => bail!("{name:?} is no TCP state of the kernel's trace"),
        };
        Ok(state)
    }

    /// By the name of docs/EVENTS.md.
    pub fn from_name(name: &str) -> Result<Self> {
        let (state, _) =
            NAMES.iter().find(|(_, known)| *known == name).with_context(|| format!("{name:?} is no TCP state"))?;
        Ok(*state)
    }

    /// The name of docs/EVENTS.md.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(state, _)| *state == self).map_or("?", |(_, name)| name)
    }
}

/// How often each transition (old, new) was seen.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<(State, State), u64>);

impl Counts {
    /// Counts `times` transitions from `old` to `new`.
    pub fn add(&mut self, old: State, new: State, times: u64) {
        if times > 0 {
            *self.0.entry((old, new)).or_default() += times;
        }
    }

    /// Counts each step of a life that went through `states`.
    pub fn walk(&mut self, states: &[State]) {
        for step in states.windows(2) {
            self.add(step[0], step[1], 1);
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for ((old, new), times) in &other.0 {
            self.add(*old, *new, *times);
        }
    }

    /// How often `old` → `new` was seen.
    pub fn get(&self, old: State, new: State) -> u64 {
        self.0.get(&(old, new)).copied().unwrap_or_default()
    }

    /// All transitions.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each transition seen, with how often.
    pub fn iter(&self) -> impl Iterator<Item = ((State, State), u64)> {
        self.0.iter().map(|(step, times)| (*step, *times))
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("  (none)");
        }
        for ((old, new), times) in &self.0 {
            writeln!(f, "  {times:>6} {} -> {}", old.name(), new.name())?;
        }
        Ok(())
    }
}

/// [`Counts`] of several namespaces, by inode number.
pub type ByNamespace = BTreeMap<u64, Counts>;
