#![expect(clippy::float_cmp, reason = "whole numbers that pass through f64 unchanged")]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use opentelemetry::InstrumentationScope;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue as Pair;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric as Message};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ScopeMetrics};
use opentelemetry_sdk::metrics::{Aggregation, InMemoryMetricExporter, PeriodicReader, SdkMeterProvider, Stream};
use prost::Message as _;

use super::super::fixtures::{client, refused};
use super::*;
use crate::accounts::Shared;
use crate::census::{Census, Group, Listener, Place as Namespace};
use crate::clock::{Clock, Offset};
use crate::distribution::{Distributions, Place, Shape};
use crate::event::State;
use crate::export::catalogue::{CATALOGUE, KEYS, Metric, Most};
use crate::export::readings::{Snapshot, census};
use crate::export::resource::Owners;
use crate::export::subject::Subjects;
use crate::export::tests::{BEGAN, full, snapshot};
use crate::ledger::{Counts, End};
use crate::owner::directory::Known;
use crate::owner::{Directory, Identity, Logs};
use crate::status::{Board, Status};

mod owners;

pub(super) use owners::of_many_owners;

const SECOND: u64 = 1_000_000_000;

/// What one request said of one series.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Of a histogram its count.
    value: f64,
    since: u64,
    at: u64,
    /// Of a histogram, explicit or exponential.
    buckets: Vec<u64>,
    examples: usize,
}

/// Resource, metric and attributes as text to what was told.
type Read = BTreeMap<(String, String, String), Told>;

fn text(pairs: &[Pair]) -> String {
    let value = |pair: &Pair| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs: BTreeMap<&str, String> = pairs.iter().map(|pair| (pair.key.as_str(), value(pair))).collect();
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn points(metric: &Message) -> Vec<(String, Told)> {
    let number = |point: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        let value = match point.value {
            Some(Value::AsInt(value)) => value as f64,
            Some(Value::AsDouble(value)) => value,
            None => panic!("no value: {point:?}"),
        };
        let (since, at) = (point.start_time_unix_nano, point.time_unix_nano);
        (text(&point.attributes), Told { value, since, at, ..Told::default() })
    };
    match metric.data.as_ref().expect("data") {
        Data::Gauge(gauge) => gauge.data_points.iter().map(number).collect(),
        Data::Sum(sum) => sum.data_points.iter().map(number).collect(),
        Data::Histogram(histogram) => {
            let told = histogram.data_points.iter().map(|point| {
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                let told = Told {
                    value: point.count as f64,
                    since: point.start_time_unix_nano,
                    at: point.time_unix_nano,
                    buckets: point.bucket_counts.clone(),
                    examples: point.exemplars.len(),
                };
                (text(&point.attributes), told)
            });
            told.collect()
        }
        Data::ExponentialHistogram(histogram) => {
            let told = histogram.data_points.iter().map(|point| {
                let buckets = point.positive.as_ref().expect("buckets").bucket_counts.clone();
                assert_eq!(buckets.iter().sum::<u64>() + point.zero_count, point.count);
                let told = Told {
                    value: point.count as f64,
                    since: point.start_time_unix_nano,
                    at: point.time_unix_nano,
                    buckets,
                    examples: point.exemplars.len(),
                };
                (text(&point.attributes), told)
            });
            told.collect()
        }
        Data::Summary(_) => panic!("the catalogue has none"),
    }
}

fn names() -> Names {
    let resource = Resource::builder_empty().with_attribute(KeyValue::new("service.name", "synfin")).build();
    let logs = Logs { pods: "/nowhere".into(), containers: "/nowhere".into() };
    let directory = Directory::start(logs, Duration::ZERO).expect("a thread");
    let owners = Owners::new(directory, &resource);
    Names::new(&resource, Some(owners), &InstrumentationScope::builder("synfin").build())
}

/// A reader, from one export to the next.
struct Reader {
    series: Series,
    desk: Desk,
    manner: Manner,
}

impl Reader {
    fn new(budget: usize, temporality: Temporality) -> Self {
        let manner = Manner { interval: Duration::from_secs(10), budget, temporality, is_exponential: false };
        Self { series: Series::new(budget, temporality), desk: Desk::new(names()), manner }
    }

    fn requests(&mut self, snapshot: &Snapshot) -> Vec<ExportMetricsServiceRequest> {
        let mut requests = Vec::new();
        let mut encoder = Encoder::new(&mut self.desk, self.manner, snapshot.unix_ns, |request, in_it| {
            let message = request.message();
            assert!(message.len() < 3 << 20, "{} bytes", message.len());
            let request = ExportMetricsServiceRequest::decode(message).expect("an ExportMetricsServiceRequest");
            let metrics = request.resource_metrics.iter().flat_map(|group| &group.scope_metrics);
            let told: usize = metrics.flat_map(|group| &group.metrics).map(|metric| points(metric).len()).sum();
            assert_eq!(told as u64, in_it);
            requests.push(request);
        });
        self.series.collect(snapshot, &mut encoder);
        encoder.finish();
        requests
    }

