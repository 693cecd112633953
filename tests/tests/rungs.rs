//! The ladder: each lower rung tells what the best one tells, and where no rung holds, the cause and the remedy are named.
//!
//! `SYNFIN_TEST_MAX_RUNG` forces a rung on the whole suite; here each is forced on what differs between rungs.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;
use synfin_tests::{
    course::Course,
    need,
    proof::Played,
    scenario, sock,
    stage::{Family, Link, Stage},
    synfin::{Ended, Synfin, command, run},
};
use tempfile::TempDir;

const PROBES: [&str; 6] = ["destroy", "reset_received", "reset_sent", "retransmit", "state", "synack"];

#[test]
fn raw_tracepoint() -> Result<()> {
    forced("raw_tracepoint")
}

#[test]
fn tracepoint() -> Result<()> {
    forced("tracepoint")
}

/// Connections end as they should on a rung, of every probe's kind: in order, reset by either side, refused, with lost
/// segments and with SYN-ACKs sent again, several on one socket.
fn forced(rung: &str) -> Result<()> {
    let report = doctor(&run(&["doctor", "--json", "--max-rung", rung])?)?;
    assert_eq!(report["synfin.health"], "healthy", "{report}");
    for probe in report["probes"].as_array().context("probes")? {
        assert_eq!(probe["rung"], rung, "{probe}");
    }
    for name in [
        "closed_by_client",
        "data_lost",
        "disconnect_reconnect",
        "fast_open",
        "linger_zero",
        "listener_with_pending_children",
        "refused",
        "reset_by_server",
        "third_ack_lost",
    ] {
        let scenario = scenario::named(name);
        let stages = Played::stages(scenario, &[Family::V4, Family::V6])?;
        let synfin = Synfin::watch(stages.iter().flat_map(Stage::namespaces), &["--connections", "--max-rung", rung])?;
        let played = stages.into_iter().map(|stage| Played::new(scenario, stage)).collect::<Result<Vec<_>>>()?;
        let recording = synfin.stop()?;
        let wrong: Vec<String> = played.iter().flat_map(|played| played.connections(&recording)).collect();
        assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
        let start = recording.of_type("start").next().context("a start line")?;
        assert!(PROBES.iter().all(|probe| start["synfin.rungs"][probe] == rung), "{start}");
    }
    Ok(())
}

/// Without the kernel's types the classic tracepoints' records still tell states, addresses and ports.
#[test]
fn without_types() -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let stage = Stage::new(family, Link::Loopback)?;
        let (listener, address) = sock::listen(&stage.server, 1)?;
        let port = address.port().to_string();
        let mut synfin = Synfin::spawn(without_btf(&["watch", "--json", "--connections", "--port", &port])?)?;
        let start = synfin.await_stdout("the start line", |line| line.contains(r#""type":"start""#))?;
        let start: Value = serde_json::from_str(&start)?;
        assert!(PROBES.iter().all(|probe| start["synfin.rungs"][probe] == "tracepoint"), "{start}");
        let told = Course::run(&stage, (listener, address), synfin)?;
        assert!(told.stderr.contains("CONFIG_DEBUG_INFO_BTF"), "{}", told.stderr);
        let last = &told.last;
        assert!(last.get("linux.netns.inode").is_none() && last.get("process.pid").is_none(), "{last}");
        // Whether the socket was an orphan is not told either.
        assert_eq!(told.ends, ["closed", "time_wait"]);
    }
    Ok(())
}

/// A filter that nothing could apply is refused rather than ignored; the doctor says what is missing.
#[test]
fn without_types_some_things_cannot_be_had() -> Result<()> {
    let ended = Synfin::spawn(without_btf(&["watch", "--netns", "/proc/self/ns/net", "--duration", "1s"])?)?.wait()?;
    ended.expect(1)?;
    let said = ended.stderr.join("\n");
    assert!(said.contains("needs the kernel's types") && said.contains("--btf"), "{said}");

    let ended = Synfin::spawn(without_btf(&["doctor", "--json"])?)?.wait()?;
    ended.expect(0)?;
    assert_eq!(doctor(&ended)?["synfin.health"], "degraded");

    // The types may come from a file.
    let scratch = TempDir::new()?;
    let copy = scratch.path().join("btf");
    fs::copy("/sys/kernel/btf/vmlinux", &copy)?;
    let path = copy.to_str().context("UTF-8")?;
    let ended = Synfin::spawn(without_btf(&["doctor", "--json", "--btf", path])?)?.wait()?;
    ended.expect(0)?;
    let report = doctor(&ended)?;
    assert_eq!((&report["synfin.health"], &report["linux.btf.path"]), (&"healthy".into(), &path.into()), "{report}");
    Ok(())
}

