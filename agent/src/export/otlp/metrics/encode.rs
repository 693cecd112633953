//! A collection as requests: messages of opentelemetry/proto/metrics/v1/metrics.proto, written as they are told.

use std::mem;

use super::super::envelope::{Envelope, ITEMS};
use super::super::protobuf::{Open, Room, Writer};
use super::super::request::Request;
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

/// A request with the number of points in it.
#[derive(Debug)]
pub(in crate::export::otlp) struct Filled {
    pub(in crate::export::otlp) request: Request,
    pub(in crate::export::otlp) points: usize,
}

/// Writes requests.
#[derive(Debug)]
pub(in crate::export::otlp) struct Encoder<'a> {
    names: &'a Names,
    manner: Manner,
    unix_ns: u64,
    writer: Writer,
    /// What is begun and not ended, the outermost first: resource and scope, then metric and its data.
    resource: Option<[Open; 2]>,
    metric: Option<[Open; 2]>,
    /// Whose metrics are told.
    who: Option<Who>,
    points: usize,
    filled: Vec<Filled>,
}

impl<'a> Encoder<'a> {
    /// Of points that are told at this moment.
    pub(in crate::export::otlp) fn new(names: &'a Names, manner: Manner, unix_ns: u64) -> Self {
        Self {
            names,
            manner,
            unix_ns,
            writer: Writer::default(),
            resource: None,
            metric: None,
            who: None,
            points: 0,
            filled: Vec::new(),
        }
    }

    /// All requests.
    pub(in crate::export::otlp) fn finish(mut self) -> Vec<Filled> {
        self.close();
        self.filled
    }

    fn end_metric(&mut self) {
        if let Some([metric, data]) = self.metric.take() {
            self.writer.seal(data);
            self.writer.seal(metric);
        }
    }

    fn end_subject(&mut self) {
        self.end_metric();
        if let Some(open) = self.resource.take() {
            Envelope::end(&mut self.writer, open);
        }
    }

    /// Ends the request.
    fn close(&mut self) {
        self.end_subject();
        if self.points > 0 {
            // The next one will be as long, unless it is the last.
            let length = self.writer.buffer.len();
            let request = Request::end(&mut self.writer.buffer);
            self.filled.push(Filled { request, points: mem::take(&mut self.points) });
            self.writer.buffer.reserve(length);
        }
    }

    fn begin_metric(&mut self, metric: &Metric) {
        use field::{metric as fields, points};
        if self.resource.is_none()
            && let Some(who) = &self.who
        {
            if self.writer.buffer.is_empty() {
                Request::begin(&mut self.writer.buffer);
            }
            self.resource = Some(self.names.begin(who, &mut self.writer));
        }
        let to = &mut self.writer;
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

impl Tell for Encoder<'_> {
    fn subject(&mut self, subject: &Subject) {
        self.end_subject();
        self.who = Some(subject.who.clone());
    }

    fn metric(&mut self, metric: &Metric) {
        self.end_metric();
        if self.writer.buffer.len() > LONGEST {
            self.close();
        }
        self.begin_metric(metric);
    }

    fn point(&mut self, metric: &Metric, point: &Point<'_>) -> usize {
        if self.writer.buffer.len() > LONGEST {
            self.close();
        }
        if self.metric.is_none() {
            self.begin_metric(metric);
        }
        self.points += 1;
        let (to, unix_ns, is_exponential) = (&mut self.writer, self.unix_ns, self.manner.is_exponential);
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
        self.filled.len()
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
