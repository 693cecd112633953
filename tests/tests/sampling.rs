//! Which spans are kept, what they say about it, and that the books balance.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use opentelemetry_proto::tonic::trace::v1::Span;
use synfin_tests::{
    load::{self, Pace},
    note,
    otlp::{
        Receiver,
        judge::{Judge, text},
        spans::probability,
    },
    scenario::{loss, open, reset},
    stage::{Family, Link, Side, Stage},
    synfin::Synfin,
    twins::Agent,
    wire::{End, Fate},
};

const REASON: &str = "synfin.sampling.reason";
/// Connections that end well.
const NORMAL: u64 = 20;
/// Far beyond what a handshake here takes, and below the first retransmit of a SYN.
const SLOW: Duration = Duration::from_millis(500);

fn reason(span: &Span) -> Option<&str> {
    text(&span.attributes, REASON)
}

#[expect(clippy::cast_sign_loss, reason = "counters, far below where a float could not hold them")]
fn count(judge: &Judge, metric: &str, attributes: &[(&str, &str)]) -> u64 {
    judge.series.sum(metric, attributes) as u64
}

/// Spans that were made are those that came and those that were left out.
fn books(judge: &Judge) -> Result<()> {
    let made = count(judge, "system.network.tcp.connection.ended", &[]);
    let left_out = count(judge, "synfin.spans.sampled_out", &[]);
    let lost: u64 = ["queue_full", "expired", "shutdown"]
        .map(|error| count(judge, "otel.sdk.processor.span.processed", &[("error.type", error)]))
        .iter()
        .sum();
    let came = judge.span_count();
    ensure!(made == came + left_out && lost == 0, "{made} made, {came} came, {left_out} left out, {lost} lost");
    Ok(())
}

/// At a ratio of 0 everything that came is abnormal, and everything abnormal came, with its reason.
#[test]
fn every_reason_keeps_its_span() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Wire)?;
    let slow = format!("{}ms", SLOW.as_millis());
    let agent = Agent::start_with(
        stage.namespaces(),
        &[("SYNFIN_OTLP_TRACE_SAMPLE_RATIO", "0".to_owned()), ("SYNFIN_OTLP_ABNORMAL_HANDSHAKE", slow)],
    )?;
    load::connections(&stage, NORMAL)?;
    open::refused(&stage)?;
    reset::linger_zero(&stage)?;
    loss::data(&stage)?;
    syn_lost_once(&stage)?;
    answered_late(&stage)?;
    open::abandoned(&stage)?;
    stage.wire()?.release()?;
    open::timed_out(&stage)?;
    let receiver = agent.finish()?;
    receiver.look(|judge| {
        judge.verdict()?;
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for span in &judge.spans {
            let reason = reason(span).with_context(|| format!("kept for no reason: {span:?}"))?;
            ensure!(span.trace_state == "ot=th:0", "{span:?}");
            *reasons.entry(reason).or_default() += 1;
        }
        for (reason, wanted) in [("failed", 1), ("reset", 2), ("timed_out", 1), ("aborted", 1), ("syn_retransmit", 1)] {
            let came = reasons.get(reason).copied().unwrap_or_default();
            ensure!(came == wanted, "{came} {reason}, not {wanted}: {reasons:?}");
        }
        // A busy machine may make more of these.
        for reason in ["retransmits", "slow_handshake"] {
            ensure!(reasons.contains_key(reason), "no {reason}: {reasons:?}");
        }
        books(judge)?;
        let by_ratio = count(judge, "synfin.spans.sampled_out", &[(REASON, "ratio")]);
        let left_out = count(judge, "synfin.spans.sampled_out", &[]);
        // Both ends of those that ended well, and the servers of the three that were slow or lossy, but for what a busy machine does.
        ensure!(by_ratio == left_out && by_ratio > NORMAL, "{by_ratio} by the ratio, {left_out} in all: {reasons:?}");
        Ok(())
    })
}

/// The first SYN gets lost; the second one is answered a second later.
fn syn_lost_once(stage: &Stage) -> Result<()> {
    let mut lost = false;
    stage.wire()?.rule(move |segment| {
        let first = segment.syn && segment.from == End::Client && !lost;
        lost |= first;
        if first { Fate::Drop } else { Fate::Pass }
    });
    load::connections(stage, 1).map(drop)
}

/// The answer to the SYN takes its time, and nothing is lost.
fn answered_late(stage: &Stage) -> Result<()> {
    let wire = stage.wire()?;
    wire.rule(|segment| if segment.syn && segment.from == End::Server { Fate::Hold } else { Fate::Pass });
    thread::scope(|scope| {
        let connection = scope.spawn(|| load::connections(stage, 1));
        wire.await_held(1)?;
        thread::sleep(SLOW + Duration::from_millis(50));
        wire.release()?;
        connection.join().expect("the load does not panic").map(drop)
    })
}

