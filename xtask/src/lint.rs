//! `cargo xtask lint`: all that a machine can judge about the sources. Every check runs, all failures are named at the end.

use anyhow::{Result, bail};

use crate::build;
use crate::cmd;
use crate::deny;
use crate::deps;
use crate::portable;
use crate::setup;

/// Check format, clippy on both sides, dependency direction, portability and dependencies
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out what asks the network each time: the advisory database
    #[arg(long)]
    offline: bool,
}

/// One check: what it is called and what it does.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 9] = [
    ("format", format),
    ("dependency direction", deps::check),
    ("no code for one architecture", portable::check_sources),
    ("clippy, user side", clippy_user),
    ("clippy, eBPF side, little endian", || clippy_ebpf("bpfel-unknown-none")),
    ("clippy, eBPF side, big endian", || clippy_ebpf("bpfeb-unknown-none")),
    ("eBPF object, big endian", portable::big_endian_object),
    ("licences, bans, sources", deny::dependencies),
    (ADVISORIES, deny::advisories),
];
const ADVISORIES: &str = "advisories";

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::for_build()?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if args.offline && name == ADVISORIES {
            cmd::say("lint", format!("{name}: NOT checked (--offline)"));
            continue;
        }
        cmd::say("lint", name);
        if let Err(error) = check() {
            cmd::say("lint", format!("{name}: FAILED: {error:#}"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join("; "));
    }
    Ok(())
}

fn format() -> Result<()> {
    cmd::run(cmd::cargo().args(["fmt", "--all", "--", "--check"]), "run `cargo fmt --all`")
}

const CLIPPY_FIX: &str = "follow clippy, or `#[expect(…, reason = \"…\")]` where it is wrong";

fn clippy_user() -> Result<()> {
    let mut clippy = cmd::cargo();
    clippy.arg("clippy");
    for package in ["synfin", "synfin-common", "synfin-tests", "xtask"] {
        clippy.args(["--package", package]);
    }
    cmd::run(clippy.args(["--all-targets", "--", "--deny", "warnings"]), CLIPPY_FIX)
}

/// The eBPF crate builds only for eBPF targets, and only with unstable flags, as agent/build.rs does it.
fn clippy_ebpf(target: &str) -> Result<()> {
    let mut clippy = cmd::cargo();
    clippy
        .args(["clippy", "--package", "synfin-ebpf", "--target", target, "-Z", "build-std=core", "--", "--deny", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        // aya-ebpf chooses the layout of registers by this.
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"")
        // A folder of its own: RUSTC_BOOTSTRAP makes build scripts run anew, and would do so at each change of sides.
        .env("CARGO_TARGET_DIR", build::target_dir()?.join("lint-ebpf"));
    cmd::run(&mut clippy, CLIPPY_FIX)
}
