//! What `watch` leaves out: namespaces, states, ports, peers, and the end of its time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use synfin_tests::{
    load, need,
    netns::Netns,
    recording::Recording,
    scenario::close,
    sock,
    stage::{Family, Link, Stage},
    synfin::{Synfin, command, run},
};

/// A watch of `stage` with `flags`, while `count` connections are made.
fn watched(stage: &Stage, flags: &[&str], count: u64) -> Result<Recording> {
    let synfin = Synfin::watch(stage.namespaces(), flags)?;
    load::connections(stage, count)?;
    synfin.stop()
}

fn loopback() -> Result<Stage> {
    Stage::new(Family::V4, Link::Loopback)
}

#[test]
fn unknown_namespaces_are_2() -> Result<()> {
    need::root()?;
    for command in ["watch", "run"] {
        for name in ["synfin-no-such-netns", "/run/netns/synfin-no-such-netns"] {
            let ended = run(&[command, "--netns", name])?;
            assert_eq!(ended.code()?, 2, "{command} {name}: {:?}", ended.stderr);
            assert!(ended.stderr.join("\n").contains(name), "the message does not name {name}: {:?}", ended.stderr);
        }
    }
    Ok(())
}

/// A namespace may be given by name, by path and by inode number.
#[test]
fn namespaces_by_name_path_and_inode() -> Result<()> {
    let stage = loopback()?;
    let netns = &stage.client.netns;
    let path = netns.path().display().to_string();
    for given in [netns.name(), &path, &netns.inode().to_string()] {
        let synfin = Synfin::watch([], &["--netns", given])?;
        let expected = close::by_client(&stage)?;
        let recording = synfin.stop()?;
        assert_eq!(Some(&recording.counts(netns)?), expected.transitions.get(&netns.inode()), "--netns {given}");
    }
    Ok(())
}

#[test]
fn count_and_duration() -> Result<()> {
    let stage = loopback()?;
    let name = stage.client.netns.name();
    let mut counted = Synfin::spawn(command(["watch", "--json", "--netns", name, "--count", "5"])?)?;
    counted.await_stdout("the start line", |line| line.contains("\"start\""))?;
    load::connections(&stage, 1)?;
    let ended = counted.wait()?;
    ended.expect(0)?;
    let recording = Recording::parse(&ended.stdout)?;
    assert_eq!(recording.of_type("transition").count(), 5);

    let ended = run(&["watch", "--json", "--netns", name, "--duration", "1s"])?;
    ended.expect(0)?;
    let recording = Recording::parse(&ended.stdout)?;
    let time = |kind| recording.of_type(kind).next().and_then(|line| line["linux.time.monotonic"].as_u64());
    let watched = time("end").zip(time("start")).map(|(end, start)| Duration::from_nanos(end - start));
    let watched = watched.context("a start and an end")?;
    // A second of events, not a second less what attaching took.
    assert!((Duration::from_millis(990)..Duration::from_secs(3)).contains(&watched), "watched for {watched:?}");
    Ok(())
}

/// A state filter keeps what enters or leaves the state.
#[test]
fn state_filter() -> Result<()> {
    let stage = loopback()?;
    let recording = watched(&stage, &["--state", "established"], 4)?;
    let about = |line: &Value| {
        ["network.connection.state", "network.tcp.state.previous"].iter().any(|key| line[*key] == "established")
    };
    let lines: Vec<&Value> = recording.of_type("transition").collect();
    assert!(lines.iter().all(|line| about(line)), "{lines:?}");
    // Two sockets of each of four connections, each in and out.
    assert_eq!(lines.len(), 16);

    let recording = watched(&stage, &["--state", "listen,SYN-SENT"], 1)?;
    // The listener's two, the child's birth, the client's SYN_SENT and what followed it.
    assert_eq!(recording.of_type("transition").count(), 5);
    Ok(())
}

/// A port filter keeps both ends of the connections of that port, and nothing else.
#[test]
fn port_filter() -> Result<()> {
    let stage = loopback()?;
    let (listener, address) = sock::listen(&stage.server, 8)?;
    let (other, elsewhere) = sock::listen(&stage.server, 8)?;
    let port = address.port().to_string();
    let synfin = Synfin::watch(stage.namespaces(), &["--port", &port])?;
    let client = sock::connect(&stage.client, elsewhere)?;
    let server = sock::accept(&other)?;
    close::one_after_the_other(&stage.client, client, server)?;
    drop(other);
    let client = sock::connect(&stage.client, address)?;
    let server = sock::accept(&listener)?;
    close::one_after_the_other(&stage.client, client, server)?;
    drop(listener);
    stage.await_quiet()?;
    let recording = synfin.stop()?;
    let on_port =
        |line: &Value| ["network.local.port", "network.peer.port"].iter().any(|key| line[*key] == address.port());
    assert!(recording.of_type("transition").all(on_port), "another port came through");
    // The connection's ten steps and the listener's close.
    assert_eq!(recording.of_type("transition").count(), 11);
    Ok(())
}

#[test]
fn peer_filter() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Wire)?;
    let server = format!("{}/32", stage.server.ip);
    let synfin = Synfin::watch(stage.namespaces(), &["--peer", &server])?;
    let other = Synfin::watch(stage.namespaces(), &["--peer", "192.0.2.0/24"])?;
    close::by_client(&stage)?;
    let recording = synfin.stop()?;
    assert_eq!(recording.counts(&stage.client.netns)?.total(), 5, "the client's steps all have the server as peer");
    assert_eq!(recording.counts(&stage.server.netns)?.total(), 0, "the server's peer is the client");
    assert_eq!(other.stop()?.of_type("transition").count(), 0);
    Ok(())
}

/// Two agents at once do not disturb each other.
#[test]
fn two_at_once() -> Result<()> {
    let stage = loopback()?;
    let netns: &Netns = &stage.client.netns;
    let (first, second) = (Synfin::watch([netns], &[])?, Synfin::watch([netns], &[])?);
    load::connections(&stage, 20)?;
    let (first, second) = (first.stop()?, second.stop()?);
    assert_eq!(first.counts(netns)?, second.counts(netns)?);
    assert_eq!(first.counts(netns)?.total(), 20 * 10 + 2);
    Ok(())
}
