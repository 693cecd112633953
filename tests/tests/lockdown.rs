//! A kernel that is locked down so far that no program may read its memory by a helper, and that closes tracefs: the cause,
//! the remedy, and nothing told that is not true.
//!
//! `cargo xtask vm` boots such a kernel. What is left of synfin there depends on it: `tp_btf` programs read without helpers,
//! except on the oldest kernels.

use anyhow::{Context as _, Result};
use serde_json::Value;
use synfin_tests::{
    course::Course,
    need, note, sock,
    stage::{Family, Link, Stage},
    synfin::{Synfin, command, run},
};

const CAUSE: &str = "locked down (confidentiality)";
const REMEDY: &str = "boot with lockdown=integrity or without lockdown";

/// synfin cannot tell what happens without these.
const REQUIRED: [&str; 2] = ["destroy", "state"];

struct Doctor {
    exit: i32,
    report: Value,
}

fn doctor(more: &[&str]) -> Result<Doctor> {
    need::root()?;
    let ended = run(&[&["doctor", "--json"], more].concat())?;
    Ok(Doctor { exit: ended.code()?, report: serde_json::from_str(&ended.stdout.join("\n"))? })
}

impl Doctor {
    fn probes(&self) -> Result<&Vec<Value>> {
        self.report["probes"].as_array().context("probes")
    }

    fn lost(&self) -> Result<Vec<&str>> {
        let lost = self.probes()?.iter().filter(|probe| probe["verdict"] != "active");
        Ok(lost.filter_map(|probe| probe["name"].as_str()).collect())
    }
}

/// Whatever is lost, its cause is told, and the exit code says whether synfin can do without.
#[test]
#[ignore = "needs a kernel booted with lockdown=confidentiality: `cargo xtask vm` has one"]
fn what_is_lost_is_explained() -> Result<()> {
    for more in [&[][..], &["--max-rung", "raw_tracepoint"], &["--max-rung", "tracepoint"]] {
        let doctor = doctor(more)?;
        assert_eq!(doctor.report["linux.lockdown"], "confidentiality", "{}", doctor.report);
        let lost = doctor.lost()?;
        assert!(!lost.is_empty(), "{more:?}: lockdown took nothing: {}", doctor.report);
        for probe in doctor.probes()?.iter().filter(|probe| probe["verdict"] != "active") {
            let detail = probe["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(CAUSE) && detail.contains(REMEDY), "{more:?}: {probe}");
        }
        let failed = REQUIRED.iter().any(|name| lost.contains(name));
        assert_eq!(doctor.exit, i32::from(failed), "{more:?}: {}", doctor.report);
        let rung = more.last().unwrap_or(&"whatever rung");
        let found = if failed { "synfin says why, and ends" } else { "synfin works" };
        note::write("lockdown=confidentiality", &format!("{rung}: {found} without {}", lost.join(", ")))?;

        let ended = run(&[&["doctor"], more].concat())?;
        let text = ended.stdout.join("\n");
        let row = ended.stdout.iter().find(|line| line.contains(" lockdown ")).context("a row for lockdown")?;
        assert!(row.trim_start().starts_with(if failed { "fail" } else { "warn" }), "{row}");
        assert!(text.contains(&format!("-> {REMEDY}")) && !text.contains("report it"), "{text}");
    }
    Ok(())
}

/// Where a required probe is lost: exit code 1, nothing on stdout, cause and remedy on stderr. No rung without types holds.
#[test]
#[ignore = "needs a kernel booted with lockdown=confidentiality: `cargo xtask vm` has one"]
fn without_a_required_probe_it_ends() -> Result<()> {
    for more in [&[][..], &["--max-rung", "tracepoint"]] {
        if doctor(more)?.exit == 0 {
            assert!(more.is_empty(), "{more:?} holds although tracefs is closed");
            continue;
        }
        for arguments in [&["watch", "--duration", "1s"][..], &["run"]] {
            let ended = run(&[arguments, more].concat())?;
            ended.expect(1)?;
            let said = ended.stderr.join("\n");
            assert!(said.contains(CAUSE) && said.contains(REMEDY), "{arguments:?} {more:?}: {said}");
            assert!(ended.stdout.concat().trim().is_empty(), "{arguments:?} {more:?}: {:?}", ended.stdout);
        }
    }
    Ok(())
}

/// Where it works, connections are told as they were: a kernel that gives zeros instead of its memory would show here.
#[test]
#[ignore = "needs a kernel booted with lockdown=confidentiality: `cargo xtask vm` has one"]
fn what_is_told_is_true() -> Result<()> {
    if doctor(&[])?.exit != 0 {
        return Ok(());
    }
    for family in [Family::V4, Family::V6] {
        let stage = Stage::new(family, Link::Loopback)?;
        let mut arguments = vec!["watch", "--json", "--connections"];
        for netns in stage.namespaces() {
            arguments.extend(["--netns", netns.name()]);
        }
        let mut synfin = Synfin::spawn(command(&arguments)?)?;
        synfin.await_stdout("the start line", |line| line.contains(r#""type":"start""#))?;
        let told = Course::run(&stage, sock::listen(&stage.server, 1)?, synfin)?;
        assert!(told.stderr.contains(CAUSE), "{}", told.stderr);
        assert_eq!(told.last["linux.netns.inode"], stage.client.netns.inode(), "{}", told.last);
        assert_eq!(told.ends, [&["closed"], told.client].concat());
    }
    Ok(())
}
