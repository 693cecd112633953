//! `cargo xtask run`: from a clean clone to the running agent.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use anyhow::{Context as _, Result};

use crate::build;
use crate::build::Profile;
use crate::cmd;
use crate::setup;

/// Set up, build with optimisation, then run `synfin run` as root
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build without optimisation, which is faster to compile
    #[arg(long)]
    debug: bool,
    /// What `synfin run` gets
    #[arg(last = true, value_name = "ARGS")]
    words: Vec<OsString>,
}

/// Sets up, builds and becomes `synfin run`. Only this last step has privileges.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::for_build()?;
    let binary = build::synfin(if args.debug { Profile::Debug } else { Profile::Release })?;
    let mut synfin = cmd::as_root("synfin", binary.as_os_str(), &[])?;
    synfin.arg("run").args(&args.words).stdin(Stdio::inherit());
    let shown = cmd::show(&synfin);
    cmd::say("run", &shown);
    // Replaces this process: signals and the exit code are then synfin's own.
    Err(synfin.exec()).with_context(|| format!("`{shown}` does not start"))
}
