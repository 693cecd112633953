//! The report for people: one page for a run, and the list of runs in docs/bench/README.md.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::figures::{Figure, from, mib, whole};
use super::machine::Machine;
use super::pace::{Pace, User};
use super::raw::Raw;
use super::spread::{Spread, percent, short};
use super::subject::Subject;
use super::{Plan, arena, census, export, replay, table};
use crate::cmd;

/// In the README, above the list of runs.
const MARK: &str = "<!-- cargo xtask bench writes what follows -->";

/// What is told beside the figures, so that nobody has to trust them.
const METHOD: &str = include_str!("method.md");

/// Programs of the first table: its name there, subject, and name in the kernel where the subject has several.
const PROGRAMS: [(&str, Subject, Option<&str>); 8] = [
    ("empty program on `inet_sock_set_state`", Subject::Empty, None),
    ("synfin `state`", Subject::Synfin, Some("state")),
    ("synfin `state`, with `--netns`", Subject::SynfinFiltered, Some("state")),
    ("synfin `destroy`", Subject::Synfin, Some("destroy")),
    ("synfin `destroy`, with `--netns`", Subject::SynfinFiltered, Some("destroy")),
    ("synfin `retransmit`", Subject::Synfin, Some("retransmit")),
    ("libbpf-tools `tcpstates`", Subject::Tcpstates, None),
    ("libbpf-tools `tcplife`", Subject::Tcplife, None),
];

/// Rows of the other tables.
const VARIANTS: [(&str, Subject); 5] = [
    ("nothing attached", Subject::Nothing),
    ("synfin, no OTLP", Subject::SynfinFiltered),
    ("synfin, all exported by OTLP", Subject::SynfinOtlp),
    ("libbpf-tools `tcpstates`", Subject::Tcpstates),
    ("libbpf-tools `tcplife`", Subject::Tcplife),
];

/// The page.
pub(super) fn render(raw: &Raw, figures: &[Figure]) -> String {
    let Machine { date, synfin, commit, .. } = &raw.machine;
    let mut page = format!("# What synfin costs: {date}\n\n{synfin}, commit {commit}. ");
    if let Some(only) = raw.plan.only {
        page.push_str(&format!("One part of the bench alone was run, `{}`. ", only.name()));
    }
    page.push_str("Each cell is the median of the rounds, with the least and the most in brackets.\n");
    let mut section = |title: &str, text: String| {
        page.extend(["\n## ", title, "\n\n", text.as_str()]);
    };
    section("Figures", verdicts(figures));
    if !raw.costs.is_empty() {
        section("In the kernel", programs(raw));
    }
    if !raw.paces.is_empty() {
        section("Connections per second", rates(raw));
        section("In user space", user_space(raw) + &replay::page(&raw.replays));
    }
    if !raw.census.is_empty() {
        section("Census", census::page(&raw.census));
    }
    if !raw.exports.is_empty() {
        section("Export", export::page(&raw.exports));
    }
    section("Machine", machine(raw));
    section("How it was measured", METHOD.replace("LOSS", &arena::LOSS.to_string()));
    page
}

fn verdicts(figures: &[Figure]) -> String {
    let rows = figures.iter().map(|figure| {
        let [measured, must, aim] = figure.cells();
        vec![figure.what.clone(), measured, must, aim, figure.verdict().to_owned()]
    });
    table::render(&["figure", "measured", "must be", "aim", "verdict"], &rows.collect::<Vec<_>>())
}

