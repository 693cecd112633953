//! What is measured: nothing, an empty program, synfin in several ways, and the tools of libbpf-tools.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Tools;
use super::arena::Arena;
use super::kernel;
use crate::cmd;

/// Longest wait for a subject to attach or to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between attaching and traffic, so that nothing of the start is measured.
const CALM: Duration = Duration::from_millis(500);

/// A variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Nothing,
    Empty,
    Synfin,
    SynfinFiltered,
    SynfinOtlp,
    Tcpstates,
    Tcplife,
}

impl Subject {
    /// In tables and raw data.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Empty => "empty",
            Self::Synfin => "synfin",
            Self::SynfinFiltered => "synfin --netns",
            Self::SynfinOtlp => "synfin --netns --otlp-endpoint",
            Self::Tcpstates => "tcpstates",
            Self::Tcplife => "tcplife",
        }
    }

    /// Starts it and waits until it has attached. `endpoint` is where OTLP goes.
    pub(super) fn start(self, tools: &Tools, arena: &Arena, endpoint: &str) -> Result<Option<Running>> {
        let netns = arena.inode()?.to_string();
        let filtered = ["--netns", netns.as_str()];
        let synfin = ["run", "--no-summary", "--log-format", "json"];
        let mut command = match self {
            Self::Nothing => return Ok(None),
            Self::Empty => tied(&tools.yardstick),
            Self::Synfin | Self::SynfinFiltered | Self::SynfinOtlp => tied(&tools.synfin),
            Self::Tcpstates | Self::Tcplife => tied(self.name()),
        };
        match self {
            Self::Synfin => command.args(synfin),
            Self::SynfinFiltered => command.args(synfin).args(filtered),
            // Each connection is a span, however many there are.
            Self::SynfinOtlp => command
                .args(synfin)
                .args(filtered)
                .args(["--otlp-endpoint", endpoint])
                .env("SYNFIN_OTLP_TRACE_RATE_LIMIT", "none"),
            Self::Nothing | Self::Empty | Self::Tcpstates | Self::Tcplife => &mut command,
        };
        let running = Running::spawn(self, command)?;
        running.wait_attached().with_context(|| format!("{} does not attach", self.name()))?;
        thread::sleep(CALM);
        Ok(Some(running))
    }
}

/// A child that the kernel kills with the bench, and that sees no settings of the caller's.
pub(super) fn tied(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = cmd::command("setpriv");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("OTEL_") || text.starts_with("SYNFIN_") || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// What a subject says at its end of what it saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) events: Option<u64>,
    pub(super) transitions: Option<u64>,
    pub(super) lost: Option<u64>,
}

/// A running subject; killed when dropped.
#[derive(Debug)]
pub(super) struct Running {
    subject: Subject,
    child: Child,
    /// The empty program holds on until this closes.
    _stdin: Option<std::process::ChildStdin>,
    lines: Receiver<String>,
}

impl Running {
    /// Starts it; what it says must be read, see [`Running::wait_for`].
    pub(super) fn spawn(subject: Subject, mut command: Command) -> Result<Self> {
        // What it says of itself comes on stdout for the empty program, on stderr for the others.
        let ours = subject == Subject::Empty;
        let (stdin, stdout) = if ours { (Stdio::piped(), Stdio::piped()) } else { (Stdio::null(), Stdio::null()) };
        command.stdin(stdin).stdout(stdout).stderr(if ours { Stdio::inherit() } else { Stdio::piped() });
        let shown = cmd::show(&command);
        let mut child = command.spawn().with_context(|| format!("`{shown}` does not start"))?;
        let stdin = child.stdin.take();
        let lines = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), _) => lines(stdout),
            (_, Some(stderr)) => lines(stderr),
            (None, None) => bail!("`{shown}` has no pipe"),
        };
        Ok(Self { subject, child, _stdin: stdin, lines })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_attached(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        if matches!(self.subject, Subject::Tcpstates | Subject::Tcplife) {
            // They say nothing when they are ready.
            while kernel::programs_of(self.pid())?.is_empty() {
                ensure!(Instant::now() < end, "it loads no program");
                thread::sleep(Duration::from_millis(50));
            }
            return Ok(());
        }
        self.wait_for("attached").map(drop)
    }

    /// Waits until it says this, and gives the line; other lines are shown.
    pub(super) fn wait_for(&self, words: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).context("it ends, or says nothing of it")?;
            if line.contains(words) {
                return Ok(line);
            }
            cmd::say(self.subject.name(), line);
        }
    }

    /// Ends it as a service manager would, and reads what it says.
    pub(super) fn finish(mut self) -> Result<Account> {
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGTERM)?;
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < end, "{} does not end", self.subject.name());
            thread::sleep(Duration::from_millis(10));
        };
        let lines: Vec<String> = self.lines.iter().collect();
        match self.subject {
            Subject::Synfin | Subject::SynfinFiltered | Subject::SynfinOtlp => {
                ensure!(status.success(), "synfin ended with {status}: {}", lines.join("\n"));
                account(&lines).with_context(|| format!("synfin gives no account: {}", lines.join("\n")))
            }
            Subject::Tcpstates | Subject::Tcplife => Ok(Account { lost: Some(lost(&lines)), ..Account::default() }),
            Subject::Nothing | Subject::Empty => Ok(Account::default()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lines that a thread reads, so that the writer never waits.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(std::io::Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Out of synfin's log: its last word on what it saw.
fn account(lines: &[String]) -> Option<Account> {
    let mut parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ended = parsed.find(|line| line["message"] == "ended")?;
    let number = |key: &str| ended[key].as_u64();
    Some(Account { events: number("events"), transitions: number("transitions"), lost: Some(number("lost")?) })
}

/// Out of what the libbpf-tools say: `lost 12 events on CPU #1`.
fn lost(lines: &[String]) -> u64 {
    lines.iter().filter_map(|line| line.strip_prefix("lost ")?.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_found_in_the_log() {
        let log = [r#"{"message":"attached"}"#, "text", r#"{"message":"ended","events":12,"lost":0,"transitions":10}"#];
        let expected = Account { events: Some(12), transitions: Some(10), lost: Some(0) };
        assert_eq!(account(&log.map(str::to_owned)), Some(expected));
        assert_eq!(account(&[r#"{"message":"ended"}"#.to_owned()]), None);
    }

    #[test]
    fn losses_of_others_are_summed() {
        let said = ["lost 3 events on CPU #0", "other", "lost 40 events on CPU #1"];
        assert_eq!(lost(&said.map(str::to_owned)), 43);
    }
}
