//! Sockets by their two ends: for listings by inet_diag, which tells cookies and no addresses, while the ledger knows some sockets by their
//! address alone.

use hashbrown::HashMap;

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
    /// The same, and what was heard last of the one at this address is older than its present state: at its birth the kernel had not yet
    /// given a child its peer, or a client its port.
    Grown(u64),
}

/// Sockets of the ledger that are known by address alone and have not been met by the comparison under way.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    named: HashMap<Tuple, Vec<u64>>,
    /// Embryos without a peer, by namespace and port of their listener.
    children: HashMap<(u32, u16), Vec<u64>>,
}

impl Addresses {
    pub(super) fn of(ledger: &Ledger) -> Self {
        let mut addresses = Self::default();
        let mut add = |ends: &Ends| addresses.named.entry(Tuple::of(ends)).or_default().push(ends.sock);
        for slot in ledger.table.slots() {
            let ends = &ledger.table.get(slot).ends;
            if ends.cookie == 0 && ledger.table.sighting(slot).generation != ledger.generation {
                add(ends);
            }
        }
        for Connection { ends, .. } in ledger.embryos.values() {
            if ends.peer_port == 0 {
                addresses.children.entry((ends.netns, ends.local_port)).or_default().push(ends.sock);
            } else {
                addresses.named.entry(Tuple::of(ends)).or_default().push(ends.sock);
            }
        }
        addresses
    }

    /// Takes the socket with these ends. Several listeners can share theirs: which is which makes no difference.
    pub(super) fn take(&mut self, ends: &Ends, state: State) -> Option<Match> {
        let tuple = Tuple::of(ends);
        if let Some(sock) = self.pop(tuple) {
            return Some(Match::Address(sock));
        }
        // The kernel chooses the port of a client after the transition to SYN_SENT.
        let client = Tuple { local_port: 0, ..tuple };
        match state {
            State::Listen => None,
            State::SynSent => self.pop(client).map(Match::Alike),
            _ => self.child(ends).or_else(|| self.pop(client)).map(Match::Grown),
        }
    }

    fn child(&mut self, ends: &Ends) -> Option<u64> {
        self.children.get_mut(&(ends.netns, ends.local_port))?.pop()
    }

    fn pop(&mut self, tuple: Tuple) -> Option<u64> {
        self.named.get_mut(&tuple)?.pop()
    }
}
