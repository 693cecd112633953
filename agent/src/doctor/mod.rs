//! `synfin doctor`: facts about this machine, the verdict of each probe, and what to do about what is missing.
//!
//! [`system`] gathers, [`report`] judges, [`text`] and [`json`] show. How probes are loaded is the caller's affair.

mod json;
mod report;
mod system;
mod text;

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;

pub use report::{Check, CheckStatus, Report};
pub use system::System;

use crate::exit::Exit;
use crate::health::Probe;
use crate::privileges::MissingPrivileges;
use crate::source::Chosen;

/// Examines the machine and writes what it found. `btf` is the BTF that the user named. `probe_verdicts` loads and attaches each probe and lets go of it; it
/// is not called without the privileges for it, nor is `census_source`, which loads the iterators of sockets.
///
/// # Errors
/// When the output cannot be written. Whatever is wrong with the machine is part of the report and of the exit code.
pub fn run(
    json: bool,
    btf: Option<&Path>,
    time: Timestamp,
    probe_verdicts: impl FnOnce() -> anyhow::Result<Vec<Probe>>,
    census_source: impl FnOnce() -> anyhow::Result<Chosen>,
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let system = System::current(btf);
    let probes = match system.privileges.suffice() {
        Ok(()) => probe_verdicts(),
        Err(missing) => Err(missing.into()),
    };
    // The kernel can refuse what the capabilities promise; the loader says so with the same type.
    let refused =
        probes.as_ref().is_err_and(|error| error.chain().any(<dyn std::error::Error>::is::<MissingPrivileges>));
    let census = system.privileges.suffice().is_ok().then(census_source);
    let mut report = Report::new(system, probes, time);
    report.checks.extend(census.map(report::census));
    if json {
        json::write(&report, out)?;
    } else {
        text::write(&report, out)?;
    }
    out.flush()?;
    Ok(if refused { Exit::Privileges } else { report.exit() })
}

#[cfg(test)]
mod tests;
