//! Walks over everything that is tracked, a slice at a time, for what no event tells: that time has passed.
//!
//! Each slice remembers when it was visited last, so that whoever waits for a moment (the next checkpoint of a connection, an age)
//! needs no list of what is due: it is due if the moment lies between the two visits.

use super::Ledger;
use super::connection::{Checkpoint, Connection};

/// Connections in a slice.
pub(super) const SLICE: usize = 1_024;

/// Slices in one call at most: some tenths of a millisecond. With the usual fifty calls a second, two million connections are
/// visited in ten seconds.
const MOST: usize = 4;

/// How far the walk has come.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next: usize,
    /// When each slice was visited last; 0 for never.
    visited: Vec<u64>,
}

/// A connection that the walk has come to.
#[derive(Debug)]
pub struct Visit<'a> {
    connection: &'a mut Connection,
    /// When the walk was here last; None: never.
    pub previous_ns: Option<u64>,
    /// Now.
    pub now_ns: u64,
}

impl Visit<'_> {
    /// The connection, or listener.
    pub const fn connection(&self) -> &Connection {
        self.connection
    }

    /// The checkpoint that became due since the last visit, if checkpoints come every `interval_ns`. Of several that did the last
    /// one, which then tells of all of that time.
    pub fn checkpoint(&mut self, interval_ns: u64) -> Option<Checkpoint> {
        self.connection.checkpoint(interval_ns, self.previous_ns, self.now_ns)
    }
}

impl Ledger {
    /// Visits what has not been visited for `period_ns`, a few slices of it at most: to be called often. `now_ns` is a moment up to
    /// which every event has been applied. Children before their second event are not visited. Answers whether the walk has come to its
    /// end with this call.
    pub fn sweep(&mut self, now_ns: u64, period_ns: u64, mut visit: impl FnMut(Visit<'_>)) -> bool {
        let Self { table, sweep, .. } = self;
        let slices = table.slices();
        sweep.visited.resize(slices, 0);
        for _ in 0..MOST.min(slices) {
            let at = sweep.next % slices;
            let visited = &mut sweep.visited[at];
            let previous_ns = (*visited != 0).then_some(*visited);
            if previous_ns.is_some_and(|previous_ns| now_ns < previous_ns.saturating_add(period_ns)) {
                return false;
            }
            *visited = now_ns;
            sweep.next = at + 1;
            for connection in table.slice(at) {
                visit(Visit { connection, previous_ns, now_ns });
            }
            if sweep.next >= slices {
                sweep.next = 0;
                return true;
            }
        }
        false
    }
}
