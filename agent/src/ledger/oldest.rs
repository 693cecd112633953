//! Since when connections are in CLOSE_WAIT, the oldest of each owner: gathered on the walks over all that is tracked.

use std::sync::Arc;

use hashbrown::HashMap;

use super::connection::Connection;
use crate::event::State;

/// The oldest of each cgroup: its id, and since when (`CLOCK_MONOTONIC` nanoseconds).
pub type Oldest = Arc<[(u64, u64)]>;

/// Gathers them.
#[derive(Debug, Default)]
pub struct CloseWaits {
    /// Of the walk under way.
    met: HashMap<u64, u64>,
    /// Of the last one that came to its end.
    last: Oldest,
}

impl CloseWaits {
    /// A walk has come to this connection. Where its entry into CLOSE_WAIT was not seen, it is known of one that was adopted that it was
    /// there before it was quiet, and of others what was heard last.
    pub fn meet(&mut self, connection: &Connection) {
        if connection.state == State::CloseWait {
            let entered = connection.entered_ns[State::CloseWait.index()];
            let since = match (entered, connection.birth_seen) {
                (0, true) => connection.last_ns,
                (0, false) => connection.first_ns,
                (entered, _) => entered,
            };
            let oldest = self.met.entry(connection.cgroup).or_insert(since);
            *oldest = since.min(*oldest);
        }
    }

    /// A walk has met everything.
    pub fn end_walk(&mut self) {
        self.last = self.met.drain().collect();
    }

    /// As the last walk found them.
    pub fn oldest(&self) -> Oldest {
        Arc::clone(&self.last)
    }
}