    fn read(&mut self, snapshot: &Snapshot) -> Read {
        let mut read = Read::new();
        for group in self.requests(snapshot).iter().flat_map(|request| &request.resource_metrics) {
            let resource = text(&group.resource.as_ref().expect("a resource").attributes);
            for metric in group.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                for (attributes, told) in points(metric) {
                    let key = (resource.clone(), metric.name.clone(), attributes);
                    assert!(read.insert(key.clone(), told).is_none(), "{key:?} twice");
                }
            }
        }
        read
    }
}

fn cumulative(snapshot: &Snapshot) -> Read {
    Reader::new(20_000, Temporality::Cumulative).read(snapshot)
}

fn sum(read: &Read, metric: &str) -> f64 {
    read.iter().filter(|((_, name, _), _)| name == metric).map(|(_, told)| told.value).sum()
}

/// What the host's series of a metric with these attributes says.
fn host<'a>(read: &'a Read, metric: &str, attributes: &str) -> Option<&'a Told> {
    read.get(&("service.name=synfin".to_owned(), metric.to_owned(), attributes.to_owned()))
}

const TRANSITIONS: &str = "system.network.tcp.connection.transitions";
const OPENED: &str = "system.network.tcp.connection.opened";

#[test]
fn what_is_exported_is_what_the_status_says() {
    let status = full();
    let read = cumulative(&snapshot(status.clone()));
    let totals = &status.totals;
    assert_eq!(sum(&read, TRANSITIONS), totals.transitions_sum() as f64);
    assert_eq!(sum(&read, "system.network.tcp.connection.ended"), totals.counts.ended.iter().sum::<u64>() as f64);
    assert_eq!(sum(&read, "system.network.tcp.io"), totals.counts.bytes.iter().sum::<u64>() as f64);
    assert_eq!(sum(&read, "synfin.events"), status.events.iter().sum::<u64>() as f64);
    assert_eq!(sum(&read, "synfin.events.lost"), status.lost() as f64);
    // TIME_WAIT and CLOSED stand for the array's positions 6 and 7; position 0 is no state.
    assert_eq!(sum(&read, "synfin.ledger.connections"), status.tracked[1..].iter().sum::<u64>() as f64);

    let point = |name: &str, attributes: &str| host(&read, name, attributes).expect(attributes).value;
    let old_new = "network.connection.state=established,network.tcp.state.previous=syn_sent";
    assert_eq!(
        point(TRANSITIONS, old_new),
        totals.counts.transitions[State::SynSent.index()][State::Established.index()] as f64
    );
    assert_eq!(
        point("system.network.tcp.connection.failures", "error.type=timed_out,network.tcp.handshake.role=server"),
        totals.counts.failures[1]["timed_out"] as f64
    );
    assert_eq!(
        point("system.network.tcp.retransmits", "network.tcp.retransmit.type=timeout,network.tcp.segment.type=syn_ack"),
        totals.retransmits_syn_ack as f64
    );
    let sent = "network.io.direction=transmit";
    let resets = "system.network.tcp.resets";
    assert_eq!(
        point(resets, &format!("{sent},network.tcp.reset.reason=no_socket,synfin.reset.socket=false")),
        totals.resets_without_socket[&1] as f64
    );
    assert_eq!(
        point(resets, &format!("{sent},synfin.reset.socket=false")),
        totals.resets_without_socket[&synfin_common::event::NO_REASON] as f64
    );
    let probe = "synfin.probe=state,synfin.probe.rung=tp_btf,synfin.probe.verdict=active";
    assert_eq!(point("synfin.probe.status", probe), 1.0);
    let waiting = "linux.cgroup.id=9,linux.netns.inode=7,network.connection.state=time_wait,network.transport=tcp,network.type=ipv6";
    assert_eq!(point("system.network.connection.count", waiting), 1234.0);
    assert_eq!(point("system.network.tcp.accept_queue.limit", "linux.netns.inode=7,network.local.port=80"), 128.0);
    let ports = |name: &str| point(&format!("system.network.tcp.ephemeral_port.{name}"), "linux.netns.inode=7");
    assert_eq!((ports("usage"), ports("limit"), ports("utilization")), (706.0, 28_232.0, 706.0 / 28_232.0));
    assert_eq!(point("process.cpu.time", ""), status.cpu.as_secs_f64());
    let opened = host(&read, OPENED, "network.tcp.handshake.role=client").expect("opened");
    assert_eq!((opened.since, opened.at), (BEGAN, BEGAN + 10 * SECOND));
    assert_eq!(host(&read, "process.memory.usage", "").map(|told| told.since), Some(0), "an amount has no beginning");
}

