//! Listeners, known through the connections that they accept.

use hashbrown::HashMap;

/// Listeners that are told at most.
pub const LISTENERS: usize = 64;

/// A listener as seen through its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Network namespace (inode number).
    pub netns: u32,
    /// Port.
    pub port: u16,
    /// Connections accepted, a total.
    pub opened: u64,
    /// Of these, how many the ledger tracks now.
    pub open: u64,
}

/// Rows at most; what comes beyond is added to the row of the others, so that sums stay exact.
const LIMIT: usize = 4096;

/// The row without namespace and port.
const OTHER: (u32, u16) = (0, 0);

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    opened: u64,
    open: u64,
}

/// Accepted connections by namespace and local port.
#[derive(Debug, Default)]
pub(super) struct Listeners(HashMap<(u32, u16), Row>);

impl Listeners {
    fn row(&mut self, netns: u32, port: u16) -> &mut Row {
        let mut key = (netns, port);
        if self.0.len() >= LIMIT && !self.0.contains_key(&key) {
            self.make_room();
            if self.0.len() >= LIMIT {
                key = OTHER;
            }
        }
        self.0.entry(key).or_default()
    }

    /// Adds the rows without an open connection to the row of the others: namespaces and ports come and go with pods.
    fn make_room(&mut self) {
        let mut idle = 0;
        self.0.retain(|key, row| {
            let keep = row.open > 0 || *key == OTHER;
            if !keep {
                idle += row.opened;
            }
            keep
        });
        self.0.entry(OTHER).or_default().opened += idle;
    }

    /// A listener opened or a connection of it was accepted.
    pub(super) fn opened(&mut self, netns: u32, port: u16, connections: u64) {
        let row = self.row(netns, port);
        row.opened += connections;
        row.open += connections;
    }

    /// A connection of it is older than the ledger: it was accepted before anybody counted.
    pub(super) fn adopted(&mut self, netns: u32, port: u16) {
        self.row(netns, port).open += 1;
    }

    /// Whether something listens there, or has listened.
    pub(super) fn knows(&self, netns: u32, port: u16) -> bool {
        self.0.contains_key(&(netns, port))
    }

    /// An accepted connection left the ledger.
    pub(super) fn ended(&mut self, netns: u32, port: u16) {
        let row = self.row(netns, port);
        row.open = row.open.saturating_sub(1);
    }

    /// The busiest ones.
    pub(super) fn top(&self) -> Vec<Listener> {
        let mut rows: Vec<Listener> = self
            .0
            .iter()
            .map(|(&(netns, port), row)| Listener { netns, port, opened: row.opened, open: row.open })
            .collect();
        rows.sort_unstable_by_key(|row| (u64::MAX - row.opened, row.netns, row.port));
        rows.truncate(LISTENERS);
        rows
    }
}
