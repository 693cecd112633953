mod property;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::census::Listener;
use crate::distribution::{Distributions, Histogram, Shape, Times};
use crate::event::State;
use crate::export::tests::BEGAN;
use crate::health::{Cost, Probe, Verdict};
use crate::ledger::Counts;
use crate::owner::Identity;
use crate::rung::Rung;
use crate::status::Status;

const SECOND: u64 = 1_000_000_000;

const OPENED: &str = "system.network.tcp.connection.opened";
const STATES: &str = "system.network.tcp.state.duration";
const WAITING: &str = "system.network.tcp.accept_queue.usage";

/// Exponential buckets at most, from the first to the last that is not empty.
const MOST_BUCKETS: i32 = 160;

/// A value in whole numbers, which are added up here by other means than those that are tested.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Amount {
    /// Of a number that number (of one with fractions, its billionths); of a distribution its count, its nanoseconds, how many are in no
    /// exponential bucket, and its buckets.
    plain: Vec<i128>,
    /// Exponential buckets that are not empty, by their index at this scale.
    scale: i32,
    buckets: BTreeMap<i32, u64>,
}

impl Amount {
    fn of(data: Data<'_>) -> Self {
        let plain = match data {
            Data::Integer(value) => vec![value.into()],
            Data::Real(value) => vec![(value * 1e9).round() as i128],
            Data::Distribution(histogram) => {
                let zero = histogram.exponential.as_ref().map_or(0, |exponential| exponential.zero);
                let sums = [histogram.count().into(), histogram.sum_ns.cast_signed(), zero.into()];
                sums.into_iter().chain(histogram.buckets.iter().map(|bucket| bucket.count.into())).collect()
            }
        };
        let Data::Distribution(Histogram { exponential: Some(exponential), .. }) = data else {
            return Self { plain, scale: 0, buckets: BTreeMap::new() };
        };
        let buckets = (exponential.offset..).zip(exponential.counts.iter().copied()).filter(|(_, count)| *count > 0);
        Self { plain, scale: exponential.scale, buckets: buckets.collect() }
    }

    fn of_integer(value: i64) -> Self {
        Self::of(Data::Integer(value))
    }

    fn is_zero(&self) -> bool {
        self.plain.iter().all(|value| *value == 0)
    }

    fn coarsen(&mut self, scale: i32) {
        let by = self.scale - scale;
        self.scale = scale;
        for (index, count) in std::mem::take(&mut self.buckets) {
            *self.buckets.entry(index >> by).or_default() += count;
        }
    }

    fn plus(mut self, other: &Self) -> Self {
        let (mut other, scale) = (other.clone(), self.scale.min(other.scale));
        self.coarsen(scale);
        other.coarsen(scale);
        assert_eq!(self.plain.len(), other.plain.len(), "values of one metric are of one kind");
        self.plain.iter_mut().zip(other.plain).for_each(|(own, other)| *own += other);
        for (index, count) in other.buckets {
            *self.buckets.entry(index).or_default() += count;
        }
        let range = |buckets: &BTreeMap<i32, u64>| Some(buckets.last_key_value()?.0 - buckets.first_key_value()?.0);
        while range(&self.buckets).is_some_and(|range| range >= MOST_BUCKETS) {
            self.coarsen(self.scale - 1);
        }
        self
    }
}

fn sum<'a>(amounts: impl IntoIterator<Item = &'a Amount>) -> Option<Amount> {
    amounts.into_iter().cloned().reduce(|sum, amount| sum.plus(&amount))
}

