//! A collection as requests: messages of opentelemetry/proto/metrics/v1/metrics.proto, written as they are told.

use std::mem;

use super::super::envelope::{Envelope, ITEMS};
use super::super::protobuf::{Open, Room, Writer};
use super::super::request::{Draft, Request};
use super::super::span::attribute;
use super::Manner;
use super::names::Names;
use crate::distribution::{Example, Exponential, Histogram};
use crate::export::attribute::Attribute;
use crate::export::catalogue::{Instrument, Metric};
use crate::export::series::{Data, Point, Tell, is_delta};
use crate::export::subject::{Subject, Who};

/// A request ends after the point with which it becomes longer. Far below the 4 MiB that gRPC's receivers take by default.
const LONGEST: usize = 1 << 20;

/// Numbers of the fields.
mod field {
    /// `Metric`
    pub(super) mod metric {
        pub(crate) const NAME: u32 = 1;
        pub(crate) const DESCRIPTION: u32 = 2;
        pub(crate) const UNIT: u32 = 3;
        pub(crate) const GAUGE: u32 = 5;
        pub(crate) const SUM: u32 = 7;
        pub(crate) const HISTOGRAM: u32 = 9;
        pub(crate) const EXPONENTIAL_HISTOGRAM: u32 = 10;
    }
    /// `Gauge`, `Sum`, `Histogram`, `ExponentialHistogram`
    pub(super) mod points {
        pub(crate) const DATA_POINTS: u32 = 1;
        pub(crate) const AGGREGATION_TEMPORALITY: u32 = 2;
        pub(crate) const IS_MONOTONIC: u32 = 3;
    }
    /// `NumberDataPoint`
    pub(super) mod number {
        pub(crate) const START_TIME_UNIX_NANO: u32 = 2;
        pub(crate) const TIME_UNIX_NANO: u32 = 3;
        pub(crate) const AS_DOUBLE: u32 = 4;
        pub(crate) const AS_INT: u32 = 6;
        pub(crate) const ATTRIBUTES: u32 = 7;
    }
    /// `HistogramDataPoint`
    pub(super) mod histogram {
        pub(crate) const START_TIME_UNIX_NANO: u32 = 2;
        pub(crate) const TIME_UNIX_NANO: u32 = 3;
        pub(crate) const COUNT: u32 = 4;
        pub(crate) const SUM: u32 = 5;
        pub(crate) const BUCKET_COUNTS: u32 = 6;
        pub(crate) const EXPLICIT_BOUNDS: u32 = 7;
        pub(crate) const EXEMPLARS: u32 = 8;
        pub(crate) const ATTRIBUTES: u32 = 9;
    }
    /// `ExponentialHistogramDataPoint`
    pub(super) mod exponential {
        pub(crate) const ATTRIBUTES: u32 = 1;
        pub(crate) const START_TIME_UNIX_NANO: u32 = 2;
        pub(crate) const TIME_UNIX_NANO: u32 = 3;
        pub(crate) const COUNT: u32 = 4;
        pub(crate) const SUM: u32 = 5;
        pub(crate) const SCALE: u32 = 6;
        pub(crate) const ZERO_COUNT: u32 = 7;
        pub(crate) const POSITIVE: u32 = 8;
        pub(crate) const EXEMPLARS: u32 = 11;
        /// Of `Buckets`
        pub(crate) const OFFSET: u32 = 1;
        pub(crate) const BUCKET_COUNTS: u32 = 2;
    }
    /// `Exemplar`
    pub(super) mod exemplar {
        pub(crate) const TIME_UNIX_NANO: u32 = 2;
        pub(crate) const AS_DOUBLE: u32 = 3;
        pub(crate) const SPAN_ID: u32 = 4;
        pub(crate) const TRACE_ID: u32 = 5;
    }
}

/// `AGGREGATION_TEMPORALITY_DELTA`
const DELTA: u64 = 1;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
const CUMULATIVE: u64 = 2;

/// What the encoder keeps from one collection to the next.
#[derive(Debug)]
pub(in crate::export::otlp) struct Desk {
    names: Names,
    draft: Draft,
}

