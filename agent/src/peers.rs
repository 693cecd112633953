//! What connections to each peer have come to, bounded: the busiest peers, or networks, have rows of their own, and one row takes all
//! others. Each connection counts in one row, when it ends, so that the sums over all rows are exact.
//!
//! A row stays with its peer: one that is pushed out by a busier peer is told for a while longer, and from then on its peer counts with
//! the others.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::distribution::{Histogram, RTT_BOUNDS, Shape};
use crate::event::Direction;
use crate::ledger::{Connection, End};

/// Peers without a row that are counted to find the busiest ones. The least busy one is looked for each time that another peer comes.
const CANDIDATES: usize = 512;

/// Time between two looks for peers that deserve a row more than those that have one.
const LOOK_NS: u64 = 60_000_000_000;

/// How many times busier a peer must be to push another out: rows that change all the time say nothing.
const BUSIER: u64 = 2;

/// What connections to one peer, or to the peers of one network, have come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Connections that ended, by [`End::index`].
    pub ended: [u64; End::ALL.len()],
    /// Segments that they sent again.
    pub retransmits: u64,
    /// Bytes that they carried, by [`Direction::index`]: each once.
    pub bytes: [u64; 2],
    /// Their smoothed round trips at the end.
    pub rtt: Option<Histogram>,
}

impl Sums {
    fn add(&mut self, connection: &Connection, end: End, shape: Shape) {
        self.ended[end.index()] += 1;
        self.retransmits += u64::from(connection.retransmits());
        for (sum, bytes) in self.bytes.iter_mut().zip(connection.bytes()) {
            *sum += bytes;
        }
        if let Some(measures) = connection.measures.filter(|measures| measures.srtt_us != 0) {
            let histogram = self.rtt.get_or_insert_with(|| Histogram::new(RTT_BOUNDS, shape));
            histogram.add(RTT_BOUNDS, f64::from(measures.srtt_us) / 1e6);
        }
    }

    /// Connections that ended, however.
    pub fn connections(&self) -> u64 {
        self.ended.iter().sum()
    }

    /// Bytes that they carried one way.
    pub const fn carried(&self, direction: Direction) -> u64 {
        self.bytes[direction.index()]
    }
}

/// A row as it is handed on.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// The peer's address, or the network as it was written; `other` for all that have no row.
    pub name: Arc<str>,
    /// What its connections have come to.
    pub sums: Arc<Sums>,
}

/// A network by which peers are told together: what it is called, its first address (v4-mapped for IPv4), its leading bits that count.
pub type Group = (String, Ipv6Addr, u8);

/// Name of the row for all that have none.
pub const OTHER: &str = "other";

#[derive(Debug)]
struct Row {
    name: Arc<str>,
    sums: Sums,
    /// The last one that was handed on; None when the sums are newer.
    shared: Option<Arc<Sums>>,
    /// Connections when it was last looked at.
    looked: u64,
}

impl Row {
    fn new(name: &str) -> Self {
        Self { name: name.into(), sums: Sums::default(), shared: None, looked: 0 }
    }

    fn add(&mut self, connection: &Connection, end: End, shape: Shape) {
        self.sums.add(connection, end, shape);
        self.shared = None;
    }

    fn share(&mut self) -> Peer {
        let sums = self.shared.get_or_insert_with(|| Arc::new(self.sums.clone()));
        Peer { name: Arc::clone(&self.name), sums: Arc::clone(sums) }
    }
}

/// A peer without a row.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Its connections at most.
    most: u64,
    /// So many of them may be those of peers that gave way to it.
    inherited: u64,
}

/// A row that a busier peer has pushed out.
#[derive(Debug)]
struct Retired {
    peer: [u8; 16],
    row: Row,
    since_ns: u64,
    /// Since when it is told no more: everybody who reads has read the last of it.
    untold_ns: Option<u64>,
}

/// Who has a row.
#[derive(Debug)]
enum Choice {
    /// The busiest peers, so many.
    Busiest {
        most: usize,
        rows: HashMap<[u8; 16], Row>,
        retired: Vec<Retired>,
        /// Connections of peers without a row since the last look. Of those beyond its bound the least busy one gives way to the next, with
        /// its count: nobody busy is overlooked (the space-saving algorithm of Metwally, Agrawal and El Abbadi).
        candidates: HashMap<[u8; 16], Candidate>,
        looked_ns: u64,
    },
    /// Networks, the smallest first.
    Groups(Vec<(u128, u8, Row)>),
}

