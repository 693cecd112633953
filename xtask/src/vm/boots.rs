//! How each kernel is booted, and what is played then. Adding a boot is adding a row.

use anyhow::{Result, bail};

/// A way to boot a kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    /// How a person names it.
    pub(crate) name: &'static str,
    /// Added to the kernel's command line.
    pub(super) parameters: &'static str,
    /// What the kernel must call its lockdown: a parameter that it does not know is ignored in silence.
    pub(super) lockdown: &'static str,
    pub(super) passes: &'static [Pass],
}

/// One pass over test programs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(super) name: &'static str,
    /// The rung that is forced with `--max-rung`; None where synfin chooses by itself.
    pub(super) max_rung: Option<&'static str>,
    /// The exit codes that `synfin doctor` may answer with.
    pub(super) doctor: &'static [i64],
    /// Test programs, each with its words for libtest.
    pub(super) programs: &'static [&'static [&'static str]],
}

/// Every scenario, on whatever rung.
const SCENARIOS: &[&[&str]] = &[&["transitions"], &["storm"]];

/// The kernel's tables by iterators and by inet_diag, and the ledger that is joined with them: what needs no crowd, which takes minutes
/// where every instruction is emulated.
const CENSUS: &[&[&str]] = &[
    &["census", "--exact", "filters", "listeners", "namespaces_are_found", "a_namespace_that_only_a_socket_keeps"],
    &["ports", "--exact", "each_port_counts_once", "each_namespace_for_itself"],
    &["ledger", "--exact", "older_connections_are_adopted", "a_listing_meets_what_is_known"],
];

#[rustfmt::skip] // a table
pub(crate) const BOOTS: [Boot; 5] = [
    Boot { name: PLAIN, parameters: "", lockdown: "none", passes: &[
        Pass { name: "tp_btf",         max_rung: None,                   doctor: &[0], programs: SCENARIOS },
        Pass { name: "raw_tracepoint", max_rung: Some("raw_tracepoint"), doctor: &[0], programs: SCENARIOS },
        Pass { name: "tracepoint",     max_rung: Some("tracepoint"),     doctor: &[0], programs: SCENARIOS },
    ] },
    Boot { name: "census", parameters: "", lockdown: "none", passes: &[
        Pass { name: "census",         max_rung: None,                   doctor: &[0], programs: CENSUS },
    ] },
    // Alone, because it changes a switch of the kernel for good.
    Boot { name: "refusals", parameters: "", lockdown: "none", passes: &[
        Pass { name: "refusals",       max_rung: None,                   doctor: &[0], programs: &[&["refusals", "--include-ignored"]] },
    ] },
    // Kernels differ in what is left: the test programs judge.
    Boot { name: "confidentiality", parameters: "lockdown=confidentiality", lockdown: "confidentiality", passes: &[
        Pass { name: "confidentiality", max_rung: None,                  doctor: &[0, 1], programs: &[&["lockdown", "--include-ignored"]] },
    ] },
    // What a message about the one above recommends.
    Boot { name: "integrity", parameters: "lockdown=integrity", lockdown: "integrity", passes: &[
        Pass { name: "integrity",      max_rung: None,                   doctor: &[0], programs: &[&["transitions", "--exact", "refused", "closed_by_client"]] },
    ] },
];

/// As a machine is booted by default.
pub(super) const PLAIN: &str = "plain";

impl Boot {
    /// Whether the kernel is booted as it is by default.
    pub(super) fn is_plain(&self) -> bool {
        self.name == PLAIN
    }
}

impl Pass {
    /// Names of its test programs.
    pub(super) fn program_names(&self) -> impl Iterator<Item = &'static str> {
        self.programs.iter().filter_map(|words| words.first().copied())
    }
}

/// The test programs of all boots, each once.
pub(super) fn programs() -> Vec<&'static str> {
    let mut names: Vec<_> = BOOTS.iter().flat_map(|boot| boot.passes).flat_map(Pass::program_names).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The row of this name.
pub(crate) fn named(name: &str) -> Result<&'static Boot> {
    let Some(boot) = BOOTS.iter().find(|boot| boot.name == name) else {
        let names: Vec<_> = BOOTS.iter().map(|boot| boot.name).collect();
        bail!("no boot {name}: choose one of {}, or add a row to xtask/src/vm/boots.rs", names.join(", "));
    };
    Ok(boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_apart() {
        let names: std::collections::BTreeSet<_> = BOOTS.iter().map(|boot| boot.name).collect();
        assert_eq!(names.len(), BOOTS.len());
        assert!(BOOTS[0].is_plain() && BOOTS[0].parameters.is_empty());
        assert_eq!(programs(), ["census", "ledger", "lockdown", "ports", "refusals", "storm", "transitions"]);
        let error = named("secure").unwrap_err().to_string();
        assert!(error.contains("plain, census, refusals, confidentiality, integrity"), "{error}");
    }
}
