//! How metrics are told: totals or differences, with which buckets, of whom, and within which bounds; before the kernel's counters.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use synfin_tests::{
    load,
    otlp::{Receiver, judge::Judge, metrics::Manner},
    prometheus::{OPEN_METRICS, address, promtool, scrape},
    scenario::{open, reset},
    stage::{Family, Link, Side, Stage},
    synfin::Synfin,
    witness::nstat::Counters,
};

/// Connections of one burst.
const COUNT: u64 = 40;
/// Bytes of a connection of [`load::connections`]: question and answer.
const BYTES: u64 = 8 + 6;
/// Longest time until what happened is told.
const TELLING: Duration = Duration::from_secs(30);

/// Variables of the environment.
type Settings<'a> = &'a [(&'static str, &'a str)];

const OPENED: &str = "system.network.tcp.connection.opened";

fn variables(more: Settings<'_>) -> Vec<(&'static str, String)> {
    let often = ("OTEL_METRIC_EXPORT_INTERVAL", "300");
    [often].iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// What the kernel has counted since `before`, and what has been told.
fn same_as_the_kernel(judge: &Judge, stage: &Stage, before: &Counters) -> Result<()> {
    let now = Counters::of(&stage.client.netns)?;
    let growth = now.since(before);
    for (role, counter) in [("client", "TcpActiveOpens"), ("server", "TcpPassiveOpens")] {
        let told = judge.series.sum(OPENED, &[("network.tcp.handshake.role", role)]);
        let counted = growth.get(counter) as f64;
        ensure!((told - counted).abs() < 0.5, "{role}: {told} told, {counter} grew by {counted}");
    }
    let told = judge.series.sum("system.network.tcp.resets", &[("network.io.direction", "transmit")]);
    let counted = growth.get("TcpOutRsts") as f64;
    ensure!((told - counted).abs() < 0.5, "resets: {told} told, TcpOutRsts grew by {counted}");
    Ok(())
}

/// Differences add up to what the kernel has counted, although the backend was away for a while.
#[test]
fn differences_arrive_once() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let mut receiver = Receiver::start()?;
    receiver.expect_metrics(Manner { delta: true, exponential: false });
    let endpoint = receiver.endpoint();
    let delta = variables(&[("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")]);
    let before = Counters::of(&stage.client.netns)?;
    let synfin = Synfin::serve_with(stage.namespaces(), &["--otlp-endpoint", &endpoint], &delta)?;
    load::connections(&stage, COUNT)?;
    let told = |judge: &Judge| same_as_the_kernel(judge, &stage, &before).is_ok();
    receiver.await_received(TELLING, "the first burst", told)?;
    receiver.go_away()?;
    load::connections(&stage, COUNT)?;
    reset::linger_zero(&stage)?;
    // Some exports come in vain.
    std::thread::sleep(Duration::from_secs(2));
    load::connections(&stage, COUNT)?;
    receiver.come_back()?;
    receiver.await_received(TELLING, "what happened meanwhile", told)?;
    load::connections(&stage, COUNT)?;
    open::refused(&stage)?;
    synfin.terminate()?;
    receiver.look(|judge| {
        judge.verdict()?;
        same_as_the_kernel(judge, &stage, &before)?;
        let durations = judge.series.sum("system.network.tcp.connection.duration", &[]);
        let ended = judge.series.sum("system.network.tcp.connection.ended", &[]);
        ensure!((durations - ended).abs() < 0.5, "{durations} durations of {ended} connections");
        let io = judge.series.sum("system.network.tcp.io", &[("network.io.direction", "transmit")]);
        ensure!(io >= (4 * COUNT * BYTES) as f64, "{io} bytes");
        Ok(())
    })
}

