//! How metrics are told: totals or differences, with which buckets, of whom, and within which bounds; before the kernel's counters.
//! And what they say of sockets that are there now, before `ss`.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use synfin_tests::{
    crowd::Crowd,
    deadline, load,
    netns::Netns,
    otlp::{Receiver, judge::Judge, metrics::Manner},
    prometheus::{OPEN_METRICS, address, promtool, scrape},
    puppet::{CHATTER, COMPLETING, Port},
    scenario::{loss, open, reset},
    sock, ss,
    stage::{Family, Link, Side, Stage},
    state::State,
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

/// Why segments were sent again, by the kernel's counters of each cause; what is left of them all was due to a timer.
///
/// The kernel skips a program that interrupts another one, and counts that. Then a segment may be missing, and the play is repeated: one
/// without it must agree in everything.
#[test]
fn retransmits_by_cause() -> Result<()> {
    for _ in 0..5 {
        let (wrong, skipped) = causes()?;
        if wrong.is_empty() {
            return Ok(());
        }
        ensure!(skipped > 0.5, "{}", wrong.join("\n"));
    }
    anyhow::bail!("the kernel skipped programs of the agent in each of five plays")
}

/// Plays once; gives what is told otherwise than the kernel counted it, and how often the kernel skipped a program.
fn causes() -> Result<(Vec<String>, f64)> {
    let stage = Stage::new(Family::V6, Link::Wire)?;
    let receiver = Receiver::start()?;
    let endpoint = receiver.endpoint();
    let counters = || stage.namespaces().into_iter().map(Counters::of).collect::<Result<Vec<_>>>();
    let before = counters()?;
    let synfin = Synfin::serve_with(stage.namespaces(), &["--otlp-endpoint", &endpoint], &variables(&[]))?;
    // None of them lets a probe send new data, which the kernel would count too.
    for play in [loss::segment, loss::tail, loss::tail, loss::fin, loss::third_ack] {
        play(&stage)?;
    }
    synfin.terminate()?;
    let now = counters()?;
    let growth = |name: &str| now.iter().zip(&before).map(|(now, before)| now.since(before).get(name)).sum::<u64>();
    let [all, fast, probes] = ["TcpRetransSegs", "TcpExtTCPFastRetrans", "TcpExtTCPLossProbes"].map(growth);
    // The play must show what it is for: the SYN-ACK is sent again by a timer.
    ensure!(fast >= 1 && probes >= 2 && all > fast + probes, "{all} segments sent again, {fast} fast, {probes} probes");
    receiver.look(|judge| {
        judge.verdict()?;
        let told = |wanted: &[(&str, &str)]| judge.series.sum("system.network.tcp.retransmits", wanted);
        let by_cause = |cause| told(&[("network.tcp.retransmit.type", cause)]);
        let rows = [
            ("in all", told(&[]), all),
            ("fast", by_cause("fast"), fast),
            ("tail_loss_probe", by_cause("tail_loss_probe"), probes),
            ("timeout", by_cause("timeout"), all - fast - probes),
        ];
        let differs = |(_, told, counted): &(&str, f64, u64)| (told - *counted as f64).abs() > 0.5;
        let tell = |(cause, told, counted)| format!("{cause}: {told} told, the kernel counted {counted}");
        let skipped = judge.series.sum("synfin.events.lost", &[("synfin.loss.reason", "recursion")]);
        Ok((rows.into_iter().filter(differs).map(tell).collect(), skipped))
    })
}

/// Age of what is old, seconds: twice [`LATE`] and more, so that what is told late is not taken for what is told of younger ones.
const OLD: f64 = 20.0;
/// How late an age may be told, seconds: a census each five seconds, on a busy machine.
const LATE: f64 = 9.0;
/// Longest time until something is old and told so, or until its end is told: CLOSE_WAIT is as of the last twenty seconds.
const AGEING: Duration = Duration::from_mins(1);
/// Bytes that are not acknowledged, and bytes that are not read.
const UNANSWERED: &[u8] = &[7; 5000];
const UNREAD: &[u8] = &[7; 1000];

