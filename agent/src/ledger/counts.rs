//! What connections have done, as it is counted for the host and for each owner alike.

use std::collections::BTreeMap;

use super::connection::{Connection, End, Side};
use crate::event::{Cause, Direction, Measures, State};

/// Counts since start. They only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transitions by state left and state entered ([`State::index`]).
    pub transitions: [[u64; State::LIMIT]; State::LIMIT],
    /// Connections opened, by `Role::index`: SYN sent, or handshake completed by a peer.
    pub opened: [u64; 2],
    /// Handshakes completed, by `Role::index`.
    pub established: [u64; 2],
    /// Handshakes that failed, by `Role::index` and `error.type`.
    pub failures: [BTreeMap<&'static str, u64>; 2],
    /// Connections that ended, by [`End::index`].
    pub ended: [u64; End::ALL.len()],
    /// TIME_WAIT entered by a full socket: by who sent the first FIN (local, peer, unknown).
    pub time_wait: [u64; 3],
    /// Segments that were sent again with SYN.
    pub retransmits_syn: u64,
    /// Segments that were sent again without SYN, by [`Cause::index`]; at the end those whose cause is not known.
    pub retransmits_data: [u64; Cause::ALL.len() + 1],
    /// RSTs received.
    pub resets_received: u64,
    /// RSTs sent for a socket, by kernel reason ([`synfin_common::event::NO_REASON`] where it gives none).
    pub resets_sent: BTreeMap<u32, u64>,
    /// Bytes that were carried, by [`Direction::index`]: each once, however often it was sent.
    pub bytes: [u64; 2],
}

impl Counts {
    /// Position in [`Counts::time_wait`].
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

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        let Self { transitions, opened, established, failures, ended, time_wait, .. } = other;
        let Self { retransmits_syn, retransmits_data, resets_received, resets_sent, bytes, .. } = other;
        for (own, other) in self.transitions.iter_mut().zip(transitions) {
            sum(own, other);
        }
        sum(&mut self.opened, opened);
        sum(&mut self.established, established);
        sum(&mut self.ended, ended);
        sum(&mut self.time_wait, time_wait);
        sum(&mut self.retransmits_data, retransmits_data);
        sum(&mut self.bytes, bytes);
        self.retransmits_syn += retransmits_syn;
        self.resets_received += resets_received;
        for (reason, count) in resets_sent {
            *self.resets_sent.entry(*reason).or_default() += count;
        }
        for (own, other) in self.failures.iter_mut().zip(failures) {
            for (error, count) in other {
                *own.entry(error).or_default() += count;
            }
        }
    }

    /// All transitions.
    pub fn transitions_sum(&self) -> u64 {
        self.transitions.iter().flatten().sum()
    }
}

fn sum(own: &mut [u64], other: &[u64]) {
    for (own, other) in own.iter_mut().zip(other) {
        *own += other;
    }
}

/// Bytes that a socket has carried, by [`Direction::index`]. The kernel counts what is sent again with what is sent, and the peer's
/// FIN as a byte received.
pub(super) const fn carried(measures: &Measures, fin_received: bool) -> [u64; 2] {
    let mut bytes = [0; 2];
    bytes[Direction::Receive.index()] = measures.bytes_received.saturating_sub(fin_received as u64);
    bytes[Direction::Transmit.index()] = measures.bytes_sent.saturating_sub(measures.bytes_retrans);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_everything() {
        let mut one = Counts {
            opened: [1, 2],
            established: [3, 4],
            ended: std::array::from_fn(|at| at as u64),
            time_wait: [1, 2, 3],
            retransmits_syn: 5,
            retransmits_data: [1, 2, 3, 4],
            resets_received: 6,
            resets_sent: [(1, 2), (3, 4)].into(),
            bytes: [7, 8],
            ..Counts::default()
        };
        one.transitions[2][1] = 9;
        one.failures[1].insert("timed_out", 3);
        let mut sum = Counts::default();
        sum.add(&one);
        assert_eq!(sum, one);
        sum.add(&one);
        assert_eq!((sum.opened, sum.bytes, sum.transitions_sum()), ([2, 4], [14, 16], 18));
        assert_eq!((sum.resets_sent[&3], sum.failures[1]["timed_out"], sum.retransmits_data[3]), (8, 6, 8));
    }

    #[test]
    fn a_byte_counts_once_and_a_fin_is_none() {
        let measures = Measures { bytes_sent: 150, bytes_retrans: 50, bytes_received: 21, ..Measures::default() };
        let bytes = |fin, direction: Direction| carried(&measures, fin)[direction.index()];
        assert_eq!([false, true].map(|fin| bytes(fin, Direction::Receive)), [21, 20]);
        assert_eq!([false, true].map(|fin| bytes(fin, Direction::Transmit)), [100, 100]);
    }
}