/// Exponential buckets, and examples that lead to spans.
#[test]
fn exponential_buckets_with_examples() -> Result<()> {
    let stage = Stage::new(Family::V6, Link::Loopback)?;
    let receiver = Receiver::start()?;
    receiver.expect_metrics(Manner { delta: false, exponential: true });
    let endpoint = receiver.endpoint();
    let aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    let exponential = variables(&[(aggregation, "base2_exponential_bucket_histogram")]);
    let synfin = Synfin::serve_with(stage.namespaces(), &["--otlp-endpoint", &endpoint], &exponential)?;
    load::connections(&stage, COUNT)?;
    synfin.terminate()?;
    receiver.look(|judge| {
        judge.verdict()?;
        let counted = |name: &str| judge.series.sum(&format!("system.network.tcp.{name}.duration"), &[]);
        let count = COUNT as f64;
        for (name, expected) in [("handshake", count), ("connection", 2.0 * count), ("rtt", 2.0 * count)] {
            ensure!((counted(name) - expected).abs() < 0.5, "{name}: {} of {expected}", counted(name));
        }
        examples(judge)
    })
}

/// Each example is a span that has arrived.
fn examples(judge: &Judge) -> Result<()> {
    let mut count = 0;
    for point in judge.series.points("system.network.tcp.connection.duration") {
        for (trace, id) in &point.exemplars {
            let span = judge.spans.iter().find(|span| span.span_id == *id);
            let span = span.with_context(|| format!("no span arrived for {id:02x?}"))?;
            ensure!(span.trace_id == *trace, "an example in another trace");
            count += 1;
        }
    }
    ensure!(count > 0, "no examples");
    Ok(())
}

/// Each byte once, the time in each state, round trips.
#[test]
fn bytes_states_and_round_trips() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let receiver = Receiver::start()?;
    let endpoint = receiver.endpoint();
    let synfin = Synfin::serve_with(stage.namespaces(), &["--otlp-endpoint", &endpoint], &variables(&[]))?;
    load::connections(&stage, COUNT)?;
    synfin.terminate()?;
    receiver.look(|judge| {
        judge.verdict()?;
        for direction in ["transmit", "receive"] {
            for metric in ["io", "peer.io"] {
                let name = format!("system.network.tcp.{metric}");
                let bytes = judge.series.sum(&name, &[("network.io.direction", direction)]);
                let expected = (COUNT * BYTES) as f64;
                ensure!((bytes - expected).abs() < 0.5, "{name}, {direction}: {bytes} of {expected} bytes");
            }
        }
        let rtt = judge.series.sum("system.network.tcp.rtt.duration", &[]);
        ensure!((rtt - 2.0 * COUNT as f64).abs() < 0.5, "{rtt} round trips");
        // Every state that was left was entered: by the kernel's own reports of both.
        for state in ["syn_sent", "established", "fin_wait_1", "fin_wait_2", "close_wait", "last_ack"] {
            let left =
                judge.series.sum("system.network.tcp.connection.transitions", &[("network.tcp.state.previous", state)]);
            let timed = judge.series.sum("system.network.tcp.state.duration", &[("network.connection.state", state)]);
            ensure!(left > 0.5 && (left - timed).abs() < 0.5, "{state}: left {left} times, {timed} times measured");
        }
        Ok(())
    })
}

