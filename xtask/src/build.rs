//! `cargo xtask build`: set-up, then the binary `synfin`.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::cmd;
use crate::setup;

/// Set up, then build the binary `synfin`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Optimised, as it is shipped
    #[arg(long)]
    release: bool,
}

/// Cargo's two profiles, by the name that a person uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::for_build()?;
    let binary = synfin(if args.release { Profile::Release } else { Profile::Debug })?;
    cmd::say("build", format!("ready: {}", binary.display()));
    Ok(())
}

/// Builds the binary `synfin` and tells where it is.
pub(crate) fn synfin(profile: Profile) -> Result<PathBuf> {
    binary("synfin", "synfin", profile)
}

/// Builds one binary of one package and tells where it is.
pub(crate) fn binary(package: &str, name: &str, profile: Profile) -> Result<PathBuf> {
    cmd::say("build", format!("{name} ({profile:?})").to_lowercase());
    let mut build = cmd::cargo();
    build.args(["build", "--package", package, "--bin", name]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    Ok(executables(&mut build, &[name])?.remove(0))
}

/// Builds the binary `synfin` as it is shipped: it runs where no library of this machine is.
pub(crate) fn static_synfin() -> Result<PathBuf> {
    cmd::say("build", "synfin (release, static)");
    let mut build = cmd::cargo();
    build.args(["build", "--package", "synfin", "--bin", "synfin", "--release"]);
    statically(&mut build);
    Ok(executables(&mut build, &["synfin"])?.remove(0))
}

/// Lets a build link everything into its executables. With a named target, so that build scripts and macros stay dynamic.
pub(crate) fn statically(build: &mut Command) {
    build.args(["--target", STATIC_TARGET, "--config"]);
    build.arg(format!("target.{STATIC_TARGET}.rustflags = ['-C', 'target-feature=+crt-static']"));
}

/// What the matrix of virtual machines boots.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs a build and asks cargo itself where the executables lie: target folders can be configured in many places.
pub(crate) fn executables(build: &mut Command, names: &[&str]) -> Result<Vec<PathBuf>> {
    build.args(["--message-format", "json-render-diagnostics"]);
    let shown = cmd::show(build);
    // Diagnostics go to the terminal, messages for programs to us.
    let mut child = build.stdout(Stdio::piped()).spawn().with_context(|| format!("`{shown}` does not start"))?;
    let mut messages = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut messages).with_context(|| format!("cannot read from `{shown}`"))?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{shown}` ended with {status}; the compiler's words are above");
    }
    let find =
        |name: &&str| executable(&messages, name).with_context(|| format!("`{shown}` names no executable `{name}`"));
    names.iter().map(find).collect()
}

/// The path of the executable `name` in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let parsed = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut ours = parsed.filter(|message| message["target"]["name"] == name);
    ours.find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
}

/// Where cargo builds this work tree, asked from cargo because it can be configured in many places.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = cmd::capture(cmd::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("`cargo metadata` gives no JSON")?;
    let folder = metadata["target_directory"].as_str().context("`cargo metadata` names no target_directory")?;
    Ok(PathBuf::from(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_the_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"synfin\"},\"executable\":null}\nnot json\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"synfin\"},\"executable\":\"/t/synfin\"}\n";
        assert_eq!(executable(messages, "synfin"), Some("/t/synfin".into()));
        assert_eq!(executable(messages, "other"), None);
    }
}
