//! Verdicts about probes, and what they add up to. Pure: no kernel, no files.

use std::fmt;
use std::time::Duration;

use crate::rung::Rung;

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Loaded and attached.
    Active {
        /// How it is attached.
        rung: Rung,
        /// It tells only what the tracepoint's own record says, because the kernel's types are not known.
        partial: bool,
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
    /// The configuration leaves it out.
    Disabled,
}

impl Verdict {
    /// One word for data and filters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Active { .. } => "active",
            Self::Unsupported { .. } => "unsupported",
            Self::Broken { .. } => "broken",
            Self::Disabled => "disabled",
        }
    }

    /// Whether events of the probe arrive.
    pub const fn is_active(&self) -> bool {
        matches!(self, Self::Active { .. })
    }

    /// The rung of an active probe.
    pub const fn rung(&self) -> Option<Rung> {
        match self {
            Self::Active { rung, .. } => Some(*rung),
            Self::Unsupported { .. } | Self::Broken { .. } | Self::Disabled => None,
        }
    }

    /// Whether it tells less than it should. What the user has left out is as it should be.
    const fn is_wanting(&self) -> bool {
        match self {
            Self::Active { partial, .. } => *partial,
            Self::Unsupported { .. } | Self::Broken { .. } => true,
            Self::Disabled => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active { rung, partial: false } => write!(f, "active ({rung})"),
            Self::Active { rung, partial: true } => write!(f, "active ({rung}, without the kernel's types)"),
            Self::Unsupported { why } => write!(f, "unsupported: {why}"),
            Self::Broken { error } => write!(f, "broken: {error}"),
            Self::Disabled => write!(f, "disabled by the configuration"),
        }
    }
}

/// A rung that a probe could not stand on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The rung.
    pub rung: Rung,
    /// Why not.
    pub why: String,
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
    /// Rungs that were tried before, best first.
    pub refused: Vec<Refused>,
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
    /// Every probe that is wanted works.
    Healthy,
    /// A probe is missing that is not required, or one tells only a part.
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
    } else if probes.iter().any(|probe| probe.verdict.is_wanting()) {
        Health::Degraded
    } else {
        Health::Healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(required: bool, verdict: Verdict) -> Probe {
        Probe { name: "state", tracepoint: "inet_sock_set_state", required, verdict, refused: Vec::new(), cost: None }
    }

    fn active(rung: Rung) -> Verdict {
        Verdict::Active { rung, partial: false }
    }

    fn broken() -> Verdict {
        Verdict::Broken { error: "EPERM".into() }
    }

    #[test]
    fn a_required_probe_decides() {
        for missing in [broken(), Verdict::Unsupported { why: "no tracepoint".into() }] {
            let optional = [probe(true, active(Rung::TpBtf)), probe(false, missing.clone())];
            assert_eq!(roll_up(&optional), Health::Degraded);
            let required = [probe(true, missing), probe(false, active(Rung::TpBtf))];
            assert_eq!(roll_up(&required), Health::Failed);
        }
        assert_eq!(roll_up(&[]), Health::Failed);
    }

    #[test]
    fn any_rung_is_healthy_as_long_as_it_tells_everything() {
        for rung in Rung::ALL {
            assert_eq!(roll_up(&[probe(true, active(rung)), probe(false, active(rung))]), Health::Healthy);
        }
        let partial = Verdict::Active { rung: Rung::Tracepoint, partial: true };
        assert_eq!(roll_up(&[probe(true, partial)]), Health::Degraded);
    }

    #[test]
    fn what_is_left_out_on_purpose_is_not_missed() {
        assert_eq!(roll_up(&[probe(true, active(Rung::TpBtf)), probe(false, Verdict::Disabled)]), Health::Healthy);
        // The configuration refuses this one; were it let through, nothing would work.
        assert_eq!(roll_up(&[probe(true, Verdict::Disabled)]), Health::Failed);
    }
}