/// The busiest peers, or networks, and the rest; the sum is that of all connections.
#[test]
fn peers_are_told_within_bounds() -> Result<()> {
    let address = |last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
    // Servers see 127.0.0.1 behind every connection.
    let plan = [(1, 3), (2, 10), (3, 20), (4, 5)];
    let all = 38.0;
    let cases: [(Settings<'_>, &[(&str, f64)]); 3] = [
        (
            &[("SYNFIN_METRICS_PEERS", "20")],
            &[("127.0.0.1", all + 3.0), ("127.0.0.2", 10.0), ("127.0.0.3", 20.0), ("127.0.0.4", 5.0)],
        ),
        (&[("SYNFIN_METRICS_PEERS", "2")], &[("127.0.0.1", all + 3.0), ("127.0.0.2", 10.0), ("other", 25.0)]),
        (
            &[("SYNFIN_METRICS_PEER_GROUPS", "127.0.0.0/8,127.0.0.2/31,10.0.0.0/8")],
            &[("127.0.0.0/8", all + 3.0 + 5.0), ("127.0.0.2/31", 30.0), ("10.0.0.0/8", 0.0)],
        ),
    ];
    for (settings, expected) in cases {
        let stage = Stage::new(Family::V4, Link::Loopback)?;
        let receiver = Receiver::start()?;
        let endpoint = receiver.endpoint();
        let synfin = Synfin::serve_with(stage.namespaces(), &["--otlp-endpoint", &endpoint], &variables(settings))?;
        for (last, connections) in plan {
            let server = Side { netns: stage.server.netns.clone(), ip: address(last) };
            load::connections_to(&stage, &server, connections)?;
        }
        synfin.terminate()?;
        receiver.look(|judge| {
            judge.verdict()?;
            let mut told: BTreeMap<&str, f64> = BTreeMap::new();
            for point in judge.series.points("system.network.tcp.peer.connection.ended") {
                let group = point.attributes.get("network.peer.group").context("no peer")?;
                *told.entry(group).or_default() += point.value;
            }
            let expected = expected.iter().copied().filter(|(_, connections)| *connections > 0.0).collect();
            ensure!(told == expected, "{told:?}, expected {expected:?}");
            let ended = judge.series.sum("system.network.tcp.connection.ended", &[]);
            ensure!((ended - 2.0 * all).abs() < 0.5, "{ended} of {} connections", 2.0 * all);
            Ok(())
        })?;
    }
    Ok(())
}

/// What exceeds the budget is added up, by both ways, and counted.
#[test]
fn a_budget_of_series_keeps_sums_exact() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let receiver = Receiver::start()?;
    let endpoint = receiver.endpoint();
    let small = variables(&[("SYNFIN_METRICS_SERIES", "100")]);
    let before = Counters::of(&stage.client.netns)?;
    let flags = ["--otlp-endpoint", &endpoint, "--http", "127.0.0.1:0"];
    let mut synfin = Synfin::serve_with(stage.namespaces(), &flags, &small)?;
    let address = address(&mut synfin)?;
    load::connections(&stage, COUNT)?;
    receiver.await_received(TELLING, "the burst", |judge| {
        let ended = judge.series.sum("system.network.tcp.connection.ended", &[]);
        ended > 2.0 * COUNT as f64 - 0.5 && same_as_the_kernel(judge, &stage, &before).is_ok()
    })?;
    let text = scrape(address, OPEN_METRICS)?;
    promtool::check(&scrape(address, synfin_tests::prometheus::TEXT)?)?;
    synfin.terminate()?;
    receiver.look(|judge| {
        judge.verdict()?;
        same_as_the_kernel(judge, &stage, &before)?;
        let overflow = [("otel.metric.overflow", "true")];
        let refused = judge.series.sum("synfin.metrics.series.refused", &[]) + sum_of_overflow(judge);
        ensure!(refused > 0.0, "everything found room in 100 series");
        let metrics = judge.series.names().count();
        let told = judge.series.names().map(|name| judge.series.points(name).count()).sum::<usize>();
        ensure!(told <= 100 + metrics, "{told} series of {metrics} metrics");
        ensure!(judge.series.names().any(|name| judge.series.sum(name, &overflow) > 0.0), "no overflow was told");
        Ok(())
    })?;
    let ended = text.sum("system_network_tcp_connection_ended_total", &[]);
    ensure!((ended - 2.0 * COUNT as f64).abs() < 0.5, "{ended} connections are told to whoever scrapes");
    Ok(())
}

/// A refused series of a metric that tells of refusals is refused too.
fn sum_of_overflow(judge: &Judge) -> f64 {
    judge.series.sum("synfin.metrics.series", &[("otel.metric.overflow", "true")])
}
