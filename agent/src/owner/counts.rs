//! Sockets counted by what they belong to: each one once, so that the rows add up to all.

use std::collections::BTreeMap;

use super::cgroup::Lack;
use super::{Key, Owners, Why};
use crate::by::By;
use crate::census::{Form, Listing, Socket};
use crate::event::State;

/// Sums of sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub sockets: u64,
    /// How many of them several processes hold.
    pub shared: u64,
    /// Bytes that wait to be read; none of listeners.
    pub receive_queue: u64,
    /// Bytes that wait to be acknowledged; none of listeners.
    pub send_queue: u64,
    /// Nanoseconds that the quietest of them has been quiet.
    pub quiet_ns: Option<u64>,
}

impl Sum {
    fn one(socket: &Socket, shared: bool) -> Self {
        let is_connection = socket.form == Form::Full && socket.state != State::Listen;
        let bytes = |queue: u32| if is_connection { u64::from(queue) } else { 0 };
        Self {
            sockets: 1,
            shared: shared.into(),
            receive_queue: bytes(socket.receive_queue),
            send_queue: bytes(socket.send_queue),
            quiet_ns: socket.quiet_ns(),
        }
    }

    /// Adds other sockets.
    pub fn add(&mut self, other: &Self) {
        self.sockets += other.sockets;
        self.shared += other.shared;
        self.receive_queue += other.receive_queue;
        self.send_queue += other.send_queue;
        self.quiet_ns = self.quiet_ns.max(other.quiet_ns);
    }
}

/// What belongs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// To what.
    pub key: Key,
    /// By state, in the order of a connection's life; none that is empty.
    pub states: Vec<(State, Sum)>,
}

impl Row {
    /// A row without sockets.
    pub const fn new(key: Key) -> Self {
        Self { key, states: Vec::new() }
    }

    /// Adds sockets in a state.
    pub fn add(&mut self, state: State, sum: &Sum) {
        match self.states.iter_mut().find(|(other, _)| *other == state) {
            Some((_, known)) => known.add(sum),
            None => self.states.push((state, *sum)),
        }
    }

    /// Sockets in a state.
    pub fn sockets(&self, state: State) -> u64 {
        self.states.iter().find(|(other, _)| *other == state).map_or(0, |(_, sum)| sum.sockets)
    }

    /// All states together.
    pub fn total(&self) -> Sum {
        let mut total = Sum::default();
        for (_, sum) in &self.states {
            total.add(sum);
        }
        total
    }
}

/// All sockets of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// What they are counted by.
    pub by: By,
    /// Those that belong to something first, and of these the one with the most sockets: that is whom one looks for.
    pub rows: Vec<Row>,
    /// Why sockets belong to nothing (`Key::None`), by reason.
    pub none: BTreeMap<Why, u64>,
    /// Why it is unknown what sockets belong to (`Key::Unknown`), by reason.
    pub unknown: BTreeMap<Why, u64>,
    /// Why less is known of cgroups than there is.
    pub lack: Vec<Lack>,
}

