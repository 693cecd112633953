//! What the kernels that synfin runs on do not all do, found out by looking and never by version.

use std::{fs, sync::OnceLock};

use anyhow::{Context as _, Result};

use crate::tracefs;

/// Whether `tcp_send_reset` fires for a RST without a socket too (6.10 and later, when it got its reason); before, the
/// kernel counts such a RST and announces it to nobody.
pub fn announces_every_reset() -> Result<bool> {
    tracefs::has_field("tcp/tcp_send_reset", "reason")
}

/// Whether a `tp_btf` program can make a cookie for a socket that has none (5.12 and later).
pub fn makes_cookies() -> Result<bool> {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    if let Some(answer) = ANSWER.get() {
        return Ok(*answer);
    }
    // The helper for pointers that the verifier knows, which came later than the one for packets.
    let found = has_symbol("bpf_get_socket_ptr_cookie")?;
    Ok(*ANSWER.get_or_init(|| found))
}

/// Whether the kernel counts maps and programs against RLIMIT_MEMLOCK (before 5.11; later they count for the cgroup).
pub fn counts_bpf_memory() -> Result<bool> {
    has_symbol("__bpf_prog_charge")
}

fn has_symbol(name: &str) -> Result<bool> {
    let symbols = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
    Ok(symbols.lines().any(|line| line.split(' ').nth(2) == Some(name)))
}