fn measured(shape: Shape) -> Distributions {
    let mut distributions = Distributions::new(shape);
    let place = Place { trace: [7; 16], span: [8; 8] };
    for (connection, end) in
        [(client(), End::TimeWait), (client(), End::TimeWait), (refused(), End::Refused), (client(), End::Lost)]
    {
        distributions.add(&connection, end, Offset::default(), || Some(place));
    }
    distributions.left(101, State::CloseWait, 1.5);
    distributions
}

#[test]
fn each_attribute_is_in_the_catalogue() {
    let read = cumulative(&snapshot(Status { times: measured(Shape::Explicit).share(1), ..full() }));
    for Metric { name, attributes, .. } in CATALOGUE {
        let points: Vec<_> = read.keys().filter(|(_, metric, _)| metric == name).collect();
        if points.is_empty() {
            // Queues that do not exist have no points.
            let queues = ["otel.sdk.", "synfin.spans."];
            assert!(queues.iter().any(|prefix| name.starts_with(prefix)), "{name} is not exported");
            continue;
        }
        let keys: HashSet<&str> = points
            .iter()
            .flat_map(|(_, _, pairs)| pairs.split(',').filter(|pair| !pair.is_empty()))
            .filter_map(|pair| pair.split_once('=').map(|(key, _)| key))
            .collect();
        assert_eq!(keys, attributes.iter().copied().collect::<HashSet<_>>(), "{name}");
    }
    assert!(read.keys().all(|(_, name, _)| CATALOGUE.iter().any(|metric| metric.name == *name)));
}

/// More namespaces, cgroups, ports and reasons than there is room for.
fn crowded() -> Status {
    let mut status = full();
    let mut census = Census::clone(status.census.as_ref().expect("a census"));
    let (group, listener) = (census.sums.groups[0], census.sums.listeners[0]);
    census.sums.groups = (1..=1_000)
        .flat_map(|netns| State::ALL.map(|state| Group { netns, cgroup: u64::from(netns), state, ..group }))
        .collect();
    census.sums.listeners =
        (1..=1_000).map(|netns| Listener { netns, port: netns as u16, cgroup: u64::from(netns), ..listener }).collect();
    let place = census.places[0].clone();
    census.places = (1..=1_000).map(|inode| Namespace { inode, ..place.clone() }).collect();
    status.census = Some(Arc::new(census));
    status
}

#[test]
fn no_attribute_has_more_values_than_the_catalogue_allows() {
    let mut reader = Reader::new(1_000_000, Temporality::Cumulative);
    let read = reader.read(&snapshot(Status { times: measured(Shape::Explicit).share(1), ..crowded() }));
    let mut values: BTreeMap<(&str, &str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (resource, metric, pairs) in read.keys() {
        for (key, value) in pairs.split(',').filter_map(|pair| pair.split_once('=')) {
            values.entry((resource, metric, key)).or_default().insert(value);
        }
    }
    for ((_, metric, key), values) in &values {
        let bound = KEYS.iter().find(|row| row.name == *key).expect("a key of the catalogue").most;
        if let Most::Values(most) = bound {
            assert!(values.len() <= most, "{metric}: {key} has {} values, at most {most} are allowed", values.len());
        }
    }
    // What the catalogue cannot know of: it is nearer to the end of the data's way.
    let bound = |name| KEYS.iter().find(|key| key.name == name).map(|key| key.most);
    assert_eq!(bound("synfin.probe"), Some(Most::Values(crate::probes::PROBES.len())));
    assert_eq!(bound("synfin.probe.rung"), Some(Most::Values(crate::rung::Rung::ALL.len())));
    // The crowd is one: it reaches the bounds.
    let largest = |key| values.iter().filter(|((_, _, own), _)| *own == key).map(|(_, values)| values.len()).max();
    let reached = ["linux.cgroup.id", "linux.netns.inode", "network.local.port"].map(largest);
    assert_eq!(reached, [Some(census::PLACES), Some(census::LISTENERS), Some(census::LISTENERS)]);
}

#[test]
fn each_metric_says_what_it_is() {
    let mut reader = Reader::new(20_000, Temporality::Cumulative);
    let requests = reader.requests(&snapshot(Status { times: measured(Shape::Explicit).share(1), ..full() }));
    let metrics = requests.iter().flat_map(|request| &request.resource_metrics).flat_map(|group| &group.scope_metrics);
    for metric in metrics.flat_map(|group| &group.metrics) {
        let row = CATALOGUE.iter().find(|row| row.name == metric.name).expect("in the catalogue");
        assert_eq!((metric.unit.as_str(), metric.description.as_str()), (row.unit, row.description));
        let cumulative = AggregationTemporality::Cumulative as i32;
        let (kind, monotonic) = match metric.data.as_ref().expect("data") {
            Data::Sum(sum) => {
                assert_eq!(sum.aggregation_temporality, cumulative);
                ("sum", sum.is_monotonic)
            }
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, cumulative);
                ("histogram", false)
            }
            Data::Gauge(_) => ("gauge", false),
            other => panic!("{other:?}"),
        };
        let expected = match row.instrument.name() {
            "Counter" => ("sum", true),
            "UpDownCounter" => ("sum", false),
            "Gauge" => ("gauge", false),
            _ => ("histogram", false),
        };
        assert_eq!((kind, monotonic), expected, "{}", metric.name);
    }
}

