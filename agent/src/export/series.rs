//! Series: each metric of each subject with each set of attributes, counted against one budget, from one collection to the next.
//!
//! A series that finds no room in the budget is added up in the metric's overflow series (`otel.metric.overflow`, by OpenTelemetry's
//! specification of metrics), in which sums stay exact; it stays there as long as it is told. What a series has delivered is remembered
//! where differences are told and not totals.

use hashbrown::HashMap;

use super::attribute::{Attribute, Value};
use super::catalogue::{CATALOGUE, Instrument, Metric, Scope};
use super::readings::{Snapshot, View};
use super::subject::{Subject, Who};
use crate::config::Temporality;
use crate::distribution::Histogram;

/// Whether this metric is told by differences.
pub const fn is_delta(temporality: Temporality, instrument: Instrument) -> bool {
    match instrument {
        Instrument::Counter(_) | Instrument::CounterFloat(_) => matches!(temporality, Temporality::Delta),
        Instrument::Histogram(..) => !matches!(temporality, Temporality::Cumulative),
        // An amount that is there now has no difference that a backend could make use of.
        Instrument::UpDownCounter(_) | Instrument::Gauge(_) => false,
    }
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Whole.
    Integer(i64),
    /// With fractions.
    Real(f64),
    /// A distribution.
    Distribution(&'a Histogram),
}

impl Data<'_> {
    fn is_zero(self) -> bool {
        match self {
            Self::Integer(value) => value == 0,
            Self::Real(value) => value == 0.0,
            Self::Distribution(histogram) => histogram.count() == 0,
        }
    }
}

/// The same, kept.
#[derive(Clone, Debug, Default, PartialEq)]
enum Kept {
    #[default]
    Nothing,
    Integer(i64),
    Real(f64),
    Distribution(Box<Histogram>),
}

impl Kept {
    fn of(data: Data<'_>) -> Self {
        match data {
            Data::Integer(value) => Self::Integer(value),
            Data::Real(value) => Self::Real(value),
            Data::Distribution(histogram) => Self::Distribution(Box::new(histogram.clone())),
        }
    }

    fn data(&self) -> Option<Data<'_>> {
        match self {
            Self::Nothing => None,
            Self::Integer(value) => Some(Data::Integer(*value)),
            Self::Real(value) => Some(Data::Real(*value)),
            Self::Distribution(histogram) => Some(Data::Distribution(histogram)),
        }
    }

    fn add(&mut self, data: Data<'_>) {
        match (&mut *self, data) {
            (Self::Integer(sum), Data::Integer(value)) => *sum += value,
            (Self::Real(sum), Data::Real(value)) => *sum += value,
            (Self::Distribution(sum), Data::Distribution(histogram)) => sum.merge(histogram),
            (_, data) => *self = Self::of(data),
        }
    }

    /// What has come since it was `self`.
    fn until(&self, now: Data<'_>) -> Self {
        match (self, now) {
            (Self::Integer(before), Data::Integer(now)) => Self::Integer(now - before),
            (Self::Real(before), Data::Real(now)) => Self::Real(now - before),
            (Self::Distribution(before), Data::Distribution(now)) => Self::Distribution(Box::new(now.since(before))),
            (_, now) => Self::of(now),
        }
    }
}

/// A point as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// What it belongs to.
    pub attributes: &'a [Attribute<'a>],
    /// From when on it counts, nanoseconds since the Unix epoch; of what is no total, 0.
    pub since_unix_ns: u64,
    /// Its value.
    pub data: Data<'a>,
}

/// Takes what is told: a subject, then each of its metrics that has points, with all of these. The host comes last.
pub trait Tell {
    /// The next subject.
    fn subject(&mut self, subject: &Subject);
    /// The next metric of it.
    fn metric(&mut self, metric: &Metric);
    /// The next point of that. Answers in which delivery it goes out, for [`Series::delivered`].
    fn point(&mut self, metric: &Metric, point: &Point<'_>) -> usize;
}

/// How the budget stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Series that are told, overflow included.
    pub told: u64,
    /// Most of them.
    pub budget: u64,
    /// Series that found no room, a total.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Row {
    /// The last collection that met it.
    met: u64,
    /// Since when it counts, nanoseconds since the Unix epoch.
    since_unix_ns: u64,
    /// By differences: what was delivered last.
    kept: Kept,
    /// When that was, nanoseconds since the Unix epoch; 0 for not yet.
    kept_unix_ns: u64,
    /// By differences: what is under way, with its delivery.
    sent: Option<(usize, Kept)>,
}

impl Row {
    /// From when on its next point counts.
    fn since_unix_ns(&self, instrument: Instrument) -> u64 {
        if is_total(instrument) { self.since_unix_ns.max(self.kept_unix_ns) } else { 0 }
    }
}

/// A metric's refused series.
#[derive(Debug, Default)]
struct Overflow {
    /// With the last collection that met each, and its value then.
    refused: HashMap<Box<[u8]>, (u64, Kept)>,
    /// What those that are told no more had come to.
    gone: Kept,
}

