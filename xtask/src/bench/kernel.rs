//! What the kernel says of its eBPF programs: runs and time of each, while its statistics are on.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::undo::Undo;
use crate::cmd;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel's statistics of eBPF programs, on or off; as they were before when this is dropped.
#[derive(Debug)]
pub(super) struct Statistics(#[expect(dead_code, reason = "its end is what matters")] Undo);

impl Statistics {
    /// On or off from now on.
    pub(super) fn switch(on: bool) -> Result<Self> {
        let before = std::fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        let undo = Undo::at_end(&format!("echo {} > {SWITCH}", before.trim()))?;
        std::fs::write(SWITCH, if on { "1" } else { "0" }).with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self(undo))
    }
}

/// Counters of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) runs: u64,
    pub(super) time_ns: u64,
}

impl Program {
    /// What came since `before`.
    pub(super) fn since(&self, before: &[Self]) -> Self {
        let before = before.iter().find(|program| program.id == self.id);
        let (runs, time_ns) = before.map_or((0, 0), |program| (program.runs, program.time_ns));
        Self { runs: self.runs.saturating_sub(runs), time_ns: self.time_ns.saturating_sub(time_ns), ..self.clone() }
    }
}

/// The programs that process `pid` holds open. Names alone would not tell them from those of another synfin.
pub(super) fn programs_of(pid: u32) -> Result<Vec<Program>> {
    let ids = open_programs(pid)?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let shown = cmd::capture(cmd::command("bpftool").args(["--json", "prog", "show"]))?;
    let all = parse(&shown).context("cannot read what `bpftool --json prog show` says")?;
    Ok(all.into_iter().filter(|program| ids.contains(&program.id)).collect())
}

fn open_programs(pid: u32) -> Result<BTreeSet<u64>> {
    let dir = format!("/proc/{pid}/fdinfo");
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))? {
        // A descriptor may be closed between the listing and the look.
        ids.extend(std::fs::read_to_string(entry?.path()).ok().as_deref().and_then(program_id));
    }
    Ok(ids)
}

/// The program that a descriptor's fdinfo names; a link names the program that it attaches too.
fn program_id(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
}

/// Out of bpftool's JSON. It leaves out counters that are 0.
fn parse(json: &str) -> Result<Vec<Program>> {
    let value: Value = serde_json::from_str(json)?;
    let rows = value.as_array().context("no list")?;
    let number = |row: &Value, key: &str| row.get(key).and_then(Value::as_u64);
    rows.iter()
        .map(|row| {
            Ok(Program {
                id: number(row, "id").context("a program without id")?,
                name: row.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
                runs: number(row, "run_cnt").unwrap_or(0),
                time_ns: number(row, "run_time_ns").unwrap_or(0),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpftool_is_read() {
        let json = r#"[{"id":7,"type":"tracing","name":"state","run_time_ns":900,"run_cnt":3},{"id":9,"type":"cgroup_device"}]"#;
        let programs = parse(json).unwrap();
        assert_eq!(programs[0], Program { id: 7, name: "state".to_owned(), runs: 3, time_ns: 900 });
        assert_eq!(programs[1], Program { id: 9, name: String::new(), runs: 0, time_ns: 0 });
        assert!(parse(r#"{"error":"no"}"#).is_err());
    }

    #[test]
    fn differences_are_by_id() {
        let program = |id, runs, time_ns| Program { id, name: "state".to_owned(), runs, time_ns };
        assert_eq!(program(7, 5, 50).since(&[program(8, 1, 1), program(7, 2, 20)]), program(7, 3, 30));
        assert_eq!(program(7, 5, 50).since(&[]), program(7, 5, 50));
    }

    #[test]
    fn a_descriptor_names_its_program() {
        assert_eq!(program_id("pos:\t0\nprog_type:\t26\nprog_id:\t1935\n"), Some(1935));
        assert_eq!(program_id("pos:\t0\nmap_id:\t5\n"), None);
    }
}