/// All rows.
#[derive(Debug)]
pub struct Peers {
    choice: Choice,
    other: Row,
    shape: Shape,
}

impl Peers {
    /// With rows for `groups`, or if there are none for the `most` busiest peers.
    pub fn new(most: usize, groups: Vec<Group>, shape: Shape) -> Self {
        let choice = if groups.is_empty() {
            let (rows, candidates) = (HashMap::new(), HashMap::new());
            Choice::Busiest { most, rows, retired: Vec::new(), candidates, looked_ns: 0 }
        } else {
            let mut groups: Vec<_> =
                groups.into_iter().map(|(name, first, prefix)| (u128::from(first), prefix, Row::new(&name))).collect();
            groups.sort_by_key(|(_, prefix, _)| u8::MAX - prefix);
            Choice::Groups(groups)
        };
        Self { choice, other: Row::new(OTHER), shape }
    }

    /// Whether nobody is told of.
    pub fn is_off(&self) -> bool {
        matches!(&self.choice, Choice::Busiest { most: 0, .. })
    }

    /// Adds a connection that ended.
    pub fn add(&mut self, connection: &Connection, end: End) {
        let Self { choice, other, shape, .. } = self;
        let peer = connection.ends.peer;
        let row = match choice {
            Choice::Groups(groups) => {
                let address = u128::from_be_bytes(peer);
                let within = |first: u128, prefix: u8| {
                    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0) & address == first
                };
                let group = groups.iter_mut().find(|(first, prefix, _)| within(*first, *prefix));
                group.map(|(_, _, row)| row)
            }
            Choice::Busiest { most, rows, candidates, .. } => {
                if rows.len() < *most && !rows.contains_key(&peer) {
                    rows.insert(peer, Row::new(&name(peer)));
                }
                let row = rows.get_mut(&peer);
                if row.is_none() {
                    note(candidates, peer, CANDIDATES);
                }
                row
            }
        };
        row.unwrap_or(other).add(connection, end, *shape);
    }

    /// Looks who deserves a row. To be called now and then. Whoever reads has been told all that was before `told_ns`: until then a row
    /// that is pushed out is told.
    pub fn look(&mut self, now_ns: u64, told_ns: u64) {
        let Choice::Busiest { most, rows, retired, candidates, looked_ns } = &mut self.choice else { return };
        if now_ns.saturating_sub(*looked_ns) < LOOK_NS {
            return;
        }
        *looked_ns = now_ns;
        for old in retired.iter_mut() {
            if old.untold_ns.is_none() && old.since_ns <= told_ns {
                old.untold_ns = Some(now_ns);
            }
        }
        // Every reader has seen by then that it is told no more: should it come back, that is another series.
        retired.retain(|old| old.untold_ns.is_none_or(|untold_ns| untold_ns > told_ns));
        // Only what is its own: a crowd of peers that come once are no busy ones.
        let mut busy: Vec<(u64, [u8; 16])> =
            candidates.drain().map(|(peer, Candidate { most, inherited })| (most - inherited, peer)).collect();
        busy.retain(|(_, peer)| retired.iter().all(|old| old.peer != *peer));
        busy.sort_unstable_by(|one, other| other.cmp(one));
        let mut calm: Vec<(u64, [u8; 16])> =
            rows.iter().map(|(peer, row)| (row.sums.connections() - row.looked, *peer)).collect();
        calm.sort_unstable();
        // The busiest against the calmest, and so on: whoever has got a row now is not measured yet.
        for ((connections, peer), (of_calm, calm)) in busy.into_iter().zip(calm) {
            // As many as there are rows may be told after their time, and no more.
            if connections <= of_calm.saturating_mul(BUSIER) || retired.len() >= *most {
                break;
            }
            if let Some(row) = rows.remove(&calm) {
                retired.push(Retired { peer: calm, row, since_ns: now_ns, untold_ns: None });
            }
            rows.insert(peer, Row::new(&name(peer)));
        }
        for row in rows.values_mut() {
            row.looked = row.sums.connections();
        }
    }

    /// All rows as they are now. Those that have not changed since the last call are not copied again.
    pub fn share(&mut self) -> Arc<[Peer]> {
        if self.is_off() {
            return Arc::default();
        }
        let mut shared: Vec<Peer> = match &mut self.choice {
            Choice::Busiest { rows, retired, .. } => {
                let retired = retired.iter_mut().filter(|old| old.untold_ns.is_none()).map(|old| &mut old.row);
                rows.values_mut().chain(retired).map(Row::share).collect()
            }
            Choice::Groups(groups) => groups.iter_mut().map(|(_, _, row)| row.share()).collect(),
        };
        shared.push(self.other.share());
        shared.into()
    }
}

