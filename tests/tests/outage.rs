//! The backend is gone for a minute under load: what that costs, to the last connection.

use std::{
    fs,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use synfin_tests::{
    deadline::PATIENCE,
    load::{Made, Pace},
    note,
    otlp::{
        Mood, Receiver,
        judge::{Judge, integer},
    },
    stage::{Family, Link, Stage},
    synfin::Synfin,
    witness::nstat::Counters,
};

/// Connections a second that the agents must live through during the outage.
const LOAD: u32 = 2_000;
/// A little more is aimed at: a pace is never exceeded, only caught up with, so that one of exactly [`LOAD`] would fall below it
/// by whatever the machine does meanwhile. This leaves 600 ms of the outage's minute.
const PACE: Pace = Pace { per_second: LOAD + LOAD / 100, reset_each: 100 };
/// How long nobody listens on the backend's port.
const OUTAGE: Duration = Duration::from_mins(1);
/// Load while the backend is there: before it goes, so that everything is warm; and when it is back.
const BESIDE: Duration = Duration::from_secs(2);
/// Requests are refused before the port is closed, so that the answers to all that was taken get home. A request whose answer
/// is lost is rightly sent again, and then its spans come twice.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Connections at most: a span of each fits into the default queue, however slow the judge was before the outage.
const MOST: u64 = 131_000;
/// Until everything has arrived: pauses between attempts grow to 30 s, then 131,072 spans are judged.
const CATCHING_UP: Duration = Duration::from_secs(90);

/// The default of `otlp.queue`.
const DEFAULT_QUEUE: u64 = 131_072;
/// Some seconds of this load.
const SMALL_QUEUE: u64 = 20_000;
/// Memory for each span that may wait, as `otlp.queue` is described.
const BYTES_OF_A_SPAN: u64 = 128;
/// What an outage may take beside the queue: the first requests of full size (1 MiB as they are encoded, the same as they are sent), and what
/// the heap wastes.
const BESIDE_THE_QUEUE: u64 = 4 << 20;

/// Three agents live through one outage. What waits fits into the default queue of the first, which watches one end of each connection:
/// nothing is lost. It exceeds the small queue of the second, which watches both: each span that is lost is counted, and none of them is abnormal.
/// The third loses events all the time, and all its log records about that arrive, in order.
#[test]
fn a_minute_under_load() -> Result<()> {
    let mut stage = Stage::new(Family::V4, Link::Loopback)?;
    // Clients have this peer, servers have 127.0.0.1: so one end alone can be watched.
    stage.server.ip = Ipv4Addr::new(127, 0, 0, 2).into();
    let before = Counters::of(&stage.client.netns)?;
    let mut agents = [
        Agent::start(&stage, &["--peer", "127.0.0.2"], &[])?,
        Agent::start(&stage, &[], &[("SYNFIN_OTLP_QUEUE", &SMALL_QUEUE.to_string())])?,
        Agent::start(&stage, &["--ring-size", "4KiB"], &[("OTEL_TRACES_EXPORTER", "none")])?,
    ];

    let (so_far, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (made, lived) = thread::scope(|scope| {
        let load = scope.spawn(|| {
            PACE.make(&stage, |connections| {
                so_far.store(connections, Relaxed);
                connections < MOST && !over.load(Relaxed)
            })
        });
        let lived = live_through(&mut agents, &so_far);
        over.store(true, Relaxed);
        (load.join().expect("the load does not panic"), lived)
    });
    let (made, lived) = (made?, lived?);
    let kernel = Counters::of(&stage.client.netns)?.since(&before);
    let Lived { at_return, meanwhile, lasted } = lived;
    let rate = meanwhile as f64 / lasted.as_secs_f64();
    let story =
        format!("{made:?}, {at_return} of them when the backend returned, {rate:.0} a second while it was away");
    note::write("an outage of a minute", &story)?;
    ensure!(
        rate >= f64::from(LOAD),
        "{meanwhile} connections in {lasted:.1?} of outage are {rate:.0} a second, and {LOAD} are what this test is about: \
         the machine was too slow or too busy for the load (at most {MOST} in all); run it when nothing else is running; {story}"
    );

    let [patient, shedding, losing] = agents;
    patient.end(&kernel, made, Ends::Clients).context("the default queue").with_context(|| story.clone())?;
    shedding.end(&kernel, made, Ends::Both { at_return }).context("a small queue").with_context(|| story.clone())?;
    losing.end_of_records().context("a small ring").with_context(|| story)
}

/// The load of an outage.
struct Lived {
    /// Connections that there were when the backends returned.
    at_return: u64,
    /// Those of them that were made while the backends were away.
    meanwhile: u64,
    /// How long that was.
    lasted: Duration,
}

/// The backends go and come back while the load lasts.
fn live_through(agents: &mut [Agent; 3], so_far: &AtomicU64) -> Result<Lived> {
    thread::sleep(BESIDE);
    for agent in agents.iter() {
        agent.receiver.mood(Mood::Refuse);
    }
    thread::sleep(LAST_ANSWERS);
    for agent in agents.iter_mut() {
        agent.receiver.go_away()?;
        agent.forget_memory()?;
        agent.memory_before = agent.memory()?;
        agent.spans_before = agent.receiver.look(Judge::span_count);
    }
    let (began, at_start) = (Instant::now(), so_far.load(Relaxed));
    let returns = began + OUTAGE;
    while Instant::now() < returns {
        // What the load does meanwhile is far more than this ring holds.
        let losing = &agents[2].synfin;
        losing.signal(Signal::SIGSTOP)?;
        thread::sleep(Duration::from_millis(200));
        losing.signal(Signal::SIGCONT)?;
        thread::sleep(Duration::from_secs(4).min(returns.saturating_duration_since(Instant::now())));
    }
    let (at_return, lasted) = (so_far.load(Relaxed), began.elapsed());
    for agent in agents.iter_mut() {
        agent.receiver.mood(Mood::Accept);
        agent.receiver.come_back()?;
        ensure!(agent.synfin.alive()?, "an agent died with its backend");
    }
    thread::sleep(BESIDE);
    Ok(Lived { at_return, meanwhile: at_return - at_start, lasted })
}

/// Which ends of the connections an agent watched.
#[derive(Clone, Copy)]
enum Ends {
    /// What waits fits into the default queue.
    Clients,
    /// It does not fit into the small one.
    Both {
        /// Connections that there were when the backend returned.
        at_return: u64,
    },
}

/// `synfin run` and its backend.
struct Agent {
    synfin: Synfin,
    receiver: Receiver,
    /// Resident memory when the outage began.
    memory_before: u64,
    /// Spans that had arrived then.
    spans_before: u64,
}

impl Agent {
    fn start(stage: &Stage, flags: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let receiver = Receiver::start()?;
        receiver.forget_spans();
        let endpoint = receiver.endpoint();
        let flags = [&["--otlp-protocol", "grpc", "--otlp-endpoint", &endpoint], flags].concat();
        // Not five exports of metrics a second: the judge shares two CPUs with the load.
        // And nothing is sampled: what is lost must be seen to be so by the queue.
        let variables: Vec<_> = [("OTEL_METRIC_EXPORT_INTERVAL", "1000"), ("SYNFIN_OTLP_TRACE_RATE_LIMIT", "none")]
            .iter()
            .chain(variables)
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let synfin = Synfin::serve_with(stage.namespaces(), &flags, &variables)?;
        // In one request a warning comes before what is less severe; this one shall come alone, before there is anything to warn of.
        let started = |judge: &Judge| judge.logs.iter().any(|log| log.event_name == "synfin.started");
        receiver.await_received(PATIENCE, "the record of the start", started)?;
        Ok(Self { synfin, receiver, memory_before: 0, spans_before: 0 })
    }

    /// Lets VmHWM begin anew: the start, which loads and verifies programs, takes more than an outage does.
    fn forget_memory(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.synfin.pid()), "5")?)
    }

    /// The most resident memory that it has had since, bytes.
    fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.synfin.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// Everything has been sent; what was made is what the kernel says, and came or was counted as lost.
    fn end(self, kernel: &Counters, made: Made, ends: Ends) -> Result<()> {
        let spans = match ends {
            Ends::Clients => made.connections,
            Ends::Both { .. } => 2 * made.connections,
        };
        let all = |judge: &Judge| judge.span_count() + count(judge, LOST, &[QUEUE_FULL]) >= spans;
        self.receiver.await_received(CATCHING_UP, "every span to come or to be counted", all)?;
        let growth = self.memory()?.saturating_sub(self.memory_before);
        self.synfin.terminate()?;
        self.receiver.look(|judge| {
            judge.verdict()?;
            counters(judge, kernel, made, ends)?;
            let (received, lost) = (judge.span_count(), count(judge, LOST, &[QUEUE_FULL]));
            ensure!(received + lost == spans, "{received} spans came and {lost} are counted as lost, of {spans}");
            // Rejected or left over: none. What was handed over is what came.
            let processed = count(judge, LOST, &[]);
            ensure!(processed == spans, "{processed} spans left the queue, of {spans}");
            let exported = count(judge, "otel.sdk.exporter.span.exported", &[]);
            ensure!(exported == received, "{exported} spans exported, {received} came");

            let before = self.spans_before;
            let capacity = match ends {
                Ends::Clients => {
                    ensure!(lost == 0, "{lost} spans lost, though {received} fit");
                    DEFAULT_QUEUE
                }
                Ends::Both { at_return } => {
                    // No span is shed while there is room: a full queue is what came after the outage, at the least.
                    let waited = received - before;
                    ensure!(waited >= SMALL_QUEUE, "{lost} spans lost, and {waited} had room, of {SMALL_QUEUE}");
                    // And no more than a full queue survived it, but for the last moment's.
                    let beyond = (2 * at_return).saturating_sub(before + SMALL_QUEUE);
                    let moment = u64::from(PACE.per_second);
                    ensure!(lost > 0 && lost + moment >= beyond, "{lost} spans lost, {beyond} were beyond the queue");
                    SMALL_QUEUE
                }
            };
            let resets = [("reset_sent", true), ("reset_received", matches!(ends, Ends::Both { .. }))];
            for (end, seen) in resets {
                let (came, made) = (judge.ends.get(end).copied().unwrap_or_default(), made.resets * u64::from(seen));
                ensure!(came == made, "{came} abnormal spans ({end}) came, of {made}");
            }
            let bound = capacity * BYTES_OF_A_SPAN + BESIDE_THE_QUEUE;
            note::write(
                "an outage of a minute",
                &format!(
                    "{received} spans received, {before} before, {lost} lost; memory grew by {growth}, at most {bound}"
                ),
            )?;
            ensure!(growth <= bound, "memory grew by {growth} bytes, a queue of {capacity} allows {bound}");
            records(judge)?;
            ensure!(judge.logs[0].event_name == "synfin.started", "{:?}", judge.logs[0]);
            Ok(())
        })
    }

    /// Every log record has come, in order, and together they tell each event that was lost.
    fn end_of_records(self) -> Result<()> {
        let told = |judge: &Judge| {
            let lost = count(judge, "synfin.events.lost", &[]);
            (lost, judge.logs.iter().filter_map(|log| integer(&log.attributes, "synfin.loss.count")).sum::<i64>())
        };
        let all = |judge: &Judge| matches!(told(judge), (lost, told) if lost == told.cast_unsigned());
        self.receiver
            .await_received(CATCHING_UP, "a record of every loss", all)
            .with_context(|| format!("lost and told: {:?}", self.receiver.look(told)))?;
        self.synfin.terminate()?;
        self.receiver.look(|judge| {
            judge.verdict()?;
            records(judge)?;
            ensure!(all(judge), "lost and told: {:?}", told(judge));
            // One for each stop at the least: they were made during the outage.
            let stops = OUTAGE.as_secs() as usize / 5;
            ensure!(judge.logs.len() > stops, "{} records: the test has not forced losses", judge.logs.len());
            note::write("an outage of a minute", &format!("{} log records of losses", judge.logs.len()))
        })
    }
}