/// A file that is no BTF of this kernel: 1, and why.
#[test]
fn a_btf_file_that_is_none() -> Result<()> {
    need::root()?;
    let scratch = TempDir::new()?;
    let good = fs::read("/sys/kernel/btf/vmlinux")?;
    let file = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = scratch.path().join(name);
        fs::write(&path, bytes)?;
        Ok(path.to_str().context("UTF-8")?.to_owned())
    };
    let cases = [
        (file("garbage", b"these are no types at all")?, "magic number"),
        (file("empty", b"")?, "magic number"),
        (file("truncated", &good[..good.len() / 2])?, "cut off"),
        (scratch.path().join("missing").to_str().context("UTF-8")?.to_owned(), "No such file"),
    ];
    for (path, why) in cases {
        for arguments in [&["watch", "--duration", "1s", "--btf", &path][..], &["doctor", "--btf", &path]] {
            let ended = run(arguments)?;
            ended.expect(1)?;
            let said = ended.stdout.join("\n") + &ended.stderr.join("\n");
            assert!(said.contains(why) && said.contains(&path), "{arguments:?}: {said}");
        }
    }
    Ok(())
}

/// tracefs mounted elsewhere or nowhere, as `ip netns exec` leaves it: synfin finds it or mounts one for itself.
#[test]
fn tracefs_anywhere() -> Result<()> {
    need::root()?;
    let scratch = TempDir::new()?;
    let point = scratch.path().join("trace fs");
    fs::create_dir(&point)?;
    let hide = "mount -t tmpfs none /sys/kernel/tracing && mount -t tmpfs none /sys/kernel/debug";
    let elsewhere = format!("mount -t tracefs none '{}' && {hide}", point.display());
    for script in [hide, &elsewhere] {
        let ended = Synfin::spawn(in_mounts(script, &["doctor", "--json", "--max-rung", "tracepoint"])?)?.wait()?;
        ended.expect(0)?;
        let report = doctor(&ended)?;
        assert_eq!(report["synfin.health"], "healthy", "{script}: {report}");
    }
    Ok(())
}

/// An optional probe can be left out, which is no defect; a required one cannot.
#[test]
fn disabled() -> Result<()> {
    need::root()?;
    let with = |names: &str| -> Result<Ended> {
        let mut command = command(["doctor", "--json"])?;
        command.env("SYNFIN_PROBES_DISABLE", names);
        Synfin::spawn(command)?.wait()
    };
    let report = doctor(&with("synack,reset_sent")?)?;
    let probes = report["probes"].as_array().context("probes")?;
    let verdict = |name: &str| probes.iter().find(|probe| probe["name"] == name).map(|probe| probe["verdict"].clone());
    assert_eq!((verdict("synack"), verdict("state")), (Some("disabled".into()), Some("active".into())));
    assert_eq!(report["synfin.health"], "healthy");
    let ended = with("state")?;
    ended.expect(2)?;
    let said = ended.stderr.join("\n");
    assert!(said.contains("probes.disable = state (env SYNFIN_PROBES_DISABLE)"), "{said}");
    Ok(())
}

fn doctor(ended: &Ended) -> Result<Value> {
    serde_json::from_str(&ended.stdout.join("\n")).with_context(|| format!("doctor --json: {:?}", ended.stderr))
}

/// The binary in a mount namespace of its own, where a kernel's BTF is not to be seen.
fn without_btf(arguments: &[&str]) -> Result<Command> {
    in_mounts("mount -t tmpfs none /sys/kernel/btf", arguments)
}

/// The binary in a mount namespace of its own, after a script there.
fn in_mounts(script: &str, arguments: &[&str]) -> Result<Command> {
    need::root()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")]);
    command.arg(need::binary()?).args(arguments);
    Ok(command)
}
