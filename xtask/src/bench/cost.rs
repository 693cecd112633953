//! What each program costs in the kernel: its time by the kernel's own statistics, divided by its runs.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::arena::Arena;
use super::kernel::{self, Statistics};
use super::load::{self, Cargo, Traffic};
use super::spread::short;
use super::subject::Subject;
use super::{Plan, Tools};
use crate::cmd;

/// Those with programs of interest, see [`Subject`].
const SUBJECTS: [Subject; 5] =
    [Subject::Empty, Subject::Synfin, Subject::SynfinFiltered, Subject::Tcpstates, Subject::Tcplife];

/// Bytes that go through a loss of [`super::arena::LOSS`] percent: some hundred retransmits in a second or two.
const LOSSY_BYTES: u64 = 30 << 20;

/// The program that only the lossy traffic is for; in the other turns it would run for other people's connections.
const RETRANSMIT: &str = "retransmit";

/// A program in one turn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cost {
    pub(super) round: u32,
    pub(super) threads: usize,
    pub(super) subject: Subject,
    pub(super) program: String,
    pub(super) runs: u64,
    pub(super) time_ns: u64,
}

impl Cost {
    /// Nanoseconds for a run.
    pub(super) fn each(&self) -> f64 {
        self.time_ns as f64 / self.runs.max(1) as f64
    }

    pub(super) fn json(&self) -> Value {
        let Self { round, threads, subject, program, runs, time_ns } = self;
        json!({ "round": round, "threads": threads, "subject": subject.name(), "program": program, "runs": runs,
                "time_ns": time_ns })
    }
}

/// All rounds.
pub(super) fn measure(tools: &Tools, plan: Plan) -> Result<Vec<Cost>> {
    let _on = Statistics::switch(true)?;
    let mut costs = Vec::new();
    for round in 0..plan.rounds {
        for threads in plan.threads() {
            for turn in 0..SUBJECTS.len() {
                // Nobody always comes first.
                let subject = SUBJECTS[(turn + round as usize) % SUBJECTS.len()];
                let arena = Arena::new()?;
                let traffic = Traffic { threads, cargo: Cargo::Nothing };
                let traffic = || load::connections(&arena, traffic, plan.connections).map(drop);
                let took = turn_of(subject, tools, &arena, traffic).with_context(|| subject.name())?;
                let ours = took.into_iter().filter(|program| program.name != RETRANSMIT).collect();
                keep(&mut costs, round, threads, subject, ours);
            }
        }
        // Retransmits need loss, which connections over a clean loopback do not have.
        let arena = Arena::new()?;
        arena.lose_segments()?;
        let took = turn_of(Subject::Synfin, tools, &arena, || load::transfer(&arena, LOSSY_BYTES))?;
        let retransmit = took.into_iter().filter(|program| program.name == RETRANSMIT).collect();
        keep(&mut costs, round, 1, Subject::Synfin, retransmit);
    }
    Ok(costs)
}

/// What the programs of a subject ran and took while there was traffic.
fn turn_of(
    subject: Subject,
    tools: &Tools,
    arena: &Arena,
    traffic: impl FnOnce() -> Result<()>,
) -> Result<Vec<kernel::Program>> {
    let running = subject.start(tools, arena, "")?.context("nothing to measure")?;
    let before = kernel::programs_of(running.pid())?;
    traffic()?;
    let after = kernel::programs_of(running.pid())?;
    running.finish()?;
    Ok(after.iter().map(|program| program.since(&before)).filter(|program| program.runs > 0).collect())
}

fn keep(costs: &mut Vec<Cost>, round: u32, threads: usize, subject: Subject, programs: Vec<kernel::Program>) {
    for kernel::Program { id: _, name: program, runs, time_ns } in programs {
        let cost = Cost { round, threads, subject, program, runs, time_ns };
        let (name, each) = (subject.name(), short(cost.each()));
        cmd::say(
            "bench",
            format!("round {}, {threads} thread(s): {name}, {}: {each} ns × {runs}", round + 1, cost.program),
        );
        costs.push(cost);
    }
}
