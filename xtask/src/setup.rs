//! `cargo xtask setup`: everything that building needs, each step said, none repeated.

use anyhow::Result;

use crate::cache;
use crate::core_src;
use crate::linker;
use crate::testbed;
use crate::toolchain::Toolchain;
use crate::victoria_metrics;

/// Get everything that building needs (with --tests: and testing); what is present is left alone
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also get what the tests need: bpftrace, nginx, wrk and the like (as root on Debian; elsewhere they are named), VictoriaMetrics
    #[arg(long)]
    tests: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    for_build()?;
    if args.tests { for_tests() } else { Ok(()) }
}

/// What every build needs: the pinned rustc, the sources of `core`, bpf-linker.
pub(crate) fn for_build() -> Result<()> {
    let _alone = cache::lock()?;
    let toolchain = Toolchain::find()?;
    core_src::setup(&toolchain)?;
    linker::setup(&toolchain)
}

/// What the end-to-end tests need beyond a build.
pub(crate) fn for_tests() -> Result<()> {
    testbed::setup()?;
    victoria_metrics::setup()
}