#[test]
fn distributions_take_what_was_measured_with_examples() {
    for is_exponential in [false, true] {
        let shape = if is_exponential { Shape::Exponential } else { Shape::Explicit };
        let mut reader = Reader::new(20_000, Temporality::Cumulative);
        reader.manner.is_exponential = is_exponential;
        let status = Status { times: measured(shape).share(1), peers: Arc::default(), ..full() };
        let read = reader.read(&snapshot(status));
        let count = |metric: &str, attributes: &str| host(&read, metric, attributes).map(|told| told.value);
        let role = "network.tcp.handshake.role=client";
        assert_eq!(count("system.network.tcp.handshake.duration", role), Some(3.0));
        let ended = |end: &str| {
            count("system.network.tcp.connection.duration", &format!("network.connection.end={end},{role}"))
        };
        assert_eq!((ended("time_wait"), ended("refused"), ended("lost")), (Some(2.0), Some(1.0), None));
        assert_eq!(count("system.network.tcp.rtt.duration", role), Some(3.0));
        assert_eq!(count("system.network.tcp.state.duration", "network.connection.state=close_wait"), Some(1.0));
        let handshake = host(&read, "system.network.tcp.handshake.duration", role).expect("handshakes");
        assert_eq!(handshake.examples, 1, "one bucket has values");
        assert_eq!(handshake.buckets.iter().filter(|count| **count > 0).count(), 1);
    }
}

#[test]
fn exponential_buckets_are_those_of_the_sdk() {
    let values = [0.0001, 0.00025, 0.003, 0.0031, 0.5, 1.0, 2.0, 17.0, 86_400.0, 0.0];
    let exporter = InMemoryMetricExporter::default();
    let view = |_: &opentelemetry_sdk::metrics::Instrument| {
        Stream::builder()
            .with_aggregation(Aggregation::Base2ExponentialHistogram {
                max_size: 160,
                max_scale: 20,
                record_min_max: false,
            })
            .build()
            .ok()
    };
    let provider = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter.clone()).build())
        .with_view(view)
        .build();
    let histogram = provider.meter("oracle").f64_histogram("x").build();
    for many in 1..=values.len() {
        histogram.record(values[many - 1], &[]);
        provider.force_flush().unwrap();
        let exports = exporter.get_finished_metrics().unwrap();
        let metric = exports.last().unwrap().scope_metrics().flat_map(ScopeMetrics::metrics).next().unwrap();
        let AggregatedMetrics::F64(MetricData::ExponentialHistogram(sdk)) = metric.data() else { panic!("{metric:?}") };
        let sdk = sdk.data_points().next().unwrap();
        let mut ours = crate::distribution::Exponential::default();
        values[..many].iter().for_each(|value| ours.add(*value));
        let filled = |offset: i32, counts: Vec<u64>| -> Vec<(i32, u64)> {
            let indexed = counts.into_iter().enumerate().map(|(at, count)| (offset + at as i32, count));
            indexed.filter(|(_, count)| *count > 0).collect()
        };
        let buckets = sdk.positive_bucket();
        assert_eq!(
            (ours.scale, filled(ours.offset, ours.counts), ours.zero),
            (i32::from(sdk.scale()), filled(buckets.offset(), buckets.counts().collect()), sdk.zero_count()),
            "{many} values"
        );
    }
}

#[test]
fn distributions_by_difference() {
    for temporality in [Temporality::Delta, Temporality::LowMemory] {
        let mut reader = Reader::new(20_000, temporality);
        let mut distributions = measured(Shape::Explicit);
        let mut states = || {
            let read = reader.read(&snapshot(Status { times: distributions.share(1), ..full() }));
            reader.series.delivered(|_| true);
            distributions.left(101, State::CloseWait, 50.0);
            let told = host(&read, "system.network.tcp.state.duration", "network.connection.state=close_wait").cloned();
            (told.map(|told| told.value), host(&read, OPENED, "network.tcp.handshake.role=client").is_some())
        };
        assert_eq!(states(), (Some(1.0), true));
        assert_eq!(
            states(),
            (Some(1.0), temporality == Temporality::LowMemory),
            "one more, and counters by preference"
        );
    }
}
