//! Verdicts about probes, and what they add up to. Pure: no kernel, no files.

use std::fmt;
use std::time::Duration;

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Loaded and attached.
    Active {
        /// How it is attached, e.g. `tp_btf`.
        rung: &'static str,
    },
    /// This kernel has nothing to attach it to.
    Unsupported {
        /// What is missing.
        why: String,
    },
    /// The kernel refused it.
    Broken {
        /// What the kernel said.
        error: String,
    },
}

impl Verdict {
    /// One word for data and filters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Active { .. } => "active",
            Self::Unsupported { .. } => "unsupported",
            Self::Broken { .. } => "broken",
        }
    }

    /// Whether events of the probe arrive.
    pub const fn is_active(&self) -> bool {
        matches!(self, Self::Active { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active { rung } => write!(f, "active ({rung})"),
            Self::Unsupported { why } => write!(f, "unsupported: {why}"),
            Self::Broken { error } => write!(f, "broken: {error}"),
        }
    }
}

/// A probe with its verdict and, where the kernel tells, its cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Name of the program.
    pub name: &'static str,
    /// Kernel tracepoint.
    pub tracepoint: &'static str,
    /// Without it synfin cannot do its main job.
    pub required: bool,
    /// What became of it.
    pub verdict: Verdict,
    /// Cost so far.
    pub cost: Option<Cost>,
}

/// What the kernel's program info tells of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Runs, while BPF statistics are enabled (`kernel.bpf_stats_enabled`).
    pub runs: u64,
    /// Time of these runs.
    pub time: Duration,
    /// Runs that were skipped because the program was already running on that CPU. Counted always.
    pub recursion_misses: u64,
}

/// The sum of all verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every probe is active.
    Healthy,
    /// A probe is missing that is not required.
    Degraded,
    /// A required probe is missing.
    Failed,
}

impl Health {
    /// One word for data.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// What the verdicts add up to. Without any probe there is nothing that works.
pub fn roll_up(probes: &[Probe]) -> Health {
    if probes.is_empty() || probes.iter().any(|probe| probe.required && !probe.verdict.is_active()) {
        Health::Failed
    } else if probes.iter().any(|probe| !probe.verdict.is_active()) {
        Health::Degraded
    } else {
        Health::Healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(required: bool, active: bool) -> Probe {
        let verdict =
            if active { Verdict::Active { rung: "tp_btf" } } else { Verdict::Broken { error: "EPERM".into() } };
        Probe { name: "state", tracepoint: "inet_sock_set_state", required, verdict, cost: None }
    }

    #[test]
    fn a_required_probe_decides() {
        assert_eq!(roll_up(&[probe(true, true), probe(false, true)]), Health::Healthy);
        assert_eq!(roll_up(&[probe(true, true), probe(false, false)]), Health::Degraded);
        assert_eq!(roll_up(&[probe(true, false), probe(false, true)]), Health::Failed);
        assert_eq!(roll_up(&[]), Health::Failed);
    }
}
