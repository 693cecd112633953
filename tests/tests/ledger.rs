//! `synfin run` against the kernel's own tables: what is older than the agent, what was lost, what a restart leaves.

use std::{
    collections::BTreeMap,
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use synfin_tests::{
    census::Form,
    deadline, load,
    netns::Netns,
    otlp::{
        Receiver,
        judge::{Judge, integer, text},
    },
    sock, ss,
    stage::{Family, Link, Stage},
    synfin::{Synfin, message},
    witness::nstat::Counters,
};

/// A listing, its confirmation and a census, on a busy machine.
const HEALING: Duration = Duration::from_secs(40);

/// Both ends of connections that are held open, and those whose client has closed.
struct Held {
    pairs: Vec<(TcpStream, TcpStream)>,
    half_closed: Vec<TcpStream>,
    listener: TcpListener,
}

/// Opens `open + half_closed` connections; the clients of the latter close.
fn hold(stage: &Stage, open: usize, half_closed: usize) -> Result<Held> {
    let (listener, address) = sock::listen(&stage.server, 128)?;
    let mut held = Held { pairs: Vec::new(), half_closed: Vec::new(), listener };
    for number in 0..open + half_closed {
        let client = sock::connect(&stage.client, address)?;
        let server = sock::accept(&held.listener)?;
        if number < open {
            held.pairs.push((client, server));
        } else {
            drop(client);
            held.half_closed.push(server);
        }
    }
    Ok(held)
}

/// Sockets of a namespace by state, as `ss` counts them.
fn kernel(netns: &Netns) -> Result<BTreeMap<String, u64>> {
    let mut states = BTreeMap::new();
    for row in ss::all(netns)? {
        *states.entry(row.state.name().to_owned()).or_default() += 1;
    }
    Ok(states)
}

#[expect(clippy::cast_sign_loss, reason = "whole numbers of sockets, far below where a float could not hold them")]
fn states(judge: &Judge, metric: &str) -> BTreeMap<String, u64> {
    let mut states = BTreeMap::new();
    for point in judge.series.points(metric) {
        let state = point.attributes["network.connection.state"].clone();
        *states.entry(state).or_default() += point.value as u64;
    }
    states.retain(|_, sockets| *sockets > 0);
    states
}

/// The gauge equals `ss`, and the ledger does so for the states that full sockets are in. A closed connection waits in the ledger for its
/// last words for a moment.
fn agrees(judge: &Judge, netns: &Netns) -> Result<()> {
    let kernel = kernel(netns)?;
    let told = states(judge, "system.network.connection.count");
    ensure!(told == kernel, "the gauge says {told:?}, ss says {kernel:?}");
    let mut ledger = states(judge, "synfin.ledger.connections");
    let mut full = kernel;
    for minisocks in ["time_wait", "fin_wait_2"] {
        full.remove(minisocks);
        ledger.remove(minisocks);
    }
    ensure!(ledger == full, "the ledger has {ledger:?}, ss says {full:?}");
    Ok(())
}

fn await_agreement(receiver: &Receiver, netns: &Netns) -> Result<()> {
    receiver
        .await_received(HEALING, "the ledger to equal ss", |judge| agrees(judge, netns).is_ok())
        .with_context(|| format!("{:?}", receiver.look(|judge| agrees(judge, netns))))
}

fn serve(stage: &Stage, receiver: &Receiver, more: &[&str]) -> Result<Synfin> {
    let endpoint = receiver.endpoint();
    let mut flags = vec!["--otlp-endpoint", &endpoint];
    flags.extend(more);
    Synfin::serve(stage.namespaces(), &flags)
}

fn corrections(judge: &Judge, kind: &str) -> f64 {
    judge.series.sum("synfin.ledger.corrections", &[("synfin.correction.kind", kind)])
}

/// Connections older than the agent are known, end as they should, and none of them counts as drift.
#[test]
fn older_connections_are_adopted() -> Result<()> {
    for family in [Family::V4, Family::V6, Family::Mapped] {
        let (receiver, stage) = (Receiver::start()?, Stage::new(family, Link::Loopback)?);
        let held = hold(&stage, 150, 50)?;
        let netns = &stage.client.netns;
        // A half that closed becomes a minisock, or stays a socket for a minute where its ACK came while close() held it.
        let full = deadline::within(HEALING, "the halves that closed to be acknowledged", || {
            let rows = ss::all(netns)?;
            let quiet = rows.iter().filter(|row| row.state.name() == "close_wait").count() == 50
                && rows.iter().all(|row| row.state.name() != "fin_wait_1");
            Ok(quiet.then(|| rows.iter().filter(|row| row.form == Form::Full).count() as f64))
        })?;
        let synfin = serve(&stage, &receiver, &[])?;
        await_agreement(&receiver, netns)?;
        // 150 connections, 50 halves and what has not become a minisock of the others, and their listener.
        receiver.look(|judge| {
            let found = judge.series.sum("synfin.ledger.found_at_start", &[]);
            ensure!((found - full).abs() < 0.5, "{found} sockets found at the start, of {full}");
            for kind in ["adopted", "stale_state", "missed_close", "unknown", "gap"] {
                ensure!(corrections(judge, kind) < 0.5, "{} {kind}", corrections(judge, kind));
            }
            Ok(())
        })?;
        drop(held);
        stage.await_quiet()?;
        await_agreement(&receiver, netns)?;
        synfin.terminate()?;
        receiver.look(|judge| {
            judge.verdict()?;
            let ended = judge.series.sum("system.network.tcp.connection.ended", &[]);
            ensure!((ended - (full - 1.0)).abs() < 0.5, "{ended} connections ended, and a listener, of {full}");
            ensure!((judge.spans.len() as f64 - ended).abs() < 0.5, "{} spans of {ended}", judge.spans.len());
            ensure!(corrections(judge, "unknown") < 0.5, "an adopted connection was not found again");
            Ok(())
        })?;
    }
    Ok(())
}

/// The agent stands still while the smallest ring overflows: afterwards the data say that, and the ledger equals the kernel again.
#[test]
fn forced_loss_heals() -> Result<()> {
    let (receiver, stage) = (Receiver::start()?, Stage::new(Family::V4, Link::Loopback)?);
    let netns = &stage.client.netns;
    let before = hold(&stage, 400, 0)?;
    let synfin = serve(&stage, &receiver, &["--ring-size", "4KiB"])?;
    await_agreement(&receiver, netns)?;
    synfin.signal(Signal::SIGSTOP)?;
    // Old ones end, new ones begin, and nearly nothing of it is seen.
    drop(before);
    let _held = hold(&stage, 300, 100)?;
    synfin.signal(Signal::SIGCONT)?;
    await_agreement(&receiver, netns)?;
    receiver.look(|judge| {
        let lost = judge.series.sum("synfin.events.lost", &[("synfin.loss.reason", "ring_full")]);
        ensure!(lost > 1000.0, "{lost} events lost: the test has not forced a loss");
        ensure!(corrections(judge, "adopted") > 300.0, "{} adopted", corrections(judge, "adopted"));
        ensure!(corrections(judge, "missed_close") > 300.0, "{} missed", corrections(judge, "missed_close"));
        Ok(())
    })?;
    let said = synfin.stderr().iter().filter_map(|line| message(line)).any(|text| text.contains("put right"));
    ensure!(said, "the log does not say that the ledger was put right: {:?}", synfin.stderr());
    synfin.terminate()?;
    receiver.look(|judge| {
        judge.verdict()?;
        let logged = judge.series.sum("synfin.events.lost", &[]);
        ensure!(logged > 1000.0, "{logged}");
        // What a backend reads of it: records of the same corrections.
        let told: i64 = judge
            .logs
            .iter()
            .filter(|log| log.event_name == "synfin.ledger.corrected")
            .filter(|log| text(&log.attributes, "synfin.correction.kind") == Some("adopted"))
            .filter_map(|log| integer(&log.attributes, "synfin.correction.count"))
            .sum();
        let counted = corrections(judge, "adopted");
        ensure!((told as f64 - counted).abs() < 0.5, "{told} adoptions in records, {counted} counted");
        Ok(())
    })
}

/// What events have told of is met by a listing, whatever a socket is known by: its cookie, or its address where no program can ask for
/// cookies, while inet_diag tells no address.
#[test]
fn a_listing_meets_what_is_known() -> Result<()> {
    for (rung, source) in [
        ("tp_btf", "iterator"),
        ("tp_btf", "inet_diag"),
        ("raw_tracepoint", "iterator"),
        ("raw_tracepoint", "inet_diag"),
        ("tracepoint", "inet_diag"),
    ] {
        let mut plays = (0..5).map(|_| met(rung, source).with_context(|| format!("{rung}, {source}")));
        // On a busy machine the smallest ring overflows before its time.
        let proven = plays.find(|play| !matches!(play, Ok(false))).transpose()?;
        ensure!(proven.is_some(), "{rung}, {source}: something was lost too early in each of five plays");
    }
    Ok(())
}

/// False if something was lost too early, so that the play proves nothing.
fn met(rung: &str, source: &str) -> Result<bool> {
    let (receiver, stage) = (Receiver::start()?, Stage::new(Family::V4, Link::Loopback)?);
    let netns = &stage.client.netns;
    let endpoint = receiver.endpoint();
    let flags = ["--otlp-endpoint", &endpoint, "--max-rung", rung, "--ring-size", "4KiB"];
    let synfin = Synfin::serve_with(stage.namespaces(), &flags, &[("SYNFIN_CENSUS_SOURCE", source.to_owned())])?;
    receiver.await_received(HEALING, "the first listing", |judge| agrees(judge, netns).is_ok())?;
    // Slowly, so that nothing of them is lost in the smallest ring.
    let pause = || thread::sleep(Duration::from_millis(20));
    let _known = (0..30).map(|_| hold(&stage, 1, 0).inspect(|_| pause())).collect::<Result<Vec<_>>>()?;
    await_agreement(&receiver, netns)?;
    let lost = |judge: &Judge| judge.series.sum("synfin.events.lost", &[]);
    if receiver.look(lost) > 0.5 {
        synfin.terminate()?;
        return Ok(false);
    }
    // Beginnings of more are lost, so that all are listed.
    synfin.signal(Signal::SIGSTOP)?;
    let _unknown = hold(&stage, 300, 0)?;
    synfin.signal(Signal::SIGCONT)?;
    await_agreement(&receiver, netns)?;
    receiver.look(|judge| {
        ensure!(lost(judge) > 100.0, "{} events lost: the test has not forced a loss", lost(judge));
        // Both ends, and the second listener.
        let adopted = corrections(judge, "adopted");
        ensure!((1.0..=601.0).contains(&adopted), "{adopted} adopted");
        let missed = corrections(judge, "missed_close");
        // A birth that was the last to be told has no end by which it could be found again: one for each place that records wait in.
        ensure!(missed < 4.5, "{missed} closes missed, though nothing has closed: {:?}", judge.spans);
        Ok(())
    })?;
    synfin.terminate()?;
    Ok(true)
}

/// The agent starts, ends and starts again while connections come and go; then the ledger equals the kernel.
#[test]
fn restart_under_load() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let held = hold(&stage, 200, 20)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(hold(&stage, 50, 50)?);
            }
            anyhow::Ok(())
        });
        for _ in 0..3 {
            let receiver = Receiver::start()?;
            let synfin = serve(&stage, &receiver, &[])?;
            thread::sleep(Duration::from_secs(1));
            synfin.terminate()?;
        }
        let receiver = Receiver::start()?;
        let synfin = serve(&stage, &receiver, &[])?;
        thread::sleep(Duration::from_secs(2));
        done.store(true, Ordering::Relaxed);
        load.join().expect("the load does not panic")?;
        await_agreement(&receiver, &stage.client.netns)?;
        let ended = synfin.terminate()?;
        receiver.look(|judge| {
            judge.verdict()?;
            // Under this load an interrupt now and then keeps the kernel from running a program, sometimes without counting it. That
            // is put right; what was not lost must not be.
            let lost = judge.series.sum("synfin.events.lost", &[]);
            let seen = judge.series.sum("synfin.events", &[]);
            for kind in ["adopted", "stale_state", "missed_close"] {
                let count = corrections(judge, kind);
                let bound = if kind == "missed_close" { lost + seen / 2000.0 } else { lost };
                ensure!(count < bound + 0.5, "{count} {kind}, {lost} events lost; {}", ended.stderr.join("\n"));
            }
            Ok(())
        })
    })?;
    drop(held);
    Ok(())
}

