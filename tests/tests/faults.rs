//! Things that go wrong around synfin: it says what it lost, and lives.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use synfin_tests::{
    deadline, load,
    netns::Netns,
    recording::Recording,
    scenario::close,
    sock,
    stage::{Family, Link, Stage},
    state::{
        Counts,
        State::{CloseWait, Closed, Established, FinWait1, FinWait2, LastAck, Listen},
    },
    synfin::{Synfin, command},
    witness::attentive,
};

/// Transitions of one connection with both ends in the namespace, and of its listener's two.
const STEPS: u64 = 10;

/// A ring that is too small for a stopped reader: seen + lost is what happened.
#[test]
fn full_ring() -> Result<()> {
    let connections = 500;
    let set_up = || Stage::new(Family::V4, Link::Loopback);
    let (stage, recording) = attentive(set_up, |stage, witness| {
        let synfin = Synfin::watch(stage.namespaces(), &["--ring-size", "16KiB"])?;
        synfin.signal(Signal::SIGSTOP)?;
        load::connections(&stage, connections)?;
        synfin.signal(Signal::SIGCONT)?;
        let seen = witness.stop()?.of(&stage.client).transitions.total();
        let recording = synfin.stop()?;
        let wrong = format!("the witness saw {seen} transitions of {connections} connections");
        Ok(if seen == connections * STEPS + 2 { Ok((stage, recording)) } else { Err(wrong) })
    })?;

    let happened = connections * STEPS + 2;
    let shown = recording.counts(&stage.client.netns)?.total();
    let lost = lost_transitions(&recording);
    assert!(lost > 0, "{connections} connections fit into the ring: the test proves nothing");
    assert_eq!(shown + lost, happened, "{shown} shown, {lost} lost");
    assert!(recording.lost()?.get("ring_full").is_some_and(|count| *count >= lost), "{:?}", recording.lost()?);
    Ok(())
}

fn lost_transitions(recording: &Recording) -> u64 {
    recording
        .of_type("loss")
        .filter(|line| line["synfin.event.kind"] == "transition" && line["synfin.loss.reason"] == "ring_full")
        .filter_map(|line| line["synfin.loss.count"].as_u64())
        .sum()
}

/// A reader that stops for a while loses nothing as long as the ring holds.
#[test]
fn stopped_and_continued() -> Result<()> {
    let stage = Stage::new(Family::V6, Link::Loopback)?;
    let mut synfin = Synfin::watch(stage.namespaces(), &[])?;
    synfin.signal(Signal::SIGSTOP)?;
    let expected = load::connections(&stage, 100)?;
    synfin.signal(Signal::SIGCONT)?;
    // Without waiting for the drain: the end must drain by itself.
    assert!(synfin.alive()?);
    let recording = synfin.stop()?;
    assert!(recording.lost()?.is_empty(), "{:?}", recording.lost()?);
    assert_eq!(Some(&recording.counts(&stage.client.netns)?), expected.transitions.get(&stage.client.netns.inode()));
    Ok(())
}

/// A process that is stopped again and again while the verifier is at its programs gets them all the same, on the same rungs: the
/// verifier gives up for each signal.
#[test]
fn interrupted_while_loading() -> Result<()> {
    let netns = Netns::new()?;
    let rungs = |line: &str| -> Result<serde_json::Value> {
        Ok(serde_json::from_str::<serde_json::Value>(line)?["synfin.rungs"].clone())
    };
    let start = |line: &str| line.contains(r#""type":"start""#);
    let arguments = ["watch", "--json", "-v", "--netns", netns.name()];
    let undisturbed = {
        let mut synfin = Synfin::spawn(command(arguments)?)?;
        let line = synfin.await_stdout("the start line", start)?;
        synfin.stop()?;
        rungs(&line)?
    };
    ensure!(undisturbed.as_object().is_some_and(|rungs| !rungs.is_empty()), "no rungs in {undisturbed}");
    let mut again = 0;
    for _ in 0..5 {
        let mut synfin = Synfin::spawn(command(arguments)?)?;
        // Maps are made before programs are loaded, and after the kernel was asked what it can do: those answers are not asked for again.
        await_map(synfin.pid())?;
        let done = AtomicBool::new(false);
        let pid = Pid::from_raw(synfin.pid().cast_signed());
        let line = thread::scope(|scope| {
            scope.spawn(|| {
                let mut pause = BETWEEN_STOPS;
                while !done.load(Ordering::Relaxed) {
                    for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
                        _ = kill(pid, signal); // it is not waited for before this ends
                    }
                    thread::sleep(deadline::scaled(pause));
                    pause += pause / 50;
                }
            });
            let line = synfin.await_stdout("the start line", start);
            done.store(true, Ordering::Relaxed);
            line
        })?;
        again += synfin.stderr().iter().filter(|line| line.contains("the program is loaded again")).count();
        synfin.stop()?;
        ensure!(rungs(&line)? == undisturbed, "{} instead of {undisturbed}", rungs(&line)?);
    }
    ensure!(again > 0, "the verifier was never interrupted: the test proves nothing");
    Ok(())
}

