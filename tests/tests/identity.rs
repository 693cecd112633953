//! Whose connection it is: addresses, ports, cookie, control group, process, clock.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use socket2::SockRef;
use synfin_tests::{
    peer::Peer,
    recording::Recording,
    scenario::close,
    sock,
    stage::{Family, Link, Stage},
    synfin::Synfin,
};

/// One test at a time: while another thread starts a program, its child holds this process's sockets until it calls
/// exec, and a socket whose last close falls into that moment is closed by the child, as the kernel truly reports.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Mapped];

fn transition<'a>(recording: &'a Recording, role: &str, old: &str, new: &str) -> Result<&'a Value> {
    let wanted = |line: &&Value| {
        line["network.tcp.handshake.role"] == role
            && line["network.tcp.state.previous"] == old
            && line["network.connection.state"] == new
    };
    recording.of_type("transition").find(wanted).with_context(|| format!("no {role} went from {old} to {new}"))
}

/// Both ends at ESTABLISHED: the kernel's own answers about the same sockets.
#[test]
fn both_ends_are_who_they_are() -> Result<()> {
    let _alone = alone();
    for family in FAMILIES {
        let stage = Stage::new(family, Link::Loopback)?;
        let synfin = Synfin::watch(stage.namespaces(), &[])?;
        let (listener, address) = sock::listen(&stage.server, 1)?;
        let client = sock::connect(&stage.client, address)?;
        let server = sock::accept(&listener)?;
        let cookies = [SockRef::from(&client).cookie()?, SockRef::from(&server).cookie()?];
        let ports = [client.local_addr()?.port(), address.port()];
        drop((client, server, listener));
        stage.await_quiet()?;
        let recording = synfin.stop()?;

        let ip = stage.client.ip.to_canonical().to_string();
        let ends = [
            transition(&recording, "client", "syn_sent", "established")?,
            transition(&recording, "server", "syn_received", "established")?,
        ];
        for (end, line) in ends.into_iter().enumerate() {
            assert_eq!(line["network.type"], family.network_type(), "{line}");
            assert_eq!(line["network.local.address"], ip.as_str(), "{line}");
            assert_eq!(line["network.peer.address"], ip.as_str(), "{line}");
            assert_eq!(line["network.local.port"], ports[end], "{line}");
            assert_eq!(line["network.peer.port"], ports[1 - end], "{line}");
            // Where no program can make cookies, this socket got its own after this line.
            let cookie = line.get("linux.socket.cookie");
            let absent = cookie.is_none() && !recording.has_cookies()?;
            assert!(absent || cookie == Some(&cookies[end].into()), "{cookies:?}: {line}");
            assert_eq!(line["linux.netns.inode"], stage.client.netns.inode(), "{line}");
        }
        // The ephemeral port is known again at the end, where the kernel has already given it back.
        let last = transition(&recording, "client", "fin_wait_2", "closed")
            .or_else(|_| transition(&recording, "client", "closing", "closed"))?;
        assert_eq!(last["network.local.port"], ports[0], "{last}");
        assert_eq!(last["network.peer.port"], ports[1], "{last}");
    }
    Ok(())
}

/// The control group is that of the process that made the socket, in softirq too.
#[test]
fn control_group() -> Result<()> {
    let _alone = alone();
    let stage = Stage::new(Family::V4, Link::Wire)?;
    let synfin = Synfin::watch(stage.namespaces(), &[])?;
    let (listener, address) = sock::listen(&stage.server, 1)?;
    let group = ControlGroup::new()?; // before its process, so that it is dropped after it
    let mut peer = Peer::start(&stage.client, "test-client")?;
    group.add(peer.pid())?;
    peer.connect(address)?;
    let server = sock::accept(&listener)?;
    peer.close()?;
    drop((server, listener));
    stage.await_quiet()?;
    let recording = synfin.stop()?;
    let lines: Vec<&Value> = recording.about("transition", &stage.client.netns).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    for line in lines {
        assert_eq!(line["linux.cgroup.id"], group.inode()?, "{line}");
    }
    Ok(())
}

