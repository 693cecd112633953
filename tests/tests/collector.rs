//! OpenTelemetry's Collector between the agent and the judge: it takes everything, and what comes out behind it is what the agent has seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use synfin_tests::{
    collector::{Collector, Onward},
    deadline::{self, PATIENCE},
    load::{self, Made, Pace},
    otlp::{
        Receiver,
        judge::{Judge, text},
    },
    scenario::{open, reset},
    stage::{Family, Link, Stage},
    synfin::Synfin,
    victoria_metrics::VictoriaMetrics,
    witness::nstat::Counters,
};

/// Connections that end well.
const COUNT: u64 = 50;

/// The load under which it is stopped and started again, and for how long it is away; there is as much time before and after.
const PACE: Pace = Pace { per_second: 500, reset_each: 50 };
const AWAY: Duration = Duration::from_secs(3);
const BESIDE: Duration = Duration::from_millis(1500);
/// Until everything has arrived; pauses between the agent's attempts grow meanwhile.
const CATCHING_UP: Duration = Duration::from_mins(1);

/// Until a backend finds the last points.
const FOUND: Duration = Duration::from_secs(40);

/// A way to send: protocol, compression, and what the collector calls it.
#[derive(Clone, Copy)]
struct Way {
    protocol: &'static str,
    compression: &'static str,
    transport: &'static str,
}

const GRPC: Way = Way { protocol: "grpc", compression: "zstd", transport: "grpc" };
const HTTP: Way = Way { protocol: "http/protobuf", compression: "none", transport: "http" };
const JSON: Way = Way { protocol: "http/json", compression: "gzip", transport: "http" };

#[test]
fn through_a_collector_by_grpc() -> Result<()> {
    everything_comes_through(GRPC, Family::V4)
}

#[test]
fn through_a_collector_by_http() -> Result<()> {
    everything_comes_through(HTTP, Family::V6)
}

#[test]
fn through_a_collector_in_json() -> Result<()> {
    everything_comes_through(JSON, Family::V4)
}

#[test]
fn through_a_collector_that_goes_and_returns_by_grpc() -> Result<()> {
    goes_and_returns(GRPC)
}

#[test]
fn through_a_collector_that_goes_and_returns_by_http() -> Result<()> {
    goes_and_returns(HTTP)
}

