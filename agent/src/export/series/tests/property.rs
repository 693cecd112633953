//! Whatever owners do from one collection to the next, what is told is what is true, totals and differences alike.

use proptest::prelude::*;

use super::*;

/// Every value of this moment, straight from the catalogue.
fn truth(snapshot: &Snapshot) -> Points {
    let mut truth = Points::default();
    for subject in snapshot.subjects.iter() {
        let view = View { snapshot, subject };
        for metric in CATALOGUE.iter().filter(|metric| metric.scope == Scope::Owners || subject.is_host()) {
            let mut add =
                |data: Data<'_>, attributes: &[Attribute<'_>]| truth.add(key(subject, metric, attributes), data);
            match metric.instrument {
                Instrument::Counter(read) => {
                    read(&view, &mut |value, attributes| add(Data::Integer(value as i64), attributes));
                }
                Instrument::UpDownCounter(read) => {
                    read(&view, &mut |value, attributes| add(Data::Integer(value), attributes));
                }
                Instrument::CounterFloat(read) | Instrument::Gauge(read) => {
                    read(&view, &mut |value, attributes| add(Data::Real(value), attributes));
                }
                Instrument::Histogram(_, read) => {
                    read(&view, &mut |value, attributes| add(Data::Distribution(value), attributes));
                }
            }
        }
    }
    truth
}

fn instrument((_, name, _): &Key) -> Instrument {
    CATALOGUE.iter().find(|metric| metric.name == *name).expect("in the catalogue").instrument
}

/// Holds what is told against what is true.
#[derive(Default)]
struct Books {
    /// Series that were told the last time.
    told: BTreeSet<Key>,
    /// Those that were refused, with what they had come to.
    refused: BTreeMap<Key, Amount>,
    /// Totals of refused ones that are told no more, by metric.
    gone: BTreeMap<&'static str, Amount>,
    /// Refused ones that there ever were.
    refusals: u64,
}

impl Books {
    fn check(&mut self, snapshot: &Snapshot, points: &Points, before: Usage, usage: Usage) {
        let truth = truth(&Snapshot { series: before, ..snapshot.clone() });
        for (key, amount) in points.0.iter().filter(|(key, _)| !is_overflow(key)) {
            assert_eq!(truth.0.get(key), Some(amount), "{key:?}");
        }
        let newcomers = points.0.keys().filter(|key| !self.told.contains(key)).count() as u64;
        for (key, amount) in self.refused.extract_if(.., |key, _| !truth.0.contains_key(key)) {
            if is_total(instrument(&key)) {
                let sum = sum(self.gone.get(key.1).into_iter().chain([&amount])).expect("at least one");
                self.gone.insert(key.1, sum);
            }
        }
        for (key, amount) in truth.0 {
            if points.0.contains_key(&key) {
                assert!(!self.refused.contains_key(&key), "{key:?} is in the overflow, and cannot be taken out");
                continue;
            }
            assert!(!self.told.contains(&key), "{key:?} is told no more");
            let is_host = key.0 == 0;
            let is_there = is_host || !amount.is_zero() || matches!(instrument(&key), Instrument::UpDownCounter(_));
            if !is_there && !self.refused.contains_key(&key) {
                continue;
            }
            let subject = snapshot.subjects.iter().find(|subject| subject.number == key.0).expect("a subject");
            let room = if is_host { usage.budget } else { usage.budget / 4 * 3 };
            if self.refused.insert(key.clone(), amount).is_none() {
                assert!(subject.who == Who::Overflow || before.told + newcomers >= room, "there was room for {key:?}");
                self.refusals += 1;
            }
        }
        self.told = points.0.keys().cloned().collect();
        self.check_overflow(points);
        let others = snapshot.subjects.iter().find(|subject| subject.who == Who::Overflow);
        assert!(others.is_none_or(|others| points.0.keys().all(|key| key.0 != others.number)));
        let overflows = points.overflows().len() as u64;
        assert_eq!((usage.told, usage.refused), (points.0.len() as u64, self.refusals));
        assert!(usage.told <= usage.budget + overflows, "{usage:?}");
        assert!(points.of_owners() as u64 <= usage.budget / 4 * 3, "{usage:?}");
    }

    /// The overflow is what refused series come to.
    fn check_overflow(&self, points: &Points) {
        let mut expected = BTreeMap::new();
        for metric in CATALOGUE {
            let refused = self.refused.iter().filter(|(key, _)| key.1 == metric.name).map(|(_, amount)| amount);
            let sum = match metric.instrument {
                Instrument::Gauge(_) => None,
                Instrument::UpDownCounter(_) => sum(refused),
                _ => sum(refused.chain(self.gone.get(metric.name))).filter(|sum| !sum.is_zero()),
            };
            expected.extend(sum.map(|sum| (metric.name, sum)));
        }
        assert_eq!(points.overflows(), expected);
    }
}

/// A reader of differences.
struct ByDifference {
    series: Series,
    /// What its endpoint has.
    arrived: BTreeMap<Key, Amount>,
}

