//! `cargo xtask test`: unit tests, the end-to-end tests with the built binary, then the kernel matrix; one sum at the end.

use std::ffi::OsString;
use std::io::Write;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::cmd;
use crate::results::Results;
use crate::setup::{self, Lack};
use crate::stream;
use crate::vm;

/// Run the unit tests, the end-to-end tests (these as root) and, where QEMU is at hand, the kernel matrix
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the unit tests, which need no root
    #[arg(long)]
    unit: bool,
    /// Only the end-to-end tests, which need root
    #[arg(long, conflicts_with = "unit")]
    e2e: bool,
    /// Without the kernel matrix (which is `cargo xtask vm` alone)
    #[arg(long)]
    no_vm: bool,
    /// What the test programs get: a filter, --nocapture, --test-threads=1, …
    #[arg(last = true, value_name = "ARGS")]
    words: Vec<OsString>,
}

/// One call of `cargo test`, with all that it needs before.
struct Stage {
    name: &'static str,
    prepare: fn() -> Result<Prepared>,
}

/// A `cargo test`, and what it must do without.
struct Prepared {
    cargo_test: Command,
    lacks: Vec<Lack>,
}

/// Needs no root and no network. With the real eBPF object, so that a build of it is tested too.
const UNIT: Stage = Stage { name: "unit", prepare: || Ok(Prepared { cargo_test: unit(), lacks: Vec::new() }) };
/// The released binary against the kernel.
const E2E: Stage = Stage { name: "e2e", prepare: e2e };

const KERNEL_MATRIX: &str = "kernel matrix";

/// Runs the command. A stage that fails does not keep the next one from running.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::for_build()?;
    let stages: &[Stage] = match (args.unit, args.e2e) {
        (true, _) => &[UNIT],
        (_, true) => &[E2E],
        _ => &[UNIT, E2E],
    };
    let mut sum = Results::default();
    let (mut empty, mut lacks) = (Vec::new(), Vec::new());
    for stage in stages {
        let results = run_stage(stage, &args.words, &mut lacks).unwrap_or_else(|error| {
            cmd::say("test", format!("{}: {error:#}", stage.name));
            Results::failure()
        });
        if results.executed() == 0 {
            empty.push(stage.name);
        }
        sum += results;
    }
    // A filter is about the tests of this machine.
    let whole = !(args.unit || args.e2e || args.no_vm || chooses(&args.words));
    if let Some(results) = whole.then(kernel_matrix).flatten() {
        if results.executed() == 0 {
            empty.push(KERNEL_MATRIX);
        }
        sum += results;
    }
    // Once more: what was said before the tests is far up by now.
    for lack in &lacks {
        lack.say("test");
    }
    verdict(sum, &empty, chooses(&args.words), &mut std::io::stdout())
}

/// Whether these words leave tests out; `--nocapture` and its like do not.
fn chooses(words: &[OsString]) -> bool {
    words.iter().filter_map(|word| word.to_str()).any(|word| !word.starts_with('-') || word.starts_with("--skip"))
}

fn run_stage(stage: &Stage, words: &[OsString], lacks: &mut Vec<Lack>) -> Result<Results> {
    let Prepared { mut cargo_test, lacks: found } = (stage.prepare)()?;
    cargo_test.args(["--no-fail-fast", "--"]).args(words);
    cargo_test.args(found.iter().flat_map(|lack| ["--skip", lack.tests]));
    lacks.extend(found);
    cmd::say("test", format!("{}: {}", stage.name, cmd::show(&cargo_test)));
    let mut results = Results::default();
    let success = stream::lines(&mut cargo_test, &mut std::io::stdout(), &mut |line| results.read_line(line))?;
    results.end_of_run(success);
    Ok(results)
}

/// Real kernels, where this machine can emulate one.
fn kernel_matrix() -> Option<Results> {
    if let Some(why) = vm::missing() {
        cmd::say("test", format!("{KERNEL_MATRIX}: NOT tested: {why}"));
        return None;
    }
    Some(vm::test().unwrap_or_else(|error| {
        cmd::say("test", format!("{KERNEL_MATRIX}: {error:#}"));
        Results::failure()
    }))
}

fn unit() -> Command {
    let mut cargo_test = cmd::cargo();
    cargo_test.args(["test", "--package", "synfin", "--package", "synfin-common", "--package", "xtask"]);
    cargo_test
}

/// Only the test programs run as root, so that nothing in the target folder belongs to root.
fn e2e() -> Result<Prepared> {
    let lacks = setup::for_tests()?;
    // As it is shipped, and as the kernel matrix boots it.
    let synfin = build::static_synfin()?;
    let mut cargo_test = cmd::cargo();
    cargo_test.args(["test", "--package", "synfin-tests"]).env("SYNFIN_BIN", &synfin);
    let prefix =
        cmd::root_prefix("loading eBPF programs in the end-to-end tests", &[("SYNFIN_BIN", synfin.as_os_str())])?;
    if !prefix.is_empty() {
        let words: Vec<_> = prefix.iter().map(|word| word.to_string_lossy()).collect();
        // A JSON array of strings is a TOML array too.
        let runner = serde_json::to_string(&words).context("the words of the runner are text")?;
        cargo_test.args(["--config", &format!("target.'cfg(unix)'.runner = {runner}")]);
    }
    Ok(Prepared { cargo_test, lacks })
}

/// The last line, for people and for programs, and what it means. A stage may be empty only because a filter chose so.
fn verdict(sum: Results, empty: &[&str], filtered: bool, out: &mut dyn Write) -> Result<()> {
    if sum.ignored > 0 {
        cmd::say("test", format!("{} ignored", sum.ignored));
    }
    drop(writeln!(out, "{} passed, {} failed", sum.passed, sum.failed));
    if sum.failed > 0 {
        bail!("tests failed; the lists `failures:` and the messages above name them");
    }
    if sum.executed() == 0 {
        bail!("no test ran{}", if filtered { ": nothing fits the filter" } else { "" });
    }
    if !filtered && !empty.is_empty() {
        bail!("no test ran in: {}", empty.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_run_is_no_success() {
        // Not to stdout: this very test runs below `cargo xtask test`, which reads it.
        let judge = |sum, empty: &[&str], filtered| verdict(sum, empty, filtered, &mut std::io::sink()).is_ok();
        let mut passed = Results::default();
        passed.read_line("test result: ok. 1 passed; 0 failed");
        assert!(judge(passed, &[], false));
        assert!(judge(passed, &["e2e"], true));
        assert!(!judge(passed, &["e2e"], false));
        assert!(!judge(Results::default(), &["unit"], true));
        assert!(!judge(Results::failure(), &[], false));
    }

    #[test]
    fn only_a_filter_chooses() {
        let chooses = |words: &[&str]| chooses(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(chooses(&["reset"]) && chooses(&["--skip=reset"]));
        assert!(!chooses(&[]) && !chooses(&["--nocapture", "--test-threads=1"]));
    }

    #[test]
    fn the_last_line_is_the_sum() {
        let mut out = Vec::new();
        drop(verdict(Results::failure(), &[], false, &mut out));
        assert_eq!(out, b"0 passed, 1 failed\n");
    }
}