/// How old the oldest connection in CLOSE_WAIT and the oldest half-open one are, and the queues of connections and listeners.
#[test]
fn ages_and_queues() -> Result<()> {
    let mut crowd = Crowd::new()?;
    let (netns, side) = (crowd.netns.clone(), crowd.side(Family::V4));
    let receiver = Receiver::start()?;
    let endpoint = receiver.endpoint();
    let soon = variables(&[("SYNFIN_CENSUS_INTERVAL", "5s")]);
    let synfin = Synfin::serve_with([&netns], &["--otlp-endpoint", &endpoint], &soon)?;
    let busy = crowd.listen(Family::V4, 0, 100)?.port();
    crowd.listen(Family::V4, 0, 50)?;

    let from = Instant::now();
    crowd.knock(Family::V4, busy, 2000, 1)?;
    let old = left_behind(&side)?;
    await_states(&netns, 1, 1)?;
    let oldest = Born { from, to: Instant::now() };
    await_told(&receiver, "what is old", |judge| {
        let ages = [half_open_age(judge, &netns, busy)?, close_wait_age(judge)?];
        ensure!(ages.iter().all(|age| *age >= OLD), "{ages:?} s");
        ages.into_iter().try_for_each(|age| oldest.has_age(age))
    })?;

    // Younger ones change nothing about the oldest. And nothing of what comes is read, accepted or acknowledged.
    let from = Instant::now();
    crowd.knock(Family::V4, busy, 2001, 4)?;
    crowd.knock(Family::V4, busy, COMPLETING, 7)?;
    crowd.connect(Port::Deaf, 3, |_, socket| {
        (&socket).write_all(UNANSWERED)?;
        Ok(Some(socket))
    })?;
    crowd.connect(Port::Chatty, 3, |_, socket| Ok(Some(socket)))?;
    let young = left_behind(&side)?;
    await_states(&netns, 5, 2)?;
    let younger = Born { from, to: Instant::now() };
    await_told(&receiver, "the queues that ss shows", |judge| {
        queues(judge, &netns)?;
        oldest.has_age(half_open_age(judge, &netns, busy)?)?;
        oldest.has_age(close_wait_age(judge)?)
    })?;
    // The play must show what it is for.
    let rows = ss::all(&netns)?;
    let listener = rows.iter().find(|row| row.state == State::Listen && row.port == busy).context("the listener")?;
    ensure!((listener.receive_queue, listener.send_queue) == (7, 100), "{listener:?}");
    let least = (2 * UNREAD.len() + 3 * CHATTER, 3 * UNANSWERED.len());
    let (unread, unanswered) = bytes(&rows);
    ensure!(unread >= least.0 as u64 && unanswered >= least.1 as u64, "{unread} and {unanswered} bytes, not {least:?}");

    drop(old);
    await_told(&receiver, "what is left in CLOSE_WAIT", |judge| younger.has_age(close_wait_age(judge)?))?;
    drop(young);
    await_told(&receiver, "nobody in CLOSE_WAIT", |judge| {
        let age = close_wait_age(judge)?;
        ensure!(age.abs() < f64::EPSILON, "{age} s");
        Ok(())
    })?;
    synfin.terminate()?;
    receiver.look(Judge::verdict)
}

/// Something began between these moments.
#[derive(Clone, Copy)]
struct Born {
    from: Instant,
    to: Instant,
}

impl Born {
    /// Fails unless something is told to be as old as it is, or was a moment ago.
    fn has_age(self, told: f64) -> Result<()> {
        let (least, most) = (self.to.elapsed().as_secs_f64() - LATE, self.from.elapsed().as_secs_f64());
        ensure!((least..=most).contains(&told), "{told} s told of what is {least} to {most} s old");
        Ok(())
    }
}

/// A connection whose client has sent something and closed, and whose server has not heard of it: it is in CLOSE_WAIT until it is dropped.
fn left_behind(side: &Side) -> Result<TcpStream> {
    let (listener, address) = sock::listen(side, 1)?;
    let mut client = sock::connect(side, address)?;
    client.write_all(UNREAD)?;
    sock::accept(&listener)
}

