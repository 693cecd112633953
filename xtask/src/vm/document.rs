//! docs/KERNELS.md, out of what the booted kernels said.

use std::collections::BTreeSet;

use serde_json::Value;

use super::features::{FEATURES, Facts};
use super::plan::RUNGS;
use super::reports::{Reports, Run, Verdict};
use super::{Found, Outcome};

const HEAD: &str = "# Kernels

Made by `cargo xtask vm --all`, which boots each kernel under QEMU (emulated, one CPU) and plays every scenario there over
IPv4, IPv6 and v4-mapped sockets; not written by hand. In the same boot the kernel's own trace buffer and its counters
(`/proc/net/snmp`, `/proc/net/netstat`) bear witness: a scenario has passed when synfin told exactly the transitions that
the trace holds, after what the kernel itself reports as skipped.
";

/// The whole page.
pub(super) fn write(outcomes: &[Outcome]) -> String {
    let mut page = HEAD.to_owned();
    let columns: Vec<Column<'_>> = outcomes.iter().flat_map(columns).collect();
    section(&mut page, "Kernels", &kernels(outcomes));
    section(&mut page, "Rungs", &rungs());
    section(&mut page, "Probes", &probes(&columns));
    section(&mut page, "Scenarios", &scenarios(&columns));
    section(&mut page, "Findings", &findings(&columns));
    section(&mut page, "What a kernel can show", &features(outcomes));
    page
}

fn section(page: &mut String, title: &str, text: &str) {
    page.push_str(&format!("\n## {title}\n\n{text}"));
}

/// One pass on one booted kernel.
struct Column<'a> {
    title: String,
    run: &'a Run,
}

fn columns(outcome: &Outcome) -> Vec<Column<'_>> {
    let Found::Booted { reports, .. } = &outcome.found else { return Vec::new() };
    let title = |run: &Run| format!("{} {}", version(outcome, reports), run.name);
    reports.runs.iter().map(|run| Column { title: title(run), run }).collect()
}

/// `7.3` for `7.3.4+deb13-cloud-amd64`: the first two numbers.
fn version(outcome: &Outcome, reports: &Reports) -> String {
    let release = reports.release.as_deref().unwrap_or(outcome.kernel.name);
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn kernels(outcomes: &[Outcome]) -> String {
    let mut table = head(["kernel", "release", "Debian suite", "result"].map(str::to_owned));
    for outcome in outcomes {
        let (release, result) = match &outcome.found {
            // Reasons of this machine (paths, mirrors) are for its terminal.
            Found::NotTested(_) => (String::new(), "not tested: could not be had".to_owned()),
            Found::Booted { reports, failures } => {
                let (passed, _) = reports.sum();
                let result = match failures.len() {
                    0 => format!("passed ({passed} tests)"),
                    count => format!("**failed**: {count} failures, {passed} tests passed"),
                };
                (reports.release.clone().unwrap_or_default(), result)
            }
        };
        row(&mut table, [outcome.kernel.name.to_owned(), release, outcome.kernel.suite.to_owned(), result]);
    }
    table
}

fn rungs() -> String {
    let mut table = head(["rung", "what synfin cannot tell from there"].map(str::to_owned));
    for rung in RUNGS {
        row(&mut table, [format!("`{}`", rung.name), rung.without.to_owned()]);
    }
    table
}

fn probes(columns: &[Column<'_>]) -> String {
    let mut table = head(titles("probe", columns));
    let names: BTreeSet<&str> = columns.iter().flat_map(|column| probes_of(column.run)).map(|probe| probe.0).collect();
    for name in names {
        let cell = |column: &Column<'_>| {
            let found = probes_of(column.run).into_iter().find(|probe| probe.0 == name);
            found.map_or_else(
                String::new,
                |(_, verdict, rung)| if verdict == "active" { rung.to_owned() } else { verdict.to_owned() },
            )
        };
        row(&mut table, std::iter::once(format!("`{name}`")).chain(columns.iter().map(cell)));
    }
    table
}

/// Name, verdict and rung of each probe, as the doctor says them.
fn probes_of(run: &Run) -> Vec<(&str, &str, &str)> {
    run.doctor["probes"].as_array().into_iter().flatten().filter_map(probe).collect()
}

fn probe(probe: &Value) -> Option<(&str, &str, &str)> {
    let text = |key: &str| probe[key].as_str();
    Some((text("name")?, text("verdict")?, text("rung").or_else(|| text("detail")).unwrap_or_default()))
}

fn scenarios(columns: &[Column<'_>]) -> String {
    let mut table = head(titles("test", columns));
    let tests = |run: &Run| -> Vec<(String, Option<Verdict>)> {
        let programs = run.programs.iter();
        programs
            .flat_map(|program| {
                program.tests.iter().map(|(test, verdict)| (format!("{}: {test}", program.name), *verdict))
            })
            .collect()
    };
    let names: BTreeSet<String> = columns.iter().flat_map(|column| tests(column.run)).map(|test| test.0).collect();
    for name in names {
        let cell = |column: &Column<'_>| {
            let found = tests(column.run).into_iter().find(|test| test.0 == name);
            let word = found.map_or("not run", |(_, verdict)| match verdict {
                Some(Verdict::Passed) => "passed",
                Some(Verdict::Failed) => "**failed**",
                Some(Verdict::Ignored) => "not run",
                None => "**no verdict**",
            });
            word.to_owned()
        };
        row(&mut table, std::iter::once(format!("`{name}`")).chain(columns.iter().map(cell)));
    }
    table
}

/// What the tests noted beside their verdicts.
fn findings(columns: &[Column<'_>]) -> String {
    let mut table = head(["kernel, rung", "about", "found"].map(str::to_owned));
    for column in columns {
        for (about, found) in &column.run.notes {
            row(&mut table, [column.title.clone(), about.clone(), found.clone()]);
        }
    }
    table
}

/// Where each feature begins among the kernels that were booted, and what those before it lack.
fn features(outcomes: &[Outcome]) -> String {
    let mut table = head(["feature", "Linux since", "seen on", "missing on", "without it"].map(str::to_owned));
    let booted: Vec<(String, &Facts)> = outcomes
        .iter()
        .filter_map(|outcome| match &outcome.found {
            Found::Booted { reports, .. } => Some((version(outcome, reports), &reports.facts)),
            Found::NotTested(_) => None,
        })
        .collect();
    for feature in FEATURES {
        let names = |has: bool| {
            let found =
                booted.iter().filter(|(_, facts)| feature.of(facts) == has).map(|(version, _)| version.as_str());
            found.collect::<Vec<_>>().join(", ")
        };
        row(
            &mut table,
            [feature.what.to_owned(), feature.since.to_owned(), names(true), names(false), feature.without.to_owned()],
        );
    }
    table
}

fn titles<'a>(first: &'a str, columns: &'a [Column<'_>]) -> impl Iterator<Item = String> + use<'a> {
    std::iter::once(first.to_owned()).chain(columns.iter().map(|column| column.title.clone()))
}