/// A control group made for one process, and removed with the test.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new() -> Result<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists());
        let folder =
            root.context("needs a cgroup v2 tree, and none is mounted")?.join(format!("synfin-test-{}", process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    fn add(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid.to_string())?)
    }

    fn inode(&self) -> Result<u64> {
        Ok(fs::metadata(&self.0)?.ino())
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok(); // an empty folder at worst, where a test failed with its process alive
    }
}

/// A process is named only where it is a user of the socket; what merely ran at the time is called a task.
#[test]
fn nobody_is_blamed_for_the_work_of_others() -> Result<()> {
    let _alone = alone();
    let stage = Stage::new(Family::V4, Link::Wire)?;
    let synfin = Synfin::watch(stage.namespaces(), &[])?;
    let (listener, address) = sock::listen(&stage.server, 1)?;
    let mut peer = Peer::start(&stage.client, "test-client")?;
    peer.connect(address)?;
    let server = sock::accept(&listener)?;
    let pid = peer.pid();
    peer.close()?;
    drop((server, listener));
    stage.await_quiet()?;
    let recording = synfin.stop()?;

    let known = |side: &Value| side.get("process.pid").and_then(Value::as_u64);
    for line in recording.about("transition", &stage.client.netns) {
        // The wire's thread delivers packets in this very process: it is current, and not the owner.
        assert!(known(line).is_none_or(|known| known == u64::from(pid)), "owned by {pid}: {line}");
    }
    for line in recording.about("transition", &stage.server.netns) {
        assert!(known(line).is_none_or(|known| known == u64::from(process::id())), "{line}");
    }
    let opened = transition(&recording, "client", "syn_sent", "established")?;
    assert_eq!(opened["process.pid"], pid, "learnt at connect(): {opened}");
    assert_eq!(opened["process.executable.name"], "test-client", "{opened}");
    assert_eq!(opened["owner.source"], "connection", "{opened}");
    Ok(())
}

/// The name is the process's, as pid is, not that of the thread that happened to make the call.
#[test]
fn the_name_is_the_process_s() -> Result<()> {
    let _alone = alone();
    let own = fs::read_to_string("/proc/self/comm")?;
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let synfin = Synfin::watch(stage.namespaces(), &[])?;
    close::by_client(&stage)?;
    let recording = synfin.stop()?;
    let opened = transition(&recording, "client", "closed", "syn_sent")?;
    assert_eq!(opened["process.pid"], process::id(), "{opened}");
    assert_eq!(opened["process.executable.name"], own.trim(), "{opened}");
    Ok(())
}

/// Times are the kernel's, and a state's duration is the time between two of them.
#[test]
fn clocks() -> Result<()> {
    const LIFE: Duration = Duration::from_millis(300);

    let _alone = alone();
    let stage = Stage::new(Family::V6, Link::Loopback)?;
    let synfin = Synfin::watch(stage.namespaces(), &[])?;
    let before = monotonic()?;
    let (listener, address) = sock::listen(&stage.server, 1)?;
    let client = sock::connect(&stage.client, address)?;
    let server = sock::accept(&listener)?;
    thread::sleep(LIFE); // what is measured, not a wait for something
    drop((client, server, listener));
    stage.await_quiet()?;
    let after = monotonic()?;
    let recording = synfin.stop()?;

    for line in recording.of_type("transition") {
        let time = line["linux.time.monotonic"].as_u64().context("linux.time.monotonic")?;
        assert!((before..after).contains(&time), "{before} <= {time} < {after}: {line}");
    }
    let left = transition(&recording, "client", "established", "fin_wait_1")?;
    let lasted = left["network.tcp.state.duration"].as_f64().context("network.tcp.state.duration")?;
    assert!((LIFE.as_secs_f64()..LIFE.as_secs_f64() + 2.0).contains(&lasted), "{lasted} s: {left}");
    Ok(())
}

fn monotonic() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(Duration::from(now).as_nanos() as u64)
}