impl ByDifference {
    /// With what has arrived, it tells what is told in totals.
    fn check(&mut self, snapshot: &Snapshot, totals: &Points, arrives: [bool; DELIVERIES]) {
        let temporality = self.series.temporality;
        let points = told(&mut self.series, snapshot);
        self.series.delivered(|delivery| arrives[delivery]);
        self.arrived.retain(|key, _| totals.0.contains_key(key));
        for (key, total) in &totals.0 {
            let new = points.0.get(key);
            if !is_delta(temporality, instrument(key)) {
                assert_eq!(new, Some(total), "{key:?} is no difference");
                continue;
            }
            assert!(new.is_none_or(|new| !new.is_zero()), "{key:?}: nothing is told as nothing");
            let sum = sum(self.arrived.get(key).into_iter().chain(new));
            assert_eq!(
                sum.as_ref().filter(|sum| !sum.is_zero()),
                Some(total).filter(|total| !total.is_zero()),
                "{key:?}"
            );
        }
        assert!(points.0.keys().all(|key| totals.0.contains_key(key)));
        for (key, new) in points.0 {
            if arrives[delivery(&key)] {
                let sum = sum(self.arrived.get(&key).into_iter().chain([&new])).expect("at least one");
                self.arrived.insert(key, sum);
            }
        }
    }
}

/// What happens between two collections. Owners are counted off around the circle.
#[derive(Clone, Debug)]
enum Change {
    /// One comes, at this place among the others.
    Comes { place: usize, is_overflow: bool },
    /// One goes.
    Goes(usize),
    /// One opens and loses so many connections, of which one was so many seconds in a state.
    Counts(usize, u64, f64),
    /// At ports of one so many connections wait.
    Listens(usize, Vec<u32>),
    /// One has, or has no more, a connection in CLOSE_WAIT.
    Leaves(usize, bool),
    /// So much happens to the host.
    Host(u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (any::<usize>(), prop::bool::weighted(0.1))
            .prop_map(|(place, is_overflow)| Change::Comes { place, is_overflow }),
        1 => any::<usize>().prop_map(Change::Goes),
        // Not at the edges of buckets, where the last bit decides.
        4 => (any::<usize>(), 0_u64..100, (-16.0..16.0_f64).prop_map(f64::exp2))
            .prop_map(|(which, count, seconds)| Change::Counts(which, count, seconds)),
        2 => (any::<usize>(), prop::collection::vec(0_u32..5, 0..4))
            .prop_map(|(which, waiting)| Change::Listens(which, waiting)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, has)| Change::Leaves(which, has)),
        1 => (0_u64..100).prop_map(Change::Host),
    ]
}

struct World {
    shape: Shape,
    /// Owners with their distributions.
    owners: Vec<(Subject, Distributions)>,
    /// How many there ever were.
    made: u64,
    host: Subject,
    /// What happened to the host.
    amount: u64,
}

impl World {
    fn change(&mut self, change: Change) {
        let many = self.owners.len();
        match change {
            Change::Comes { place, is_overflow } => {
                self.made += 1;
                let new = owner(self.made);
                let new = if is_overflow { Subject { who: Who::Overflow, ..new } } else { new };
                self.owners.insert(place % (many + 1), (new, Distributions::new(self.shape)));
            }
            Change::Host(amount) => {
                self.amount += amount;
                Arc::make_mut(&mut self.host.counts).opened[0] += amount;
            }
            _ if many == 0 => {}
            Change::Goes(which) => {
                self.owners.remove(which % many);
            }
            Change::Counts(which, count, seconds) => {
                let (subject, distributions) = &mut self.owners[which % many];
                let counts = Arc::make_mut(&mut subject.counts);
                counts.opened[which % 2] += count;
                *counts.failures[0].entry("timed_out").or_default() += count / 2;
                distributions.left(9, State::CloseWait, seconds);
                subject.times = times(distributions);
            }
            Change::Listens(which, waiting) => self.owners[which % many].0.listeners = listeners(&waiting),
            Change::Leaves(which, has) => self.owners[which % many].0.close_wait_ns = has.then_some(1),
        }
    }

    /// Times are whole seconds: the order in which fractions are added up would matter.
    fn status(&self, collection: u64) -> Status {
        let probe = |name| Probe {
            name,
            tracepoint: "inet_sock_set_state",
            required: true,
            verdict: Verdict::Active { rung: Rung::TpBtf, partial: false },
            refused: Vec::new(),
            cost: Some(Cost { runs: self.amount, time: Duration::from_secs(self.amount), recursion_misses: 0 }),
        };
        Status {
            time_ns: collection * 10 * SECOND,
            cpu: Duration::from_secs(self.amount),
            tracked: [self.amount % 7; State::LIMIT],
            probes: vec![probe("state"), probe("reset")],
            ..Status::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes_grows_and_goes_is_told_or_in_the_overflow_and_no_total_is_lost(
        budget in 0_usize..200,
        is_exponential in any::<bool>(),
        rounds in prop::collection::vec((prop::collection::vec(change(), 0..20), any::<[bool; DELIVERIES]>()), 1..8),
    ) {
        let shape = if is_exponential { Shape::Exponential } else { Shape::Explicit };
        let mut world = World { shape, owners: Vec::new(), made: 0, host: Subject::host(BEGAN), amount: 0 };
        let (mut series, mut books) = (Series::new(budget, Temporality::Cumulative), Books::default());
        let by_difference = |temporality| ByDifference { series: Series::new(budget, temporality), arrived: BTreeMap::new() };
        let mut differences = [Temporality::Delta, Temporality::LowMemory].map(by_difference);
        for ((changes, arrives), collection) in rounds.into_iter().zip(1..) {
            for change in changes {
                world.change(change);
            }
            let owners = world.owners.iter().map(|(subject, _)| subject.clone());
            let snapshot = moment(world.status(collection), owners, world.host.clone(), collection);
            let before = series.usage();
            let totals = told(&mut series, &snapshot);
            books.check(&snapshot, &totals, before, series.usage());
            for reader in &mut differences {
                reader.check(&snapshot, &totals, arrives);
                prop_assert_eq!(reader.series.usage(), series.usage());
            }
        }
    }
}
