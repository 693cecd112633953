//! What `synfin run` sends, before the strict receiver.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use synfin_tests::{
    load,
    netns::Netns,
    otlp::{
        Mood, Receiver, Signal, Via,
        judge::{Judge, integer, number, text},
    },
    scenario::{open, reset},
    stage::{Family, Link, Stage},
    synfin::{Ended, Synfin, message},
    witness::nstat::Counters,
};

/// Connections of one burst.
const COUNT: u64 = 50;
/// Spans of one burst: both ends of each connection and of the one that is reset, and the one end of the one that is refused.
const SPANS: u64 = 2 * COUNT + 3;
/// What an agent's log calls the kinds of telemetry that each burst makes.
const SIGNALS: [&str; 2] = ["traces", "metrics"];
/// Longest time until everything has been sent, once the receiver takes it.
const SENDING: Duration = Duration::from_secs(30);

#[test]
fn grpc() -> Result<()> {
    everything_arrives("grpc", Via::Grpc, Family::V4)
}

#[test]
fn http_protobuf() -> Result<()> {
    everything_arrives("http/protobuf", Via::Http, Family::V6)
}

fn everything_arrives(protocol: &str, via: Via, family: Family) -> Result<()> {
    let mut scene = Scene::new(protocol, family)?;
    scene.burst()?;
    scene.synfin.take().context("started")?.terminate()?;
    scene.receiver.look(|judge| {
        judge.verdict()?;
        let other = judge.requests.keys().find(|(_, used)| *used != via);
        ensure!(other.is_none(), "{protocol} was asked for, {other:?} was used");
        for signal in [Signal::Traces, Signal::Metrics] {
            ensure!(judge.requests.contains_key(&(signal, via)), "no {signal:?}; {}", judge.summary());
        }
        spans(judge)?;
        scene.totals(judge)
    })
}

/// OpenTelemetry's own variables configure it as well as flags do.
#[test]
fn endpoint_out_of_the_environment() -> Result<()> {
    let (receiver, stage) = (Receiver::start()?, Stage::new(Family::V4, Link::Loopback)?);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.node.name=node-7".to_owned()),
    ];
    let synfin = Synfin::serve_with(stage.namespaces(), &[], &variables)?;
    load::connections(&stage, 5)?;
    synfin.terminate()?;
    receiver.look(|judge| {
        judge.verdict()?;
        ensure!(judge.requests.keys().all(|(_, via)| *via == Via::Http), "{}", judge.summary());
        ensure!(judge.spans.len() == 10, "{}", judge.summary());
        ensure!(text(&judge.resource, "k8s.node.name") == Some("node-7"), "{:?}", judge.resource);
        Ok(())
    })
}

/// Sampling leaves out what went well, and keeps everything else; metrics count all.
#[test]
fn sampling_keeps_what_is_abnormal() -> Result<()> {
    let mut scene = Scene::with(Receiver::start()?, &["--trace-sample-ratio", "0"], Family::V6)?;
    scene.burst()?;
    scene.synfin.take().context("started")?.terminate()?;
    scene.receiver.look(|judge| {
        judge.verdict()?;
        let mut ends: Vec<_> =
            judge.spans.iter().map(|span| text(&span.attributes, "network.connection.end")).collect();
        ends.sort_unstable();
        ensure!(ends == [Some("refused"), Some("reset_received"), Some("reset_sent")], "{ends:?}");
        scene.totals(judge)
    })
}

/// Nobody listens at the start: synfin lives, and what it saw arrives once somebody does.
#[test]
fn unreachable_at_the_start() -> Result<()> {
    let mut receiver = Receiver::start()?;
    receiver.go_away()?;
    let mut scene = Scene::with(receiver, &[], Family::V4)?;
    scene.burst()?;
    scene.await_failure("nobody listens there")?;
    scene.receiver.come_back()?;
    scene.await_everything(1)?;
    works_again(&scene.synfin.take().context("started")?.terminate()?)?;
    scene.receiver.look(Judge::verdict)
}

/// The backend dies and returns: the totals of metrics are exact afterwards, and each span has come once.
#[test]
fn dies_and_returns() -> Result<()> {
    for protocol in ["grpc", "http/protobuf"] {
        let mut scene = Scene::new(protocol, Family::V4)?;
        scene.burst()?;
        scene.await_everything(1)?;
        scene.receiver.go_away()?;
        scene.burst()?;
        // Without this the backend might be back before the agent has missed it. What is told first is told alone, and may be of a
        // request that was under way when the backend died: so for whatever reason.
        scene.await_failure("")?;
        scene.receiver.come_back()?;
        scene.await_everything(2)?;
        ensure!(scene.synfin.as_mut().context("started")?.alive()?, "the agent died with its backend");
        works_again(&scene.synfin.take().context("started")?.terminate()?)?;
        scene.receiver.look(Judge::verdict)?;
    }
    Ok(())
}

