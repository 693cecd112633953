#![expect(clippy::float_cmp, reason = "whole numbers that pass through f64 unchanged")]

use std::collections::{BTreeMap, HashSet};

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::InMemoryMetricExporter;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ScopeMetrics};

use super::super::fixtures::{client, refused};
use super::*;
use crate::event::State;
use crate::export::tests::full;
use crate::status::{Board, Status};

/// Metric name to points: attributes as text to value.
type Read = BTreeMap<String, BTreeMap<String, f64>>;

fn attributes<'a>(pairs: impl Iterator<Item = &'a KeyValue>) -> String {
    let pairs: BTreeMap<_, _> = pairs.map(|pair| (pair.key.as_str(), &pair.value)).collect();
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

macro_rules! points {
    ($data:expr, $as:ident) => {
        match $data {
            MetricData::Gauge(gauge) => {
                gauge.data_points().map(|point| (attributes(point.attributes()), $as!(point.value()))).collect()
            }
            MetricData::Sum(sum) => {
                sum.data_points().map(|point| (attributes(point.attributes()), $as!(point.value()))).collect()
            }
            MetricData::Histogram(histogram) => {
                histogram.data_points().map(|point| (attributes(point.attributes()), point.count() as f64)).collect()
            }
            MetricData::ExponentialHistogram(_) => panic!("the catalogue has none"),
        }
    };
}

macro_rules! as_f64 {
    ($value:expr) => {
        $value as f64
    };
}

macro_rules! same {
    ($value:expr) => {
        $value
    };
}

fn read(exporter: &InMemoryMetricExporter) -> Read {
    let exports = exporter.get_finished_metrics().unwrap();
    let last = exports.last().expect("an export");
    let mut read = Read::new();
    for metric in last.scope_metrics().flat_map(ScopeMetrics::metrics) {
        let points = match metric.data() {
            AggregatedMetrics::U64(data) => points!(data, as_f64),
            AggregatedMetrics::I64(data) => points!(data, as_f64),
            AggregatedMetrics::F64(data) => points!(data, same),
        };
        assert!(read.insert(metric.name().to_owned(), points).is_none(), "{} twice", metric.name());
    }
    read
}

impl Way for InMemoryMetricExporter {
    async fn send(&self, metrics: &ResourceMetrics) -> Result<Accepted, Failure> {
        self.export(metrics).await.unwrap();
        Ok(Accepted::default())
    }
}

fn start(board: &Arc<Board>) -> (Metrics, InMemoryMetricExporter) {
    let exporter = InMemoryMetricExporter::default();
    let source = Source::new(Arc::clone(board));
    let metrics = Metrics::start(
        exporter.clone(),
        Link::new("metrics", "memory", crate::config::Protocol::Grpc),
        source,
        Duration::from_hours(1),
        Resource::builder_empty().build(),
        InstrumentationScope::builder("synfin").build(),
    );
    (metrics, exporter)
}

#[test]
fn what_is_exported_is_what_the_status_says() {
    let board = Arc::new(Board::default());
    let status = full();
    board.publish(status.clone());
    let (metrics, exporter) = start(&board);
    metrics.flush();
    let read = read(&exporter);
    let totals = &status.totals;

    let sum = |name: &str| read[name].values().sum::<f64>();
    assert_eq!(sum("system.network.tcp.connection.transitions"), totals.transitions_sum() as f64);
    assert_eq!(sum("system.network.tcp.connection.ended"), totals.ended.iter().sum::<u64>() as f64);
    assert_eq!(sum("synfin.events"), status.events.iter().sum::<u64>() as f64);
    assert_eq!(sum("synfin.events.lost"), status.lost() as f64);
    // TIME_WAIT and CLOSED stand for the array's positions 6 and 7; position 0 is no state.
    assert_eq!(sum("synfin.ledger.connections"), status.tracked[1..].iter().sum::<u64>() as f64);

    let point = |name: &str, attributes: &str| read[name][attributes];
    let old_new = "network.connection.state=established,network.tcp.state.previous=syn_sent";
    assert_eq!(
        point("system.network.tcp.connection.transitions", old_new),
        totals.transitions[State::SynSent.index()][State::Established.index()] as f64
    );
    assert_eq!(
        point("system.network.tcp.connection.failures", "error.type=timed_out,network.tcp.handshake.role=server"),
        totals.failures[1]["timed_out"] as f64
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
    assert_eq!(
        point("synfin.probe.status", "synfin.probe=state,synfin.probe.rung=tp_btf,synfin.probe.verdict=active"),
        1.0
    );
    let waiting = "linux.cgroup.id=9,linux.netns.inode=7,network.connection.state=time_wait,network.transport=tcp,network.type=ipv6";
    assert_eq!(point("system.network.connection.count", waiting), 1234.0);
    assert_eq!(point("system.network.tcp.accept_queue.limit", "linux.netns.inode=7,network.local.port=80"), 128.0);
    let ports = |name: &str| point(&format!("system.network.tcp.ephemeral_port.{name}"), "linux.netns.inode=7");
    assert_eq!((ports("usage"), ports("limit"), ports("utilization")), (706.0, 28_232.0, 706.0 / 28_232.0));
    assert_eq!(point("process.cpu.time", ""), status.cpu.as_secs_f64());
}

#[test]
fn each_attribute_is_in_the_catalogue_and_no_limit_is_near() {
    let board = Arc::new(Board::default());
    board.publish(full());
    let (metrics, exporter) = start(&board);
    metrics.ended(&client(), End::TimeWait);
    metrics.ended(&refused(), End::Refused);
    metrics.flush();
    let read = read(&exporter);
    for Metric { name, attributes, .. } in CATALOGUE {
        // Queues that do not exist have no points.
        let Some(points) = read.get(*name) else {
            assert!(name.starts_with("otel.sdk.") || name.starts_with("synfin.spans."), "{name} is not exported");
            continue;
        };
        assert!(points.len() <= 200, "{name}: {} points", points.len());
        let keys: HashSet<&str> = points
            .keys()
            .flat_map(|pairs| pairs.split(',').filter(|pair| !pair.is_empty()))
            .filter_map(|pair| pair.split_once('=').map(|(key, _)| key))
            .collect();
        assert_eq!(keys, attributes.iter().copied().collect::<HashSet<_>>(), "{name}");
    }
    assert_eq!(read.keys().filter(|name| !CATALOGUE.iter().any(|metric| metric.name == **name)).count(), 0);
}

#[test]
fn distributions_take_what_was_measured() {
    let (metrics, exporter) = start(&Arc::default());
    metrics.ended(&client(), End::TimeWait);
    metrics.ended(&client(), End::TimeWait);
    metrics.ended(&refused(), End::Refused);
    metrics.ended(&client(), End::Lost);
    metrics.flush();
    let read = read(&exporter);
    assert_eq!(read[HANDSHAKE_DURATION]["network.tcp.handshake.role=client"], 3.0);
    let durations = &read[CONNECTION_DURATION];
    assert_eq!(durations["network.connection.end=time_wait,network.tcp.handshake.role=client"], 2.0);
    assert_eq!(durations["network.connection.end=refused,network.tcp.handshake.role=client"], 1.0);
    assert_eq!(durations.len(), 2, "an end that was not seen has no time");
}

#[test]
fn one_export_shows_one_moment_and_the_next_a_new_one() {
    let board = Arc::new(Board::default());
    let (metrics, exporter) = start(&board);
    for count in [1, 2] {
        let mut status = Status::default();
        status.totals.opened[0] = count;
        board.publish(status);
        metrics.flush();
        let read = read(&exporter);
        let opened = &read["system.network.tcp.connection.opened"];
        assert_eq!(opened["network.tcp.handshake.role=client"], count as f64);
    }
}

#[test]
fn a_snapshot_is_held_through_a_collection() {
    let board = Arc::new(Board::default());
    let collection = Collection::of(Source::new(Arc::clone(&board)));
    let first = collection.snapshot();
    board.publish(full());
    assert!(Arc::ptr_eq(&first, &collection.snapshot()));
    collection.release();
    assert!(!Arc::ptr_eq(&first, &collection.snapshot()));
}
