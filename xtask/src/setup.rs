//! `cargo xtask setup`: everything that building needs, each step said, none repeated.

use anyhow::Result;

use crate::cache;
use crate::core_src;
use crate::linker;
use crate::testbed;
use crate::toolchain::Toolchain;

/// Get everything that building needs (with --tests: and testing); what is present is left alone
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also install what the tests need: bpftrace, nginx, wrk and the like (as root on Debian; elsewhere they are named)
    #[arg(long)]
    tests: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    for_build()?;
    if args.tests { testbed::setup() } else { Ok(()) }
}

/// What every build needs: the pinned rustc, the sources of `core`, bpf-linker.
pub(crate) fn for_build() -> Result<()> {
    let _alone = cache::lock()?;
    let toolchain = Toolchain::find()?;
    core_src::setup(&toolchain)?;
    linker::setup(&toolchain)
}