impl Desk {
    pub(in crate::export::otlp) fn new(names: Names) -> Self {
        Self { names, draft: Draft::default() }
    }
}

/// Writes requests. Each is sent as soon as it is full, so that one buffer is enough for all.
#[derive(Debug)]
pub(in crate::export::otlp) struct Encoder<'a, S> {
    desk: &'a mut Desk,
    manner: Manner,
    unix_ns: u64,
    /// Takes a request with the number of points in it.
    send: S,
    sent: usize,
    /// What is begun and not ended, the outermost first: resource and scope, then metric and its data.
    resource: Option<[Open; 2]>,
    metric: Option<[Open; 2]>,
    /// Whose metrics are told.
    who: Option<Who>,
    points: u64,
}

impl<'a, S: FnMut(&Request, u64)> Encoder<'a, S> {
    /// Of points that are told at this moment; each request goes to `send`, with the number of points in it.
    pub(in crate::export::otlp) const fn new(desk: &'a mut Desk, manner: Manner, unix_ns: u64, send: S) -> Self {
        Self { desk, manner, unix_ns, send, sent: 0, resource: None, metric: None, who: None, points: 0 }
    }

    /// Sends what is left.
    pub(in crate::export::otlp) fn finish(mut self) {
        self.close();
    }

    fn end_metric(&mut self) {
        if let Some([metric, data]) = self.metric.take() {
            let to = self.desk.draft.writer();
            to.seal(data);
            to.seal(metric);
        }
    }

    fn end_subject(&mut self) {
        self.end_metric();
        if let Some(open) = self.resource.take() {
            Envelope::end(self.desk.draft.writer(), open);
        }
    }

    /// Ends the request.
    fn close(&mut self) {
        self.end_subject();
        if self.points > 0 {
            (self.send)(&self.desk.draft.end(), mem::take(&mut self.points));
            self.sent += 1;
        }
    }

    fn begin_metric(&mut self, metric: &Metric) {
        use field::{metric as fields, points};
        let Desk { names, draft } = &mut *self.desk;
        if self.resource.is_none()
            && let Some(who) = &self.who
        {
            if draft.length() == 0 {
                draft.begin();
            }
            self.resource = Some(names.begin(who, draft.writer()));
        }
        let to = draft.writer();
        let outer = to.open(ITEMS, Room::Middle);
        to.bytes(fields::NAME, metric.name.as_bytes());
        to.bytes(fields::DESCRIPTION, metric.description.as_bytes());
        to.bytes(fields::UNIT, metric.unit.as_bytes());
        let delta = is_delta(self.manner.temporality, metric.instrument);
        let temporality = if delta { DELTA } else { CUMULATIVE };
        let kind = match metric.instrument {
            Instrument::Counter(_) | Instrument::CounterFloat(_) | Instrument::UpDownCounter(_) => fields::SUM,
            Instrument::Gauge(_) => fields::GAUGE,
            Instrument::Histogram(..) if self.manner.is_exponential => fields::EXPONENTIAL_HISTOGRAM,
            Instrument::Histogram(..) => fields::HISTOGRAM,
        };
        let data = to.open(kind, Room::Middle);
        if kind != fields::GAUGE {
            to.varint(points::AGGREGATION_TEMPORALITY, temporality);
        }
        if matches!(metric.instrument, Instrument::Counter(_) | Instrument::CounterFloat(_)) {
            to.varint(points::IS_MONOTONIC, 1);
        }
        self.metric = Some([outer, data]);
    }
}

