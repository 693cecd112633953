//! Bounded storage of connections: found by cookie, ordered by last use. No allocation for an event in steady state.

use hashbrown::HashMap;

use super::connection::Connection;

/// No slot.
const NIL: u32 = u32::MAX;

/// A place in the table. It is good until its connection is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

#[derive(Debug)]
struct Entry {
    connection: Connection,
    /// Neighbours in the order of use; `older` also links free entries.
    newer: u32,
    older: u32,
}

/// Connections by socket cookie, at most `limit`.
#[derive(Debug)]
pub(super) struct Table {
    index: HashMap<u64, u32>,
    entries: Vec<Entry>,
    limit: usize,
    free: u32,
    newest: u32,
    oldest: u32,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self { index: HashMap::new(), entries: Vec::new(), limit: limit.max(1), free: NIL, newest: NIL, oldest: NIL }
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

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    pub(super) fn find(&self, cookie: u64) -> Option<Slot> {
        self.index.get(&cookie).copied().map(Slot)
    }

    pub(super) fn get(&self, slot: Slot) -> &Connection {
        &self.entries[slot.0 as usize].connection
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Connection {
        &mut self.entries[slot.0 as usize].connection
    }

    /// Adds a connection under its cookie, which must not be there. The caller has made room.
    pub(super) fn insert(&mut self, connection: &Connection) -> Slot {
        let cookie = connection.ends.cookie;
        let entry = Entry { connection: *connection, newer: NIL, older: NIL };
        let at = if self.free == NIL {
            self.entries.push(entry);
            // The limit is far below 2^32 (config), so that the position fits.
            (self.entries.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.entries[at as usize].older;
            self.entries[at as usize] = entry;
            at
        };
        self.index.insert(cookie, at);
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

    pub(super) fn remove(&mut self, slot: Slot) -> Connection {
        let at = slot.0;
        self.unlink(at);
        let entry = &mut self.entries[at as usize];
        entry.older = self.free;
        let connection = entry.connection;
        self.free = at;
        self.index.remove(&connection.ends.cookie);
        connection
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
