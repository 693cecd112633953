//! Portability: what synfin runs on is decided in one module, and its eBPF object is the same program in both byte orders.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::cache;
use crate::cmd;
use crate::deps;
use crate::lex::{Kind, Token, lex};

/// Where the agent's sources may name an architecture.
const MODULE: &str = "agent/src/arch.rs";
/// Sources that run on the user's machine.
const ROOMS: [&str; 2] = ["agent/src", "agent-common/src"];
/// Words by which code is for one architecture alone.
const WORDS: [&str; 5] = ["target_arch", "target_feature", "asm", "global_asm", "naked_asm"];

/// No architecture is named outside of one module.
pub(crate) fn check_sources() -> Result<()> {
    let mut found = Vec::new();
    for room in ROOMS {
        for file in deps::rust_files(&cmd::root().join(room))? {
            let inside = file.strip_prefix(cmd::root()).unwrap_or(&file);
            if inside != Path::new(MODULE) {
                let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                found.extend(
                    words(&text).into_iter().map(|(line, word)| format!("{}:{line}: `{word}`", inside.display())),
                );
            }
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("architecture-specific code outside of {MODULE}: {}; move it there", found.join(", "))
}

/// Words of one architecture in a source, and uses of `std::arch`, with their lines.
fn words(text: &str) -> Vec<(usize, String)> {
    let tokens = lex(text);
    let path = |at: usize| match tokens.get(at.saturating_sub(2)..at) {
        Some([Token { kind: Kind::Word(root), .. }, Token { kind: Kind::PathSep, .. }]) => Some(root.as_str()),
        _ => None,
    };
    let is_bad = |(at, token): (usize, &Token)| match &token.kind {
        Kind::Word(word) if WORDS.contains(&word.as_str()) => Some((token.line, word.clone())),
        Kind::Word(word) if word == "arch" && matches!(path(at), Some("std" | "core")) => {
            Some((token.line, word.clone()))
        }
        _ => None,
    };
    tokens.iter().enumerate().filter_map(is_bad).collect()
}

/// The eBPF object for machines of the other byte order builds, with its types.
pub(crate) fn big_endian_object() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(cache::bin()?).chain(std::env::split_paths(&path)))?;
    let flags = ["--cfg=bpf_target_arch=\"s390x\"", "-Cdebuginfo=2", "-Clink-arg=--btf"];
    let mut cargo = cmd::cargo();
    cargo
        .args(["build", "--release", "--package", "synfin-ebpf", "--target", "bpfeb-unknown-none"])
        .args(["-Z", "build-std=core"])
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", build::target_dir()?.join("lint-ebpf"));
    cmd::run(&mut cargo, "the eBPF side must build for bpfeb-unknown-none as it does for bpfel-unknown-none")?;
    let object = build::target_dir()?.join("lint-ebpf/bpfeb-unknown-none/release/synfin-ebpf");
    let bytes = std::fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    if is_big_endian_bpf(&bytes) { Ok(()) } else { bail!("{} is no big-endian BPF object", object.display()) }
}

/// By the ELF header: 64 bits, most significant byte first, machine 247 (`EM_BPF`).
fn is_big_endian_bpf(elf: &[u8]) -> bool {
    elf.starts_with(b"\x7fELF\x02\x02") && elf.get(18..20) == Some(&247_u16.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_for_one_architecture_is_found() {
        let bad = "use std::arch::x86_64::_rdtsc;\n\nfn f() {\n    if cfg!(target_arch = \"x86_64\") {}\n}\n";
        assert_eq!(words(bad), [(1, "arch".to_owned()), (4, "target_arch".to_owned())]);
        let good = "// target_arch\npub mod arch;\nuse crate::arch::STORES;\nfn f() -> &str { \"asm\" }\nlet search = architecture;\n";
        assert_eq!(words(good), []);
    }

    #[test]
    fn the_header_of_an_object_tells_its_byte_order() {
        let mut elf = b"\x7fELF\x02\x02\x01".to_vec();
        elf.resize(64, 0);
        elf[19] = 247;
        assert!(is_big_endian_bpf(&elf));
        elf[5] = 1;
        assert!(!is_big_endian_bpf(&elf) && !is_big_endian_bpf(b""));
    }
}