/// The way that most metrics go: to the collector, and from there to what is asked in PromQL.
#[test]
fn through_a_collector_to_victoria_metrics() -> Result<()> {
    let (server, judge) = (VictoriaMetrics::start()?, Receiver::start()?);
    judge.expect_batches();
    let metrics = server.metrics_endpoint();
    let mut collector =
        Collector::start(Onward { judge: &judge.endpoint(), metrics: Some(&metrics), detailed: false })?;
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let before = Counters::by_nstat(&stage.client.netns)?;
    let synfin = HTTP.serve(&collector, &stage)?;
    burst(&stage)?;
    synfin.terminate()?;
    let counts = collector.counts()?;
    ensure!(counts.refused == 0, "{counts:?}");
    collector.stop()?;
    judge.look(Judge::verdict)?;

    let kernel = Counters::by_nstat(&stage.client.netns)?.since(&before);
    let metric =
        |name: &str, label: &str| format!(r#"sum({{__name__="system.network.tcp.connection.{name}",{label}}})"#);
    for (query, counter) in [
        (metric("opened", r#""network.tcp.handshake.role"="client""#), "TcpActiveOpens"),
        (metric("opened", r#""network.tcp.handshake.role"="server""#), "TcpPassiveOpens"),
        (metric("failures", r#""service.name"="synfin""#), "TcpAttemptFails"),
    ] {
        let counted = kernel.get(counter);
        let told = || server.value(&query);
        deadline::within(FOUND, counter, || Ok(told()?.filter(|told| is(*told, counted))))
            .with_context(|| format!("{query} is {:?}, {counter} grew by {counted}", told()))?;
    }
    Ok(())
}

/// Two agents see the same connections. One sends to the judge, the other through the collector, and that changes nothing.
fn everything_comes_through(way: Way, family: Family) -> Result<()> {
    let (behind, beside) = (Receiver::start()?, Receiver::start()?);
    behind.expect_batches();
    let mut collector = Collector::start(Onward { judge: &behind.endpoint(), metrics: None, detailed: true })?;
    let stage = Stage::new(family, Link::Loopback)?;
    let before = Counters::of(&stage.client.netns)?;
    let agents = [
        way.serve(&collector, &stage)?,
        Synfin::serve(stage.namespaces(), &["--otlp-protocol", "grpc", "--otlp-endpoint", &beside.endpoint()])?,
    ];
    let started = |judge: &Judge| judge.logs.iter().any(|log| log.event_name == "synfin.started");
    for judge in [&behind, &beside] {
        judge.await_received(PATIENCE, "the record of the start", started)?;
    }
    burst(&stage)?;
    let kernel = Counters::of(&stage.client.netns)?.since(&before);
    for agent in agents {
        agent.terminate()?;
    }
    let counts = collector.counts()?;
    let told = collector.stop()?;

    let direct = beside.look(|judge| judge.verdict().and_then(|()| connections(judge)))?;
    behind.look(|judge| {
        judge.verdict()?;
        taken(&counts.accepted, judge, way.transport)?;
        ensure!(counts.refused == 0, "{counts:?}");
        as_the_kernel(judge, &kernel)?;
        let through = connections(judge)?;
        ensure!(through.len() as u64 == 2 * (COUNT + 1), "{} spans of established connections", through.len());
        for (id, span) in &direct {
            let same = through.get(id) == Some(span);
            ensure!(same, "sent {span:?}, behind the collector it is {:?}", through.get(id));
        }
        ensure!(through.len() == direct.len(), "{} spans behind it, {} were sent", through.len(), direct.len());
        written(&told, judge)
    })
}

/// What the collector counts as taken, what the agent counts as sent, and what came out are the same.
fn taken(accepted: &BTreeMap<(String, String), u64>, judge: &Judge, transport: &str) -> Result<()> {
    let (spans, records) = (judge.span_count(), judge.logs.len() as u64);
    let came = [("log_records", records), ("metric_points", judge.series.taken), ("spans", spans)];
    let came: BTreeMap<_, _> =
        came.into_iter().map(|(items, count)| ((items.to_owned(), transport.to_owned()), count)).collect();
    ensure!(*accepted == came, "the collector took {accepted:?}, {came:?} came out");
    for (signal, came) in [("span", spans), ("log", records)] {
        let exported = count(judge, &format!("otel.sdk.exporter.{signal}.exported"), &[]);
        ensure!(exported == came, "the agent exported {exported} of {signal}, {came} came");
    }
    Ok(())
}

/// As many as were made, by the kernel's counters.
fn as_the_kernel(judge: &Judge, kernel: &Counters) -> Result<()> {
    let (opened, accepted) = (kernel.get("TcpActiveOpens"), kernel.get("TcpPassiveOpens"));
    ensure!((opened, accepted) == (COUNT + 2, COUNT + 1), "{opened} opened and {accepted} accepted by the kernel");
    let role = |role| sum(judge, "opened", &[("network.tcp.handshake.role", role)]);
    let kind = |kind: SpanKind| judge.spans.iter().filter(|span| span.kind == kind as i32).count() as u64;
    for (what, told, is) in [
        ("opened by clients", role("client"), opened),
        ("opened by peers", role("server"), accepted),
        ("ended", sum(judge, "ended", &[]), opened + accepted),
        ("failures", sum(judge, "failures", &[]), kernel.get("TcpAttemptFails")),
        ("spans of clients", kind(SpanKind::Client), opened),
        ("spans of servers", kind(SpanKind::Server), accepted),
    ] {
        ensure!(told == is, "{what}: {told} told, the kernel counts {is}");
    }
    Ok(())
}

/// Of a span what two agents tell alike: all but the times, which each has taken itself.
#[derive(Debug, PartialEq)]
struct Told {
    trace: String,
    parent: String,
    flags: u32,
    kind: i32,
    name: String,
    status: Option<(i32, String)>,
    attributes: BTreeMap<String, Value>,
    events: Vec<(String, BTreeMap<String, Value>)>,
}

/// Spans of connections that were established, by their ids, which follow from the connection; of one that was refused they are drawn.
fn connections(judge: &Judge) -> Result<BTreeMap<String, Told>> {
    let established = |span: &&Span| text(&span.attributes, "error.type") != Some("connection_refused");
    let spans: Vec<_> = judge.spans.iter().filter(established).collect();
    ensure!(judge.spans.len() == spans.len() + 1, "{} connections refused", judge.spans.len() - spans.len());
    Ok(spans.into_iter().map(|span| (hex(&span.span_id), told(span))).collect())
}

fn told(span: &Span) -> Told {
    Told {
        trace: hex(&span.trace_id),
        parent: hex(&span.parent_span_id),
        flags: span.flags,
        kind: span.kind,
        name: span.name.clone(),
        status: span.status.as_ref().map(|status| (status.code, status.message.clone())),
        attributes: exact(&span.attributes),
        events: span.events.iter().map(|event| (event.name.clone(), exact(&event.attributes))).collect(),
    }
}

/// Texts and whole numbers; others are times.
fn exact(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    let values = attributes.iter().map(|attribute| {
        let value = attribute.value.as_ref().and_then(|value| value.value.clone());
        Some((attribute.key.clone(), value.filter(|value| !matches!(value, Value::DoubleValue(_)))?))
    });
    values.flatten().collect()
}

/// What the collector has written of it names the same: by ids, kinds, statuses, and names of log records.
fn written(lines: &[String], judge: &Judge) -> Result<()> {
    let field = |name: &str| {
        let values = lines.iter().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == name);
        let values: Vec<_> = values.map(|(_, value)| value.trim()).filter(|value| !value.is_empty()).collect();
        values
    };
    let ids: BTreeSet<_> = judge.spans.iter().map(|span| (hex(&span.trace_id), hex(&span.span_id))).collect();
    let written = field("Trace ID").into_iter().zip(field("ID"));
    let written: BTreeSet<_> = written.map(|(trace, span)| (trace.to_owned(), span.to_owned())).collect();
    ensure!(written == ids, "ids written {written:?}, received {ids:?}");

    let kind = |kind: SpanKind| judge.spans.iter().filter(|span| span.kind == kind as i32).count();
    let error = |span: &&Span| span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
    let errors = judge.spans.iter().filter(error).count();
    for (name, value, count) in [
        ("Kind", "Client", kind(SpanKind::Client)),
        ("Kind", "Server", kind(SpanKind::Server)),
        ("Status code", "Error", errors),
        ("Status code", "Unset", judge.spans.len() - errors),
    ] {
        let found = field(name).into_iter().filter(|found| *found == value).count();
        ensure!(found == count, "{name} {value} is written {found} times, received {count}");
    }
    ensure!(errors == 3, "{errors} spans with an error: refused, and both ends of one that was reset");
    let names: Vec<_> = judge.logs.iter().map(|log| log.event_name.as_str()).collect();
    ensure!(field("EventName") == names, "{:?} written, {names:?} received", field("EventName"));
    Ok(())
}

/// The collector ends and comes back under load, as in an update of it: nothing is lost, and nothing comes twice.
fn goes_and_returns(way: Way) -> Result<()> {
    let judge = Receiver::start()?;
    judge.expect_batches();
    let mut collector = Collector::start(Onward { judge: &judge.endpoint(), metrics: None, detailed: false })?;
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let before = Counters::of(&stage.client.netns)?;
    let synfin = way.serve(&collector, &stage)?;

    let (so_far, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (made, lived) = thread::scope(|scope| {
        let load = scope.spawn(|| {
            PACE.make(&stage, |connections| {
                so_far.store(connections, Relaxed);
                !over.load(Relaxed)
            })
        });
        let lived = (|| {
            thread::sleep(BESIDE);
            let first = collector.counts()?;
            collector.stop()?;
            let gone = so_far.load(Relaxed);
            thread::sleep(AWAY);
            let meanwhile = so_far.load(Relaxed) - gone;
            collector.go_on()?;
            thread::sleep(BESIDE);
            anyhow::Ok((first, meanwhile))
        })();
        over.store(true, Relaxed);
        (load.join().expect("the load does not panic"), lived)
    });
    let (made, (first, meanwhile)) = (made?, lived?);
    let kernel = Counters::of(&stage.client.netns)?.since(&before);

    let spans = 2 * made.connections;
    judge
        .await_received(CATCHING_UP, "every span", |judge| judge.span_count() >= spans)
        .with_context(|| format!("of {made:?}; the collector counted {first:?}, then {:?}", collector.counts()))?;
    synfin.terminate()?;
    let second = collector.counts()?;
    collector.stop()?;
    judge.look(|judge| {
        judge.verdict()?;
        as_made(judge, &kernel, made)?;
        // Its second life took all that was made while it was away, and what the first had not taken.
        let (before, after) = (first.accepted("spans"), second.accepted("spans"));
        ensure!(before > 0 && meanwhile > 0, "{before} spans came before, {meanwhile} connections meanwhile");
        ensure!(after >= 2 * meanwhile && before + after <= spans, "{before} and {after} of {spans}, {meanwhile} away");
        ensure!((first.refused, second.refused) == (0, 0), "{first:?}, {second:?}");
        Ok(())
    })
}

/// Every connection and every span of it, once; none lost by the agent's own account.
fn as_made(judge: &Judge, kernel: &Counters, made: Made) -> Result<()> {
    let Made { connections, resets } = made;
    let opened = (kernel.get("TcpActiveOpens"), kernel.get("TcpPassiveOpens"));
    ensure!(opened == (connections, connections), "the kernel counted {opened:?}, {connections} were made");
    let role = |role| sum(judge, "opened", &[("network.tcp.handshake.role", role)]);
    let ended = |end| sum(judge, "ended", &[("network.connection.end", end)]);
    let spans = |end: &str| judge.ends.get(end).copied().unwrap_or_default();
    let logs = judge.logs.len() as u64;
    for (what, told, is) in [
        ("opened by clients", role("client"), connections),
        ("opened by peers", role("server"), connections),
        ("ended", sum(judge, "ended", &[]), 2 * connections),
        ("ended by a RST sent", ended("reset_sent"), resets),
        ("ended by a RST received", ended("reset_received"), resets),
        ("events lost", count(judge, "synfin.events.lost", &[]), 0),
        ("spans", judge.span_count(), 2 * connections),
        ("spans of a RST sent", spans("reset_sent"), resets),
        ("spans of a RST received", spans("reset_received"), resets),
        // Rejected, shed or left over: none.
        ("spans processed", count(judge, "otel.sdk.processor.span.processed", &[]), 2 * connections),
        ("spans exported", count(judge, "otel.sdk.exporter.span.exported", &[]), 2 * connections),
        ("log records processed", count(judge, "otel.sdk.processor.log.processed", &[]), logs),
        ("log records exported", count(judge, "otel.sdk.exporter.log.exported", &[]), logs),
    ] {
        ensure!(told == is, "{what}: {told}, {is} is right");
    }
    Ok(())
}

impl Way {
    /// `synfin run`, sending to the collector.
    fn serve(self, collector: &Collector, stage: &Stage) -> Result<Synfin> {
        let endpoint = if self.transport == "grpc" { collector.grpc() } else { collector.http() };
        let flags = ["--otlp-protocol", self.protocol, "--otlp-endpoint", &endpoint];
        let variables = [("OTEL_EXPORTER_OTLP_COMPRESSION", self.compression.to_owned())];
        Synfin::serve_with(stage.namespaces(), &flags, &variables)
    }
}

/// Connections that end well, one that is reset, and one that is refused.
fn burst(stage: &Stage) -> Result<()> {
    load::connections(stage, COUNT)?;
    reset::linger_zero(stage)?;
    open::refused(stage).map(drop)
}

fn sum(judge: &Judge, name: &str, attributes: &[(&str, &str)]) -> u64 {
    count(judge, &format!("system.network.tcp.connection.{name}"), attributes)
}

/// A whole number of the last metrics.
#[expect(clippy::cast_sign_loss, reason = "counters, far below where a float could not hold them")]
fn count(judge: &Judge, metric: &str, attributes: &[(&str, &str)]) -> u64 {
    judge.series.sum(metric, attributes) as u64
}

/// Both are whole numbers, far below where a float could not hold them.
fn is(told: f64, counted: u64) -> bool {
    (told - counted as f64).abs() < 0.5
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
