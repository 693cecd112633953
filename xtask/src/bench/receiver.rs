//! Where OTLP goes: `synfin-receiver` of the tests crate, which counts spans and forgets them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};
use std::{panic, thread};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::process;
use crate::cmd;

/// Longest time without a single new span before the rest is given up.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// A running receiver; it ends with its stdin.
#[derive(Debug)]
pub(super) struct Receiver {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    endpoint: String,
}

impl Receiver {
    /// Starts it on a port of the kernel's choice, and on the CPU that traffic comes to last: in the field it is
    /// another machine's work.
    pub(super) fn start(program: &Path, cpus: usize) -> Result<Self> {
        let mut command = cmd::command(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // By a thread that ends, because a child stays where its parent is.
        let started = thread::spawn(move || {
            process::stay_on(cpus - 1)?;
            command.spawn().context("the receiver does not start")
        });
        let mut child = started.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut receiver = Self { child, stdin, stdout, endpoint: String::new() };
        receiver.endpoint = receiver.line()?;
        Ok(receiver)
    }

    /// The URL to send to.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// CPU that it took so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        process::cpu(self.child.id())
    }

    /// Spans received so far.
    pub(super) fn spans(&mut self) -> Result<u64> {
        writeln!(self.stdin.as_mut().context("stdin is piped")?)?;
        let line = self.line()?;
        let value: Value = serde_json::from_str(&line).with_context(|| format!("the receiver says {line:?}"))?;
        value["spans"].as_u64().with_context(|| format!("the receiver says {line:?}"))
    }

    /// Waits until it has this many, or until no more come.
    pub(super) fn wait_for(&mut self, spans: u64) -> Result<()> {
        let (mut before, mut since) = (self.spans()?, Instant::now());
        while before < spans && since.elapsed() < PATIENCE {
            thread::sleep(LOOK);
            let now = self.spans()?;
            if now > before {
                (before, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("the receiver says nothing")?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Fails only when it is gone already.
        drop(self.child.wait());
    }
}
