//! `cargo xtask bench`: what synfin costs, beside an empty program and beside libbpf-tools, all in one run.
//!
//! Variants take turns round by round, so that a machine that slows down does so for all of them; what counts are ratios
//! within a round. [`cost`] asks the kernel for the time of each program, [`pace`] counts connections per second and
//! what user space takes meanwhile, [`census`] sets the walk over the kernel's tables beside `ss`, [`export`] sets what leaves the
//! agent beside OpenTelemetry's SDK.

mod arena;
pub(crate) mod census;
mod cost;
mod export;
mod figures;
mod kernel;
mod load;
mod machine;
mod pace;
mod process;
mod raw;
mod receiver;
mod replay;
mod report;
mod spread;
mod subject;
mod table;
mod undo;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use self::load::{Cargo, Traffic};
use crate::build;
use crate::build::Profile;
use crate::cmd;
use crate::setup;
use crate::testbed;

/// Measure what synfin costs, beside an empty program and libbpf-tools (as root)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Times that each variant has its turn; medians are of these
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Connections that each variant sees in each of its turns
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    connections: u64,
    /// Only this part, shown on the terminal
    #[arg(long, value_name = "NAME")]
    only: Option<Part>,
    /// Where the report goes [default: docs/bench, but nowhere with --only]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The parts of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Nanoseconds of each program in the kernel
    Programs,
    /// Connections per second, CPU and memory in user space, events lost
    Connections,
    /// The census beside `ss`, among many namespaces, at the start of the service
    Census,
    /// CPU for an exported span and a data point beside OpenTelemetry's SDK, memory of what waits
    Export,
}

impl Part {
    /// As the command line has it.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: u32,
    connections: u64,
    /// CPUs of the machine: traffic comes from one thread, then from as many as this.
    cpus: usize,
    /// The one part that is measured, if not all are.
    only: Option<Part>,
}

impl Plan {
    /// Numbers of threads that make traffic.
    fn threads(&self) -> Vec<usize> {
        if self.cpus > 1 { vec![1, self.cpus] } else { vec![1] }
    }

    /// Kinds of traffic that rates are measured with.
    fn traffic(&self) -> Vec<Traffic> {
        let with = |cargo| self.threads().into_iter().map(move |threads| Traffic { threads, cargo });
        with(Cargo::Nothing).chain([Traffic { threads: 1, cargo: Cargo::Request }]).collect()
    }
}

/// What the bench starts.
struct Tools {
    synfin: PathBuf,
    yardstick: PathBuf,
    receiver: PathBuf,
    export_cost: PathBuf,
    ledger_cost: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        cmd::is_root(),
        "missing privileges: the bench loads eBPF programs, makes network namespaces and switches the kernel's BPF \
         statistics; start it as root: sudo -E cargo xtask bench"
    );
    setup::for_build()?;
    testbed::setup()?;
    let tools = build_tools()?;
    let cpus = std::thread::available_parallelism().context("how many CPUs are there?")?.get();
    let plan = Plan { rounds: args.rounds, connections: args.connections, cpus, only: args.only };

    let mut raw = raw::Raw::new(plan, machine::look(&tools.synfin)?);
    let wanted = |part| args.only.is_none_or(|only| only == part);
    if wanted(Part::Programs) {
        raw.costs = cost::measure(&tools, plan)?;
    }
    if wanted(Part::Connections) {
        raw.paces = pace::measure(&tools, plan)?;
        raw.replays = replay::measure(&tools, plan)?;
    }
    if wanted(Part::Census) {
        raw.census = census::measure(&tools, plan)?;
    }
    if wanted(Part::Export) {
        raw.exports = export::measure(&tools, plan)?;
    }
    raw.machine.load_after = machine::load_average();
    let figures = figures::judge(&raw);
    for figure in &figures {
        cmd::say("bench", figure.line());
    }
    let text = report::render(&raw, &figures);
    match (&args.out, args.only) {
        (Some(dir), _) => report::write(dir, &raw, &text),
        (None, None) => report::write(&cmd::root().join("docs/bench"), &raw, &text),
        (None, Some(_)) => {
            cmd::say("bench", format!("\n{text}"));
            Ok(())
        }
    }
}

fn build_tools() -> Result<Tools> {
    let synfin = build::synfin(Profile::Release)?;
    cmd::say("build", "yardstick, export_cost, ledger_cost (release)");
    let examples = ["yardstick", "export_cost", "ledger_cost"];
    let chosen = examples.iter().flat_map(|name| ["--example", name]);
    cmd::run(
        cmd::cargo().args(["build", "--release", "--package", "synfin"]).args(chosen),
        "the compiler's words are above",
    )?;
    // Cargo puts examples beside the binaries of the same profile.
    let [yardstick, export_cost, ledger_cost] = examples.map(|name| synfin.with_file_name("examples").join(name));
    let receiver = build::binary("synfin-tests", "synfin-receiver", Profile::Release)?;
    Ok(Tools { synfin, yardstick, receiver, export_cost, ledger_cost })
}
