//! Distributions: times of connections, and round trips, counted once in buckets, for each owner apart; a bucket may have a connection
//! as an example.

mod exponential;

use std::sync::Arc;

pub use exponential::Exponential;

use crate::accounts::{self, Accounts, Shared};
use crate::clock::Offset;
use crate::event::State;
use crate::ledger::{Connection, End, Role};

/// Bounds of handshakes in seconds: from a datacentre's round trip to the first retransmitted SYN (1 s) and the second (3 s).
pub const HANDSHAKE_BOUNDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];
/// Bounds of whole connections in seconds: from one request to a day.
pub const CONNECTION_BOUNDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];
/// Bounds of the time in a state in seconds: from a handshake on loopback over the kernel's minute (TIME_WAIT, FIN_WAIT_2) to a
/// CLOSE_WAIT that an application has forgotten.
pub const STATE_BOUNDS: &[f64] =
    &[0.0001, 0.001, 0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];
/// Bounds of round trips in seconds: from loopback to a satellite.
pub const RTT_BOUNDS: &[f64] =
    &[0.000_025, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// How long the slowest connection of a bucket stays its example: an old one is not in the backend any more, or of no use.
const EXAMPLE_NS: u64 = 60_000_000_000;

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Values in it, a total.
    pub count: u64,
    /// The slowest one of about the last minute that has a span. Rare, so that a bucket without is small.
    pub example: Option<Box<Example>>,
}

/// Values by buckets: bucket `i` holds those up to bound `i` and above the one before, the last bucket the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// One more than there are bounds.
    pub buckets: Box<[Bucket]>,
    /// Sum of all values, nanoseconds: whole numbers, so that the order in which they are added up does not matter.
    pub sum_ns: u128,
    /// The same values in exponential buckets, where somebody wants them so.
    pub exponential: Option<Box<Exponential>>,
}

impl Histogram {
    pub(crate) fn new(bounds: &[f64], shape: Shape) -> Self {
        let exponential = (shape == Shape::Exponential).then(Box::default);
        Self { buckets: vec![Bucket::default(); bounds.len() + 1].into(), sum_ns: 0, exponential }
    }

    /// Values in all buckets.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    /// Sum of all values, seconds.
    pub const fn sum(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Adds the values of another with the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.sum_ns += other.sum_ns;
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            own.count += other.count;
            let latest = own.example.as_deref().map_or(0, |example| example.unix_ns);
            if other.example.as_deref().is_some_and(|example| example.unix_ns > latest) {
                own.example.clone_from(&other.example);
            }
        }
        match (&mut self.exponential, &other.exponential) {
            (Some(own), Some(other)) => own.merge(other),
            (own, _) => *own = None, // values that are in no exponential bucket cannot be put there
        }
    }

    /// What has come since it was `before`, with the examples of now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut new = self.clone();
        new.sum_ns = new.sum_ns.saturating_sub(before.sum_ns);
        for (own, before) in new.buckets.iter_mut().zip(&before.buckets) {
            own.count = own.count.saturating_sub(before.count);
            // What was told before is no example of what has come since.
            if own.count == 0 || own.example == before.example {
                own.example = None;
            }
        }
        new.exponential = match (&self.exponential, &before.exponential) {
            (Some(now), Some(before)) => Some(Box::new(now.since(before))),
            _ => None,
        };
        new
    }

    /// Counts a value; answers its bucket.
    pub(crate) fn add(&mut self, bounds: &[f64], value: f64) -> Option<&mut Bucket> {
        self.sum_ns += nanoseconds(value);
        if let Some(exponential) = &mut self.exponential {
            exponential.add(value);
        }
        // Counted, not searched: where a value lies is no pattern that branches could be foretold by.
        let position = bounds.iter().map(|bound| usize::from(*bound < value)).sum::<usize>();
        let bucket = self.buckets.get_mut(position)?;
        bucket.count += 1;
        Some(bucket)
    }
}

/// Seconds as whole nanoseconds, to the nearest. This is done for each transition: half is added instead of a call to `round`, and 584 years
/// are enough.
#[expect(
    clippy::cast_sign_loss,
    clippy::suboptimal_flops,
    reason = "no time is below zero; a fused operation is a call on x86-64"
)]
fn nanoseconds(seconds: f64) -> u128 {
    u128::from((seconds * 1e9 + 0.5) as u64)
}

/// Shows a bucket a connection that may become its example.
fn exemplify(bucket: &mut Bucket, value: f64, unix_ns: u64, place: &mut impl FnMut() -> Option<Place>) {
    let stays = bucket
        .example
        .as_ref()
        .is_some_and(|example| example.value > value && unix_ns < example.unix_ns.saturating_add(EXAMPLE_NS));
    if !stays && let Some(place) = place() {
        bucket.example = Some(Box::new(Example { value, unix_ns, place }));
    }
}

/// Which buckets values are counted in besides those with fixed bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// None.
    #[default]
    Explicit,
    /// Exponential ones.
    Exponential,
}

