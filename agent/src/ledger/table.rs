//! Bounded storage of connections: found by socket, ordered by last use. No allocation for an event in steady state.

use std::hint::black_box;

use hashbrown::HashMap;

use super::connection::Connection;
use super::reconcile::Sighting;
use super::sweep::SLICE;
use crate::event::{Ends, State};

/// No slot.
const NIL: u32 = u32::MAX;

/// Instead of a newer neighbour: the entry is free.
const FREE: u32 = u32::MAX - 1;

/// A place in the table. It is good until its connection is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

#[derive(Debug)]
struct Entry {
    connection: Connection,
    /// Neighbours in the order of use; `older` also links free entries.
    newer: u32,
    older: u32,
    sighting: Sighting,
}

/// What a socket is known by: its cookie, or its address while it has none. Nothing is both, because cookies are counted
/// from 1 and addresses have the highest bit set, as all of the kernel's have.
pub(super) const fn key(ends: &Ends) -> u64 {
    if ends.cookie == 0 { address(ends.sock) } else { ends.cookie }
}

pub(super) const fn address(sock: u64) -> u64 {
    sock | 1 << 63
}

/// Connections by their socket, at most `limit`.
#[derive(Debug)]
pub(super) struct Table {
    index: HashMap<u64, u32>,
    entries: Vec<Entry>,
    /// Connections whose socket is known by its address.
    addressed: usize,
    limit: usize,
    free: u32,
    newest: u32,
    oldest: u32,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        let (index, entries) = (HashMap::new(), Vec::new());
        Self { index, entries, addressed: 0, limit: limit.max(1), free: NIL, newest: NIL, oldest: NIL }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Entries in memory, free ones included.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Every connection, in no order.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Connection> {
        self.index.values().map(|at| &self.entries[*at as usize].connection)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// The connection on the socket with this key.
    pub(super) fn find(&self, key: u64) -> Option<Slot> {
        self.index.get(&key).copied().map(Slot)
    }

    /// The connection on the socket at this address, if it is known by nothing better.
    pub(super) fn find_address(&self, sock: u64) -> Option<Slot> {
        // Where sockets have cookies, nobody pays for this look.
        if self.addressed == 0 { None } else { self.find(address(sock)) }
    }

    /// Places of the connections that are known by nothing better than their address, in no order.
    pub(super) fn addressed(&self) -> impl Iterator<Item = Slot> {
        self.index.iter().filter(|(key, _)| **key >> 63 == 1).map(|(_, at)| Slot(*at))
    }

    /// Whether any connection is known by nothing better than its address.
    pub(super) const fn has_addressed(&self) -> bool {
        self.addressed > 0
    }

    /// Gives a connection known by address the cookie that its socket has got, which must not be there.
    pub(super) fn give_cookie(&mut self, slot: Slot, cookie: u64) {
        let ends = &mut self.entries[slot.0 as usize].connection.ends;
        self.index.remove(&address(ends.sock));
        ends.cookie = cookie;
        self.index.insert(cookie, slot.0);
        self.addressed -= 1;
    }

    /// Every connection's place, in no order.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.index.values().copied().map(Slot)
    }

    /// So many slices there are.
    pub(super) const fn slices(&self) -> usize {
        self.entries.len().div_ceil(SLICE)
    }

    /// The connections of one slice. A connection stays in its slice.
    pub(super) fn slice(&mut self, at: usize) -> impl Iterator<Item = &mut Connection> {
        let entries = self.entries.iter_mut().skip(at * SLICE).take(SLICE);
        entries.filter(|entry| entry.newer != FREE).map(|entry| &mut entry.connection)
    }

    pub(super) fn sighting(&self, slot: Slot) -> Sighting {
        self.entries[slot.0 as usize].sighting
    }

    pub(super) fn sighting_mut(&mut self, slot: Slot) -> &mut Sighting {
        &mut self.entries[slot.0 as usize].sighting
    }

    pub(super) fn get(&self, slot: Slot) -> &Connection {
        &self.entries[slot.0 as usize].connection
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Connection {
        &mut self.entries[slot.0 as usize].connection
    }

    /// Adds a connection on a socket that must not be there. The caller has made room.
    pub(super) fn insert(&mut self, connection: &Connection) -> Slot {
        self.addressed += usize::from(connection.ends.cookie == 0);
        let at = if self.free == NIL {
            let sighting = Sighting::default();
            self.entries.push(Entry { connection: *connection, newer: NIL, older: NIL, sighting });
            // The limit is far below 2^32 (config), so that the position fits.
            (self.entries.len() - 1) as u32
        } else {
            let at = self.free;
            let entry = &mut self.entries[at as usize];
            self.free = entry.older;
            entry.connection = *connection;
            entry.sighting = Sighting::default();
            at
        };
        self.index.insert(key(&connection.ends), at);
        self.link(at);
        Slot(at)
    }

    /// Makes a connection the most recently used one.
    pub(super) fn touch(&mut self, slot: Slot) {
        if self.newest != slot.0 {
            self.unlink(slot.0);
            self.link(slot.0);
        }
    }

    /// The connection that was used longest ago.
    pub(super) fn oldest(&self) -> Option<Slot> {
        (self.oldest != NIL).then_some(Slot(self.oldest))
    }

    /// Asks the memory for a connection that will be needed in a moment.
    pub(super) fn fetch(&self, key: u64) {
        if let Some(Slot(at)) = self.find(key) {
            let Entry { connection, newer, older, .. } = &self.entries[at as usize];
            let Connection { ends, entered_ns, measures, owner, cgroup, .. } = connection;
            let of_times = (entered_ns[0], entered_ns[State::Closed.index()]);
            black_box((*newer, *older, ends.cookie, of_times, measures.is_some(), owner.is_some(), *cgroup));
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        let at = slot.0;
        self.unlink(at);
        let entry = &mut self.entries[at as usize];
        entry.older = self.free;
        entry.newer = FREE;
        self.free = at;
        let ends = &entry.connection.ends;
        self.index.remove(&key(ends));
        self.addressed -= usize::from(ends.cookie == 0);
    }

    fn link(&mut self, at: u32) {
        let newest = self.newest;
        let entry = &mut self.entries[at as usize];
        entry.newer = NIL;
        entry.older = newest;
        match newest {
            NIL => self.oldest = at,
            newest => self.entries[newest as usize].newer = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let Entry { newer, older, .. } = self.entries[at as usize];
        match newer {
            NIL => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NIL => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }
}