/// Waits until so many connections are half open, and so many in CLOSE_WAIT.
fn await_states(netns: &Netns, half_open: usize, close_wait: usize) -> Result<()> {
    deadline::until("the sockets of the play", || {
        let rows = ss::all(netns)?;
        let count = |state| rows.iter().filter(|row| row.state == state).count();
        Ok(((count(State::SynReceived), count(State::CloseWait)) == (half_open, close_wait)).then_some(()))
    })
}

/// Waits until what has been told is right; fails with what was wrong at the end.
fn await_told(receiver: &Receiver, what: &str, right: impl Fn(&Judge) -> Result<()>) -> Result<()> {
    receiver
        .await_received(AGEING, what, |judge| right(judge).is_ok())
        .with_context(|| format!("{:?}", receiver.look(&right)))
}

/// Of the owner that has the oldest: the others, and the host where it has none, are told as 0.
fn close_wait_age(judge: &Judge) -> Result<f64> {
    let ages = judge.series.points("system.network.tcp.close_wait.age").map(|point| point.value);
    ages.reduce(f64::max).context("no age of CLOSE_WAIT")
}

/// Of the only listener of the namespace that has half-open connections.
fn half_open_age(judge: &Judge, netns: &Netns, port: u16) -> Result<f64> {
    let here = |attributes: &BTreeMap<String, String>| {
        attributes.get("linux.netns.inode").is_some_and(|inode| *inode == netns.inode().to_string())
    };
    let points = judge.series.points("system.network.tcp.half_open.age").filter(|point| here(&point.attributes));
    let ages: Vec<_> = points.map(|point| (point.attributes.get("network.local.port"), point.value)).collect();
    let port = port.to_string();
    let [(told, age)] = ages[..] else { anyhow::bail!("{ages:?}, and port {port} alone has half-open connections") };
    ensure!(told == Some(&port), "{ages:?}, not of port {port}");
    Ok(age)
}

/// Bytes that connections have not read, and that have not been acknowledged to them.
fn bytes(rows: &[ss::Row]) -> (u64, u64) {
    let sums = ss::sums(rows);
    (sums.values().map(|sum| sum.receive_queue).sum(), sums.values().map(|sum| sum.send_queue).sum())
}

/// Fails unless all queues of the namespace are told as `ss` shows them.
fn queues(judge: &Judge, netns: &Netns) -> Result<()> {
    let (rows, inode) = (ss::all(netns)?, netns.inode().to_string());
    let told = |metric: &str, key: &str, value: &str| {
        let wanted = [("linux.netns.inode", inode.as_str()), (key, value)];
        judge.series.sum(&format!("system.network.tcp.{metric}"), &wanted)
    };
    let (unread, unanswered) = bytes(&rows);
    let mut wanted = vec![
        ("bytes to be read".to_owned(), told("queue.usage", "network.io.direction", "receive"), unread),
        ("bytes to be acknowledged".to_owned(), told("queue.usage", "network.io.direction", "transmit"), unanswered),
    ];
    for listener in rows.iter().filter(|row| row.state == State::Listen) {
        let port = listener.port.to_string();
        let of_port = |metric: &str| told(metric, "network.local.port", &port);
        let half_open = rows.iter().filter(|row| row.state == State::SynReceived && row.port == listener.port).count();
        wanted.extend([
            (format!("waiting at {port}"), of_port("accept_queue.usage"), listener.receive_queue),
            (format!("most that may wait at {port}"), of_port("accept_queue.limit"), listener.send_queue),
            (format!("half open at {port}"), of_port("half_open.count"), half_open as u64),
        ]);
    }
    let differs = |(_, told, shown): &&(String, f64, u64)| (told - *shown as f64).abs() > 0.5;
    let wrong: Vec<_> = wanted.iter().filter(differs).collect();
    ensure!(wrong.is_empty(), "told and shown by ss: {wrong:?}");
    Ok(())
}