/// By [`End::index`].
type ByEnd = [Option<Histogram>; End::ALL.len()];

/// By [`Role::index`], last those of unknown role.
type ByRole<T> = [T; Role::ALL.len() + 1];

/// The distributions of one owner, by what connections are told apart by. One is there from its first value on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    handshake: [Option<Histogram>; Role::ALL.len()],
    connection: ByRole<ByEnd>,
    states: [Option<Histogram>; State::LIMIT],
    rtt: ByRole<Option<Histogram>>,
}

const ROLES: ByRole<Option<Role>> = [Some(Role::Client), Some(Role::Server), None];

fn by_role(role: Option<Role>) -> usize {
    role.map_or(Role::ALL.len(), Role::index)
}

impl Times {
    /// Handshakes by role.
    pub fn handshakes(&self) -> impl Iterator<Item = (Role, &Histogram)> {
        Role::ALL.into_iter().filter_map(|role| Some((role, self.handshake[role.index()].as_ref()?)))
    }

    /// Connections by role and end.
    pub fn connections(&self) -> impl Iterator<Item = (Option<Role>, End, &Histogram)> {
        ROLES.into_iter().zip(&self.connection).flat_map(|(role, ends)| {
            let by_end = End::ALL.into_iter().zip(ends);
            by_end.filter_map(move |(end, histogram)| Some((role, end, histogram.as_ref()?)))
        })
    }

    /// Time in each state.
    pub fn states(&self) -> impl Iterator<Item = (State, &Histogram)> {
        State::ALL.into_iter().filter_map(|state| Some((state, self.states[state.index()].as_ref()?)))
    }

    /// Smoothed round trips at the end, by role.
    pub fn round_trips(&self) -> impl Iterator<Item = (Option<Role>, &Histogram)> {
        ROLES.into_iter().zip(&self.rtt).filter_map(|(role, histogram)| Some((role, histogram.as_ref()?)))
    }

    /// Adds the values of another.
    pub fn merge(&mut self, other: &Self) {
        let Self { handshake, connection, states, rtt } = other;
        let pairs = self.handshake.iter_mut().zip(handshake);
        let pairs = pairs.chain(self.connection.iter_mut().flatten().zip(connection.iter().flatten()));
        let pairs = pairs.chain(self.states.iter_mut().zip(states)).chain(self.rtt.iter_mut().zip(rtt));
        for (own, other) in pairs {
            match (own.as_mut(), other) {
                (Some(own), Some(other)) => own.merge(other),
                (None, Some(_)) => own.clone_from(other),
                (_, None) => {}
            }
        }
    }
}

/// All distributions of this host.
#[derive(Debug)]
pub struct Distributions {
    accounts: Accounts<Times>,
    shape: Shape,
}

impl Distributions {
    /// None yet.
    pub fn new(shape: Shape) -> Self {
        Self { accounts: Accounts::new(accounts::LIMIT), shape }
    }

    /// Adds a connection that ended. `place` is asked for its span only when it is to be an example.
    pub fn add(&mut self, connection: &Connection, end: End, offset: Offset, mut place: impl FnMut() -> Option<Place>) {
        let ended_ns = if connection.closed_ns == 0 { connection.last_ns } else { connection.closed_ns };
        let unix_ns = offset.unix_ns(ended_ns);
        let shape = self.shape;
        let times = self.accounts.of(connection.cgroup);
        let mut record = |histogram: &mut Option<Histogram>, bounds, value| {
            let histogram = histogram.get_or_insert_with(|| Histogram::new(bounds, shape));
            if let Some(bucket) = histogram.add(bounds, value) {
                exemplify(bucket, value, unix_ns, &mut place);
            }
        };
        let role = by_role(connection.role);
        if let (Some(role), Some(seconds)) = (connection.role, connection.handshake_seconds()) {
            record(&mut times.handshake[role.index()], HANDSHAKE_BOUNDS, seconds);
        }
        // An end that was not seen has no time.
        if let Some(seconds) = connection.duration_seconds().filter(|_| end.is_seen()) {
            record(&mut times.connection[role][end.index()], CONNECTION_BOUNDS, seconds);
        }
        // Without a sample the kernel has 0, which no round trip takes.
        if let Some(measures) = connection.measures.filter(|measures| measures.srtt_us != 0) {
            record(&mut times.rtt[role], RTT_BOUNDS, f64::from(measures.srtt_us) / 1e6);
        }
    }

    /// Adds how long a socket of this cgroup was in a state that it has left.
    pub fn left(&mut self, cgroup: u64, state: State, seconds: f64) {
        let shape = self.shape;
        let histogram = &mut self.accounts.of(cgroup).states[state.index()];
        histogram.get_or_insert_with(|| Histogram::new(STATE_BOUNDS, shape)).add(STATE_BOUNDS, seconds);
    }

    /// Those of each cgroup, as they are at `now_ns`.
    pub fn share(&mut self, now_ns: u64) -> Arc<[Shared<Times>]> {
        self.accounts.share(now_ns)
    }

