//! `cargo xtask bench`: what synfin costs, measured by the binary `synfin-bench` of the tests crate.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use anyhow::{Context as _, Result};

use crate::build;
use crate::build::Profile;
use crate::cmd;
use crate::setup;
use crate::testbed;

/// Measure what synfin costs (as root)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What `synfin-bench` gets
    #[arg(last = true, value_name = "ARGS")]
    words: Vec<OsString>,
}

/// Sets up, builds with optimisation and becomes `synfin-bench`, which finds the agent by `SYNFIN_BIN`.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::for_build()?;
    testbed::setup()?;
    let synfin = build::synfin(Profile::Release)?;
    let binary = build::binary("synfin-tests", "synfin-bench", Profile::Release)?;
    let mut bench = cmd::as_root("the bench", binary.as_os_str(), &[("SYNFIN_BIN", synfin.as_os_str())])?;
    bench.args(&args.words).stdin(Stdio::inherit());
    let shown = cmd::show(&bench);
    cmd::say("bench", &shown);
    Err(bench.exec()).with_context(|| format!("`{shown}` does not start"))
}