/// Namespaces that come and go disturb nobody.
#[test]
fn namespaces_come_and_go() -> Result<()> {
    let (receiver, stage) = (Receiver::start()?, Stage::new(Family::V4, Link::Loopback)?);
    let _held = hold(&stage, 10, 0)?;
    let synfin = serve(&stage, &receiver, &[])?;
    await_agreement(&receiver, &stage.client.netns)?;
    for _ in 0..20 {
        let passing = Stage::new(Family::V4, Link::Loopback)?;
        load::connections(&passing, 3)?;
    }
    let mut synfin = synfin;
    deadline::within(HEALING, "another census", || Ok(synfin.alive()?.then_some(())))?;
    await_agreement(&receiver, &stage.client.netns)?;
    synfin.terminate()?;
    receiver.look(Judge::verdict)
}

/// A client with few ports takes the places of its own TIME_WAIT sockets: told as the kernel counts it.
#[test]
fn reuse_of_time_wait_is_told() -> Result<()> {
    let (receiver, stage) = (Receiver::start()?, Stage::new(Family::V4, Link::Loopback)?);
    let netns = &stage.client.netns;
    netns.sysctl("ipv4/ip_local_port_range", "40000 40009")?;
    netns.sysctl("ipv4/tcp_tw_reuse", "1")?;
    let synfin = serve(&stage, &receiver, &[])?;
    // The first look is where counting starts.
    let looked = |judge: &Judge| judge.series.sum("synfin.census.namespaces", &[]) > 0.5;
    receiver.await_received(HEALING, "a first census", looked)?;
    let before = Counters::of(netns)?;
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let mut made = 0;
    deadline::within(HEALING, "ten connections more than there are ports", || {
        // Refused as long as every port waits for less than a second.
        let Ok(client) = sock::connect(&stage.client, address) else { return Ok(None) };
        let server = sock::accept(&listener)?;
        drop(client);
        drop(server);
        made += 1;
        Ok((made == 15).then_some(()))
    })?;
    let reused = Counters::of(netns)?.since(&before).get("TcpExtTWRecycled") as f64;
    ensure!(reused > 0.5, "the kernel has reused none: the test proves nothing");
    let told = |judge: &Judge| judge.series.sum("system.network.tcp.time_wait.reused", &[]);
    receiver
        .await_received(HEALING, "the reuse to be told", |judge| (told(judge) - reused).abs() < 0.5)
        .with_context(|| format!("{reused} by the kernel"))?;
    synfin.terminate()?;
    receiver.look(Judge::verdict)
}

