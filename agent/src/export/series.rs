//! Series: each metric of each subject with each set of attributes, counted against one budget, from one collection to the next.
//!
//! A series that finds no room in the budget is added up in the metric's overflow series (`otel.metric.overflow`, by OpenTelemetry's
//! specification of metrics), in which sums stay exact; it stays there as long as it is told. What a series has delivered is remembered
//! where differences are told and not totals.

mod data;
mod rows;

pub use data::Data;
use data::Kept;
use rows::Rows;

use super::attribute::{Attribute, Value};
use super::catalogue::{CATALOGUE, Instrument, Metric, Scope};
use super::readings::{Snapshot, View};
use super::subject::{Subject, Who};
use crate::config::Temporality;

/// Whether this metric is told by differences.
pub const fn is_delta(temporality: Temporality, instrument: Instrument) -> bool {
    match instrument {
        Instrument::Counter(_) | Instrument::CounterFloat(_) => matches!(temporality, Temporality::Delta),
        Instrument::Histogram(..) => !matches!(temporality, Temporality::Cumulative),
        // An amount that is there now has no difference that a backend could make use of.
        Instrument::UpDownCounter(_) | Instrument::Gauge(_) => false,
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

/// What is remembered of a series.
#[derive(Debug)]
enum Row {
    /// It is told.
    Told {
        /// Since when it counts, nanoseconds since the Unix epoch.
        since_unix_ns: u64,
        /// By differences: what its endpoint has.
        differences: Option<Box<Differences>>,
    },
    /// It found no room: what it had come to when it was last added to the overflow.
    Refused(Kept),
}

#[derive(Debug, Default)]
struct Differences {
    /// What was delivered last.
    kept: Kept,
    /// When that was, nanoseconds since the Unix epoch; 0 for not yet.
    kept_unix_ns: u64,
    /// What is under way, with its delivery.
    sent: Option<(usize, Kept)>,
}

const fn is_total(instrument: Instrument) -> bool {
    !matches!(instrument, Instrument::UpDownCounter(_) | Instrument::Gauge(_))
}

/// Everything that one reader is told, from one collection to the next.
#[derive(Debug)]
pub struct Series {
    rows: Rows<Row>,
    /// What refused series have come to, by the position of their metric in the catalogue. Totals stay there when their series are told no
    /// more, so that no sum of totals ever falls; other values are added up anew in each collection.
    overflow: [Kept; CATALOGUE.len()],
    temporality: Temporality,
    usage: Usage,
    /// When this collection is, and when the last one was.
    unix_ns: u64,
    told_unix_ns: u64,
    /// What is new in this collection has not counted before that time, nor was it told since then: the collection before the last.
    /// (The last one may have left out what was not looked up yet.)
    new_unix_ns: u64,
    /// The newest subject of the collections before this one: whoever is newer has not been told of yet.
    newest: u64,
    key: Vec<u8>,
}

/// The attribute of the series that takes what found no room.
const OVERFLOW: [Attribute<'static>; 1] = [("otel.metric.overflow", Value::Flag(true))];

impl Series {
    /// Of a reader that is told at most `budget` series, but for one of each metric for what exceeds it.
    pub fn new(budget: usize, temporality: Temporality) -> Self {
        Self {
            rows: Rows::new(),
            overflow: [const { Kept::Nothing }; CATALOGUE.len()],
            temporality,
            usage: Usage { budget: budget as u64, ..Usage::default() },
            unix_ns: 0,
            told_unix_ns: 0,
            new_unix_ns: 0,
            newest: 0,
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
        self.new_unix_ns = self.told_unix_ns;
        self.told_unix_ns = self.unix_ns;
        self.unix_ns = snapshot.unix_ns;
        self.rows.begin();
        for (metric, sum) in CATALOGUE.iter().zip(&mut self.overflow) {
            if !is_total(metric.instrument) {
                *sum = Kept::Nothing;
            }
        }
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
        self.newest = snapshot.subjects.iter().map(|subject| subject.number).fold(self.newest, u64::max);
        let Self { rows, usage, .. } = self;
        rows.end(|gone| usage.told -= u64::from(matches!(gone, Row::Told { .. })));
    }

    /// Makes a row for the key at hand.
    fn insert(&mut self, subject: &Subject) -> usize {
        self.usage.told += 1;
        let is_new = subject.number > self.newest;
        let since_unix_ns = if is_new { subject.since_unix_ns } else { subject.since_unix_ns.max(self.new_unix_ns) };
        self.rows.insert(&self.key, Row::Told { since_unix_ns, differences: None })
    }

    /// Deliveries for which `arrived` have been taken by the endpoint: what they told is not told again.
    pub fn delivered(&mut self, arrived: impl Fn(usize) -> bool) {
        if self.temporality == Temporality::Cumulative {
            return;
        }
        for row in self.rows.values_mut() {
            if let Row::Told { differences: Some(differences), .. } = row
                && let Some((delivery, value)) = differences.sent.take()
                && arrived(delivery)
            {
                (differences.kept, differences.kept_unix_ns) = (value, self.unix_ns);
            }
        }
    }
}

/// Adds what a refused series has come to since it was `before`.
fn refuse(instrument: Instrument, data: Data<'_>, before: &mut Kept, sum: &mut Kept) {
    match instrument {
        // Values that do not add up have no sum to be in.
        Instrument::Gauge(_) => {}
        Instrument::UpDownCounter(_) => sum.add(data),
        Instrument::Counter(_) | Instrument::CounterFloat(_) | Instrument::Histogram(..) => {
            let new = before.until(data);
            if let Some(new) = new.data() {
                sum.add(new);
                *before = Kept::of(data);
            }
        }
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
        let Self { series, metric, subject, position, .. } = self;
        write_key(&mut series.key, *position, subject.number, attributes);
        let row = if let Some(row) = series.rows.meet(&series.key) {
            row
        } else {
            // Of an owner, a series is there from its first count on: there are many of them.
            if !subject.is_host() && data.is_zero() && !matches!(metric.instrument, Instrument::UpDownCounter(_)) {
                return;
            }
            // A part is kept for the host, which is told last: its own state must be told, whatever the owners take.
            let Usage { told, budget, .. } = series.usage;
            let budget = if subject.is_host() { budget } else { budget / 4 * 3 };
            if subject.who == Who::Overflow || told >= budget {
                series.usage.refused += 1;
                series.rows.insert(&series.key, Row::Refused(Kept::Nothing))
            } else {
                series.insert(subject)
            }
        };
        if let Row::Refused(before) = series.rows.get(row) {
            return refuse(metric.instrument, data, before, &mut series.overflow[*position]);
        }
        self.send(row, data, attributes);
    }

    /// What the metric's refused series have come to, those of all subjects.
    fn tell_overflow(&mut self) {
        // It is put back: what is told may not change meanwhile.
        let sum = std::mem::take(&mut self.series.overflow[self.position]);
        if let Some(data) = sum.data() {
            write_key(&mut self.series.key, self.position, self.subject.number, &OVERFLOW);
            let row = self.series.rows.meet(&self.series.key).unwrap_or_else(|| self.series.insert(self.subject));
            self.send(row, data, &OVERFLOW);
        }
        self.series.overflow[self.position] = sum;
    }

    /// Tells a point of this row.
    fn send(&mut self, row: usize, data: Data<'_>, attributes: &[Attribute<'_>]) {
        let instrument = self.metric.instrument;
        let Row::Told { since_unix_ns, differences } = self.series.rows.get(row) else { return };
        // The clock may have been set back: then it counts since that moment.
        *since_unix_ns = (*since_unix_ns).min(self.series.unix_ns);
        let since = |unix_ns: u64| if is_total(instrument) { unix_ns } else { 0 };
        if !is_delta(self.series.temporality, instrument) {
            let since_unix_ns = since(*since_unix_ns);
            self.point(&Point { attributes, since_unix_ns, data });
            return;
        }
        let differences = differences.get_or_insert_default();
        differences.kept_unix_ns = differences.kept_unix_ns.min(self.series.unix_ns);
        let since_unix_ns = since((*since_unix_ns).max(differences.kept_unix_ns));
        let new = differences.kept.until(data);
        if let Some(new) = new.data() {
            let delivery = self.point(&Point { attributes, since_unix_ns, data: new });
            if let Row::Told { differences: Some(differences), .. } = self.series.rows.get(row) {
                differences.sent = Some((delivery, Kept::of(data)));
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

#[cfg(test)]
mod tests;