impl Overflow {
    /// What all have come to, when a collection has met all that there are.
    fn sum(&mut self, collection: u64, is_total: bool) -> Kept {
        let Self { refused, gone } = self;
        refused.retain(|_, (met, value)| {
            let stays = *met == collection;
            // A total stays in the sum, so that the sum never falls.
            if let (false, true, Some(data)) = (stays, is_total, value.data()) {
                gone.add(data);
            }
            stays
        });
        let mut sum = gone.clone();
        for data in refused.values().filter_map(|(_, value)| value.data()) {
            sum.add(data);
        }
        sum
    }
}

const fn is_total(instrument: Instrument) -> bool {
    !matches!(instrument, Instrument::UpDownCounter(_) | Instrument::Gauge(_))
}

/// Everything that one reader is told, from one collection to the next.
#[derive(Debug)]
pub struct Series {
    rows: HashMap<Box<[u8]>, Row>,
    overflow: HashMap<&'static str, Overflow>,
    temporality: Temporality,
    usage: Usage,
    collections: u64,
    /// When this collection is, and when the last one was.
    unix_ns: u64,
    told_unix_ns: u64,
    /// What is new in this collection has not counted before that time, nor was it told since then: the collection before the last.
    /// (The last one may have left out what was not looked up yet.)
    new_unix_ns: u64,
    key: Vec<u8>,
}

