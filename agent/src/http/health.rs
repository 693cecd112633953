//! Whether the agent lives, and whether it does its work: for whoever would restart it. A backend that is away is neither's
//! business.

use hyper::StatusCode;

use super::answer::Answer;
use crate::health::{Health, roll_up};
use crate::status::Status;

/// Age of a status, published each second, at which the engine is taken for hanging. Far above what a machine without a CPU
/// to spare makes of a second, below what Kubernetes' usual three attempts of ten seconds allow.
const STALE_NS: u64 = 15_000_000_000;

/// Whether the engine moves on, or why it does not seem so.
pub(super) fn live(status: &Status, now_ns: u64) -> Result<(), String> {
    let age = now_ns.saturating_sub(status.time_ns);
    if age < STALE_NS {
        Ok(())
    } else {
        Err(format!("the engine stands still: its last status is {} s old", age / 1_000_000_000))
    }
}

/// Whether connections are seen, or what is in the way.
pub(super) fn ready(status: &Status) -> Result<(), String> {
    if status.probes.is_empty() {
        return Err("no programs are attached yet".to_owned());
    }
    if roll_up(&status.probes) != Health::Failed {
        return Ok(());
    }
    let missing = status.probes.iter().filter(|probe| probe.required && !probe.verdict.is_active());
    let missing: Vec<String> = missing.map(|probe| format!("{} is {}", probe.name, probe.verdict)).collect();
    Err(format!("a required probe is missing: {}", missing.join("; ")))
}

/// As an answer.
pub(super) fn told(verdict: Result<(), String>) -> Answer {
    match verdict {
        Ok(()) => Answer::text(StatusCode::OK, "ok\n"),
        Err(why) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