fn name(peer: [u8; 16]) -> String {
    let address: IpAddr = Ipv6Addr::from(peer).to_canonical();
    address.to_string()
}

/// Counts a peer among at most so many.
fn note(candidates: &mut HashMap<[u8; 16], Candidate>, peer: [u8; 16], bound: usize) {
    if let Some(candidate) = candidates.get_mut(&peer) {
        candidate.most += 1;
        return;
    }
    let mut inherited = 0;
    if candidates.len() >= bound.max(1) {
        let least = candidates.iter().min_by_key(|(_, candidate)| candidate.most);
        if let Some((least, candidate)) = least.map(|(least, candidate)| (*least, *candidate)) {
            candidates.remove(&least);
            inherited = candidate.most;
        }
    }
    candidates.insert(peer, Candidate { most: inherited + 1, inherited });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Ends, Measures, State};

    const SECOND: u64 = 1_000_000_000;
    const IDLE: u64 = 900 * SECOND;

    fn connection(peer: u32, at: u64) -> Connection {
        let peer = std::net::Ipv4Addr::from(0x0a00_0000 + peer).to_ipv6_mapped().octets();
        let ends = Ends { cookie: 1, sock: 0, netns: 1, local_port: 1, peer_port: 2, local: [0; 16], peer };
        let mut connection = Connection::new(ends, State::Closed, at);
        connection.retransmits_data = 2;
        connection.measures = Some(Measures { bytes_sent: 10, bytes_received: 3, srtt_us: 400, ..Measures::default() });
        connection
    }

    /// Readers have read until a while ago.
    fn look(peers: &mut Peers, now_ns: u64) {
        peers.look(now_ns, now_ns.saturating_sub(IDLE));
    }

    fn told(peers: &mut Peers) -> Vec<(String, u64)> {
        let mut told: Vec<_> =
            peers.share().iter().map(|peer| (peer.name.to_string(), peer.sums.connections())).collect();
        told.sort();
        told
    }

    fn row(name: &str, connections: u64) -> (String, u64) {
        (name.to_owned(), connections)
    }

    #[test]
    fn networks_take_their_peers_the_smallest_first() {
        let group =
            |name: &str, address: &str, prefix: u8| (name.to_owned(), address.parse().expect("an address"), prefix);
        let groups = vec![group("10.0.0.0/8", "::ffff:10.0.0.0", 104), group("10.0.1.0/24", "::ffff:10.0.1.0", 120)];
        let mut peers = Peers::new(20, groups, Shape::Explicit);
        for peer in [1, 0x101, 0x102, 0x0100_0000] {
            peers.add(&connection(peer, SECOND), End::Closed);
        }
        assert_eq!(told(&mut peers), [row("10.0.0.0/8", 1), row("10.0.1.0/24", 2), row("other", 1)]);
        let shared = peers.share();
        let sums = &shared.iter().find(|peer| &*peer.name == "10.0.1.0/24").expect("a row").sums;
        assert_eq!((sums.retransmits, sums.carried(Direction::Transmit), sums.carried(Direction::Receive)), (4, 20, 6));
        assert_eq!(sums.rtt.as_ref().map(Histogram::count), Some(2));
    }

    #[test]
    fn the_first_peers_have_rows_and_a_busier_one_pushes_one_out() {
        let mut peers = Peers::new(2, Vec::new(), Shape::Explicit);
        let add = |peers: &mut Peers, peer, times, at| {
            for _ in 0..times {
                peers.add(&connection(peer, at), End::Closed);
            }
        };
        add(&mut peers, 1, 10, SECOND);
        add(&mut peers, 2, 4, SECOND);
        add(&mut peers, 3, 9, SECOND);
        assert_eq!(told(&mut peers), [row("10.0.0.1", 10), row("10.0.0.2", 4), row("other", 9)]);
        look(&mut peers, 100 * SECOND);
        assert_eq!(told(&mut peers), [row("10.0.0.1", 10), row("10.0.0.2", 4), row("10.0.0.3", 0), row("other", 9)]);
        // What was told of the one that left stays told, and it counts with the others.
        add(&mut peers, 2, 1, 101 * SECOND);
        add(&mut peers, 3, 5, 101 * SECOND);
        assert_eq!(told(&mut peers), [row("10.0.0.1", 10), row("10.0.0.2", 4), row("10.0.0.3", 5), row("other", 10)]);
        let rows = [row("10.0.0.1", 10), row("10.0.0.3", 5), row("other", 10)];
        look(&mut peers, 1_000 * SECOND);
        assert_eq!(told(&mut peers), rows, "told long enough, and not back yet, although nobody is as busy");
        add(&mut peers, 2, 1, 1_001 * SECOND);
        look(&mut peers, 2_000 * SECOND);
        add(&mut peers, 2, 1, 2_001 * SECOND);
        assert_eq!(told(&mut peers), [row("10.0.0.1", 10), row("10.0.0.2", 1), row("10.0.0.3", 5), row("other", 11)]);
    }

    #[test]
    fn one_that_is_pushed_out_is_told_until_everybody_has_read_it() {
        let mut peers = Peers::new(1, Vec::new(), Shape::Explicit);
        let add =
            |peers: &mut Peers, peer, times| (0..times).for_each(|_| peers.add(&connection(peer, SECOND), End::Closed));
        add(&mut peers, 1, 2);
        add(&mut peers, 2, 9);
        peers.look(1_000 * SECOND, SECOND);
        let rows = [row("10.0.0.1", 2), row("10.0.0.2", 0), row("other", 9)];
        assert_eq!(told(&mut peers), rows);
        // An endpoint is away for hours.
        for hour in 1..4 {
            peers.look(3_600 * hour * SECOND, SECOND);
            assert_eq!(told(&mut peers), rows, "{hour}");
        }
        peers.look(15_000 * SECOND, 14_000 * SECOND);
        assert_eq!(told(&mut peers), rows[1..]);
    }

    #[test]
    fn the_busiest_of_many_get_the_rows_of_the_calmest() {
        let mut peers = Peers::new(2, Vec::new(), Shape::Explicit);
        let add = |peers: &mut Peers, peer, times| {
            for _ in 0..times {
                peers.add(&connection(peer, SECOND), End::Closed);
            }
        };
        add(&mut peers, 1, 5);
        add(&mut peers, 2, 1);
        for (peer, times) in [(3, 50), (4, 100), (5, 60), (6, 3)] {
            add(&mut peers, peer, times);
        }
        // A crowd, each of whom comes once.
        for peer in 1_000..3_000 {
            add(&mut peers, peer, 1);
        }
        look(&mut peers, 100 * SECOND);
        add(&mut peers, 4, 1);
        add(&mut peers, 5, 1);
        let all: Vec<String> =
            told(&mut peers).into_iter().filter(|(_, count)| *count > 0).map(|(name, _)| name).collect();
        assert_eq!(all, ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "other"]);
    }

    #[test]
    fn nobody_is_told_of_when_that_is_off() {
        let mut peers = Peers::new(0, Vec::new(), Shape::Explicit);
        peers.add(&connection(1, SECOND), End::Closed);
        assert!(peers.is_off() && peers.share().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_connection_is_lost_and_rows_are_bounded(
            most in 1..6_usize, steps in prop::collection::vec((0..40_u32, 0..100_u64), 1..400)
        ) {
            let mut peers = Peers::new(most, Vec::new(), Shape::Explicit);
            let (mut now, mut sum) = (SECOND, 0);
            let mut last: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
            for (peer, seconds) in steps {
                now += seconds * SECOND;
                look(&mut peers, now);
                peers.add(&connection(peer, now), End::Closed);
                sum += 1;
                let rows = told(&mut peers);
                prop_assert!(rows.len() <= 2 * most + 1, "{rows:?}");
                // What the rows have gained since the last look is what has ended since: nothing is told twice, or in two rows.
                let gained: u64 = rows.iter().map(|(name, count)| count - last.get(name).filter(|before| *before <= count).unwrap_or(&0)).sum();
                prop_assert_eq!(gained, 1);
                last = rows.into_iter().collect();
            }
            let candidates = match &peers.choice { Choice::Busiest { candidates, .. } => candidates.len(), Choice::Groups(_) => 0 };
            prop_assert!(candidates <= CANDIDATES && sum > 0);
        }
    }
}