/// The attribute of the series that takes what found no room.
const OVERFLOW: [Attribute<'static>; 1] = [("otel.metric.overflow", Value::Flag(true))];

impl Series {
    /// Of a reader that is told at most `budget` series, but for one of each metric for what exceeds it.
    pub fn new(budget: usize, temporality: Temporality) -> Self {
        Self {
            rows: HashMap::new(),
            overflow: HashMap::new(),
            temporality,
            usage: Usage { budget: budget as u64, ..Usage::default() },
            collections: 0,
            unix_ns: 0,
            told_unix_ns: 0,
            new_unix_ns: 0,
            key: Vec::new(),
        }
    }

    /// How the budget stood after the last collection.
    #[cfg(test)]
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// Tells everything of this moment.
    pub fn collect(&mut self, snapshot: &Snapshot, to: &mut impl Tell) {
        // Of the last time: how many there are is known when all have been told.
        let snapshot = &Snapshot { series: self.usage, ..snapshot.clone() };
        self.collections += 1;
        self.new_unix_ns = self.told_unix_ns;
        self.told_unix_ns = self.unix_ns;
        self.unix_ns = snapshot.unix_ns;
        for subject in snapshot.subjects.iter() {
            let view = View { snapshot, subject };
            let mut has_begun = false;
            for (position, metric) in CATALOGUE.iter().enumerate() {
                if metric.scope == Scope::Host && !subject.is_host() {
                    continue;
                }
                let (series, has_begun) = (&mut *self, &mut has_begun);
                let mut teller = Teller { series, to, subject, metric, position, has_begun, is_headed: false };
                match metric.instrument {
                    Instrument::Counter(read) => {
                        read(&view, &mut |value, attributes| teller.tell(Data::Integer(value as i64), attributes));
                    }
                    Instrument::UpDownCounter(read) => {
                        read(&view, &mut |value, attributes| teller.tell(Data::Integer(value), attributes));
                    }
                    Instrument::CounterFloat(read) | Instrument::Gauge(read) => {
                        read(&view, &mut |value, attributes| teller.tell(Data::Real(value), attributes));
                    }
                    Instrument::Histogram(_, read) => {
                        read(&view, &mut |value, attributes| teller.tell(Data::Distribution(value), attributes));
                    }
                }
                if subject.is_host() {
                    teller.tell_overflow();
                }
            }
        }
        self.forget();
    }

    /// Deliveries for which `arrived` have been taken by the endpoint: what they told is not told again.
    pub fn delivered(&mut self, arrived: impl Fn(usize) -> bool) {
        for row in self.rows.values_mut() {
            if let Some((delivery, value)) = row.sent.take()
                && arrived(delivery)
            {
                (row.kept, row.kept_unix_ns) = (value, self.unix_ns);
            }
        }
    }

    /// Lets go of series that are told no more.
    fn forget(&mut self) {
        let collection = self.collections;
        self.rows.retain(|_, row| row.met == collection);
        self.usage.told = self.rows.len() as u64;
    }
}

/// Key of a series: position of its metric in the catalogue, subject and attributes.
fn write_key(key: &mut Vec<u8>, position: usize, subject: u64, attributes: &[Attribute<'_>]) {
    key.clear();
    key.extend_from_slice(&(position as u16).to_ne_bytes());
    key.extend_from_slice(&subject.to_ne_bytes());
    for (name, value) in attributes {
        key.extend_from_slice(name.as_bytes());
        match value {
            Value::Text(text) => {
                key.push(0xf8); // no byte of UTF-8
                key.extend_from_slice(text.as_bytes());
                key.push(0xf9);
            }
            Value::Flag(flag) => key.extend_from_slice(&[0xfa, (*flag).into()]),
            Value::Integer(integer) => {
                key.push(0xfb);
                key.extend_from_slice(&integer.to_ne_bytes());
            }
            Value::Real(real) => {
                key.push(0xfc);
                key.extend_from_slice(&real.to_bits().to_ne_bytes());
            }
        }
    }
}

/// Tells the points of one metric of one subject.
struct Teller<'a, T> {
    series: &'a mut Series,
    to: &'a mut T,
    subject: &'a Subject,
    metric: &'static Metric,
    position: usize,
    has_begun: &'a mut bool,
    is_headed: bool,
}

impl<T: Tell> Teller<'_, T> {
    fn tell(&mut self, data: Data<'_>, attributes: &[Attribute<'_>]) {
        let Self { series, metric, subject, .. } = self;
        write_key(&mut series.key, self.position, subject.number, attributes);
        let collection = series.collections;
        if let Some(row) = series.rows.get_mut(&*series.key) {
            row.met = collection;
            let since_unix_ns = row.since_unix_ns(metric.instrument);
            return self.send(data, attributes, since_unix_ns);
        }
        let refused = series.overflow.get_mut(metric.name).map(|overflow| &mut overflow.refused);
        if let Some(row) = refused.and_then(|refused| refused.get_mut(&*series.key)) {
            *row = (collection, Self::in_sum(metric, data));
            return;
        }
        // Of an owner, a series is there from its first count on: there are many of them.
        if !subject.is_host() && data.is_zero() && !matches!(metric.instrument, Instrument::UpDownCounter(_)) {
            return;
        }
        let key = series.key.as_slice().into();
        // A part is kept for the host, which is told last: its own state must be told, whatever the owners take.
        let Usage { told, budget, .. } = series.usage;
        let budget = if subject.is_host() { budget } else { budget / 4 * 3 };
        if subject.who == Who::Overflow || told >= budget {
            series.usage.refused += 1;
            let row = (collection, Self::in_sum(metric, data));
            series.overflow.entry(metric.name).or_default().refused.insert(key, row);
            return;
        }
        series.usage.told += 1;
        let since_unix_ns = subject.since_unix_ns.max(series.new_unix_ns);
        let row = Row { met: collection, since_unix_ns, ..Row::default() };
        let since_unix_ns = row.since_unix_ns(metric.instrument);
        series.rows.insert(key, row);
        self.send(data, attributes, since_unix_ns);
    }

    /// A refused value as the sum takes it: values that do not add up have none to be in.
    fn in_sum(metric: &Metric, data: Data<'_>) -> Kept {
        if matches!(metric.instrument, Instrument::Gauge(_)) { Kept::Nothing } else { Kept::of(data) }
    }

    /// What the metric's refused series have come to, those of all subjects.
    fn tell_overflow(&mut self) {
        let Some(overflow) = self.series.overflow.get_mut(self.metric.name) else { return };
        let sum = overflow.sum(self.series.collections, is_total(self.metric.instrument));
        let Some(data) = sum.data() else { return };
        write_key(&mut self.series.key, self.position, self.subject.number, &OVERFLOW);
        let key = self.series.key.as_slice();
        let row = self.series.rows.raw_entry_mut().from_key(key);
        let since_unix_ns = self.subject.since_unix_ns.max(self.series.new_unix_ns);
        let (_, row) = row.or_insert_with(|| (key.into(), Row { since_unix_ns, ..Row::default() }));
        row.met = self.series.collections;
        let since_unix_ns = row.since_unix_ns(self.metric.instrument);
        self.send(data, &OVERFLOW, since_unix_ns);
    }

    /// Tells a point; the key of its row is at hand.
    fn send(&mut self, data: Data<'_>, attributes: &[Attribute<'_>], since_unix_ns: u64) {
        // The clock may have been set back.
        let since_unix_ns = since_unix_ns.min(self.series.unix_ns);
        if !is_delta(self.series.temporality, self.metric.instrument) {
            self.point(&Point { attributes, since_unix_ns, data });
            return;
        }
        let Some(row) = self.series.rows.get(&*self.series.key) else { return };
        let new = row.kept.until(data);
        if let Some(new) = new.data().filter(|new| !new.is_zero()) {
            let delivery = self.point(&Point { attributes, since_unix_ns, data: new });
            if let Some(row) = self.series.rows.get_mut(&*self.series.key) {
                row.sent = Some((delivery, Kept::of(data)));
            }
        }
    }

    fn point(&mut self, point: &Point<'_>) -> usize {
        if !std::mem::replace(self.has_begun, true) {
            self.to.subject(self.subject);
        }
        if !std::mem::replace(&mut self.is_headed, true) {
            self.to.metric(self.metric);
        }
        self.to.point(self.metric, point)
    }
}