impl<S: FnMut(&Request, u64)> Tell for Encoder<'_, S> {
    fn subject(&mut self, subject: &Subject) {
        self.end_subject();
        self.who = Some(subject.who.clone());
    }

    fn metric(&mut self, metric: &Metric) {
        self.end_metric();
        if self.desk.draft.length() > LONGEST {
            self.close();
        }
        self.begin_metric(metric);
    }

    fn point(&mut self, metric: &Metric, point: &Point<'_>) -> usize {
        if self.desk.draft.length() > LONGEST {
            self.close();
        }
        if self.metric.is_none() {
            self.begin_metric(metric);
        }
        self.points += 1;
        let (to, unix_ns, is_exponential) = (self.desk.draft.writer(), self.unix_ns, self.manner.is_exponential);
        let room = if let Data::Distribution(_) = point.data { Room::Middle } else { Room::Small };
        to.message(field::points::DATA_POINTS, room, |to| match (point.data, metric.instrument) {
            (Data::Integer(value), _) => {
                number(to, point, unix_ns, |to| to.fixed64(field::number::AS_INT, value.cast_unsigned()));
            }
            (Data::Real(value), _) => number(to, point, unix_ns, |to| to.double(field::number::AS_DOUBLE, value)),
            (Data::Distribution(all), Instrument::Histogram(..)) if is_exponential => {
                let none = Exponential::default();
                exponential(to, point, unix_ns, all, all.exponential.as_deref().unwrap_or(&none));
            }
            (Data::Distribution(all), Instrument::Histogram(bounds, _)) => explicit(to, point, unix_ns, all, bounds),
            (Data::Distribution(_), _) => {}
        });
        self.sent
    }
}

fn attributes(to: &mut Writer, field: u32, attributes: &[Attribute<'_>]) {
    for (key, value) in attributes {
        attribute(to, field, key, *value);
    }
}

fn number(to: &mut Writer, point: &Point<'_>, unix_ns: u64, value: impl FnOnce(&mut Writer)) {
    use field::number;
    if point.since_unix_ns != 0 {
        to.fixed64(number::START_TIME_UNIX_NANO, point.since_unix_ns);
    }
    to.fixed64(number::TIME_UNIX_NANO, unix_ns);
    value(to);
    attributes(to, number::ATTRIBUTES, point.attributes);
}

fn explicit(to: &mut Writer, point: &Point<'_>, unix_ns: u64, all: &Histogram, bounds: &[f64]) {
    use field::histogram;
    to.fixed64(histogram::START_TIME_UNIX_NANO, point.since_unix_ns);
    to.fixed64(histogram::TIME_UNIX_NANO, unix_ns);
    to.fixed64(histogram::COUNT, all.count());
    to.double(histogram::SUM, all.sum());
    to.packed64(histogram::BUCKET_COUNTS, all.buckets.iter().map(|bucket| bucket.count));
    to.packed64(histogram::EXPLICIT_BOUNDS, bounds.iter().map(|bound| bound.to_bits()));
    examples(to, histogram::EXEMPLARS, all);
    attributes(to, histogram::ATTRIBUTES, point.attributes);
}

fn exponential(to: &mut Writer, point: &Point<'_>, unix_ns: u64, all: &Histogram, buckets: &Exponential) {
    use field::exponential;
    attributes(to, exponential::ATTRIBUTES, point.attributes);
    to.fixed64(exponential::START_TIME_UNIX_NANO, point.since_unix_ns);
    to.fixed64(exponential::TIME_UNIX_NANO, unix_ns);
    to.fixed64(exponential::COUNT, all.count());
    to.double(exponential::SUM, all.sum());
    to.zigzag(exponential::SCALE, buckets.scale);
    to.fixed64(exponential::ZERO_COUNT, buckets.zero);
    to.message(exponential::POSITIVE, Room::Middle, |to| {
        to.zigzag(exponential::OFFSET, buckets.offset);
        to.packed(exponential::BUCKET_COUNTS, buckets.counts.iter().copied());
    });
    examples(to, exponential::EXEMPLARS, all);
}

fn examples(to: &mut Writer, field: u32, all: &Histogram) {
    use field::exemplar;
    for Example { value, unix_ns, place } in all.buckets.iter().filter_map(|bucket| bucket.example.as_deref()) {
        to.message(field, Room::Small, |to| {
            to.fixed64(exemplar::TIME_UNIX_NANO, *unix_ns);
            to.double(exemplar::AS_DOUBLE, *value);
            to.bytes(exemplar::SPAN_ID, &place.span);
            to.bytes(exemplar::TRACE_ID, &place.trace);
        });
    }
}
