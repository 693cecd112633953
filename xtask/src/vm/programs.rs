//! The programs that go into a virtual machine, linked statically: the machine has no libraries.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::boots;
use crate::build;
use crate::cmd;

/// Executables on this machine.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) synfin: PathBuf,
    pub(super) init: PathBuf,
    pub(super) peer: PathBuf,
    /// Name and path. Test programs that no boot names need services or tools that such a machine does not have.
    pub(super) tests: Vec<(&'static str, PathBuf)>,
}

impl Programs {
    /// Builds them, except a synfin that is given.
    pub(super) fn build(synfin: Option<&Path>) -> Result<Self> {
        let synfin = synfin.map_or_else(build::static_synfin, |given| Ok(given.to_path_buf()))?;
        cmd::say("build", "test programs for the virtual machines");
        let tests = boots::programs();
        let bins = ["synfin-vm-init", "synfin-peer"];
        let mut build = cmd::cargo();
        build.args(["build", "--package", "synfin-tests", "--profile", "vm"]);
        build.args(bins.iter().flat_map(|name| ["--bin", name]));
        build.args(tests.iter().flat_map(|name| ["--test", name]));
        build::statically(&mut build);
        let names: Vec<&str> = bins.into_iter().chain(tests.iter().copied()).collect();
        let mut built = build::executables(&mut build, &names)?.into_iter();
        let (init, peer) = (built.next().context("init was built")?, built.next().context("peer was built")?);
        Ok(Self { synfin, init, peer, tests: tests.into_iter().zip(built).collect() })
    }
}