const LOST: &str = "otel.sdk.processor.span.processed";
const QUEUE_FULL: (&str, &str) = ("error.type", "queue_full");

/// A whole number of the last metrics.
#[expect(clippy::cast_sign_loss, reason = "counters, far below where a float could not hold them")]
fn count(judge: &Judge, metric: &str, attributes: &[(&str, &str)]) -> u64 {
    judge.series.sum(metric, attributes) as u64
}

/// No log record was lost, by the agent's own account, and they come in the order of their times.
fn records(judge: &Judge) -> Result<()> {
    let processed = count(judge, "otel.sdk.processor.log.processed", &[]);
    let came = judge.logs.len() as u64;
    ensure!(processed == came, "{came} log records came, {processed} left the queue");
    for failed in ["queue_full", "shutdown", "rejected"] {
        for metric in ["otel.sdk.processor.log.processed", "otel.sdk.exporter.log.exported"] {
            let lost = count(judge, metric, &[("error.type", failed)]);
            ensure!(lost == 0, "{lost} log records {failed}");
        }
    }
    let wrong = judge.logs.windows(2).find(|pair| pair[1].time_unix_nano < pair[0].time_unix_nano);
    ensure!(wrong.is_none(), "log records come in another order than they were made: {wrong:?}");
    Ok(())
}

