//! What keeps synfin from loading its programs, on each kernel: the cause and the remedy are named, and what is not needed
//! is not asked for.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use libc::RLIM_INFINITY;
use serde_json::Value;
use synfin_tests::{
    confine::{self, CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_RESOURCE},
    kernel, need, note, seccomp,
    synfin::{Ended, Synfin, command},
};

const WATCH: &[&str] = &["watch", "--json", "--duration", "100ms"];
const DOCTOR: &[&str] = &["doctor", "--json"];
const KIB: u64 = 1024;
/// What distributions give a user, and less than synfin needs.
const CUSTOMARY: u64 = 64 * KIB;

fn confined(arguments: &[&str], confine: impl FnOnce(&mut Command)) -> Result<Ended> {
    need::root()?;
    let mut command = command(arguments)?;
    confine(&mut command);
    Synfin::spawn(command)?.wait()
}

fn said(ended: &Ended) -> String {
    ended.stdout.join("\n") + &ended.stderr.join("\n")
}

fn doctor(ended: &Ended) -> Result<Value> {
    serde_json::from_str(&ended.stdout.join("\n")).with_context(|| format!("doctor --json: {:?}", ended.stderr))
}

/// A capability that is missing is named, the two that are needed are enough.
#[test]
fn capabilities() -> Result<()> {
    for arguments in [WATCH, &["run"], &["doctor"]] {
        for (missing, name) in [(CAP_PERFMON, "CAP_PERFMON"), (CAP_BPF, "CAP_BPF")] {
            let ended = confined(arguments, |command| confine::without(command, &[CAP_SYS_ADMIN, missing]))?;
            ended.expect(77)?;
            let text = said(&ended);
            assert!(
                text.contains(&format!("{name} not in effect")) && text.contains("setcap"),
                "{arguments:?}: {text}"
            );
        }
    }
    confined(WATCH, two_capabilities)?.expect(0)
}

/// What synfin needs at least. Where RLIMIT_MEMLOCK counts, it comes from who starts synfin.
fn two_capabilities(command: &mut Command) {
    confine::memlock(command, RLIM_INFINITY, RLIM_INFINITY);
    confine::only(command, &[CAP_BPF, CAP_PERFMON]);
}

/// What users without privileges may do is nothing to synfin: it asks for the same capabilities.
#[test]
#[ignore = "changes kernel.unprivileged_bpf_disabled, at last for good: `cargo xtask vm` plays it"]
fn unprivileged_bpf_disabled() -> Result<()> {
    need::root()?;
    // 1 comes last: the kernel does not let it be changed any more.
    for mode in ["0", "2", "1"] {
        fs::write("/proc/sys/kernel/unprivileged_bpf_disabled", mode)?;
        capabilities().with_context(|| format!("kernel.unprivileged_bpf_disabled={mode}"))?;
        let ended = confined(&["doctor"], |_command| ())?;
        ended.expect(0)?;
        let text = said(&ended);
        assert!(text.contains(&format!("kernel.unprivileged_bpf_disabled={mode})")), "{text}");
        let ended = confined(&["doctor", "--json"], two_capabilities)?;
        let report = doctor(&ended)?;
        assert_eq!(report["linux.bpf.unprivileged_disabled"], mode.parse::<u8>()?, "{report}");
        let states = report["probes"].as_array().context("probes")?;
        assert!(states.iter().all(|probe| probe["rung"] == "tp_btf"), "{report}");
    }
    Ok(())
}

/// A seccomp filter that denies bpf(): 1, with the cause and the remedy.
#[test]
fn seccomp_denies_bpf() -> Result<()> {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for arguments in [WATCH, &["run"], &["doctor"]] {
            let ended = confined(arguments, |command| seccomp::deny(command, libc::SYS_bpf, errno))?;
            ended.expect(1)?;
            let text = said(&ended);
            assert!(text.contains("a seccomp filter denies bpf()") && text.contains("seccompProfile"), "{text}");
        }
    }
    Ok(())
}

/// Where perf_event_open is denied, the classic tracepoints alone are lost.
#[test]
fn seccomp_denies_perf() -> Result<()> {
    let with = |arguments: &[&str]| {
        confined(arguments, |command| seccomp::deny(command, libc::SYS_perf_event_open, libc::EPERM))
    };
    let report = doctor(&with(&["doctor", "--json"])?)?;
    assert_eq!(report["synfin.health"], "healthy", "{report}");
    let ended = with(&["doctor", "--json", "--max-rung", "tracepoint"])?;
    ended.expect(1)?;
    let report = doctor(&ended)?;
    for probe in report["probes"].as_array().context("probes")? {
        let detail = probe["detail"].as_str().unwrap_or_default();
        assert!(
            probe["verdict"] == "broken"
                && detail.contains(&format!("program {}_tp", probe["name"].as_str().unwrap_or_default())),
            "{probe}"
        );
    }
    Ok(())
}

