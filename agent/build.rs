//! Builds the eBPF crate and puts its object into `OUT_DIR`, where `loader` embeds it.
#![expect(unsafe_code, clippy::disallowed_methods, reason = "the environment of the eBPF build is set in this process")]

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use aya_build::{Package, Toolchain};

/// The pin of rust-toolchain.toml.
const TOOLCHAIN: &str = "1.95.0";

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?);
    let ebpf = root.join("../agent-ebpf").canonicalize().context("agent-ebpf lies beside agent")?;
    println!("cargo:rerun-if-changed={}", root.join("../agent-common/src").display());

    // The linker lives in the user's cache, not on PATH: see `cargo xtask setup`.
    let tools = cache_dir()?.join("bin");
    ensure!(
        env::var_os("AYA_BUILD_SKIP").is_some() || tools.join("bpf-linker").exists(),
        "bpf-linker is not set up for this toolchain; run `cargo xtask setup` once"
    );
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(tools).chain(env::split_paths(&path)))?;

    // `-Z build-std` is unstable and the toolchain is stable: the override reaches the eBPF build alone, because cargo
    // runs this script in a process of its own.
    // SAFETY: this process has one thread here, so nobody reads the environment at the same time.
    unsafe {
        env::set_var("PATH", path);
        env::set_var("RUSTC_BOOTSTRAP", "1");
        // Otherwise each line of cargo's progress becomes a warning of this build.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    if env::var_os("AYA_BUILD_SKIP").is_some() {
        // Lints of the user side need no object, but `loader` embeds the file.
        let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?).join("synfin-ebpf");
        if !out.exists() {
            std::fs::write(out, [])?;
        }
    }
    let package = Package {
        name: "synfin-ebpf",
        root_dir: ebpf.to_str().context("the path of the checkout is not UTF-8")?,
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(TOOLCHAIN))
}

/// `$XDG_CACHE_HOME/synfin` or `~/.cache/synfin`: the same choice as in xtask.
fn cache_dir() -> anyhow::Result<PathBuf> {
    println!("cargo:rerun-if-env-changed=XDG_CACHE_HOME");
    let base = env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: no place for the build tools")?;
    Ok(base.join("synfin"))
}
