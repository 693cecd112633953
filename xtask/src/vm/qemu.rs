//! Boots a kernel in QEMU and listens to it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::guard;
use super::reports::Reports;
use crate::cmd;

/// The emulator.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
/// Debian's package of it.
pub(crate) const PACKAGE: &str = "qemu-system-x86";

/// A machine takes one to three minutes; one that hangs must not hang the tests.
const LIMIT: Duration = Duration::from_mins(12);
/// For programs and for the initramfs, which is in memory twice while the kernel unpacks it.
const MEMORY_MIB: &str = "1024";

/// The files of a machine, all in one folder.
pub(super) struct Machine<'a> {
    pub(super) image: &'a Path,
    pub(super) initramfs: &'a Path,
    /// More words on the kernel's command line.
    pub(super) parameters: &'a str,
    /// Where what the kernel says is kept.
    pub(super) console: &'a Path,
}

impl Machine<'_> {
    /// One CPU: two machines run at a time, and TCG gives each a thread. Always TCG: a matrix that hangs or passes with the
    /// host's KVM proves nothing about kernels. No network: nothing of a test can leave.
    fn command(&self) -> Command {
        let mut qemu = cmd::command(PROGRAM);
        qemu.args([
            "-accel", "tcg", "-smp", "1", "-m", MEMORY_MIB, "-nic", "none", "-display", "none", "-monitor", "none",
        ]);
        // Without cmpxchg16b: after it, TCG of QEMU 7.2 now and then lets a kernel die of a double fault in __kmalloc.
        // With rdrand: a machine without devices has no other source of random numbers, and 5.10 lets who asks for one wait for minutes.
        qemu.args(["-cpu", "qemu64,-cx16,+rdrand"]);
        // A kernel that panics restarts (panic=-1), and a machine that restarts ends.
        let parameters = format!("console=ttyS0 loglevel=5 panic=-1 {}", self.parameters);
        qemu.args(["-no-reboot", "-append", parameters.trim_end(), "-kernel"]).arg(self.image);
        qemu.arg("-initrd").arg(self.initramfs);
        // The first serial line is the kernel's, the second synfin-vm-init's.
        qemu.arg("-serial").arg(format!("file:{}", self.console.display())).args(["-serial", "stdio"]);
        qemu
    }

    /// Boots it, shows each line of its tests to `show`, and waits for its end.
    pub(super) fn run(&self, show: &dyn Fn(&str)) -> Result<Reports> {
        let mut command = self.command();
        let shown = cmd::show(&command);
        guard::tie(&mut command);
        let mut qemu = command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{shown}` does not start"))?;
        let stdout = qemu.stdout.take().context("stdout is piped")?;
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let mut reports = Reports::default();
        let end = Instant::now() + LIMIT;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(line) = reports.read_line(&line) {
                        show(&line);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    reports.trouble.push(format!("still running after {LIMIT:?}: ended from outside"));
                    qemu.kill().context("cannot end QEMU")?;
                    break;
                }
            }
        }
        let status = qemu.wait()?;
        drop(reader.join());
        if !status.success() {
            reports.trouble.push(format!("QEMU ended with {status}"));
        }
        if !reports.done {
            reports.trouble.push(format!("the last words on its console:\n{}", last_words(self.console)));
        }
        Ok(reports)
    }
}

/// The end of what the kernel said.
fn last_words(console: &Path) -> String {
    let text = std::fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
