//! What the ledger has counted since it began. Totals only grow: an export that fails loses none of them.

use std::collections::BTreeMap;

use super::connection::{Connection, End, Role, Side};
use crate::event::{Cause, State};

/// Counts since start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Transitions by state left and state entered ([`State::index`]).
    pub transitions: [[u64; State::LIMIT]; State::LIMIT],
    /// Connections opened, by [`Role::index`]: SYN sent, or handshake completed by a peer.
    pub opened: [u64; 2],
    /// Handshakes completed, by [`Role::index`].
    pub established: [u64; 2],
    /// Handshakes that failed, by [`Role::index`] and `error.type`.
    pub failures: [BTreeMap<&'static str, u64>; 2],
    /// Connections that ended, by [`End::index`].
    pub ended: [u64; End::ALL.len()],
    /// TIME_WAIT entered by a full socket: by who sent the first FIN (local, peer, unknown).
    pub time_wait: [u64; 3],
    /// Segments that were sent again with SYN.
    pub retransmits_syn: u64,
    /// Segments that were sent again without SYN, by [`Cause::index`]; at the end those whose cause is not known.
    pub retransmits_data: [u64; Cause::ALL.len() + 1],
    /// SYN-ACKs that were sent again (tallied in the kernel).
    pub retransmits_syn_ack: u64,
    /// RSTs received.
    pub resets_received: u64,
    /// RSTs sent for a socket, by kernel reason ([`synfin_common::event::NO_REASON`] where it gives none).
    pub resets_sent: BTreeMap<u32, u64>,
    /// RSTs sent in answer to a segment without a socket, by kernel reason (tallied in the kernel).
    pub resets_without_socket: BTreeMap<u32, u64>,
    /// Events of a connection whose beginning was not seen: it is older than the agent, or its birth was lost.
    pub unknown_connections: u64,
    /// Connections that a census found and no event had told of: older than the agent, or their events were lost.
    pub adopted: u64,
    /// Connections that a census found in another state than the ledger believed: a transition was lost.
    pub stale_states: u64,
    /// Connections (and listeners) whose socket is gone or reused although no close was seen.
    pub missed_closes: u64,
    /// Transitions whose old state is not the one in the ledger: an earlier one was lost.
    pub gaps: u64,
    /// Connections that left a full ledger before their end; listeners that left it are not counted.
    pub folded: u64,
}

impl Totals {
    /// Position in [`Totals::time_wait`].
    pub const fn time_wait_index(first: Option<Side>) -> usize {
        match first {
            Some(Side::Local) => 0,
            Some(Side::Peer) => 1,
            None => 2,
        }
    }

    /// Adds a connection that ended.
    pub(super) fn add_end(&mut self, connection: &Connection, end: End) {
        self.ended[end.index()] += 1;
        if end == End::TimeWait {
            self.time_wait[Self::time_wait_index(connection.closed_first)] += 1;
        }
        // By the state left, as the kernel's AttemptFails: the entry into ESTABLISHED may have been lost.
        let opening = matches!(connection.left, State::SynSent | State::SynReceived);
        if let (true, Some(role)) = (opening, connection.role) {
            let why = end.error_type(connection.errno).or(match end {
                End::Aborted => Some("aborted"),
                _ => None,
            });
            if let Some(why) = why {
                *self.failures[role.index()].entry(why).or_default() += 1;
            }
        }
    }

    /// All transitions.
    pub fn transitions_sum(&self) -> u64 {
        self.transitions.iter().flatten().sum()
    }

    /// Successes of a role.
    pub const fn established(&self, role: Role) -> u64 {
        self.established[role.index()]
    }
}
