//! bpf-linker, built against the LLVM that rustc itself ships, so that both always read the same bitcode.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cache;
use crate::cmd;
use crate::toolchain::Toolchain;

/// The version that agent/build.rs is tested with.
const VERSION: &str = "0.13.0";

/// Builds bpf-linker once for each rustc version and links it as `bin/bpf-linker` in the cache.
pub(crate) fn setup(toolchain: &Toolchain) -> Result<()> {
    let cache = cache::dir()?;
    let home = cache.join(format!("bpf-linker-{VERSION}-{}", toolchain.release));
    let program = home.join("bin/bpf-linker");
    // The program finds LLVM through these links: they are checked each time, since a toolchain can move.
    let llvm = link_llvm(toolchain, &cache.join(format!("llvm-{}", toolchain.release)))?;

    if runs(&program) {
        cmd::say("setup", format!("bpf-linker {VERSION}: present"));
    } else {
        cmd::say("setup", format!("bpf-linker {VERSION}: building against rustc's LLVM (about a minute)"));
        install(toolchain, &llvm, &home)?;
        if !runs(&program) {
            bail!("{} was built but does not run: remove {} and try again", program.display(), home.display());
        }
    }
    cache::link(&program, &cache::bin()?.join("bpf-linker"))
}

/// Whether the program starts, which includes that it finds its LLVM.
fn runs(program: &Path) -> bool {
    cmd::capture(cmd::command(program).arg("--version")).is_ok_and(|answer| answer.contains(VERSION))
}

fn install(toolchain: &Toolchain, llvm: &Path, home: &Path) -> Result<()> {
    let scratch = home.with_added_extension("build");
    let mut install = cmd::cargo_for_tool();
    install
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--quiet",
            "--no-default-features",
        ])
        .args(["--features", &format!("llvm-{}", toolchain.llvm_major), "--root"])
        .arg(home)
        .env("LLVM_PREFIX", llvm)
        .env("CARGO_TARGET_DIR", &scratch);
    let fix = format!(
        "bpf-linker needs a C compiler driver (`cc`: package gcc and libc6-dev) and the crates registry, and it must know \
         LLVM {} (a newer rustc asks for a newer bpf-linker)",
        toolchain.llvm_major
    );
    cmd::run(&mut install, &fix)?;
    // Only the installed program is needed again.
    cache::remove(&scratch)
}

/// Makes a folder that looks like an LLVM installation to llvm-sys: `lib/` with rustc's LLVM under two names, the one that
/// `-lLLVM` asks for when linking and the one (its soname) that the built program asks for when it starts.
fn link_llvm(toolchain: &Toolchain, prefix: &Path) -> Result<PathBuf> {
    let lib = toolchain.sysroot.join("lib");
    let names = std::fs::read_dir(&lib)
        .with_context(|| format!("cannot list {}", lib.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let Some(soname) = llvm_soname(names, toolchain.llvm_major) else {
        bail!(
            "{} holds no libLLVM.so.{}*: this rustc links LLVM statically; use the rustc that rustup installs",
            lib.display(),
            toolchain.llvm_major
        );
    };
    let shared = lib.join(&soname);
    cache::link(&shared, &prefix.join("lib").join(&soname))?;
    cache::link(&shared, &prefix.join("lib/libLLVM.so"))?;
    Ok(prefix.to_path_buf())
}

/// The name of the real library. `libLLVM-22-rust-….so` beside it is only a linker script.
fn llvm_soname(mut names: impl Iterator<Item = String>, major: u32) -> Option<String> {
    names.find(|name| {
        name.strip_prefix("libLLVM.so.").is_some_and(|rest| rest.split('.').next() == Some(&major.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_library_is_chosen() {
        let names = [
            "libLLVM-22-rust-1.95.0-stable.so",
            "librustc_driver-6.so",
            "libLLVM.so.22.1-rust-1.95.0-stable",
            "rustlib",
        ];
        let names = || names.iter().map(ToString::to_string);
        assert_eq!(llvm_soname(names(), 22).as_deref(), Some("libLLVM.so.22.1-rust-1.95.0-stable"));
        assert_eq!(llvm_soname(names(), 2), None);
    }
}
