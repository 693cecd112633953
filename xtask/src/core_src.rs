//! The sources of `core`, which `-Z build-std=core` compiles for the eBPF target.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

use crate::apt;
use crate::cache;
use crate::cmd;
use crate::toolchain::Toolchain;

/// Where Debian may have the toolchain's version, the most settled suite first.
const SUITES: [&str; 3] = ["trixie-backports", "forky", "sid"];

/// Puts the library sources into the toolchain: by rustup, else out of Debian's package of the same version.
pub(crate) fn setup(toolchain: &Toolchain) -> Result<()> {
    let library = toolchain.sysroot.join("lib/rustlib/src/rust/library");
    let present = || library.join("core/src/lib.rs").is_file();
    if present() {
        cmd::say("setup", format!("rust-src {}: present", toolchain.release));
        return Ok(());
    }
    cmd::say("setup", format!("rust-src {}: adding with rustup", toolchain.release));
    let mut rustup = cmd::command("rustup");
    rustup.args(["component", "add", "rust-src", "--toolchain", &toolchain.release]);
    let by_rustup = match cmd::capture(&mut rustup) {
        Ok(_) if present() => return Ok(()),
        // It only looks into its own list: somebody removed the files behind its back.
        Ok(_) => anyhow!("rustup takes rust-src for installed, but {} is missing", library.display()),
        Err(error) => error,
    };

    if !apt::available() {
        return Err(by_rustup).context(format!(
            "the sources of `core` are missing: give rustup a network, or put the library/ folder of Rust {} at {}",
            toolchain.release,
            library.display()
        ));
    }
    cmd::say("setup", format!("rust-src {}: rustup cannot, trying Debian's package", toolchain.release));
    from_debian(toolchain, &library).with_context(|| {
        format!(
            "the sources of `core` are missing, rustup cannot fetch them ({by_rustup:#}) and neither can apt: give one of the \
             two a network, or put the library/ folder of Rust {} at {}",
            toolchain.release,
            library.display()
        )
    })
}

fn from_debian(toolchain: &Toolchain, library: &Path) -> Result<()> {
    let package = apt::fetch("rust-src", &toolchain.release, &SUITES)?;
    let unpacked = package.with_file_name("unpacked");
    cmd::capture(cmd::command("dpkg").arg("-x").arg(&package).arg(&unpacked))?;

    // Copied beside its place first: an interrupted copy must not look like a finished one.
    let parent = library.parent().context("the sysroot has no such folder")?;
    cache::make(parent).context("the toolchain's folder must be writable: run as the user who installed it")?;
    let part = parent.join("library.part");
    cache::remove(&part)?;
    // The package keeps lib/rustlib/src/rust as a link to the real folder.
    let source = unpacked.join("usr/lib/rustlib/src/rust/library");
    cmd::capture(cmd::command("cp").arg("-r").arg(&source).arg(&part))?;
    std::fs::rename(&part, library).with_context(|| format!("cannot put the sources at {}", library.display()))?;
    // 45 MB packed, several hundred unpacked, never needed again.
    cache::remove(&cache::dir()?.join("apt"))?;
    cmd::say("setup", format!("rust-src {}: put at {}", toolchain.release, library.display()));
    Ok(())
}
