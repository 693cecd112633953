//! docs/KERNELS.md, out of what the booted kernels said.

use std::collections::BTreeSet;

use serde_json::Value;

use super::boots::Boot;
use super::features::{FEATURES, Facts};
use super::plan::RUNGS;
use super::reports::{Program, Reports, Run, Verdict};
use super::{Found, Outcome};

const HEAD: &str = "# Kernels

Made by `cargo xtask vm --all`, which boots each kernel under QEMU (emulated, one CPU) and plays every scenario there over
IPv4, IPv6 and v4-mapped sockets; not written by hand. In the same boot the kernel's own trace buffer and its counters
(`/proc/net/snmp`, `/proc/net/netstat`) bear witness: a scenario has passed when synfin told exactly the transitions that
the trace holds, after what the kernel itself reports as skipped.
";

const REFUSALS: &str = "What keeps synfin from loading its programs, provoked on each kernel: a message must name the cause and the remedy, the
exit code be 1 (77 without capabilities), and `synfin doctor` show it. Under `lockdown=confidentiality` the kernel lets no
program read its memory; under `lockdown=integrity` all must work.

";

/// The whole page.
pub(super) fn write(outcomes: &[Outcome]) -> String {
    let mut page = HEAD.to_owned();
    let columns: Vec<Column<'_>> = outcomes.iter().flat_map(columns).collect();
    section(&mut page, "Kernels", &kernels(outcomes));
    section(&mut page, "Rungs", &rungs());
    section(&mut page, "Probes", &probes(&columns));
    section(&mut page, "Scenarios", &scenarios(&columns));
    section(&mut page, "Refusals", &format!("{REFUSALS}{}", refusals(outcomes)));
    section(&mut page, "Findings", &findings(outcomes));
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
    let of_rung = |run: &&Run| outcome.boot.is_plain() && RUNGS.iter().any(|rung| rung.name == run.name);
    reports.runs.iter().filter(of_rung).map(|run| Column { title: title(run), run }).collect()
}

/// `7.3` for `7.3.4+deb13-cloud-amd64`: the first two numbers.
fn version(outcome: &Outcome, reports: &Reports) -> String {
    let release = reports.release.as_deref().unwrap_or(outcome.kernel.name);
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn kernels(outcomes: &[Outcome]) -> String {
    let mut table = head(["kernel", "release", "Debian suite", "boot", "result"].map(str::to_owned));
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
        row(
            &mut table,
            [outcome.kernel.name.to_owned(), release, outcome.kernel.suite.to_owned(), boot(outcome), result],
        );
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
    let names: BTreeSet<String> = columns.iter().flat_map(|column| tests(column.run)).map(|test| test.0).collect();
    for name in names {
        let cell = |column: &Column<'_>| {
            let found = tests(column.run).into_iter().find(|test| test.0 == name);
            found.map_or("not run", |(_, verdict)| word(verdict)).to_owned()
        };
        row(&mut table, std::iter::once(format!("`{name}`")).chain(columns.iter().map(cell)));
    }
    table
}

/// The tests of a pass with their verdicts.
fn tests(run: &Run) -> Vec<(String, Option<Verdict>)> {
    let named = |program: &Program| -> Vec<_> {
        let name = |test: &String| format!("{}: {test}", program.name);
        program.tests.iter().map(|(test, verdict)| (name(test), *verdict)).collect()
    };
    run.programs.iter().flat_map(named).collect()
}

fn word(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Passed) => "passed",
        Some(Verdict::Failed) => "**failed**",
        Some(Verdict::Ignored) => "not run",
        None => "**no verdict**",
    }
}

/// The passes that are about no rung.
fn refusals(outcomes: &[Outcome]) -> String {
    let mut table = head(["kernel", "boot", "test", "result"].map(str::to_owned));
    for outcome in outcomes {
        let Found::Booted { reports, .. } = &outcome.found else { continue };
        let other = reports.runs.iter().filter(|run| RUNGS.iter().all(|rung| rung.name != run.name));
        for (test, verdict) in other.flat_map(tests) {
            let cells = [version(outcome, reports), boot(outcome), format!("`{test}`"), word(verdict).to_owned()];
            row(&mut table, cells);
        }
    }
    table
}

/// The name of a boot, with what was added to the kernel's command line.
fn boot(outcome: &Outcome) -> String {
    let Boot { name, parameters, .. } = outcome.boot;
    if parameters.is_empty() { (*name).to_owned() } else { format!("{name} (`{parameters}`)") }
}

/// What the tests noted beside their verdicts.
fn findings(outcomes: &[Outcome]) -> String {
    let mut table = head(["kernel, pass", "about", "found"].map(str::to_owned));
    for outcome in outcomes {
        let Found::Booted { reports, .. } = &outcome.found else { continue };
        for run in &reports.runs {
            for (about, found) in &run.notes {
                row(&mut table, [format!("{} {}", version(outcome, reports), run.name), about.clone(), found.clone()]);
            }
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
            // A locked kernel does not show its tracepoints.
            Found::Booted { reports, .. } if outcome.boot.is_plain() => {
                Some((version(outcome, reports), &reports.facts))
            }
            _ => None,
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
    use super::super::boots::{self, BOOTS};
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
        Outcome { kernel: kernels::named(name).unwrap(), boot: &BOOTS[0], found: Found::Booted { reports, failures } }
    }

    #[test]
    fn the_page_tells_what_was_seen_and_what_was_not() {
        let lost = Outcome {
            kernel: kernels::named("6.1").unwrap(),
            boot: &BOOTS[0],
            found: Found::NotTested("no mirror at /here".to_owned()),
        };
        let mut locked = booted("newest", "7.3.4+deb13", "ok");
        locked.boot = boots::named("confidentiality").unwrap();
        let Found::Booted { reports, .. } = &mut locked.found else { return };
        reports.read_line(
            r#"{"record":"output","run":"confidentiality","program":"lockdown","line":"test doctor ... ok"}"#,
        );
        let plain = booted("newest", "7.3.4+deb13", "ok");
        let page = write(&[booted("5.10", "5.10.0-32-cloud-amd64", "FAILED"), lost, plain, locked]);
        for line in [
            "| 5.10 | 5.10.0-32-cloud-amd64 | bullseye | plain | **failed**: 1 failures, 0 tests passed |",
            "| 6.1 |  | bookworm | plain | not tested: could not be had |",
            "| newest | 7.3.4+deb13 | trixie-backports | plain | passed (1 tests) |",
            "| newest | 7.3.4+deb13 | trixie-backports | confidentiality (`lockdown=confidentiality`) | passed (2 tests) |",
            "| 7.3 | confidentiality (`lockdown=confidentiality`) | `lockdown: doctor` | passed |",
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