/// Far more than the limit: what comes is about the limit, says how many it stands for, and together that is what there was.
#[test]
fn a_rate_limit_is_kept_to_and_says_what_it_left_out() -> Result<()> {
    const LIMIT: f64 = 300.0;
    /// Spans: each connection has two ends here.
    const PACE: Pace = Pace { per_second: 1_000, reset_each: 50 };
    const CONNECTIONS: u64 = 5_000;

    let (receiver, stage) = (Receiver::start()?, Stage::new(Family::V4, Link::Loopback)?);
    let synfin = Synfin::serve_with(
        stage.namespaces(),
        &["--otlp-endpoint", &receiver.endpoint()],
        &[("SYNFIN_OTLP_TRACE_RATE_LIMIT", LIMIT.to_string())],
    )?;
    let began = Instant::now();
    let made = PACE.make(&stage, |connections| connections < CONNECTIONS)?;
    let took = began.elapsed().as_secs_f64();
    synfin.terminate()?;
    receiver.look(|judge| {
        judge.verdict()?;
        books(judge)?;
        let by_limit = count(judge, "synfin.spans.sampled_out", &[(REASON, "rate_limit")]);
        ensure!(by_limit == count(judge, "synfin.spans.sampled_out", &[]), "something was left out by the ratio");

        let abnormal = judge.spans.iter().filter(|span| reason(span).is_some()).count() as u64;
        let resets = judge.spans.iter().filter(|span| reason(span) == Some("reset")).count() as u64;
        ensure!(resets == 2 * made.resets, "{resets} ends that were reset came, of {}", 2 * made.resets);
        let normal = 2 * made.connections - abnormal;
        let (mut kept, mut told, mut variance) = (0.0, 0.0, 0.0);
        for span in judge.spans.iter().filter(|span| reason(span).is_none()) {
            let stands_for = 1.0 / probability(span)?;
            kept += 1.0;
            told += stands_for;
            // Of the sum over all of (what one stands for - 1), as far as those that were kept tell of it.
            variance += stands_for * (stands_for - 1.0);
        }
        let (normal, arriving) = (normal as f64, normal as f64 / took);
        note::write(
            "a limit of spans",
            &format!("{kept} of {normal} spans kept in {took:.1} s, at a limit of {LIMIT}; they stand for {told:.0}"),
        )?;
        // Both ends of a connection are kept or none, mostly, so that chance has half as many tries.
        let chance = 7.0 * (2.0 * variance).sqrt();
        ensure!((told - normal).abs() < chance, "{kept} spans stand for {told}, {normal} were made, +- {chance}");
        ensure!(arriving > 1.5 * LIMIT, "the load of {arriving} spans a second is no test of a limit of {LIMIT}");
        // A rush after a silence is let through until it is believed (agent: sampling/rate).
        let rush = 1.0 + (arriving / LIMIT).ln();
        let most = LIMIT * (took + rush) * 1.25 + 100.0;
        let least = LIMIT * took * 0.6;
        ensure!((least..most).contains(&kept), "{kept} kept, not {least} to {most}; {arriving} came a second");
        Ok(())
    })
}

/// Two agents that know nothing of each other and have the same ratio keep both ends of a connection or none.
#[test]
fn both_ends_are_kept_or_none() -> Result<()> {
    let stage = Stage::new(Family::V6, Link::Wire)?;
    let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio".to_owned()), ("OTEL_TRACES_SAMPLER_ARG", "0.4".to_owned())];
    let agents = [&stage.client, &stage.server].map(|side: &Side| Agent::start_with([&side.netns], &ratio));
    load::connections(&stage, 60)?;
    let mut traces = Vec::new();
    for agent in agents {
        traces.push(agent?.end()?.spans);
    }
    let all = |spans: &[Span]| spans.iter().map(|span| span.trace_id.clone()).collect::<BTreeSet<_>>();
    for (here, there) in [(0, 1), (1, 0)] {
        let there = all(&traces[there]);
        for span in traces[here].iter().filter(|span| reason(span).is_none()) {
            let stated = probability(span)?;
            ensure!((stated - 0.4).abs() < 1e-9, "{stated} is stated");
            ensure!(there.contains(&span.trace_id), "the other end of {span:?} was left out");
        }
        // None or all of 60 at 0.4: not in the life of this universe.
        ensure!((1..60).contains(&traces[here].len()), "{} spans", traces[here].len());
    }
    Ok(())
}

/// What could not be sent for too long is dropped, and that is said.
#[test]
fn what_is_too_old_is_dropped_and_counted() -> Result<()> {
    let mut receiver = Receiver::start()?;
    receiver.go_away()?;
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let synfin = Synfin::serve_with(
        stage.namespaces(),
        &["--otlp-endpoint", &receiver.endpoint()],
        &[("SYNFIN_OTLP_MAX_AGE", "3s".to_owned()), ("OTEL_METRIC_EXPORT_INTERVAL", "200".to_owned())],
    )?;
    load::connections(&stage, NORMAL)?;
    thread::sleep(Duration::from_secs(6));
    receiver.come_back()?;
    let expired = |judge: &Judge| {
        let of =
            |what: &str| count(judge, &format!("otel.sdk.processor.{what}.processed"), &[("error.type", "expired")]);
        (of("span"), of("log"))
    };
    let dropped = |judge: &Judge| expired(judge).0 == 2 * NORMAL;
    receiver.await_received(Duration::from_mins(1), "the account of spans that were too old", dropped)?;
    load::connections(&stage, NORMAL)?;
    let ended = synfin.terminate()?;
    receiver.look(|judge| {
        judge.verdict()?;
        ensure!(judge.span_count() == 2 * NORMAL, "{}", judge.summary());
        ensure!(expired(judge).0 == 2 * NORMAL && expired(judge).1 > 0, "{:?} expired", expired(judge));
        let processed = count(judge, "otel.sdk.processor.span.processed", &[]);
        ensure!(processed == 4 * NORMAL, "{processed} spans processed");
        Ok(())
    })?;
    let account = ended.stderr.iter().find(|line| line.contains("not all spans arrived")).context("no account")?;
    ensure!(account.contains(&format!("\"expired\":{}", 2 * NORMAL)), "{account}");
    Ok(())
}