/// A backend that refuses for a while gets everything in the end.
#[test]
fn refuses_for_a_while() -> Result<()> {
    let mut scene = Scene::new("grpc", Family::V4)?;
    scene.receiver.mood(Mood::Refuse);
    scene.burst()?;
    // The receiver's own words, so that nothing else that may go wrong counts as a refusal.
    scene.await_failure("the test wants a refusal")?;
    let (refused, spans) = scene.receiver.look(|judge| (judge.refused, judge.span_count()));
    ensure!(refused >= 2 && spans == 0, "{refused} requests refused, {spans} spans came nevertheless");
    scene.receiver.mood(Mood::Accept);
    scene.await_everything(1)?;
    works_again(&scene.synfin.take().context("started")?.terminate()?)?;
    scene.receiver.look(Judge::verdict)
}

/// A backend that never answers does not keep the agent from ending.
#[test]
fn hangs() -> Result<()> {
    for protocol in ["grpc", "http/protobuf"] {
        let mut scene = Scene::new(protocol, Family::V4)?;
        scene.receiver.mood(Mood::Hang);
        scene.burst()?;
        scene.receiver.await_received(SENDING, "a request that hangs", |judge| judge.refused > 0)?;
        // terminate() waits with a deadline and wants exit code 0.
        scene.synfin.take().context("started")?.terminate()?;
    }
    Ok(())
}

/// A stage, the receiver, and synfin sending to it.
struct Scene {
    stage: Stage,
    before: Counters,
    receiver: Receiver,
    synfin: Option<Synfin>,
}

impl Scene {
    fn new(protocol: &str, family: Family) -> Result<Self> {
        Self::with(Receiver::start()?, &["--otlp-protocol", protocol], family)
    }

    fn with(receiver: Receiver, more: &[&str], family: Family) -> Result<Self> {
        let stage = Stage::new(family, Link::Loopback)?;
        let before = Counters::of(&stage.client.netns)?;
        let endpoint = receiver.endpoint();
        let mut flags = vec!["--otlp-endpoint", &endpoint];
        flags.extend(more);
        let synfin = Some(Synfin::serve(stage.namespaces(), &flags)?);
        Ok(Self { stage, before, receiver, synfin })
    }

    fn netns(&self) -> &Netns {
        &self.stage.client.netns
    }

    /// Connections that end well, one that is reset, and one that is refused.
    fn burst(&self) -> Result<()> {
        load::connections(&self.stage, COUNT)?;
        reset::linger_zero(&self.stage)?;
        open::refused(&self.stage).map(drop)
    }

    /// Waits until the agent has told that export fails, and why, of spans and of metrics.
    fn await_failure(&mut self, why: &str) -> Result<()> {
        let synfin = self.synfin.as_mut().context("started")?;
        for signal in SIGNALS {
            let wanted = |line: &str| says(line, signal, "OTLP export fails") && line.contains(why);
            synfin.await_stderr(&format!("{why:?} of {signal}"), wanted)?;
        }
        Ok(())
    }

    /// Waits until the totals of metrics are exact and each span of so many bursts has come, and until the agent knows that
    /// it has: one whose answer is lost is rightly sent again.
    fn await_everything(&self, bursts: u64) -> Result<()> {
        let everything = |judge: &Judge| -> Result<()> {
            self.totals(judge)?;
            let (came, all) = (judge.span_count(), bursts * SPANS);
            let answered = judge.series.sum("otel.sdk.exporter.span.exported", &[]);
            ensure!(came == all, "{came} spans came, {all} are right");
            ensure!(
                (answered - all as f64).abs() < 0.5,
                "{answered} spans exported by the agent's account, {all} came"
            );
            Ok(())
        };
        self.receiver
            .await_received(SENDING, "exact totals and every span", |judge| everything(judge).is_ok())
            .with_context(|| format!("{:?}", self.receiver.look(everything)))
    }

