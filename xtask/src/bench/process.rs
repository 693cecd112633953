//! What a process takes: CPU and memory.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::ClockId;
use nix::unistd::Pid;

/// CPU time of all threads of a process, those that have ended included; to the nanosecond, where /proc/PID/stat ticks.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed()))?;
    clock.now().map(Duration::from).with_context(|| format!("cannot read the CPU clock of process {pid}"))
}

/// CPU time of the thread of a process that has this name.
pub(super) fn cpu_of_thread(pid: u32, name: &str) -> Result<Duration> {
    let dir = format!("/proc/{pid}/task");
    for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))? {
        let path = entry?.path();
        // Threads come and go.
        let Ok(comm) = std::fs::read_to_string(path.join("comm")) else { continue };
        if comm.trim() == name {
            let path = path.join("schedstat");
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            return on_cpu(&text).with_context(|| format!("{} says {text:?}", path.display()));
        }
    }
    bail!("process {pid} has no thread {name}")
}

/// The first field of schedstat.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    Some(Duration::from_nanos(schedstat.split(' ').next()?.parse().ok()?))
}

/// Keeps the calling thread, and what it starts, on one CPU of those that there are.
pub(super) fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// Resident memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) now: u64,
    pub(super) peak: u64,
}

impl Memory {
    /// Of a process.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        parse(&text).with_context(|| format!("{path} tells of no memory"))
    }
}

fn parse(status: &str) -> Option<Memory> {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some(Memory { now: kib("VmRSS")? * 1024, peak: kib("VmHWM")? * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        let status = "Name:\tsynfin\nVmHWM:\t   20000 kB\nVmRSS:\t   10000 kB\n";
        assert_eq!(parse(status), Some(Memory { now: 10_240_000, peak: 20_480_000 }));
        assert_eq!(parse("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn this_process_takes_cpu() {
        assert!(cpu(std::process::id()).unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_thread_is_found_by_its_name() {
        let own = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        cpu_of_thread(std::process::id(), own.trim()).unwrap();
        assert!(cpu_of_thread(std::process::id(), "nobody").is_err());
        assert_eq!(on_cpu("48243593 47517045 153\n"), Some(Duration::from_nanos(48_243_593)));
    }
}
