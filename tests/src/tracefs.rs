//! The kernel's tracing folder, where witnesses find the tracepoints.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context as _, Result};

use crate::need;

/// Where it is mounted.
pub const TRACEFS: &str = "/sys/kernel/tracing";

/// A path below it.
pub fn path(inside: &str) -> PathBuf {
    Path::new(TRACEFS).join(inside)
}

/// Mounts it where a container or a small machine has not.
pub fn mount() -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    let _guard = ONE_AT_A_TIME.lock();
    let mounted = || path("events").exists();
    if mounted() {
        return Ok(());
    }
    need::run(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]))
        .map(drop)
        .or_else(|error| if mounted() { Ok(()) } else { Err(error) })
        .context("the witnesses need tracefs")
}

/// Whether the kernel has a field of this name in the record of a tracepoint (`tcp/tcp_send_reset`).
pub fn has_field(event: &str, field: &str) -> Result<bool> {
    mount()?;
    let path = path("events").join(event).join("format");
    let format = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let named = |line: &str| line.trim().split(';').next().is_some_and(|start| start.ends_with(&format!(" {field}")));
    Ok(format.lines().any(named))
}
