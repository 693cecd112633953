//! Distributions of the times of ended connections: counted once, in buckets, each with a connection as an example.

use crate::clock::Offset;
use crate::ledger::{Connection, End, Role};

/// Bounds of handshakes in seconds: from a datacentre's round trip to the first retransmitted SYN (1 s) and the second (3 s).
pub const HANDSHAKE_BOUNDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];
/// Bounds of whole connections in seconds: from one request to a day.
pub const CONNECTION_BOUNDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];

/// How long the slowest connection of a bucket stays its example: an old one is not in the backend any more, or of no use.
const EXAMPLE_NS: u64 = 60_000_000_000;

/// What an ended connection adds to the distributions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Seconds from SYN to established, of a connection whose part in the handshake is known.
    pub handshake: Option<(f64, Role)>,
    /// Seconds from its birth to its end, where both were seen.
    pub connection: Option<f64>,
}

impl Measured {
    /// Of this connection.
    pub fn of(connection: &Connection, end: End) -> Self {
        Self {
            handshake: connection.handshake_seconds().zip(connection.role),
            // An end that was not seen has no time.
            connection: connection.duration_seconds().filter(|_| end.is_seen()),
        }
    }
}

/// Where an example is found: a trace and a span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Trace id.
    pub trace: [u8; 16],
    /// Span id.
    pub span: [u8; 8],
}

/// A connection of a bucket whose span can be looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Example {
    /// Its value, seconds.
    pub value: f64,
    /// When it ended, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Its span.
    pub place: Place,
}

/// One bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Values in it, a total.
    pub count: u64,
    /// The slowest one of about the last minute that has a span.
    pub example: Option<Example>,
}

/// Values by buckets: bucket `i` holds those up to bound `i` and above the one before, the last bucket the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// One more than there are bounds.
    pub buckets: Box<[Bucket]>,
    /// Sum of all values, seconds.
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        Self { buckets: vec![Bucket::default(); bounds.len() + 1].into(), sum: 0.0 }
    }

    /// Values in all buckets.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    fn add(&mut self, bounds: &[f64], value: f64, unix_ns: u64, place: &mut impl FnMut() -> Option<Place>) {
        self.sum += value;
        let position = bounds.partition_point(|bound| *bound < value);
        let Some(bucket) = self.buckets.get_mut(position) else { return };
        bucket.count += 1;
        let stays = bucket
            .example
            .is_some_and(|example| example.value > value && unix_ns < example.unix_ns.saturating_add(EXAMPLE_NS));
        if !stays && let Some(place) = place() {
            bucket.example = Some(Example { value, unix_ns, place });
        }
    }
}

/// By [`End::index`].
type ByEnd = [Option<Histogram>; End::ALL.len()];

/// All distributions, by what connections are told apart by. One is there from its first value on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distributions {
    handshake: [Option<Histogram>; Role::ALL.len()],
    /// By [`Role::index`], last those of unknown role.
    connection: [ByEnd; Role::ALL.len() + 1],
}

impl Distributions {
    /// Adds a connection that ended. `place` is asked for its span only when it is to be an example.
    pub fn add(&mut self, connection: &Connection, end: End, offset: Offset, mut place: impl FnMut() -> Option<Place>) {
        let measured = Measured::of(connection, end);
        let ended_ns = if connection.closed_ns == 0 { connection.last_ns } else { connection.closed_ns };
        let unix_ns = offset.unix_ns(ended_ns);
        let mut record = |histogram: &mut Option<Histogram>, bounds, value| {
            histogram.get_or_insert_with(|| Histogram::new(bounds)).add(bounds, value, unix_ns, &mut place);
        };
        if let Some((seconds, role)) = measured.handshake {
            record(&mut self.handshake[role.index()], HANDSHAKE_BOUNDS, seconds);
        }
        if let Some(seconds) = measured.connection {
            let role = connection.role.map_or(Role::ALL.len(), Role::index);
            record(&mut self.connection[role][end.index()], CONNECTION_BOUNDS, seconds);
        }
    }

