//! Runs the binary under test and reads what it says.

use std::{
    ffi::OsStr,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{deadline, lines::Lines, need, netns::Netns, recording::Recording};

/// Time that the binary may take to attach or to end, on a busy machine of two cores.
const STARTING: Duration = Duration::from_secs(30);

/// A running synfin; killed when dropped.
#[derive(Debug)]
pub struct Synfin {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// How a run ended and all that it said.
#[derive(Debug)]
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// Lines on stdout.
    pub stdout: Vec<String>,
    /// Lines on stderr.
    pub stderr: Vec<String>,
}

impl Ended {
    /// The exit code; an error when a signal ended it.
    pub fn code(&self) -> Result<i32> {
        self.status.code().with_context(|| format!("{}; stderr: {}", self.status, self.stderr.join("\n")))
    }

    /// Fails unless it ended with `code`.
    pub fn expect(&self, code: i32) -> Result<()> {
        let got = self.code()?;
        ensure!(got == code, "exit code {got}, not {code}; stderr:\n{}", self.stderr.join("\n"));
        Ok(())
    }
}

/// Lets synfin stand on no better rung of the probe ladder than this one.
pub const RUNG_VARIABLE: &str = "SYNFIN_TEST_MAX_RUNG";

/// A command line of the binary under test, with nothing of the caller's OpenTelemetry or synfin environment.
pub fn command(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Command> {
    let mut command = Command::new(need::binary()?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("OTEL_") || text.starts_with("SYNFIN_") {
            command.env_remove(&name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    let attaches =
        command.get_args().next().is_some_and(|first| ["run", "watch", "doctor"].map(OsStr::new).contains(&first));
    if let Some(rung) = std::env::var_os(RUNG_VARIABLE).filter(|_| attaches) {
        command.arg("--max-rung").arg(rung);
    }
    Ok(command)
}

/// Runs it to its end.
pub fn run(arguments: &[&str]) -> Result<Ended> {
    Synfin::spawn(command(arguments)?)?.wait()
}

/// Runs it to its end as a user without any privilege.
pub fn run_as_nobody(arguments: &[&str]) -> Result<Ended> {
    need::root()?;
    need::tool("setpriv", "util-linux")?;
    // The tests' build may be below a folder that only root enters.
    let scratch = TempDir::new()?;
    let copy = scratch.path().join("synfin");
    // By a process of its own: what another thread starts meanwhile would hold the copy open for writing, and it could not run.
    need::run(Command::new("cp").arg(need::binary()?).arg(&copy))?;
    need::run(Command::new("chmod").arg("755").arg(scratch.path()).arg(&copy))?;
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).args(arguments);
    Synfin::spawn(nobody)?.wait()
}

impl Synfin {
    /// Starts a command line of [`command`].
    pub fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let stdout = Lines::read(child.stdout.take().context("stdout was piped")?);
        let stderr = Lines::read(child.stderr.take().context("stderr was piped")?);
        Ok(Self { child, stdout, stderr })
    }

    /// `synfin watch --json` on these namespaces; everything that happens in them from now on is seen.
    pub fn watch<'a>(namespaces: impl IntoIterator<Item = &'a Netns>, more: &[&str]) -> Result<Self> {
        need::root()?;
        let mut arguments = vec!["watch", "--json"];
        for netns in namespaces {
            arguments.extend(["--netns", netns.name()]);
        }
        arguments.extend(more);
        let mut synfin = Self::spawn(command(&arguments)?)?;
        synfin.await_stdout("the start line", |line| line.contains(r#""type":"start""#))?;
        Ok(synfin)
    }

    /// `synfin run` with JSON logs, exporting fast; waits until it has attached.
    pub fn serve<'a>(namespaces: impl IntoIterator<Item = &'a Netns>, more: &[&str]) -> Result<Self> {
        Self::serve_with(namespaces, more, &[])
    }

    /// The same with more variables in its environment.
    pub fn serve_with<'a>(
        namespaces: impl IntoIterator<Item = &'a Netns>,
        more: &[&str],
        variables: &[(&str, String)],
    ) -> Result<Self> {
        Self::serve_as(namespaces, more, |command| {
            command.envs(variables.iter().map(|(name, value)| (name, value)));
        })
    }

    /// The same, prepared in any way before it starts.
    pub fn serve_as<'a>(
        namespaces: impl IntoIterator<Item = &'a Netns>,
        more: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        need::root()?;
        let mut arguments = vec!["run", "--log-format", "json"];
        for netns in namespaces {
            arguments.extend(["--netns", netns.name()]);
        }
        arguments.extend(more);
        let mut command = command(&arguments)?;
        // Milliseconds, by the specification of OpenTelemetry's environment variables.
        for name in ["OTEL_METRIC_EXPORT_INTERVAL", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"] {
            command.env(name, "200");
        }
        prepare(&mut command);
        let mut synfin = Self::spawn(command)?;
        synfin.await_stderr("the message `attached`", |line| message(line).is_some_and(|text| text == "attached"))?;
        Ok(synfin)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for a line on stdout.
    pub fn await_stdout(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        self.await_line(what, |synfin| synfin.stdout.find(&wanted))
    }

    /// Waits for a line on stderr.
    pub fn await_stderr(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        self.await_line(what, |synfin| synfin.stderr.find(&wanted))
    }

    fn await_line(&mut self, what: &str, find: impl Fn(&Self) -> Option<String>) -> Result<String> {
        deadline::within(STARTING, what, || {
            if let Some(line) = find(self) {
                return Ok(Some(line));
            }
            if let Some(status) = self.child.try_wait()? {
                self.stdout.finish()?;
                self.stderr.finish()?;
                if let Some(line) = find(self) {
                    return Ok(Some(line));
                }
                bail!("synfin ended with {status}; stderr:\n{}", self.stderr.all().join("\n"));
            }
            Ok(None)
        })
        .with_context(|| format!("stderr so far:\n{}", self.stderr.all().join("\n")))
    }

    /// Lines on stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// Lines on stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.all()
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Result<Ended> {
        let status = deadline::within(STARTING, "synfin to end", || Ok(self.child.try_wait()?))
            .with_context(|| format!("stderr so far:\n{}", self.stderr.all().join("\n")))?;
        self.stdout.finish()?;
        self.stderr.finish()?;
        let panic = self.stderr.find(|line| line.contains("panicked at"));
        ensure!(panic.is_none(), "synfin panicked: {}", self.stderr.all().join("\n"));
        Ok(Ended { status, stdout: self.stdout.all(), stderr: self.stderr.all() })
    }

    /// Ends a `watch` as Ctrl-C would, and reads what it saw.
    pub fn stop(self) -> Result<Recording> {
        self.signal(Signal::SIGINT)?;
        let ended = self.wait()?;
        ended.expect(0)?;
        Recording::parse(&ended.stdout)
    }

    /// Ends a `run` as a service manager would.
    pub fn terminate(self) -> Result<Ended> {
        self.signal(Signal::SIGTERM)?;
        let ended = self.wait()?;
        ended.expect(0)?;
        Ok(ended)
    }
}

impl Drop for Synfin {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The message of a JSON log line.
pub fn message(line: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = value["message"].as_str().or_else(|| value["fields"]["message"].as_str())?;
    Some(text.to_owned())
}
