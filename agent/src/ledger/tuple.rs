//! Sockets by their two ends: for listings by inet_diag, which tells cookies and no addresses, while the ledger knows some sockets by their
//! address alone.

use hashbrown::HashMap;

use super::table::Slot;
use super::{Connection, Ledger};
use crate::event::{Ends, State};

/// What tells connections of a namespace apart, at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    netns: u32,
    local_port: u16,
    peer_port: u16,
    local: [u8; 16],
    peer: [u8; 16],
}

impl Tuple {
    pub(super) const fn of(ends: &Ends) -> Self {
        let Ends { netns, local_port, peer_port, local, peer, .. } = *ends;
        Self { netns, local_port, peer_port, local, peer }
    }
}

/// What a listed socket can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The one at this address.
    Address(u64),
    /// One of several that are alike as far as is known: the one at this address or another.
    Alike(u64),
    /// A child of a listener, which has as many embryos: the one at this address or another.
    Embryo(u64),
}

/// Sockets of the ledger that are known by address alone and have not been met by the comparison under way.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    named: HashMap<Tuple, Vec<u64>>,
    /// Embryos by namespace and port of their listener: at its birth the kernel has not given a child its peer.
    births: HashMap<(u32, u16), Vec<u64>>,
}

impl Addresses {
    /// Walks the whole ledger, if it is to be walked at all.
    pub(super) fn of(ledger: &Ledger) -> Self {
        let mut addresses = Self::default();
        let unmet = |slot: &Slot| ledger.table.sighting(*slot).generation != ledger.generation;
        // Those that have closed wait for their last words and may share their ends with a live one, which is taken first.
        for closed in [true, false] {
            for slot in ledger.table.addressed().filter(unmet) {
                let connection = ledger.table.get(slot);
                if connection.is_closed() == closed {
                    addresses.add(&connection.ends);
                }
            }
        }
        let is_met = |sock| ledger.comparison.as_ref().is_some_and(|comparison| comparison.has_met(sock));
        for Connection { ends, .. } in ledger.embryos.values().filter(|embryo| !is_met(embryo.ends.sock)) {
            if ends.peer_port != 0 {
                addresses.add(ends);
                continue;
            }
            addresses.births.entry((ends.netns, ends.local_port)).or_default().push(ends.sock);
        }
        addresses
    }

    fn add(&mut self, ends: &Ends) {
        self.named.entry(Tuple::of(ends)).or_default().push(ends.sock);
    }

    /// Takes the socket with these ends. Several listeners can share theirs: which is which makes no difference.
    pub(super) fn take(&mut self, ends: &Ends, state: State) -> Option<Match> {
        let tuple = Tuple::of(ends);
        if let Some(sock) = self.pop(tuple) {
            return Some(Match::Address(sock));
        }
        match state {
            // The kernel chooses the port of a client after the transition to SYN_SENT.
            State::SynSent => self.pop(Tuple { local_port: 0, ..tuple }).map(Match::Alike),
            State::SynReceived => self.births.get_mut(&(ends.netns, ends.local_port))?.pop().map(Match::Embryo),
            _ => None,
        }
    }

    fn pop(&mut self, tuple: Tuple) -> Option<u64> {
        self.named.get_mut(&tuple)?.pop()
    }
}