/// The last metrics against the kernel's counters, and against what was made.
fn counters(judge: &Judge, kernel: &Counters, made: Made, ends: Ends) -> Result<()> {
    let sum = |name: &str, attributes: &[(&str, &str)]| {
        count(judge, &format!("system.network.tcp.connection.{name}"), attributes)
    };
    let role = |role: &'static str| [("network.tcp.handshake.role", role)];
    let step = |from: &'static str, to: &'static str| {
        sum("transitions", &[("network.tcp.state.previous", from), ("network.connection.state", to)])
    };
    let opened = (kernel.get("TcpActiveOpens"), kernel.get("TcpPassiveOpens"));
    let Made { connections, resets } = made;
    ensure!(opened == (connections, connections), "the kernel counted {opened:?}, {connections} were made");
    ensure!(kernel.get("TcpEstabResets") == 2 * resets, "{} resets", kernel.get("TcpEstabResets"));

    let both = u64::from(matches!(ends, Ends::Both { .. }));
    let cut = kernel.get("TcpEstabResets") / (2 - both);
    // A client's life has five steps, or three with a reset; so has a server's. The listener appears, and goes with the load.
    let steps = (1 + both) * (5 * (connections - resets) + 3 * resets) + 2 * both;
    for (what, told, is) in [
        ("opened by clients", sum("opened", &role("client")), opened.0),
        ("SYN_SENT entered", step("closed", "syn_sent"), opened.0),
        ("opened by peers", sum("opened", &role("server")), opened.1 * both),
        ("SYN_RECEIVED entered", step("listen", "syn_received"), opened.1 * both),
        ("connections cut", step("established", "closed") + step("close_wait", "closed"), cut),
        ("ended", sum("ended", &[]), opened.0 + opened.1 * both),
        ("ended by a RST sent", sum("ended", &[("network.connection.end", "reset_sent")]), resets),
        ("ended by a RST received", sum("ended", &[("network.connection.end", "reset_received")]), resets * both),
        ("transitions", sum("transitions", &[]), steps),
        ("events lost", count(judge, "synfin.events.lost", &[]), 0),
    ] {
        let lost = count(judge, "synfin.events.lost", &[]);
        ensure!(told == is, "{what}: {told} told, {is} is right; {lost} events lost");
    }
    Ok(())
}