/// A low RLIMIT_MEMLOCK is raised where the kernel counts maps and programs against it, and left alone where it does not.
#[test]
fn memlock_is_raised_where_it_counts() -> Result<()> {
    need::root()?;
    let counts = kernel::counts_bpf_memory()?;
    note::write("RLIMIT_MEMLOCK", if counts { "counts, and is raised" } else { "does not count, and is left alone" })?;
    let limit_of = |confine: &dyn Fn(&mut Command)| -> Result<String> {
        let mut command = command(["watch", "--json"])?;
        confine(&mut command);
        let mut synfin = Synfin::spawn(command)?;
        synfin.await_stdout("the start line", |line| line.contains(r#""type":"start""#))?;
        let limits = fs::read_to_string(format!("/proc/{}/limits", synfin.pid()))?;
        let line =
            limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).context("Max locked memory")?;
        let current = line.split_whitespace().next().context("a limit")?.to_owned();
        synfin.signal(nix::sys::signal::Signal::SIGINT)?;
        synfin.wait()?.expect(0)?;
        Ok(current)
    };
    let expected = if counts { "unlimited".to_owned() } else { CUSTOMARY.to_string() };
    // With the right to go beyond the maximum, and up to a maximum without it.
    assert_eq!(limit_of(&|command| confine::memlock(command, CUSTOMARY, CUSTOMARY))?, expected);
    let up_to_maximum = limit_of(&|command| {
        confine::memlock(command, CUSTOMARY, RLIM_INFINITY);
        confine::without(command, &[CAP_SYS_RESOURCE]);
    })?;
    assert_eq!(up_to_maximum, expected);
    Ok(())
}

/// Where it counts and cannot be raised: 1, with the limit and the remedy. Elsewhere nobody is bothered.
#[test]
fn memlock_that_cannot_be_raised() -> Result<()> {
    let counts = kernel::counts_bpf_memory()?;
    for arguments in [WATCH, &["doctor"]] {
        let ended = with_memlock(arguments, CUSTOMARY, false)?;
        let text = said(&ended);
        ended.expect(i32::from(counts))?;
        for part in ["RLIMIT_MEMLOCK is 64 KiB", "LimitMEMLOCK=infinity", "CAP_SYS_RESOURCE"] {
            assert_eq!(text.contains(part), counts, "{arguments:?}, {part}: {text}");
        }
    }
    Ok(())
}

/// Any limit is raised, whatever it is that hits it first: maps (the largest part) or programs.
#[test]
fn any_memlock_is_raised() -> Result<()> {
    if !kernel::counts_bpf_memory()? {
        // No limit is hit: a few are tried to see just that.
        for limit in [0, CUSTOMARY, 1024 * KIB] {
            with_memlock(WATCH, limit, false)?.expect(0)?;
        }
        return Ok(());
    }
    // What it needs, found by halving.
    let (mut too_low, mut enough) = (0, 256 * 1024 * KIB);
    ensure!(with_memlock(DOCTOR, enough, false)?.code()? == 0, "256 MiB are not enough");
    while enough - too_low > 16 * KIB {
        let middle = u64::midpoint(too_low, enough);
        if with_memlock(DOCTOR, middle, false)?.code()? == 0 {
            enough = middle;
        } else {
            too_low = middle;
        }
    }
    note::write("RLIMIT_MEMLOCK", &format!("{} KiB are enough for the doctor on one CPU", enough / KIB))?;
    // Just below it, the maps find room and programs do not.
    for below in [0, 4, 8, 16, 32] {
        let limit = too_low.saturating_sub(below * KIB);
        let any_more = with_memlock(DOCTOR, limit, true)?;
        let some_more = confined(DOCTOR, |command| {
            confine::memlock(command, limit, 2 * enough);
            confine::without(command, &[CAP_SYS_RESOURCE]);
        })?;
        for ended in [any_more, some_more] {
            ended.expect(0)?;
            let report = doctor(&ended)?;
            assert_eq!(report["synfin.health"], "healthy", "{below} KiB below: {report}");
        }
    }
    Ok(())
}

fn with_memlock(arguments: &[&str], limit: u64, may_raise: bool) -> Result<Ended> {
    confined(arguments, |command| {
        confine::memlock(command, limit, limit);
        if !may_raise {
            confine::without(command, &[CAP_SYS_RESOURCE]);
        }
    })
}