    /// Handshakes by role.
    pub fn handshakes(&self) -> impl Iterator<Item = (Role, &Histogram)> {
        Role::ALL.into_iter().filter_map(|role| Some((role, self.handshake[role.index()].as_ref()?)))
    }

    /// Connections by role and end.
    pub fn connections(&self) -> impl Iterator<Item = (Option<Role>, End, &Histogram)> {
        let roles = Role::ALL.into_iter().map(Some).chain([None]);
        roles.zip(&self.connection).flat_map(|(role, ends)| {
            let by_end = End::ALL.into_iter().zip(ends);
            by_end.filter_map(move |(end, histogram)| Some((role, end, histogram.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Ends, State};

    const SECOND: u64 = 1_000_000_000;
    const ENDS: Ends =
        Ends { cookie: 1, sock: 0, netns: 1, local_port: 40_000, peer_port: 80, local: [0; 16], peer: [0; 16] };

    /// A client's connection that took so long to open and lived twice as long, ended at this time.
    fn connection(handshake_ns: u64, ended_ns: u64) -> Connection {
        let first_ns = ended_ns - 2 * handshake_ns;
        let mut connection = Connection::new(ENDS, State::Closed, first_ns);
        connection.role = Some(Role::Client);
        connection.birth_seen = true;
        connection.entered_ns[State::SynSent.index()] = first_ns;
        connection.entered_ns[State::Established.index()] = first_ns + handshake_ns;
        connection.closed_ns = ended_ns;
        connection
    }

    fn place(byte: u8) -> Place {
        Place { trace: [byte; 16], span: [byte; 8] }
    }

    fn handshake(distributions: &Distributions) -> &Histogram {
        distributions.handshakes().next().expect("a handshake").1
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut distributions = Distributions::default();
        for ns in [100_000, 100_001, 3 * SECOND, 3 * SECOND + 1] {
            distributions.add(&connection(ns, 100 * SECOND), End::Closed, Offset::default(), || None);
        }
        let counts: Vec<u64> = handshake(&distributions).buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(handshake(&distributions).count(), 4);
        assert!((handshake(&distributions).sum - 6.000_200_002).abs() < 1e-9);
    }

    #[test]
    fn the_example_is_the_slowest_of_a_minute() {
        let mut distributions = Distributions::default();
        let mut add = |ns, ended, example: Option<Place>| {
            distributions.add(&connection(ns, ended * SECOND), End::Closed, Offset::from_nanos(5), || example);
            handshake(&distributions).buckets[1].example
        };
        assert_eq!(add(200_000, 100, None), None, "a connection without a span is no example");
        let first = add(200_000, 100, Some(place(1))).expect("an example");
        assert_eq!((first.unix_ns, first.place), (100 * SECOND + 5, place(1)));
        assert_eq!(add(150_000, 101, Some(place(2))), Some(first), "a faster one");
        let mut add = |ns, ended, example| add(ns, ended, example).map(|example| example.place);
        assert_eq!(add(210_000, 102, Some(place(3))), Some(place(3)), "a slower one");
        assert_eq!(add(150_000, 161, Some(place(4))), Some(place(3)));
        assert_eq!(add(150_000, 162, Some(place(5))), Some(place(5)), "after a minute");
        assert_eq!(add(150_000, 300, None), Some(place(5)), "better an old one than none");
    }

    #[test]
    fn what_was_not_seen_has_no_time() {
        let mut distributions = Distributions::default();
        let mut unborn = connection(SECOND, 100 * SECOND);
        unborn.birth_seen = false;
        unborn.entered_ns = [0; State::LIMIT];
        distributions.add(&unborn, End::Closed, Offset::default(), || None);
        distributions.add(&connection(SECOND, 100 * SECOND), End::Lost, Offset::default(), || None);
        let mut stranger = connection(SECOND, 100 * SECOND);
        stranger.role = None;
        distributions.add(&stranger, End::Refused, Offset::default(), || None);
        let rows: Vec<_> = distributions.connections().map(|(role, end, _)| (role, end)).collect();
        assert_eq!(rows, [(None, End::Refused)]);
        assert_eq!(handshake(&distributions).count(), 1, "that of the one whose end was missed");
    }
}