fn head(titles: impl IntoIterator<Item = String>) -> String {
    let titles: Vec<String> = titles.into_iter().collect();
    let mut table = String::new();
    row(&mut table, titles.clone());
    table.push_str(&"|---".repeat(titles.len()));
    table.push_str("|\n");
    table
}

fn row(table: &mut String, cells: impl IntoIterator<Item = String>) {
    for cell in cells {
        // A verifier's words in a cell must not end the table.
        let cell = cell.replace('|', "\\|").replace('\n', " ");
        table.push_str(&format!("| {cell} "));
    }
    table.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use super::super::kernels;
    use super::*;

    /// A machine of which everything is known that the page tells.
    fn booted(name: &str, release: &str, verdict: &str) -> Outcome {
        let mut reports = Reports::default();
        for line in [
            format!(r#"{{"record":"boot","release":"{release}"}}"#),
            r#"{"record":"facts","tracepoints":{},"types":["bpf_ringbuf"]}"#.to_owned(),
            r#"{"record":"doctor","run":"tp_btf","exit":0,"report":{"probes":[
                {"name":"state","verdict":"active","detail":"tp_btf"},{"name":"synack","verdict":"broken","detail":"R1=a|b"}]}}"#
                .replace('\n', ""),
            r#"{"record":"note","run":"tp_btf","about":"a storm","found":"nothing missing"}"#.to_owned(),
            format!(r#"{{"record":"output","run":"tp_btf","program":"transitions","line":"test refused ... {verdict}"}}"#),
        ] {
            reports.read_line(&line);
        }
        let failures = if verdict == "ok" { Vec::new() } else { vec!["refused".to_owned()] };
        Outcome { kernel: kernels::named(name).unwrap(), found: Found::Booted { reports, failures } }
    }

    #[test]
    fn the_page_tells_what_was_seen_and_what_was_not() {
        let lost = Outcome {
            kernel: kernels::named("6.1").unwrap(),
            found: Found::NotTested("no mirror at /here".to_owned()),
        };
        let page =
            write(&[booted("5.10", "5.10.0-32-cloud-amd64", "FAILED"), lost, booted("newest", "7.3.4+deb13", "ok")]);
        for line in [
            "| 5.10 | 5.10.0-32-cloud-amd64 | bullseye | **failed**: 1 failures, 0 tests passed |",
            "| 6.1 |  | bookworm | not tested: could not be had |",
            "| newest | 7.3.4+deb13 | trixie-backports | passed (1 tests) |",
            "| probe | 5.10 tp_btf | 7.3 tp_btf |",
            "| `state` | tp_btf | tp_btf |",
            "| `synack` | broken | broken |",
            "| `transitions: refused` | **failed** | passed |",
            "| 7.3 tp_btf | a storm | nothing missing |",
            "| ring buffer | 5.8 | 5.10, 7.3 |  | synfin does not run |",
        ] {
            assert!(page.lines().any(|found| found == line), "no line {line:?} in\n{page}");
        }
        assert!(!page.contains("/here"), "nothing of this machine belongs into the page");
    }
}
