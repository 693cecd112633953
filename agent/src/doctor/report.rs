//! What the facts mean for synfin.

use jiff::Timestamp;

use super::system::System;
use crate::exit::Exit;
use crate::health::{self, Health, Probe, Refused, Verdict};
use crate::lockdown;
use crate::source::Chosen;

/// How bad a fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// It limits what synfin can tell.
    Warn,
    /// It keeps synfin from working.
    Fail,
}

impl CheckStatus {
    /// One word for text and data.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One judged fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How bad it is.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Everything that `synfin doctor` knows.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it was made.
    pub time: Timestamp,
    /// Facts as they were read.
    pub system: System,
    /// Facts as they were judged.
    pub checks: Vec<Check>,
    /// Verdicts about the probes; empty when they could not be tried.
    pub probes: Vec<Probe>,
    /// What it adds up to.
    pub health: Health,
}

impl Report {
    /// Judges.
    pub fn new(system: System, probes: anyhow::Result<Vec<Probe>>, time: Timestamp) -> Self {
        let health = health::roll_up(probes.as_deref().unwrap_or_default());
        let mut checks = system_checks(&system, health);
        let lacking = system.privileges.suffice().is_err();
        let probes = probes.unwrap_or_else(|error| {
            // Lacking privileges have a line of their own already.
            if !lacking {
                checks.push(fail("loading", format!("{error:#}"), "see the lines above, or run it again with -vv"));
            }
            Vec::new()
        });
        Self { time, system, checks, probes, health }
    }

    /// Lines about the probes.
    pub(super) fn probe_checks(&self) -> impl Iterator<Item = Check> {
        self.probes.iter().map(|probe| {
            let mut detail = format!("{}: {}", probe.tracepoint, probe.verdict);
            if probe.verdict.is_active() {
                for Refused { rung, why } in &probe.refused {
                    detail.push_str(&format!("\n    not {rung}: {why}"));
                }
            }
            let (status, mut remedy) = match (&probe.verdict, probe.required) {
                (Verdict::Active { partial: false, .. } | Verdict::Disabled, _) => (CheckStatus::Ok, None),
                (Verdict::Active { partial: true, .. }, _) => {
                    (CheckStatus::Warn, Some("give the kernel's types: CONFIG_DEBUG_INFO_BTF=y, or --btf PATH"))
                }
                (Verdict::Unsupported { .. }, true) => {
                    (CheckStatus::Fail, Some("synfin needs Linux 5.10 or later, with BTF or with tracefs"))
                }
                (Verdict::Unsupported { .. }, false) => {
                    (CheckStatus::Warn, Some("nothing to do: this kernel does not have it, the other probes work"))
                }
                (Verdict::Broken { .. }, required) => (
                    if required { CheckStatus::Fail } else { CheckStatus::Warn },
                    Some(
                        "run `synfin doctor -vv` for the verifier's own words, and report it with the kernel's release",
                    ),
                ),
            };
            if status != CheckStatus::Ok && self.is_confidential() {
                remedy = Some(lockdown::REMEDY);
            }
            Check { name: probe.name, status, detail, remedy: remedy.map(str::to_owned) }
        })
    }

    fn is_confidential(&self) -> bool {
        self.system.lockdown.as_deref() == Some(lockdown::CONFIDENTIALITY)
    }

    /// 0 where synfin does its main job, 77 without privileges, else 1.
    pub fn exit(&self) -> Exit {
        if self.system.privileges.suffice().is_err() {
            Exit::Privileges
        } else if self.health == Health::Failed {
            Exit::Failed
        } else {
            Exit::Done
        }
    }
}

fn ok(name: &'static str, detail: impl Into<String>) -> Check {
    Check { name, status: CheckStatus::Ok, detail: detail.into(), remedy: None }
}

fn warn(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, status: CheckStatus::Warn, detail: detail.into(), remedy: Some(remedy.into()) }
}

fn fail(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, status: CheckStatus::Fail, detail: detail.into(), remedy: Some(remedy.into()) }
}

fn system_checks(system: &System, health: Health) -> Vec<Check> {
    let System {
        kernel_release,
        btf,
        privileges,
        lockdown,
        unprivileged_bpf_disabled,
        bpf_stats_enabled,
        cgroup2,
        tracefs,
        netns,
    } = system;
    let mut checks = vec![
        kernel(kernel_release.as_deref()),
        match btf {
            Some((path, size)) => ok("btf", format!("{}, {size} bytes", path.display())),
            None => warn(
                "btf",
                "missing: only what the tracepoints' own records say can be told",
                "use a kernel with CONFIG_DEBUG_INFO_BTF=y, or give its BTF by --btf PATH; in a container, mount the host's /sys",
            ),
        },
        match privileges.suffice() {
            Ok(()) => ok("privileges", "may load tracing programs"),
            Err(missing) => fail("privileges", missing.what(), missing.remedy()),
        },
        match lockdown.as_deref() {
            Some(lockdown::CONFIDENTIALITY) => {
                let detail =
                    "confidentiality: no program may read the kernel's memory by a helper, and tracefs is closed";
                // What `tp_btf` reads without a helper is still to be had.
                let judge = if health == Health::Failed { fail } else { warn };
                judge("lockdown", detail, lockdown::REMEDY)
            }
            Some(mode) => ok("lockdown", mode),
            None => ok("lockdown", "not there"),
        },
    ];
    checks.extend(unprivileged_bpf_disabled.map(|mode| match mode {
        0 => ok("unprivileged bpf", "allowed (kernel.unprivileged_bpf_disabled=0)"),
        mode => ok(
            "unprivileged bpf",
            format!("disabled (kernel.unprivileged_bpf_disabled={mode}), synfin does not need it"),
        ),
    }));
    checks.extend(bpf_stats_enabled.map(|enabled| {
        if enabled {
            ok("bpf statistics", "on: the kernel measures each program, at a small cost")
        } else {
            ok("bpf statistics", "off; `sysctl kernel.bpf_stats_enabled=1` shows what each program costs")
        }
    }));
    checks.push(match cgroup2 {
        Some(path) => ok("cgroup v2", path.display().to_string()),
        None => warn(
            "cgroup v2",
            "not mounted: connections are not told apart by container",
            "mount it, or in a container mount the host's /sys/fs/cgroup",
        ),
    });
    checks.push(match tracefs {
        Some(path) => ok("tracefs", path.display().to_string()),
        None => ok("tracefs", "not mounted; synfin needs it without BTF only, and mounts it for itself"),
    });
    checks.extend(netns.map(|inode| ok("network namespace", format!("{inode} (synfin's own; it watches all)"))));
    checks
}

/// How sockets are counted.
pub(super) fn census(source: anyhow::Result<Chosen>) -> Check {
    match source {
        Ok(source) => match source.note() {
            None => ok("census", "by the kernel's iterators"),
            Some(note) => warn("census", note, "nothing to do: the counts are the same; Linux 6.4 and later have more"),
        },
        Err(error) => {
            fail("census", format!("{error:#}"), "let `census.source` be auto, which takes inet_diag instead")
        }
    }
}

fn kernel(release: Option<&str>) -> Check {
    const FIX: &str = "synfin needs Linux 5.10 or later";
    let Some(release) = release else {
        return warn("kernel", "its release cannot be read", FIX);
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (5, 10) => ok("kernel", release),
        // A warning, because distributions backport: the probes decide.
        _ => warn("kernel", format!("{release} is older than what synfin is tested on"), FIX),
    }
}