/// Minisocks whose peer connected anew, and those whose time is over.
#[test]
fn the_end_of_time_wait_is_told() -> Result<()> {
    const MADE: usize = 10;
    let (receiver, stage) = (Receiver::start()?, Stage::new(Family::V4, Link::Loopback)?);
    let netns = &stage.server.netns;
    let synfin = serve(&stage, &receiver, &[])?;
    let looked = |judge: &Judge| judge.series.sum("synfin.census.namespaces", &[]) > 0.5;
    receiver.await_received(HEALING, "a first census", looked)?;
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let mut last = None;
    for _ in 0..MADE {
        let client = sock::connect(&stage.client, address)?;
        last = Some(client.local_addr()?);
        drop(sock::accept(&listener)?);
        drop(client);
    }
    let minisocks = |count: usize, bound: Duration| {
        deadline::within(bound, &format!("{count} minisocks"), || {
            Ok((netns.sockstat()?.timewait == count as u64).then_some(()))
        })
    };
    minisocks(MADE, HEALING)?;
    // From the port of a connection that waits: it is answered, and one minisock is no more.
    let again = sock::connect_from(&stage.client, last.context("made above")?, address)?;
    minisocks(MADE - 1, HEALING)?;
    let told = |judge: &Judge| judge.series.sum("system.network.tcp.time_wait.ended", &[]);
    receiver.await_received(HEALING, "one to be told", |judge| (told(judge) - 1.0).abs() < 0.5)?;
    minisocks(0, Duration::from_secs(75))?;
    receiver.await_received(HEALING, "all to be told", |judge| (told(judge) - MADE as f64).abs() < 0.5)?;
    drop((again, listener));
    synfin.terminate()?;
    receiver.look(Judge::verdict)
}