/// A series: number of its subject, name of its metric, attributes as text.
type Key = (u64, &'static str, String);

fn key(subject: &Subject, metric: &Metric, attributes: &[Attribute<'_>]) -> Key {
    (subject.number, metric.name, format!("{attributes:?}"))
}

fn is_overflow((_, _, attributes): &Key) -> bool {
    *attributes == format!("{OVERFLOW:?}")
}

/// Points by their series. None comes twice.
#[derive(Debug, Default)]
struct Points(BTreeMap<Key, Amount>);

impl Points {
    fn add(&mut self, key: Key, data: Data<'_>) {
        let is_new = !self.0.contains_key(&key);
        assert!(is_new, "{key:?} twice");
        self.0.insert(key, Amount::of(data));
    }

    /// What the overflow of a metric has come to.
    fn overflow(&self, metric: &str) -> Option<&Amount> {
        self.0.iter().find(|(key, _)| key.1 == metric && is_overflow(key)).map(|(_, amount)| amount)
    }

    fn overflows(&self) -> BTreeMap<&'static str, Amount> {
        self.0.iter().filter(|(key, _)| is_overflow(key)).map(|(key, amount)| (key.1, amount.clone())).collect()
    }

    /// How many series owners have of their own.
    fn of_owners(&self) -> usize {
        self.0.keys().filter(|(subject, ..)| *subject != 0).count()
    }

    fn sum(&self, metric: &str) -> Option<Amount> {
        sum(self.0.iter().filter(|(key, _)| key.1 == metric).map(|(_, amount)| amount))
    }
}

/// Points are spread over so many deliveries.
const DELIVERIES: usize = 4;

fn delivery((subject, metric, attributes): &Key) -> usize {
    (*subject as usize + metric.len() + attributes.len()) % DELIVERIES
}

/// Records what is told.
#[derive(Default)]
struct Recorder {
    subject: Option<Subject>,
    metric: Option<&'static str>,
    points: Points,
}

impl Tell for Recorder {
    fn subject(&mut self, subject: &Subject) {
        assert!(self.subject.as_ref().is_none_or(|before| !before.is_host()), "the host comes last");
        (self.subject, self.metric) = (Some(subject.clone()), None);
    }

    fn metric(&mut self, metric: &Metric) {
        assert!(self.subject.is_some(), "whose metric?");
        self.metric = Some(metric.name);
    }

    fn point(&mut self, metric: &Metric, point: &Point<'_>) -> usize {
        assert_eq!(self.metric, Some(metric.name), "a point of another metric");
        let subject = self.subject.as_ref().expect("whose point?");
        let key = key(subject, metric, point.attributes);
        let delivery = delivery(&key);
        self.points.add(key, point.data);
        delivery
    }
}

fn told(series: &mut Series, snapshot: &Snapshot) -> Points {
    let mut recorder = Recorder::default();
    series.collect(snapshot, &mut recorder);
    recorder.points
}

/// These owners, and a host that has done nothing, so many times ten seconds after the agent began.
fn moment(status: Status, owners: impl IntoIterator<Item = Subject>, host: Subject, number: u64) -> Snapshot {
    let subjects = owners.into_iter().chain([host]).collect();
    let unix_ns = BEGAN + number * 10 * SECOND;
    Snapshot { status: Arc::new(status), subjects, unix_ns, ..Snapshot::default() }
}

/// A reader whose host is there, from one collection to the next.
struct Reader {
    series: Series,
    collections: u64,
    /// Owners find room for so many series.
    room: usize,
}

impl Reader {
    fn new(budget: usize, temporality: Temporality) -> Self {
        let mut reader = Self { series: Series::new(budget, temporality), collections: 0, room: 0 };
        _ = reader.told([]);
        reader.room = (budget / 4 * 3).saturating_sub(reader.series.usage().told as usize);
        reader
    }

    /// In which owners find room for some series, fewer than ten.
    fn narrow() -> Self {
        let reader = Self::new((of_host() + 5).div_ceil(3) * 4, Temporality::Cumulative);
        assert!((5..10).contains(&reader.room), "{}", reader.room);
        reader
    }

    /// In which owners find no room.
    fn full(temporality: Temporality) -> Self {
        let reader = Self::new(of_host(), temporality);
        assert_eq!(reader.room, 0);
        reader
    }

    fn told(&mut self, owners: impl IntoIterator<Item = Subject>) -> Points {
        self.told_at(Status::default(), owners)
    }

    fn told_at(&mut self, status: Status, owners: impl IntoIterator<Item = Subject>) -> Points {
        self.collections += 1;
        told(&mut self.series, &moment(status, owners, Subject::host(BEGAN), self.collections))
    }
}

/// Series of a host that has done nothing.
fn of_host() -> usize {
    let mut series = Series::new(usize::MAX, Temporality::Cumulative);
    told(&mut series, &moment(Status::default(), [], Subject::host(BEGAN), 1)).0.len()
}

/// An owner that has done nothing.
fn owner(number: u64) -> Subject {
    let identity = Identity::of(&format!("/kubepods/pod{number:032x}")).expect("a pod");
    Subject { who: Who::Owner(Arc::new(identity)), number, ..Subject::host(BEGAN) }
}

/// Owners that have opened so many connections.
type Owners = &'static [(u64, u64)];

/// An owner that has opened so many connections.
fn opened(number: u64, count: u64) -> Subject {
    Subject { counts: Arc::new(Counts { opened: [count, 0], ..Counts::default() }), ..owner(number) }
}

fn times(distributions: &mut Distributions) -> Arc<Times> {
    distributions.share(1).first().map(|shared| Arc::clone(&shared.value)).unwrap_or_default()
}

/// Listeners at ports from 1 on, at each of which so many connections wait.
fn listeners(waiting: &[u32]) -> Vec<Listener> {
    let listener = |(port, accept_queue): (u16, &u32)| Listener {
        netns: 7,
        local: [0; 16],
        port,
        cgroup: 9,
        cookie: 0,
        inode: 0,
        uid: 0,
        accept_queue: *accept_queue,
        accept_limit: 128,
        half_open: 1,
        oldest_ns: None,
    };
    (1..).zip(waiting).map(listener).collect()
}

fn listening(number: u64, waiting: &[u32]) -> Subject {
    Subject { listeners: listeners(waiting), ..owner(number) }
}

#[test]
fn refused_counters_that_grow_keep_the_sum_exact() {
    let mut reader = Reader::narrow();
    let mut before = 0;
    for round in 1..=6 {
        // Each at a pace of its own, and every third one not at all.
        let value = |number: u64| number + (number % 3) * round * 10;
        let points = reader.told((1..=20).map(|number| opened(number, value(number))));
        assert_eq!(points.of_owners(), reader.room);
        let all: u64 = (1..=20).map(value).sum();
        assert_eq!(
            points.sum(OPENED),
            Some(Amount::of_integer(all as i64)),
            "nothing is missing, nothing is there twice"
        );
        let refused: u64 = (reader.room as u64 + 1..=20).map(value).sum();
        assert_eq!(points.overflow(OPENED), Some(&Amount::of_integer(refused as i64)));
        assert!(refused > before, "or this shows nothing");
        before = refused;
    }
    assert_eq!(reader.series.usage().refused, 20 - reader.room as u64, "each once");
}

#[test]
fn refused_series_that_go_leave_their_totals_and_a_late_one_is_added_once() {
    let mut reader = Reader::full(Temporality::Cumulative);
    let rounds: [(Owners, i64); 7] = [
        (&[(1, 5), (2, 7)], 12),
        (&[(1, 6)], 13), // 2 has gone
        (&[(1, 6), (3, 100)], 113),
        (&[(1, 6), (3, 100)], 113),
        (&[(3, 101), (1, 6)], 114),
        (&[], 114),
        (&[(4, 3)], 117), // who comes back is another, and counts from zero
    ];
    for (owners, sum) in rounds {
        let points = reader.told(owners.iter().map(|(number, count)| opened(*number, *count)));
        assert_eq!(points.overflow(OPENED), Some(&Amount::of_integer(sum)), "{owners:?}");
        assert_eq!(points.of_owners(), 0);
    }
    assert_eq!(reader.series.usage().refused, 4);
}

#[test]
fn differences_of_the_overflow_that_arrive_add_up_and_lost_ones_come_again() {
    let mut reader = Reader::full(Temporality::Delta);
    let rounds: [(Owners, Option<i64>, bool); 8] = [
        (&[(1, 5)], Some(5), false),
        (&[(1, 6), (2, 2)], Some(8), true),
        (&[(1, 6), (2, 2)], None, true),
        (&[(1, 8), (2, 2)], Some(2), false),
        (&[(2, 2)], Some(2), false), // what it did in the end is told though it has gone
        (&[(2, 3)], Some(3), true),
        (&[], None, true),
        (&[(3, 4)], Some(4), true),
    ];
    let mut sum = 0;
    for (owners, difference, arrives) in rounds {
        let points = reader.told(owners.iter().map(|(number, count)| opened(*number, *count)));
        reader.series.delivered(|_| arrives);
        assert_eq!(points.overflow(OPENED), difference.map(Amount::of_integer).as_ref(), "{owners:?}");
        sum += difference.filter(|_| arrives).unwrap_or_default();
    }
    assert_eq!(sum, 8 + 3 + 4, "the last totals of all three");
}

#[test]
fn refused_distributions_keep_their_counts_sums_and_buckets() {
    for shape in [Shape::Explicit, Shape::Exponential] {
        let mut reader = Reader::full(Temporality::Cumulative);
        // The whole is counted in one distribution, value by value.
        let mut whole = Distributions::new(shape);
        let mut owners = [1, 2, 3].map(|number| (number, Distributions::new(shape)));
        // The range becomes wider, and with it the exponential buckets.
        let rounds: [&[(usize, f64)]; 5] = [
            &[(0, 0.3), (1, 0.31)],
            &[(0, 0.3), (0, 0.7), (1, 0.000_3)],
            &[(2, 900.7), (2, 0.0)],
            &[],
            &[(0, 50_000.0), (1, 0.31), (2, 0.000_01)],
        ];
        for values in rounds {
            for (which, value) in values {
                owners[*which].1.left(9, State::CloseWait, *value);
                whole.left(9, State::CloseWait, *value);
            }
            let points =
                reader.told(owners.iter_mut().map(|(number, own)| Subject { times: times(own), ..owner(*number) }));
            let whole = times(&mut whole);
            let (_, whole) = whole.states().next().expect("values");
            assert_eq!(points.overflow(STATES), Some(&Amount::of(Data::Distribution(whole))), "{shape:?} {values:?}");
        }
        let points = reader.told([]);
        let whole = times(&mut whole);
        let (_, whole) = whole.states().next().expect("values");
        assert_eq!((whole.count(), whole.exponential.is_some()), (10, shape == Shape::Exponential));
        assert_eq!(points.overflow(STATES), Some(&Amount::of(Data::Distribution(whole))), "they have gone");
    }
}

#[test]
fn refused_amounts_are_those_of_this_moment() {
    for temporality in [Temporality::Cumulative, Temporality::Delta, Temporality::LowMemory] {
        let mut reader = Reader::full(temporality);
        let mut waiting = |owners: &[(u64, &[u32])]| {
            let points = reader.told(owners.iter().map(|(number, waiting)| listening(*number, waiting)));
            reader.series.delivered(|_| true);
            assert_eq!(points.of_owners(), 0);
            points.overflow(WAITING).cloned()
        };
        let amount = |value| Some(Amount::of_integer(value));
        assert_eq!(waiting(&[(1, &[3, 4]), (2, &[10])]), amount(17));
        assert_eq!(waiting(&[(1, &[3, 4]), (2, &[10])]), amount(17), "once in each collection");
        assert_eq!(waiting(&[(1, &[3, 1]), (2, &[2])]), amount(6), "it falls");
        assert_eq!(waiting(&[(1, &[3]), (2, &[2])]), amount(5));
        assert_eq!(waiting(&[(1, &[0])]), amount(0), "a listener for which nobody waits");
        assert_eq!(waiting(&[]), None, "no listener");
        assert_eq!(waiting(&[(3, &[1])]), amount(1));
    }
}

#[test]
fn refused_gauges_have_no_overflow() {
    let mut reader = Reader::full(Temporality::Cumulative);
    for round in 1..=3 {
        let status = Status { time_ns: 10 * round * SECOND, ..Status::default() };
        let owners = (1..=3).map(|number| Subject { close_wait_ns: Some(number), ..owner(number) });
        let points = reader.told_at(status, owners);
        assert_eq!(points.of_owners(), 0);
        assert_eq!(points.overflows(), BTreeMap::new());
        assert_eq!(reader.series.usage().refused, 3, "they were refused");
    }
}

#[test]
fn owners_that_found_no_room_elsewhere_always_go_to_the_overflow() {
    let mut reader = Reader::new(20_000, Temporality::Cumulative);
    let mut distributions = Distributions::new(Shape::Explicit);
    for round in 1..=3 {
        distributions.left(9, State::CloseWait, 0.5);
        let others = Subject {
            who: Who::Overflow,
            times: times(&mut distributions),
            listeners: listeners(&[4, 5]),
            close_wait_ns: Some(1),
            ..opened(2, 10 * round)
        };
        let status = Status { time_ns: 10 * round * SECOND, ..Status::default() };
        let points = reader.told_at(status, [opened(1, round), others]);
        assert_eq!(points.of_owners(), 1, "there is room for an owner");
        let overflows = points.overflows();
        assert_eq!(overflows[OPENED], Amount::of_integer(10 * round as i64));
        assert_eq!(overflows[WAITING], Amount::of_integer(9));
        assert_eq!(overflows[STATES].plain[0], i128::from(round));
        // And the two other amounts of listeners.
        assert_eq!(overflows.len(), 5, "{overflows:?}");
    }
}

#[test]
fn usage_is_what_was_told_last() {
    let mut reader = Reader::narrow();
    let room = reader.room as u64;
    let budget = reader.series.usage().budget;
    let mut refused = 0;
    let rounds = [(1..3, 0), (1..30, 29 - room), (20..25, 0), (30..30, 0), (40..60, 20 + 1 - room), (41..60, 0)];
    for (numbers, newly_refused) in rounds {
        let points = reader.told(numbers.clone().map(|number| opened(number, 1)));
        refused += newly_refused;
        let usage = reader.series.usage();
        assert_eq!(usage, Usage { told: points.0.len() as u64, budget, refused }, "{numbers:?}");
        assert!(usage.told <= budget + points.overflows().len() as u64);
        assert!(points.of_owners() as u64 <= budget / 4 * 3);
    }
}