    /// The metrics against the kernel's own counters.
    fn totals(&self, judge: &Judge) -> Result<()> {
        let growth = Counters::of(self.netns())?.since(&self.before);
        let sum = |name: &str, attributes: &[(&str, &str)]| {
            judge.series.sum(&format!("system.network.tcp.{name}"), attributes)
        };
        let role = |role: &'static str| [("network.tcp.handshake.role", role)];
        let cut = |from: &'static str| [("network.tcp.state.previous", from), ("network.connection.state", "closed")];
        let resets =
            sum("connection.transitions", &cut("established")) + sum("connection.transitions", &cut("close_wait"));
        for (metric, exported, counter) in [
            ("opened by clients", sum("connection.opened", &role("client")), "TcpActiveOpens"),
            ("opened by peers", sum("connection.opened", &role("server")), "TcpPassiveOpens"),
            ("failures", sum("connection.failures", &[]), "TcpAttemptFails"),
            ("transitions that reset", resets, "TcpEstabResets"),
            ("retransmits", sum("retransmits", &[]), "TcpRetransSegs"),
            ("resets sent", sum("resets", &[("network.io.direction", "transmit")]), "TcpOutRsts"),
        ] {
            let counted = growth.get(counter) as f64;
            // Both are whole numbers, far below where a float could not hold them.
            ensure!((exported - counted).abs() < 0.5, "{metric}: {exported} exported, {counter} grew by {counted}");
        }
        let (ended, opened) = (sum("connection.ended", &[]), sum("connection.opened", &[]));
        ensure!((ended - opened).abs() < 0.5, "{opened} opened, {ended} ended");
        // What the kernel skipped may have happened in any namespace; here everything is there, as just shown.
        let skipped = judge.series.sum("synfin.events.lost", &[("synfin.loss.reason", "recursion")]);
        let lost = judge.series.sum("synfin.events.lost", &[]) - skipped;
        ensure!(lost < 0.5, "{lost} events lost");
        Ok(())
    }
}

/// Whether a line of the agent's JSON log begins so and is about this signal.
fn says(line: &str, signal: &str, beginning: &str) -> bool {
    message(line).is_some_and(|text| text.starts_with(beginning)) && line.contains(&format!(r#""signal":"{signal}""#))
}

/// The agent has taken back that export fails, of spans and of metrics.
fn works_again(ended: &Ended) -> Result<()> {
    for signal in SIGNALS {
        let again = ended.stderr.iter().any(|line| says(line, signal, "OTLP export works again"));
        ensure!(again, "it is not told that export of {signal} works again: {}", ended.stderr.join("\n"));
    }
    Ok(())
}

/// One span for each end of each connection, and both ends in one trace.
fn spans(judge: &Judge) -> Result<()> {
    let kind = |kind: SpanKind| judge.spans.iter().filter(|span| span.kind == kind as i32).count() as u64;
    let (clients, servers) = (kind(SpanKind::Client), kind(SpanKind::Server));
    ensure!((clients, servers) == (COUNT + 2, COUNT + 1), "{clients} client spans and {servers} server spans");

    let mut traces: BTreeMap<&[u8], Vec<&Span>> = BTreeMap::new();
    for span in &judge.spans {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    ensure!(traces.len() as u64 == COUNT + 2, "{} traces for {} connections", traces.len(), COUNT + 2);
    let mut refused = 0;
    for spans in traces.values() {
        match spans[..] {
            [only] => {
                ensure!(text(&only.attributes, "error.type") == Some("connection_refused"), "a lonely span: {only:?}");
                refused += 1;
            }
            [first, second] if first.kind == SpanKind::Client as i32 => one_connection(first, second)?,
            [first, second] => one_connection(second, first)?,
            _ => bail!("{} spans in one trace", spans.len()),
        }
    }
    ensure!(refused == 1, "{refused} connections refused");
    Ok(())
}

fn one_connection(client: &Span, server: &Span) -> Result<()> {
    ensure!(server.parent_span_id == client.span_id, "the client's span is not the parent of the server's");
    let port = |span: &Span, key: &str| integer(&span.attributes, key);
    let (local, peer) = ("network.local.port", "network.peer.port");
    ensure!(port(client, local).is_some() && port(client, local) == port(server, peer), "{client:?} {server:?}");
    ensure!(port(client, peer) == port(server, local), "{client:?} {server:?}");
    for span in [client, server] {
        let length = (span.end_time_unix_nano - span.start_time_unix_nano) as f64 / 1e9;
        let duration = number(&span.attributes, "network.connection.duration").context("a duration")?;
        ensure!((length - duration).abs() < 1e-6, "a span of {length} s for a connection of {duration} s");
    }
    Ok(())
}
