//! On what it was measured: no figure means anything without.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cmd;

/// The machine and the versions of what was measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    pub(super) date: String,
    pub(super) kernel: String,
    pub(super) processor: String,
    pub(super) memory_mib: u64,
    pub(super) rustc: String,
    pub(super) synfin: String,
    pub(super) commit: String,
    pub(super) libbpf_tools: String,
    pub(super) load_before: String,
    pub(super) load_after: String,
}

impl Machine {
    pub(super) fn json(&self) -> Value {
        let Self { date, kernel, processor, memory_mib, rustc, synfin, commit, libbpf_tools, load_before, load_after } =
            self;
        json!({ "date": date, "kernel": kernel, "processor": processor, "memory_mib": memory_mib, "rustc": rustc,
                "synfin": synfin, "commit": commit, "libbpf_tools": libbpf_tools, "load_average_before": load_before,
                "load_average_after": load_after })
    }
}

/// Looks around.
pub(super) fn look(synfin: &Path) -> Result<Machine> {
    let say =
        |words: &[&str]| cmd::capture(cmd::command(words[0]).args(&words[1..])).map(|text| text.trim().to_owned());
    // Not every machine has packages, not every tree is a clone.
    let say_if_known = |words: &[&str]| say(words).unwrap_or_else(|_| "unknown".to_owned());
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    Ok(Machine {
        date: say(&["date", "--utc", "+%F"])?,
        kernel: say(&["uname", "--kernel-release", "--machine"])?,
        processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
        memory_mib: memory_mib(&read("/proc/meminfo")).unwrap_or(0),
        rustc: say(&["rustc", "--version"])?,
        synfin: cmd::capture(cmd::command(synfin).arg("--version"))?.trim().to_owned(),
        commit: say_if_known(&["git", "describe", "--always", "--dirty"]),
        libbpf_tools: say_if_known(&["dpkg-query", "--show", "--showformat", "${Version}", "libbpf-tools"]),
        load_before: load_average(),
        load_after: String::new(),
    })
}

/// Of the last one, five and fifteen minutes.
pub(super) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A field of /proc/cpuinfo or /proc/meminfo.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key.trim() == name).then(|| value.trim()))
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    Some(field(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        assert_eq!(field("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n", "model name"), Some("Some CPU @ 2 GHz"));
        assert_eq!(memory_mib("MemTotal:       2048000 kB\nMemFree: 1 kB\n"), Some(2000));
        assert_eq!(memory_mib(""), None);
    }
}
