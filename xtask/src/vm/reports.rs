//! What comes out of a virtual machine: one JSON object a line, written by synfin-vm-init.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::boots::Boot;
use super::features::Facts;

/// All that one machine reported.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Reports {
    pub(super) release: Option<String>,
    /// What the kernel calls its lockdown.
    pub(super) lockdown: String,
    pub(super) facts: Facts,
    pub(super) runs: Vec<Run>,
    /// Why the machine could not do its work, and lines that are not understood.
    pub(super) trouble: Vec<String>,
    /// It came to the end of its plan.
    pub(super) done: bool,
}

/// One pass over the test programs.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Run {
    pub(super) name: String,
    /// `synfin doctor --json`.
    pub(super) doctor: Value,
    pub(super) doctor_exit: Option<i64>,
    pub(super) programs: Vec<Program>,
    /// What tests found out beside their verdicts: about what, and what.
    pub(super) notes: Vec<(String, String)>,
}

/// One test program.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Program {
    pub(super) name: String,
    /// Verdict by test; a test that never came to one has none.
    pub(super) tests: BTreeMap<String, Option<Verdict>>,
    pub(super) exit: Option<i64>,
    pub(super) seconds: f64,
    pub(super) ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    Ignored,
}

impl Reports {
    /// Takes one line; gives the line of a test program that is in it, if any.
    pub(super) fn read_line(&mut self, line: &str) -> Option<String> {
        let line = line.trim();
        if line.is_empty() {
            return None;
        }
        let Ok(record) = serde_json::from_str::<Value>(line) else {
            self.trouble.push(format!("not understood: {line}"));
            return None;
        };
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        match text("record").as_str() {
            "boot" => {
                self.release = Some(text("release"));
                self.lockdown = text("lockdown");
            }
            "facts" => self.facts = facts(&record),
            "doctor" => {
                let run = self.run(&text("run"));
                run.doctor = record["report"].clone();
                run.doctor_exit = record["exit"].as_i64();
            }
            "output" => {
                let shown = text("line");
                self.run(&text("run")).program(&text("program")).read_line(&shown);
                return Some(shown);
            }
            "program" => {
                let program = self.run(&text("run")).program(&text("program"));
                program.ended = true;
                program.exit = record["exit"].as_i64();
                program.seconds = record["seconds"].as_f64().unwrap_or_default();
            }
            "note" => self.run(&text("run")).notes.push((text("about"), text("found"))),
            "trouble" => self.trouble.push(text("why")),
            "done" => self.done = true,
            _ => self.trouble.push(format!("not understood: {line}")),
        }
        None
    }

    fn run(&mut self, name: &str) -> &mut Run {
        let place = self.runs.iter().position(|run| run.name == name).unwrap_or_else(|| {
            self.runs.push(Run { name: name.to_owned(), ..Run::default() });
            self.runs.len() - 1
        });
        &mut self.runs[place]
    }

    /// Everything that is not as it must be: empty for a machine whose kernel has passed.
    pub(super) fn failures(&self, boot: &Boot) -> Vec<String> {
        let mut failures = self.trouble.clone();
        if !self.done {
            failures.push("the machine did not come to the end of its plan".to_owned());
        }
        if self.release.is_some() && self.lockdown != boot.lockdown {
            failures.push(format!("the kernel calls its lockdown {:?}, not {:?}", self.lockdown, boot.lockdown));
        }
        for pass in boot.passes {
            let name = pass.name;
            let Some(run) = self.runs.iter().find(|run| run.name == name) else {
                failures.push(format!("{name}: not run"));
                continue;
            };
            if !run.doctor_exit.is_some_and(|exit| pass.doctor.contains(&exit)) {
                let exit = run.doctor_exit.map_or_else(|| "nothing".to_owned(), |code| code.to_string());
                let complaints = run.complaints();
                failures.push(format!("{name}: `synfin doctor` answers {exit}, not {:?}{complaints}", pass.doctor));
            }
            for program in pass.program_names() {
                match run.programs.iter().find(|known| known.name == program) {
                    Some(known) => failures.extend(known.failures().map(|failure| format!("{name}: {failure}"))),
                    None => failures.push(format!("{name}: {program} was not run")),
                }
            }
        }
        failures
    }

