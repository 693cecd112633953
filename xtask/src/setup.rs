//! `cargo xtask setup`: everything that building needs, each step said, none repeated.

use anyhow::Result;

use crate::cache;
use crate::cmd;
use crate::collector;
use crate::core_src;
use crate::linker;
use crate::testbed;
use crate::toolchain::Toolchain;
use crate::victoria_metrics;

/// Get everything that building needs (with --tests: and testing); what is present is left alone
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also get what the tests need: bpftrace, nginx, wrk and the like (as root on Debian; elsewhere they are named), VictoriaMetrics, OpenTelemetry's Collector
    #[arg(long)]
    tests: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    for_build()?;
    if args.tests { for_tests().map(drop) } else { Ok(()) }
}

/// What every build needs: the pinned rustc, the sources of `core`, bpf-linker.
pub(crate) fn for_build() -> Result<()> {
    let _alone = cache::lock()?;
    let toolchain = Toolchain::find()?;
    core_src::setup(&toolchain)?;
    linker::setup(&toolchain)
}

/// What cannot be had on this machine, and so is not tested here.
#[derive(Debug)]
pub(crate) struct Lack {
    /// Its name, for people.
    pub(crate) what: &'static str,
    /// What the names of its tests have in common, and no other's.
    pub(crate) tests: &'static str,
    why: anyhow::Error,
}

impl Lack {
    /// Says it: nobody shall take tests that did not run for tests that passed.
    pub(crate) fn say(&self, topic: &str) {
        cmd::say(topic, format!("{}: NOT tested: {:#}", self.what, self.why));
    }
}

/// What the end-to-end tests need beyond a build. An error where all of them need it.
pub(crate) fn for_tests() -> Result<Vec<Lack>> {
    testbed::setup()?;
    victoria_metrics::setup()?;
    let mut lacks = Vec::new();
    if let Err(why) = collector::setup() {
        let lack = Lack { what: collector::WHAT, tests: collector::TESTS, why };
        lack.say("setup");
        lacks.push(lack);
    }
    Ok(lacks)
}
