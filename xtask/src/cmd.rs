//! Child processes: what is said before they start, what their failure tells, which environment they see.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Says one step of a command on stderr: `[setup] rust-src: present`.
pub(crate) fn say(topic: &str, text: impl AsRef<str>) {
    // A closed stderr must not stop a build.
    drop(writeln!(std::io::stderr().lock(), "[{topic}] {}", text.as_ref()));
}

/// The root of the work tree. Taken from cargo at run time, because two clones may share one built xtask.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR");
    let own = manifest_dir.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

/// A child that starts in the work tree's root, where rust-toolchain.toml and the cargo aliases hold.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(describes_xtask) {
            command.env_remove(name);
        }
    }
    command
}

/// `cargo` of the pinned toolchain, with the user's own build settings.
pub(crate) fn cargo() -> Command {
    command("cargo")
}

/// `cargo` for a tool that is not part of this workspace: the workspace's build settings must not reach it.
pub(crate) fn cargo_for_tool() -> Command {
    let mut command = cargo();
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(shapes_builds) {
            command.env_remove(name);
        }
    }
    command
}

/// Variables with which the outer `cargo run` describes xtask itself; build scripts of the inner one would see them as changed.
fn describes_xtask(name: &str) -> bool {
    name == "CARGO"
        || name == "CARGO_BIN_NAME"
        || name == "CARGO_CRATE_NAME"
        || name == "CARGO_PRIMARY_PACKAGE"
        || name == "LD_LIBRARY_PATH" && std::env::var_os("CARGO_MANIFEST_DIR").is_some()
        || ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Variables that change how or where cargo builds. Network settings (`CARGO_HTTP_*`, `CARGO_REGISTRIES_*`) and linkers stay.
fn shapes_builds(name: &str) -> bool {
    let exact =
        ["RUSTFLAGS", "RUSTC_BOOTSTRAP", "RUSTC_WORKSPACE_WRAPPER", "CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS"];
    exact.contains(&name)
        || ["CARGO_BUILD_", "CARGO_PROFILE_"].iter().any(|prefix| name.starts_with(prefix))
        || name.starts_with("CARGO_TARGET_") && (name.ends_with("_RUSTFLAGS") || name.ends_with("_RUNNER"))
}

/// Runs a child with its output on the terminal; `fix` says what a person can do when it fails.
pub(crate) fn run(command: &mut Command, fix: &str) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("`{shown}` does not start; {fix}"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}; {fix}");
    }
    Ok(())
}

/// Runs a child quietly and gives its standard output; the error carries what it wrote on stderr.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| format!("`{shown}` does not start"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` ended with {}: {}", output.status, why.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command line as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Whether a program of this name is on the PATH or in the folders where administrators' tools live.
pub(crate) fn on_path(program: &str) -> bool {
    find(program).is_some()
}

/// Where that program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A user's PATH often lacks the sbin folders, although sudo finds what is there.
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Whether this process may do everything (effective user 0).
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The owner of /proc/self is the effective user: no unsafe call and no crate for one number.
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A child with all privileges and these environment variables; `what` tells a person which step needs them.
pub(crate) fn as_root(what: &str, program: &OsStr, settings: &[(&str, &OsStr)]) -> Result<Command> {
    let mut words = root_prefix(what, settings)?;
    words.push(program.to_owned());
    let mut child = command(&words[0]);
    child.args(&words[1..]).envs(settings.iter().copied());
    Ok(child)
}

/// What stands before a program that must run as root: nothing when we are root, else sudo, which asks for the password on
/// the terminal. sudo would drop the environment, so the variables go through env.
pub(crate) fn root_prefix(what: &str, settings: &[(&str, &OsStr)]) -> Result<Vec<OsString>> {
    if is_root() {
        return Ok(Vec::new());
    }
    if !on_path("sudo") {
        bail!("{what} needs root, and there is no sudo: start this command as root");
    }
    say("sudo", format!("{what} needs root: asking sudo for this step only"));
    let mut words = vec![OsString::from("sudo")];
    if !settings.is_empty() {
        words.push("env".into());
    }
    words.extend(settings.iter().map(|(name, value)| {
        let mut setting = OsString::from(name);
        setting.push("=");
        setting.push(value);
        setting
    }));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_settings_and_linkers_survive() {
        for kept in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_REGISTRIES_X_INDEX",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
        ] {
            assert!(!describes_xtask(kept) && !shapes_builds(kept), "{kept} must reach the child");
        }
    }

    #[test]
    fn outer_cargo_and_build_settings_are_removed() {
        assert!(describes_xtask("CARGO_PKG_VERSION") && describes_xtask("CARGO_MANIFEST_PATH"));
        for removed in
            ["RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS"]
        {
            assert!(shapes_builds(removed), "{removed} must not reach a tool's build");
        }
    }

    #[test]
    fn a_failing_child_names_command_and_fix() {
        let error = run(&mut command("false"), "install nothing").unwrap_err().to_string();
        assert!(error.contains("`false`") && error.contains("install nothing"), "{error}");
        let error = capture(command("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(on_path("sh"));
        assert!(!on_path("synfin-no-such-program"));
    }
}