    /// How many tests passed and how many did not.
    pub(super) fn sum(&self) -> (u64, u64) {
        let programs = self.runs.iter().flat_map(|run| &run.programs);
        let verdicts: Vec<_> = programs.flat_map(|program| program.tests.values()).collect();
        let passed = verdicts.iter().filter(|verdict| ***verdict == Some(Verdict::Passed)).count();
        let ignored = verdicts.iter().filter(|verdict| ***verdict == Some(Verdict::Ignored)).count();
        (passed as u64, (verdicts.len() - passed - ignored) as u64)
    }
}

impl Run {
    fn program(&mut self, name: &str) -> &mut Program {
        let place = self.programs.iter().position(|program| program.name == name).unwrap_or_else(|| {
            self.programs.push(Program { name: name.to_owned(), ..Program::default() });
            self.programs.len() - 1
        });
        &mut self.programs[place]
    }

    /// What the doctor says of probes that are not active.
    fn complaints(&self) -> String {
        let probes = self.doctor["probes"].as_array().into_iter().flatten();
        let ill = probes.filter(|probe| probe["verdict"] != "active");
        let tell = |probe: &Value| {
            let text = |key: &str| probe[key].as_str().unwrap_or_default();
            format!("\n{}: {}: {}", text("name"), text("verdict"), text("detail"))
        };
        ill.map(tell).collect()
    }
}

impl Program {
    /// libtest's `test NAME ... ok`; with one thread the name comes before the test runs.
    fn read_line(&mut self, line: &str) {
        let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else {
            return;
        };
        let verdict = match verdict.trim() {
            "ok" => Some(Verdict::Passed),
            "FAILED" => Some(Verdict::Failed),
            "ignored" => Some(Verdict::Ignored),
            _ => None,
        };
        self.tests.insert(name.to_owned(), verdict);
    }

    fn failures(&self) -> Option<String> {
        let with = |wanted: Option<Verdict>| -> Vec<&str> {
            self.tests.iter().filter(|(_, verdict)| **verdict == wanted).map(|(test, _)| test.as_str()).collect()
        };
        let (failed, undecided) = (with(Some(Verdict::Failed)), with(None));
        let mut wrong = Vec::new();
        if !failed.is_empty() {
            wrong.push(format!("{} failed: {}", failed.len(), failed.join(", ")));
        }
        if !undecided.is_empty() {
            wrong.push(format!("{} came to no verdict: {}", undecided.len(), undecided.join(", ")));
        }
        if self.tests.is_empty() {
            wrong.push("no test ran".to_owned());
        }
        if !self.ended {
            wrong.push("it did not end".to_owned());
        } else if self.exit != Some(0) && wrong.is_empty() {
            wrong.push("it ended badly without a failed test".to_owned());
        }
        (!wrong.is_empty()).then(|| format!("{}: {}", self.name, wrong.join("; ")))
    }
}

