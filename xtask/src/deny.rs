//! cargo-deny: licences, known vulnerabilities, sources and duplicates of dependencies, judged by deny.toml.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cache;
use crate::cmd;

/// The version that deny.toml is written for.
const VERSION: &str = "0.20.2";

/// The program in the cache, built on first use.
pub(crate) fn setup() -> Result<PathBuf> {
    let _alone = cache::lock()?;
    let home = cache::dir()?.join(format!("cargo-deny-{VERSION}"));
    let program = home.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    cmd::say("lint", format!("cargo-deny {VERSION}: building, once for all clones (some minutes)"));
    let scratch = home.with_added_extension("build");
    let mut install = cmd::cargo_for_tool();
    install.args(["install", "cargo-deny", "--version", VERSION, "--locked", "--quiet", "--root"]).arg(&home);
    cmd::run(install.env("CARGO_TARGET_DIR", &scratch), "it needs the crates registry and a C compiler (package gcc)")?;
    cache::remove(&scratch)?;
    Ok(program)
}

/// Licences, bans and sources: needs nothing but the lock file.
pub(crate) fn dependencies() -> Result<()> {
    let program = setup()?;
    let fix = "replace the dependency, or allow it in deny.toml with the reason";
    // Who drags in a second version of a crate fills screens; who drags in a licence is what one needs to know.
    let bans = cmd::run(cmd::command(&program).args(["check", "--hide-inclusion-graph", "bans"]), fix);
    let others = cmd::run(cmd::command(&program).args(["check", "licenses", "sources"]), fix);
    bans.and(others)
}

/// Known vulnerabilities: needs the advisory database, which is fetched each time it can be.
pub(crate) fn advisories() -> Result<()> {
    let program = setup()?;
    if let Err(error) = cmd::capture(Command::new(&program).args(["fetch", "db"]).current_dir(cmd::root())) {
        bail!(
            "the advisory database cannot be fetched, so nothing was checked (`--offline` leaves this check out): {error:#}"
        );
    }
    let fix = "update the dependency, or ignore the advisory in deny.toml with the reason";
    cmd::run(cmd::command(program).args(["check", "--disable-fetch", "advisories"]), fix)
}
