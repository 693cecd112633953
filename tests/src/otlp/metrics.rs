//! Judges metrics over the whole run: what a name means never changes, and what only grows never falls.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
        metric::Data, number_data_point,
    },
};

use super::{
    allow,
    judge::{attributes, moment},
};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    unit: String,
    kind: &'static str,
}

/// The last point of one series; of one that is told by differences, what they have come to.
#[derive(Clone, Debug)]
pub struct Point {
    /// Number of its resource.
    pub resource: usize,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Value; of a histogram the count.
    pub value: f64,
    /// Since when it counts, nanoseconds since the Unix epoch.
    pub start: u64,
    time: u64,
    /// Counts of a histogram, bucket by bucket; of an exponential one those of its last point.
    pub buckets: Vec<u64>,
    /// Traces and spans of its examples.
    pub exemplars: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How metrics are to be told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Counters and histograms by differences.
    pub delta: bool,
    /// Histograms with exponential buckets.
    pub exponential: bool,
}

/// All metrics so far.
#[derive(Debug, Default)]
pub struct Series {
    shapes: BTreeMap<String, Shape>,
    /// Points so far, of all series.
    pub taken: u64,
    /// How they must be told.
    pub manner: Manner,
    points: BTreeMap<(String, usize, BTreeMap<String, String>), Point>,
}

impl Series {
    /// Names seen.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shapes.keys().map(String::as_str)
    }

    /// The last points of a metric.
    pub fn points<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Point> {
        self.points.iter().filter(move |((metric, ..), _)| metric == name).map(|(_, point)| point)
    }

    /// Sum of the last values of the series that have all these attributes.
    pub fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> f64 {
        let has = |point: &&Point| {
            wanted.iter().all(|(key, value)| point.attributes.get(*key).is_some_and(|found| found == value))
        };
        self.points(name).filter(has).map(|point| point.value).sum()
    }

    /// Takes a metric as exported, of the resource with this number; owners other than the agent may come and go.
    pub fn take(&mut self, metric: &Metric, resource: usize, is_owner: bool) -> Result<()> {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
        ensure!(metric.name.bytes().all(letters), "its name is not in lower case");
        ensure!(metric.name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase()), "its name begins oddly");
        ensure!(!metric.description.is_empty(), "no description");
        ensure!(is_ucum(&metric.unit), "unit {:?} is not UCUM", metric.unit);
        let data = metric.data.as_ref().context("no data")?;
        let kind = self.kind(data)?;
        let shape = Shape { unit: metric.unit.clone(), kind };
        let known = self.shapes.entry(metric.name.clone()).or_insert_with(|| shape.clone());
        ensure!(*known == shape, "it was {known:?} and is now {shape:?}");

        let mut met = BTreeSet::new();
        let mut points = Vec::new();
        match data {
            Data::Gauge(gauge) => points.extend(gauge.data_points.iter().map(number)),
            Data::Sum(sum) => points.extend(sum.data_points.iter().map(number)),
            Data::Histogram(histogram) => points.extend(histogram.data_points.iter().map(histogram_point)),
            Data::ExponentialHistogram(histogram) => points.extend(histogram.data_points.iter().map(exponential_point)),
            Data::Summary(_) => {}
        }
        ensure!(!points.is_empty(), "no data points");
        let delta = self.manner.delta && matches!(kind, "counter" | "histogram" | "exponential histogram");
        for point in points {
            let mut point = Point { resource, ..point? };
            let name = || format!("series {:?}", point.attributes);
            ensure!(met.insert(point.attributes.clone()), "{} comes twice in one export", name());
            ensure!(point.time != 0 && point.start <= point.time, "{} starts after its time", name());
            moment(point.time)?;
            let place = (metric.name.clone(), resource, point.attributes.clone());
            if let Some(before) = self.points.get(&place) {
                ensure!(point.time >= before.time, "{} goes back in time", name());
                if delta {
                    ensure!(point.start == before.time, "{}: a gap, or something twice", name());
                    ensure!(point.value > 0.0, "{} tells of nothing", name());
                    point.value += before.value;
                    for (now, before) in point.buckets.iter_mut().zip(&before.buckets).filter(|_| kind == "histogram") {
                        *now += before;
                    }
                } else if is_total(kind) && is_owner && point.start != before.start {
                    ensure!(point.start >= before.time, "{} starts anew before it had ended", name());
                } else if is_total(kind) {
                    ensure!(point.start == before.start, "{} starts anew though the agent did not", name());
                    ensure!(point.value >= before.value, "{} fell from {} to {}", name(), before.value, point.value);
                }
                if kind == "histogram" && !delta && point.start == before.start {
                    let fell = point.buckets.iter().zip(&before.buckets).any(|(now, before)| now < before);
                    ensure!(!fell, "a bucket of {} fell", name());
                }
            }
            ensure!(is_total(kind) == (point.start != 0), "{}: start time {}", name(), point.start);
            self.points.insert(place, point);
            self.taken += 1;
        }
        Ok(())
    }
}