fn facts(record: &Value) -> Facts {
    let words = |value: &Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let tracepoints = record["tracepoints"].as_object().into_iter().flatten();
    Facts {
        tracepoints: tracepoints.map(|(name, fields)| (name.clone(), words(fields))).collect(),
        types: words(&record["types"]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::boots::Pass;
    use super::*;

    const PASS: Pass = Pass { name: "tp_btf", max_rung: None, doctor: &[0], programs: &[&["transitions"]] };

    fn boot(passes: &'static [Pass]) -> Boot {
        Boot { name: "plain", parameters: "", lockdown: "none", passes }
    }

    const GOOD: &str = r#"{"record":"boot","release":"6.1.0-50","lockdown":"none"}
        {"record":"facts","tracepoints":{"tcp/tcp_send_reset":["skaddr","state"]},"types":["bpf_ringbuf"]}
        {"record":"doctor","run":"tp_btf","exit":0,"report":{"probes":[{"name":"state","verdict":"active"}]}}
        {"record":"output","run":"tp_btf","program":"transitions","line":"running 2 tests"}
        {"record":"output","run":"tp_btf","program":"transitions","line":"test refused ... ok"}
        {"record":"output","run":"tp_btf","program":"transitions","line":"test half_close ... ok"}
        {"record":"program","run":"tp_btf","program":"transitions","exit":0,"seconds":12.5}
        {"record":"done"}"#;

    fn read(text: &str) -> Reports {
        let mut reports = Reports::default();
        for line in text.lines() {
            reports.read_line(line);
        }
        reports
    }

    fn failures(text: &str) -> Vec<String> {
        read(text).failures(&boot(&[PASS]))
    }

    #[test]
    fn a_good_machine_has_no_failures() {
        let reports = read(GOOD);
        assert_eq!(failures(GOOD), Vec::<String>::new());
        assert_eq!((reports.release.as_deref(), reports.sum()), (Some("6.1.0-50"), (2, 0)));
        assert!(reports.facts.tracepoints["tcp/tcp_send_reset"].contains("state"));
        assert!(reports.facts.types.contains("bpf_ringbuf"));
    }

    #[test]
    fn whatever_is_missing_is_a_failure() {
        for (without, told) in [
            (r#"{"record":"done"}"#, "end of its plan"),
            (r#"{"record":"program","run":"tp_btf","program":"transitions","exit":0,"seconds":12.5}"#, "did not end"),
            (
                r#"{"record":"doctor","run":"tp_btf","exit":0,"report":{"probes":[{"name":"state","verdict":"active"}]}}"#,
                "doctor",
            ),
        ] {
            assert!(GOOD.contains(without));
            let failures = failures(&GOOD.replace(without, ""));
            assert!(failures.len() == 1 && failures[0].contains(told), "{failures:?}");
        }
        let reports = read(GOOD);
        assert_eq!(reports.failures(&boot(&[PASS, Pass { name: "tracepoint", ..PASS }])), ["tracepoint: not run"]);
        let more = boot(&[Pass { programs: &[&["transitions"], &["storm"]], ..PASS }]);
        assert_eq!(reports.failures(&more), ["tp_btf: storm was not run"]);
        assert_eq!(read("").sum(), (0, 0));
        assert!(!failures("").is_empty());
    }

    #[test]
    fn bad_ends_are_failures() {
        let failed = GOOD
            .replace("refused ... ok", "refused ... FAILED")
            .replace("\"exit\":0,\"seconds\"", "\"exit\":101,\"seconds\"");
        assert_eq!(failures(&failed), ["tp_btf: transitions: 1 failed: refused"]);
        assert_eq!(read(&failed).sum(), (1, 1));
        let hung = GOOD.replace("refused ... ok", "refused ... ");
        assert_eq!(failures(&hung), ["tp_btf: transitions: 1 came to no verdict: refused"]);
        let died = GOOD.replace("\"exit\":0,\"seconds\"", "\"exit\":null,\"seconds\"");
        assert_eq!(failures(&died), ["tp_btf: transitions: it ended badly without a failed test"]);
        let ill = GOOD
            .replace("\"exit\":0,\"report\"", "\"exit\":1,\"report\"")
            .replace("\"active\"", "\"broken\",\"detail\":\"EINVAL\"");
        assert!(failures(&ill)[0].contains("state: broken: EINVAL"), "{:?}", failures(&ill));
        assert!(failures(&ill)[0].starts_with("tp_btf: `synfin doctor` answers 1, not [0]"), "{:?}", failures(&ill));
        let locked = failures(&GOOD.replace("\"none\"", "\"integrity\""));
        assert_eq!(locked, [r#"the kernel calls its lockdown "integrity", not "none""#]);
        assert_eq!(failures(&format!("{GOOD}\nKernel panic\n")), ["not understood: Kernel panic"]);
        assert_eq!(failures(&format!("{GOOD}\n{{\"record\":\"trouble\",\"why\":\"no tun\"}}\n")), ["no tun"]);
    }

    #[test]
    fn notes_are_kept() {
        let reports = read(r#"{"record":"note","run":"tp_btf","about":"a storm","found":"3 missing"}"#);
        assert_eq!(reports.runs[0].notes, [("a storm".to_owned(), "3 missing".to_owned())]);
    }

    #[test]
    fn lines_of_tests_are_passed_on() {
        let line = r#"{"record":"output","run":"a","program":"b","line":"running 2 tests"}"#;
        assert_eq!(Reports::default().read_line(line).as_deref(), Some("running 2 tests"));
    }
}
