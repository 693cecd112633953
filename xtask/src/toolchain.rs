//! The Rust toolchain of this work tree: which version it is, which LLVM it brings, where it lies.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// What set-up must know of the rustc that builds synfin.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Version such as `1.95.0`.
    pub(crate) release: String,
    /// First number of the LLVM that rustc was built with.
    pub(crate) llvm_major: u32,
    /// The folder that holds `bin/rustc` and `lib/rustlib`.
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// Asks rustc and compares it with rust-toolchain.toml.
    pub(crate) fn find() -> Result<Self> {
        let pin_path = cmd::root().join("rust-toolchain.toml");
        let pin_text =
            std::fs::read_to_string(&pin_path).with_context(|| format!("cannot read {}", pin_path.display()))?;
        let pinned = channel(&pin_text).with_context(|| format!("{} has no `channel = \"…\"`", pin_path.display()))?;

        let answer = cmd::capture(cmd::command("rustc").arg("-vV")).with_context(|| {
            format!("rustc {pinned} is needed: install rustup, then `rustup toolchain install {pinned}`")
        })?;
        let (release, llvm_major) =
            parse_version(&answer).with_context(|| format!("cannot read `rustc -vV`: {answer}"))?;
        if release != pinned {
            bail!(
                "rustc is {release}, rust-toolchain.toml pins {pinned}: run through rustup's cargo \
                 (`rustup toolchain install {pinned}`) and unset RUSTUP_TOOLCHAIN"
            );
        }
        let sysroot = cmd::capture(cmd::command("rustc").args(["--print", "sysroot"]))?;
        Ok(Self { release, llvm_major, sysroot: PathBuf::from(sysroot.trim()) })
    }
}

/// The pinned version out of rust-toolchain.toml.
fn channel(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("channel")?.trim_start().strip_prefix('='))?;
    value.split('"').nth(1).map(str::to_owned)
}

/// Release and LLVM major out of `rustc -vV`.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let llvm_major = field("LLVM version")?.split('.').next()?.parse().ok()?;
    Some((field("release")?.to_owned(), llvm_major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_read() {
        assert_eq!(channel("# x\n[toolchain]\nchannel = \"1.95.0\" # y\n"), Some("1.95.0".into()));
        assert_eq!(channel("[toolchain]\n"), None);
    }

    #[test]
    fn rustc_answers_are_read() {
        let answer = "rustc 1.95.0 (5 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(parse_version(answer), Some(("1.95.0".into(), 22)));
        assert_eq!(parse_version("release: 1.95.0\n"), None);
    }
}