impl Counts {
    /// Counts the sockets of a listing.
    pub fn of(by: By, listing: &Listing, mut owners: Owners) -> Self {
        let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
        let (mut none, mut unknown) = (BTreeMap::new(), BTreeMap::new());
        for socket in &listing.sockets {
            let (key, why) = owners.key(by, listing, socket);
            if let Some(why) = why {
                *(if key == Key::Unknown { &mut unknown } else { &mut none }).entry(why).or_default() += 1;
            }
            let sum = Sum::one(socket, owners.holders(socket) > 1);
            rows.entry(key).or_insert_with_key(|key| Row::new(key.clone())).add(socket.state, &sum);
        }
        let place = |state: State| State::ALL.iter().position(|other| *other == state);
        let mut rows: Vec<Row> = rows.into_values().collect();
        for row in &mut rows {
            row.states.sort_by_key(|(state, _)| place(*state));
        }
        // Stable: those of the same size stay in the order of their keys.
        let is_known = |row: &Row| !matches!(row.key, Key::None(_) | Key::Unknown);
        rows.sort_by_key(|row| (!is_known(row), std::cmp::Reverse(row.total().sockets)));
        Self { by, rows, none, unknown, lack: owners.cgroups.lack }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::cgroup::Cgroups;
    use super::*;
    use crate::census::holders::Holder;
    use crate::census::{Bound, sample as socket};

    fn listing() -> Listing {
        let mut sockets = vec![
            socket(State::Listen, Form::Full, 1, 5),
            socket(State::Established, Form::Full, 2, 5),
            socket(State::Established, Form::Full, 3, 6),
            socket(State::CloseWait, Form::Full, 4, 6),
            socket(State::CloseWait, Form::Full, 0, 6),
            socket(State::FinWait1, Form::Full, 0, 8),
            socket(State::SynReceived, Form::Request, 0, 0),
            socket(State::TimeWait, Form::Timewait, 0, 0),
        ];
        sockets[3].ends.local_port = 81;
        let local = [0; 16];
        Listing { sockets, listeners: vec![Bound { netns: 7, port: 80, local, cgroup: 5 }], ..Listing::default() }
    }

    fn counts(by: By, owners: Owners) -> Counts {
        let counts = Counts::of(by, &listing(), owners);
        let all: u64 = counts.rows.iter().map(|row| row.total().sockets).sum();
        assert_eq!(all, listing().sockets.len() as u64, "each socket once, by {by}");
        counts
    }

    fn totals(counts: &Counts) -> Vec<(Key, u64)> {
        counts.rows.iter().map(|row| (row.key.clone(), row.total().sockets)).collect()
    }

    #[test]
    fn a_shared_socket_counts_once_for_the_lowest_pid() {
        let holder = |pid| Holder { pid, name: format!("p{pid}") };
        let process = |pid| Key::Process { pid, name: format!("p{pid}") };
        let holders = [(1, vec![holder(9)]), (2, vec![holder(9), holder(12)]), (4, vec![holder(12)])].into();
        let counts = counts(By::Process, Owners { holders, ..Owners::default() });
        assert_eq!(totals(&counts), [(process(9), 2), (process(12), 1), (Key::None(None), 4), (Key::Unknown, 1)]);
        assert_eq!(
            counts.none,
            [Why::Minisock, Why::HalfOpen, Why::NotAccepted, Why::Closed].map(|why| (why, 1)).into()
        );
        assert_eq!(counts.unknown, [(Why::NotSeen, 1)].into());
        let nine = counts.rows[0].total();
        // The listener has no bytes in its queues.
        assert_eq!((nine.shared, nine.receive_queue, nine.send_queue, nine.quiet_ns), (1, 3, 4, Some(2000)));
    }

    #[test]
    fn cgroups_without_an_id_or_a_path_are_unknown() {
        let with = |lack: Vec<Lack>| {
            let paths = [(5, "/docker/x".to_owned()), (6, format!("/docker/{}", "a".repeat(64)))].into();
            Owners { cgroups: Cgroups::for_test(paths, lack), ..Owners::default() }
        };
        let by_cgroup = counts(By::Cgroup, with(Vec::new()));
        let cgroup = |id, path: Option<&str>| Key::Cgroup { id, path: path.map(str::to_owned) };
        let long = format!("/docker/{}", "a".repeat(64));
        assert_eq!(
            totals(&by_cgroup),
            [
                (cgroup(6, Some(&long)), 3),
                (cgroup(5, Some("/docker/x")), 2),
                (cgroup(8, None), 1),
                (Key::None(None), 1),
                (Key::Unknown, 1)
            ]
        );
        let container = Key::Container { id: "a".repeat(64), pod: None };
        let all_known = counts(By::Container, with(Vec::new()));
        assert_eq!(totals(&all_known), [(container.clone(), 3), (Key::Unknown, 3), (Key::None(None), 2)]);
        assert_eq!(all_known.unknown, [Why::Minisock, Why::NoCgroup, Why::NoPath].map(|why| (why, 1)).into());
        // With cgroup v1 a path without a container proves nothing.
        let version1 = counts(By::Container, with(vec![Lack::Version1]));
        assert_eq!(totals(&version1), [(container, 3), (Key::Unknown, 5)]);
    }

    #[test]
    fn listeners_and_peers() {
        let by_listener = counts(By::Listener, Owners::default());
        assert_eq!(totals(&by_listener), [(Key::Listener { netns: 7, port: 80 }, 7), (Key::None(Some(7)), 1)]);
        let by_peer = counts(By::Peer, Owners::default());
        let peer = Key::Peer(Ipv4Addr::new(10, 0, 0, 1).into());
        assert_eq!(totals(&by_peer), [(peer, 7), (Key::None(None), 1)]);
        let states: Vec<State> = by_peer.rows[0].states.iter().map(|(state, _)| *state).collect();
        let wanted = [State::SynReceived, State::Established, State::FinWait1, State::CloseWait, State::TimeWait];
        assert_eq!(states, wanted);
    }
}