impl Series {
    fn kind(&self, data: &Data) -> Result<&'static str> {
        let (temporality, kind) = match data {
            Data::Gauge(_) => return Ok("gauge"),
            Data::Sum(sum) if sum.is_monotonic => (sum.aggregation_temporality, "counter"),
            Data::Sum(sum) => (sum.aggregation_temporality, "up-down counter"),
            Data::Histogram(histogram) => (histogram.aggregation_temporality, "histogram"),
            Data::ExponentialHistogram(histogram) => (histogram.aggregation_temporality, "exponential histogram"),
            Data::Summary(_) => bail!("a summary, which OpenTelemetry keeps for old Prometheus data"),
        };
        let Manner { delta, exponential } = self.manner;
        if delta && kind != "up-down counter" {
            ensure!(temporality == AggregationTemporality::Delta as i32, "temporality {temporality}, not delta");
        } else {
            ensure!(
                temporality == AggregationTemporality::Cumulative as i32,
                "temporality {temporality}, not cumulative"
            );
        }
        ensure!(!kind.ends_with("histogram") || exponential == (kind == "exponential histogram"), "an {kind}");
        Ok(kind)
    }
}

/// Whether it counts since some time, and does not tell what is there now.
fn is_total(kind: &str) -> bool {
    !matches!(kind, "gauge" | "up-down counter")
}

fn number(point: &NumberDataPoint) -> Result<Point> {
    let value = match point.value.context("a point without a value")? {
        number_data_point::Value::AsDouble(value) => value,
        number_data_point::Value::AsInt(value) => value as f64,
    };
    ensure!(value.is_finite(), "value {value}");
    Ok(Point {
        resource: 0,
        attributes: labels(&point.attributes)?,
        value,
        start: point.start_time_unix_nano,
        time: point.time_unix_nano,
        buckets: Vec::new(),
        exemplars: exemplars(&point.exemplars)?,
    })
}

fn histogram_point(point: &HistogramDataPoint) -> Result<Point> {
    let bounds = &point.explicit_bounds;
    ensure!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "bounds {bounds:?} do not rise");
    ensure!(point.bucket_counts.len() == bounds.len() + 1, "{} buckets", point.bucket_counts.len());
    ensure!(point.bucket_counts.iter().sum::<u64>() == point.count, "its buckets hold another count");
    ensure!(point.sum.is_none_or(|sum| sum.is_finite() && sum >= 0.0), "sum {:?}", point.sum);
    Ok(Point {
        resource: 0,
        attributes: labels(&point.attributes)?,
        value: point.count as f64,
        start: point.start_time_unix_nano,
        time: point.time_unix_nano,
        buckets: point.bucket_counts.clone(),
        exemplars: exemplars(&point.exemplars)?,
    })
}

fn exponential_point(point: &ExponentialHistogramDataPoint) -> Result<Point> {
    let buckets = point.positive.as_ref().map(|buckets| buckets.bucket_counts.clone()).unwrap_or_default();
    ensure!((-10..=20).contains(&point.scale), "scale {}", point.scale);
    ensure!(buckets.len() <= 160, "{} buckets", buckets.len());
    ensure!(buckets.iter().sum::<u64>() + point.zero_count == point.count, "its buckets hold another count");
    ensure!(point.negative.as_ref().is_none_or(|buckets| buckets.bucket_counts.is_empty()), "a time below zero");
    ensure!(point.sum.is_none_or(|sum| sum.is_finite() && sum >= 0.0), "sum {:?}", point.sum);
    Ok(Point {
        resource: 0,
        attributes: labels(&point.attributes)?,
        value: point.count as f64,
        start: point.start_time_unix_nano,
        time: point.time_unix_nano,
        buckets,
        exemplars: exemplars(&point.exemplars)?,
    })
}

fn exemplars(list: &[Exemplar]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let ids = list.iter().map(|exemplar| {
        moment(exemplar.time_unix_nano)?;
        ensure!((exemplar.trace_id.len(), exemplar.span_id.len()) == (16, 8), "{exemplar:?}");
        Ok((exemplar.trace_id.clone(), exemplar.span_id.clone()))
    });
    ids.collect()
}

fn labels(list: &[KeyValue]) -> Result<BTreeMap<String, String>> {
    attributes(list, allow::TELEMETRY)?;
    let mut labels = BTreeMap::new();
    for attribute in list {
        let text = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(truth)) => truth.to_string(),
            other => bail!("attribute {} of a data point is {other:?}", attribute.key),
        };
        labels.insert(attribute.key.clone(), text);
    }
    Ok(labels)
}

/// The units that OpenTelemetry uses: a few UCUM symbols, `{annotations}`, and quotients of them.
pub fn is_ucum(unit: &str) -> bool {
    let annotation = |part: &str| {
        let inside = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        inside
            .is_some_and(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    };
    let symbol =
        |part: &str| matches!(part, "1" | "%" | "s" | "ms" | "us" | "ns" | "By" | "KiBy" | "MiBy" | "bit" | "Hz");
    unit.split('/').all(|part| symbol(part) || annotation(part))
}
