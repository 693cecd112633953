//! What the ledger writes down: totals, the same by owner, who accepts, and what has ended. Apart from the table, so that a connection
//! is written down where it lies.

use super::Ended;
use super::connection::{Connection, End, Role};
use super::counts::Counts;
use super::listeners::Listeners;
use super::totals::Totals;
use crate::accounts::{self, Accounts};
use crate::event::Transition;

#[derive(Debug)]
pub(super) struct Books {
    pub(super) totals: Totals,
    /// The same counts by cgroup.
    pub(super) accounts: Accounts<Counts>,
    pub(super) listeners: Listeners,
    /// In the order of their ends.
    pub(super) ended: Vec<Ended>,
}

impl Books {
    pub(super) fn new() -> Self {
        Self {
            totals: Totals::default(),
            accounts: Accounts::new(accounts::LIMIT),
            listeners: Listeners::default(),
            ended: Vec::new(),
        }
    }

    /// Counts something for the host and for the owner.
    pub(super) fn count(&mut self, cgroup: u64, add: impl Fn(&mut Counts)) {
        add(&mut self.totals.counts);
        add(self.accounts.of(cgroup));
    }

    /// A handshake has begun that a peer opened.
    pub(super) fn opened_server(&mut self, event: &Transition) {
        self.count(event.cgroup, |counts| counts.opened[Role::Server.index()] += 1);
        self.listeners.opened(event.ends.netns, event.ends.local_port, 1);
    }

    /// A connection is closed, or is no more.
    pub(super) fn leave_listener(&mut self, connection: &Connection) {
        if connection.role == Some(Role::Server) {
            self.listeners.ended(connection.ends.netns, connection.ends.local_port);
        }
    }

    /// A connection leaves the ledger.
    pub(super) fn end(&mut self, connection: &Connection, end: End) {
        if connection.is_listener() {
            return; // no connection, so that none has ended
        }
        // One that has closed has left its listener then, not after its grace.
        if !connection.is_closed() {
            self.leave_listener(connection);
        }
        self.count(connection.cgroup, |counts| counts.add_end(connection, end));
        self.ended.push(Ended { connection: *connection, end });
    }
}