    /// Lets go of cgroups of whom nothing was heard since `before_ns`.
    pub fn expire(&mut self, before_ns: u64) {
        self.accounts.expire(before_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Ends, Measures};

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

    fn times(distributions: &mut Distributions) -> Times {
        distributions.share(1)[0].value.as_ref().clone()
    }

    fn handshake(distributions: &mut Distributions) -> Histogram {
        times(distributions).handshakes().next().expect("a handshake").1.clone()
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut distributions = Distributions::new(Shape::Explicit);
        for ns in [100_000, 100_001, 3 * SECOND, 3 * SECOND + 1] {
            distributions.add(&connection(ns, 100 * SECOND), End::Closed, Offset::default(), || None);
        }
        let counts: Vec<u64> = handshake(&mut distributions).buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(handshake(&mut distributions).count(), 4);
        assert!((handshake(&mut distributions).sum() - 6.000_200_002).abs() < 1e-9);
    }

    #[test]
    fn the_example_is_the_slowest_of_a_minute() {
        let mut distributions = Distributions::new(Shape::Explicit);
        let mut add = |ns, ended, example: Option<Place>| {
            distributions.add(&connection(ns, ended * SECOND), End::Closed, Offset::from_nanos(5), || example);
            handshake(&mut distributions).buckets[1].example.clone()
        };
        assert_eq!(add(200_000, 100, None), None, "a connection without a span is no example");
        let first = add(200_000, 100, Some(place(1))).expect("an example");
        assert_eq!((first.unix_ns, first.place), (100 * SECOND + 5, place(1)));
        assert_eq!(add(150_000, 101, Some(place(2))), Some(first.clone()), "a faster one");
        let mut add = |ns, ended, example| add(ns, ended, example).map(|example| example.place);
        assert_eq!(add(210_000, 102, Some(place(3))), Some(place(3)), "a slower one");
        assert_eq!(add(150_000, 161, Some(place(4))), Some(place(3)));
        assert_eq!(add(150_000, 162, Some(place(5))), Some(place(5)), "after a minute");
        assert_eq!(add(150_000, 300, None), Some(place(5)), "better an old one than none");
    }

    #[test]
    fn what_was_not_seen_has_no_time() {
        let mut distributions = Distributions::new(Shape::Explicit);
        let mut unborn = connection(SECOND, 100 * SECOND);
        unborn.birth_seen = false;
        unborn.entered_ns = [0; State::LIMIT];
        distributions.add(&unborn, End::Closed, Offset::default(), || None);
        distributions.add(&connection(SECOND, 100 * SECOND), End::Lost, Offset::default(), || None);
        let mut stranger = connection(SECOND, 100 * SECOND);
        stranger.role = None;
        distributions.add(&stranger, End::Refused, Offset::default(), || None);
        let all = times(&mut distributions);
        let rows: Vec<_> = all.connections().map(|(role, end, _)| (role, end)).collect();
        assert_eq!(rows, [(None, End::Refused)]);
        assert_eq!(handshake(&mut distributions).count(), 1, "that of the one whose end was missed");
    }

    #[test]
    fn seconds_are_the_nanoseconds_that_they_were() {
        for ns in [0, 1, 2, 999_999_999, SECOND, 86_400 * SECOND + 1, 40 * 86_400 * SECOND + 123_456_789] {
            assert_eq!(nanoseconds(crate::ledger::seconds(ns)), u128::from(ns));
        }
    }

    #[test]
    fn states_and_round_trips_by_owner() {
        let mut distributions = Distributions::new(Shape::Exponential);
        distributions.left(7, State::CloseWait, 0.5);
        distributions.left(8, State::CloseWait, 5.0);
        let mut measured = connection(SECOND, 100 * SECOND);
        measured.cgroup = 8;
        for srtt_us in [0, 1_500] {
            measured.measures = Some(Measures { srtt_us, ..Measures::default() });
            distributions.add(&measured, End::Closed, Offset::default(), || None);
        }
        let shared = distributions.share(1);
        let [Shared { cgroup: 7, value: seven, .. }, Shared { cgroup: 8, value: eight, .. }] = &*shared else {
            panic!("{shared:?}")
        };
        assert_eq!(
            seven.states().map(|(state, all)| (state, all.count())).collect::<Vec<_>>(),
            [(State::CloseWait, 1)]
        );
        let (role, trips) = eight.round_trips().next().expect("a round trip");
        assert_eq!((role, trips.count()), (Some(Role::Client), 1));
        assert!((trips.sum() - 0.0015).abs() < 1e-12);

        let mut both = seven.as_ref().clone();
        both.merge(eight);
        let (_, waits) = both.states().next().expect("a state");
        assert_eq!((waits.count(), waits.exponential.as_ref().map(|all| all.counts.iter().sum())), (2, Some(2)));
        assert_eq!(waits.since(seven.states().next().expect("a state").1).count(), 1);
    }
}
