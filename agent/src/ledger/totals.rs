//! What the ledger has counted since it began. Totals only grow: an export that fails loses none of them.

use std::collections::BTreeMap;

use super::connection::Role;
use super::counts::Counts;

/// Counts since start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// What connections have done, whoever they belong to.
    pub counts: Counts,
    /// SYN-ACKs that were sent again (tallied in the kernel).
    pub retransmits_syn_ack: u64,
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
    /// All transitions.
    pub fn transitions_sum(&self) -> u64 {
        self.counts.transitions_sum()
    }

    /// Successes of a role.
    pub const fn established(&self, role: Role) -> u64 {
        self.counts.established[role.index()]
    }
}