fn programs(raw: &Raw) -> String {
    let mut head = vec!["program".to_owned()];
    for threads in raw.plan.threads() {
        head.extend([format!("ns a run, {}", from(threads)), "× empty".to_owned()]);
    }
    let mut rows = Vec::new();
    for (name, subject, program) in PROGRAMS {
        let mut row = vec![name.to_owned()];
        for threads in raw.plan.threads() {
            row.push(cell(raw.cost(subject, program, threads), short));
            row.push(cell(raw.cost_ratio((subject, program), (Subject::Empty, None), threads), short));
        }
        if row.iter().skip(1).any(|cell| !cell.is_empty()) {
            rows.push(row);
        }
    }
    table::render(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}

fn rates(raw: &Raw) -> String {
    let mut head = vec!["attached".to_owned()];
    for traffic in raw.plan.traffic() {
        head.extend([format!("connections/s, {}", traffic.name()), "kept".to_owned(), "CPU µs each".to_owned()]);
    }
    let rows = VARIANTS.map(|(name, subject)| {
        let mut row = vec![name.to_owned()];
        for traffic in raw.plan.traffic() {
            row.push(cell(raw.rate(subject, traffic), short));
            row.push(cell(raw.kept(subject, traffic), percent));
            row.push(cell(raw.burden(subject, traffic), short));
        }
        row
    });
    table::render(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}

fn user_space(raw: &Raw) -> String {
    let mut head = vec!["process".to_owned()];
    head.extend(raw.plan.traffic().into_iter().map(|traffic| format!("CPU ns a transition, {}", traffic.name())));
    head.extend(["MiB idle", "MiB at most", "events lost a turn"].map(str::to_owned));
    let mut rows: Vec<_> = VARIANTS
        .into_iter()
        .skip(1)
        .map(|(name, subject)| {
            let user = |what: fn(&Pace, &User) -> Option<f64>| raw.user(subject, what);
            let mut row = vec![name.to_owned()];
            row.extend(raw.plan.traffic().into_iter().map(|traffic| cell(raw.cpu_each(subject, traffic), short)));
            row.push(cell(user(|_, user| Some(user.idle_memory as f64)), mib));
            row.push(cell(user(|_, user| Some(user.peak_memory as f64)), mib));
            row.push(cell(user(|_, user| Some(user.account.lost? as f64)), whole));
            row
        })
        .collect();
    let mut receiver = vec!["the receiver of OTLP".to_owned()];
    receiver.extend(raw.plan.traffic().into_iter().map(|traffic| cell(raw.receiver_each(traffic), short)));
    rows.push(receiver);
    table::render(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}

fn cell(spread: Option<Spread>, number: fn(f64) -> String) -> String {
    spread.map_or_else(String::new, |spread| spread.text(number))
}

fn machine(raw: &Raw) -> String {
    let Machine { kernel, processor, memory_mib, rustc, libbpf_tools, load_before, load_after, .. } = &raw.machine;
    let Plan { rounds, connections, cpus, only } = raw.plan;
    let only = only.map_or_else(String::new, |only| format!(" --only {}", only.name()));
    format!(
        "* Kernel {kernel}; {cpus} CPUs ({processor}), {memory_mib} MiB of memory.\n\
         * {rustc}; libbpf-tools {libbpf_tools}.\n\
         * Load average before: {load_before}; after: {load_after} (the bench itself makes load).\n\
         * `cargo xtask bench --rounds {rounds} --connections {connections}{only}`\n"
    )
}

/// Puts page and raw data into `dir`, and the page into the list of its README, if there is one.
pub(super) fn write(dir: &Path, raw: &Raw, page: &str) -> Result<()> {
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let date = &raw.machine.date;
    put(&format!("{date}.md"), page)?;
    put(&format!("{date}.json"), &(serde_json::to_string_pretty(&raw.json())? + "\n"))?;
    if let Ok(readme) = std::fs::read_to_string(dir.join("README.md")) {
        let names = std::fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        put("README.md", &with_runs(&readme, names.collect()))?;
    }
    cmd::say("bench", format!("written: {}", dir.join(format!("{date}.md")).display()));
    Ok(())
}

/// The README with the list of runs, the newest first. Runs are named by their date.
fn with_runs(readme: &str, mut names: Vec<String>) -> String {
    let above = readme.split_once(MARK).map_or(readme, |(above, _)| above);
    names.retain(|name| name.starts_with(|first: char| first.is_ascii_digit()));
    names.sort_unstable_by(|one, other| other.cmp(one));
    let runs = names.iter().filter_map(|name| name.strip_suffix(".md")).enumerate().map(|(place, run)| {
        let newest = if place == 0 { "Newest: " } else { "" };
        format!("* {newest}[{run}]({run}.md), [raw data]({run}.json)\n")
    });
    format!("{above}{MARK}\n\n{}", runs.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::Part;
    use super::*;

    #[test]
    fn the_readme_points_to_the_newest() {
        let names = ["README.md", "2026-11-22.md", "2026-11-22.json", "2027-01-02.md"].map(str::to_owned).to_vec();
        let readme = with_runs(&format!("# Bench\n{MARK}\nold\n"), names);
        let expected = "* Newest: [2027-01-02](2027-01-02.md), [raw data](2027-01-02.json)\n\
                        * [2026-11-22](2026-11-22.md), [raw data](2026-11-22.json)\n";
        assert_eq!(readme, format!("# Bench\n{MARK}\n\n{expected}"));
    }

    #[test]
    fn a_run_of_nothing_still_renders() {
        let plan = Plan { rounds: 1, connections: 100, cpus: 1, only: None };
        let page = render(&Raw::new(plan, Machine::default()), &[]);
        assert!(page.contains("## Machine") && !page.contains("## In the kernel"), "{page}");
    }

    #[test]
    fn a_run_of_one_part_says_so() {
        let plan = Plan { rounds: 1, connections: 100, cpus: 1, only: Some(Part::Export) };
        let page = render(&Raw::new(plan, Machine::default()), &[]);
        assert!(page.contains("alone was run, `export`. Each cell"), "{page}");
        assert!(page.contains("bench --rounds 1 --connections 100 --only export`"), "{page}");
    }
}