/// Waits until a process has made an eBPF map.
fn await_map(pid: u32) -> Result<()> {
    let has_map = || {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).find(|link| link.ends_with("anon_inode:bpf-map"))
    };
    deadline::until("an eBPF map", || Ok(has_map()))?;
    Ok(())
}

/// Less than the verifier takes for the longest of the programs. It grows from stop to stop, so that each has its turn on the slowest
/// machine.
const BETWEEN_STOPS: Duration = Duration::from_millis(4);

/// More connections than the ledger may hold: each is told of once, the pushed-out ones as folded.
#[test]
fn full_ledger() -> Result<()> {
    // The kernel may skip a program on a busy machine; if events depended on the ledger, some would be missing in each play.
    let plays = (0..3).map(|_| overfill()).collect::<Result<Vec<_>>>()?;
    assert!(
        plays.contains(&(COUNT * STEPS + 2)),
        "transitions in each play: {plays:?}, {} were made",
        COUNT * STEPS + 2
    );
    Ok(())
}

/// Connections in a ledger that is too small for them.
const COUNT: u64 = 40;

/// Answers how many transitions were told.
fn overfill() -> Result<u64> {
    let (limit, count) = (16, COUNT);
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let mut watch = command(["watch", "--json", "--connections", "--netns", stage.client.netns.name()])?;
    watch.env("SYNFIN_LEDGER_MAX_CONNECTIONS", limit.to_string());
    let mut synfin = Synfin::spawn(watch)?;
    synfin.await_stdout("the start line", |line| line.contains(r#""type":"start""#))?;
    let (listener, address) = sock::listen(&stage.server, 64)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((sock::connect(&stage.client, address)?, sock::accept(&listener)?));
    }
    for (client, server) in pairs {
        close::one_after_the_other(&stage.client, client, server)?;
    }
    drop(listener);
    stage.await_quiet()?;
    let recording = synfin.stop()?;

    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    for line in recording.of_type("connection") {
        *ends.entry(line["network.connection.end"].as_str().context("network.connection.end")?).or_default() += 1;
    }
    let folded = ends.get("folded").copied().unwrap_or_default();
    assert!(folded >= 2 * count - limit, "{ends:?}");
    let lost = recording.lost()?;
    assert!(lost.get("ledger_full").is_some_and(|count| *count >= folded), "{folded} folded, end line: {lost:?}");
    Ok(recording.counts(&stage.client.netns)?.total())
}

/// A namespace that vanishes while it is watched: the other one is watched on.
#[test]
fn namespace_deleted() -> Result<()> {
    let (gone, stays) = (Netns::new()?, Stage::new(Family::V4, Link::Loopback)?);
    let mut synfin = Synfin::watch([&gone, &stays.client.netns], &[])?;
    gone.delete()?;
    drop(gone);
    let expected = close::by_client(&stays)?;
    assert!(synfin.alive()?);
    let recording = synfin.stop()?;
    assert_eq!(Some(&recording.counts(&stays.client.netns)?), expected.transitions.get(&stays.client.netns.inode()));
    Ok(())
}

/// What happens in a namespace that nobody asked for is not shown.
#[test]
fn other_namespaces_stay_out() -> Result<()> {
    let (watched, other) = (Stage::new(Family::V4, Link::Loopback)?, Stage::new(Family::V4, Link::Loopback)?);
    let synfin = Synfin::watch(watched.namespaces(), &[])?;
    close::by_client(&other)?;
    let recording = synfin.stop()?;
    assert_eq!(recording.transitions()?.len(), 0, "{:?}", recording.transitions()?);
    Ok(())
}

/// A reader that was away while connections ended tells their ends once it is back, and starts with the rest.
#[test]
fn started_in_the_middle() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let (listener, address) = sock::listen(&stage.server, 4)?;
    let client = sock::connect(&stage.client, address)?;
    let server = sock::accept(&listener)?;
    let synfin = Synfin::watch(stage.namespaces(), &["--connections"])?;
    thread::sleep(Duration::from_millis(10)); // a duration that a wrong birth would show
    close::one_after_the_other(&stage.client, client, server)?;
    drop(listener);
    stage.await_quiet()?;
    let recording = synfin.stop()?;

    let mut counts = Counts::default();
    counts.walk(&[Established, FinWait1, FinWait2, Closed]);
    counts.walk(&[Established, CloseWait, LastAck, Closed]);
    counts.walk(&[Listen, Closed]);
    assert_eq!(recording.counts(&stage.client.netns)?, counts);
    for line in recording.of_type("connection") {
        assert!(line.get("network.connection.duration").is_none(), "its beginning was not seen: {line}");
    }
    assert_eq!(recording.of_type("connection").count(), 2, "both ends of the connection");
    recording.events().context("totals").map(drop)
}
