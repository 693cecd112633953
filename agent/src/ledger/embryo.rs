//! Embryos: children between LISTEN → SYN_RECV and their next event, which tells their cookie. Until then they are known by the address
//! of their socket alone.

use super::connection::{End, Role};
use super::course::{begin, note};
use super::table::Slot;
use super::{Applied, Ledger, may_share_socket};
use crate::event::{Ends, Transition};

/// An embryo lives until its handshake is done (fast open: at most the SYN-ACK retries, about a minute). One that is older
/// was lost.
pub(super) const EMBRYO_NS: u64 = 180_000_000_000;

/// Embryos at most: far more than can be between two events of a child, few enough to bound memory.
pub(super) const EMBRYOS: usize = 65_536;

impl Ledger {
    /// Expires embryos that were never heard of again. Walks them all: for once in a while.
    pub fn expire_embryos(&mut self, now_ns: u64) {
        let stale: Vec<u64> = self
            .embryos
            .iter()
            .filter(|(_, embryo)| now_ns.saturating_sub(embryo.first_ns) > EMBRYO_NS)
            .map(|(sock, _)| *sock)
            .collect();
        for sock in stale {
            self.lose_embryo(sock);
        }
    }

    /// The embryo of a socket that is heard of again: now its cookie is settled.
    pub(super) fn hatch(&mut self, ends: &Ends) -> Option<Slot> {
        if self.embryos.is_empty() {
            return None;
        }
        let embryo = self.embryos.get(&ends.sock)?;
        if !may_share_socket(&embryo.ends, ends) {
            self.lose_embryo(ends.sock); // another socket at this address
            return None;
        }
        let mut embryo = self.embryos.remove(&ends.sock)?;
        self.tracked[embryo.state.index()] -= 1;
        embryo.ends.cookie = ends.cookie;
        Some(self.insert(&embryo))
    }

    /// A child is born.
    pub(super) fn embryo(&mut self, event: &Transition) -> Applied<'_> {
        // The address is used again, so that the last child there was lost, and any other socket is no more.
        self.lose_embryo(event.ends.sock);
        if let Some(slot) = self.table.find_address(event.ends.sock) {
            self.supersede(slot);
        }
        if self.embryos.len() >= EMBRYOS
            && let Some(sock) = self.embryos.keys().next().copied()
        {
            self.lose_embryo(sock); // something makes children without end
        }
        self.books.opened_server(event);
        let mut child = begin(event, Some(Role::Server), true);
        note(&mut child, event);
        self.tracked[child.state.index()] += 1;
        let child = &*self.embryos.entry(event.ends.sock).insert(child).into_mut();
        Applied { connection: Some(child), in_state_ns: None }
    }

    /// Whatever was born at this address is no more, and its end was missed.
    pub(super) fn lose_embryo(&mut self, sock: u64) {
        if !self.embryos.is_empty()
            && let Some(embryo) = self.embryos.remove(&sock)
        {
            if let Some(comparison) = &mut self.comparison {
                comparison.note_gone(&embryo.ends);
            }
            self.tracked[embryo.state.index()] -= 1;
            self.books.totals.missed_closes += 1;
            self.books.end(&embryo, End::Lost);
        }
    }
}
