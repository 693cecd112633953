//! The report for people: one aligned line for each fact, the remedy below it.

use std::io::{self, Write};

use super::report::{Check, CheckStatus, Report};
use crate::health::Health;

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let probes: Vec<Check> = report.probe_checks().collect();
    let width = report.checks.iter().chain(&probes).map(|check| check.name.len()).max().unwrap_or(0);
    writeln!(out, "synfin {}", env!("CARGO_PKG_VERSION"))?;
    section(out, "system", &report.checks, width)?;
    if !probes.is_empty() {
        section(out, "probes", &probes, width)?;
    }
    let verdict = match report.health {
        Health::Healthy => "healthy: every probe works",
        Health::Degraded => "degraded: synfin works, without what is marked above",
        Health::Failed if report.probes.is_empty() => "failed: the probes could not be tried, see above",
        Health::Failed => "failed: a probe is missing that synfin cannot do without",
    };
    writeln!(out, "\n{verdict}")
}

fn section(out: &mut dyn Write, title: &str, checks: &[Check], width: usize) -> io::Result<()> {
    writeln!(out, "\n{title}")?;
    for Check { name, status, detail, remedy } in checks {
        writeln!(out, "  {:<4}  {name:<width$}  {detail}", status.name())?;
        if let Some(remedy) = remedy.as_ref().filter(|_| *status != CheckStatus::Ok) {
            writeln!(out, "  {:<4}  {:<width$}  -> {remedy}", "", "")?;
        }
    }
    Ok(())
}
