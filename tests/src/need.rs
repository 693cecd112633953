//! What the tests need from the machine, and the sentence that says how to get it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Names the binary under test when it is not the release build of this workspace.
pub const BINARY_VARIABLE: &str = "SYNFIN_BIN";

/// Fails unless the test runs as root: namespaces and BPF need it.
pub fn root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root: this test makes network namespaces and the binary loads BPF programs; run it as root \
         (`cargo xtask test` asks for it)"
    );
    Ok(())
}

/// Fails unless `tool` is on the PATH.
pub fn tool(tool: &str, package: &str) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    ensure!(
        env::split_paths(&path).any(|folder| folder.join(tool).is_file()),
        "needs the program `{tool}` (Debian package {package}), which is not on the PATH"
    );
    Ok(())
}

/// The binary under test.
pub fn binary() -> Result<PathBuf> {
    let path = match env::var_os(BINARY_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/synfin"),
    };
    path.canonicalize().with_context(|| {
        format!(
            "needs the built binary, and there is none at {}: run `cargo xtask build --release`, or name another one \
             with {BINARY_VARIABLE}",
            path.display()
        )
    })
}

/// Runs a program to its end and fails with what it said unless it succeeds.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
