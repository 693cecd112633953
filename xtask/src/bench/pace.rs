//! Connections per second with each variant attached, and what its user space takes and says meanwhile.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::arena::Arena;
use super::kernel::Statistics;
use super::load::{self, Made, Took, Traffic};
use super::process::{self, Memory};
use super::receiver::Receiver;
use super::spread::short;
use super::subject::{Account, Running, Subject};
use super::{Plan, Tools};
use crate::cmd;

/// Those that take turns.
const SUBJECTS: [Subject; 5] =
    [Subject::Nothing, Subject::SynfinFiltered, Subject::SynfinOtlp, Subject::Tcpstates, Subject::Tcplife];

/// After traffic, for what is still on its way to user space.
const ECHO: Duration = Duration::from_millis(500);

/// One turn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pace {
    pub(super) round: u32,
    pub(super) traffic: Traffic,
    pub(super) subject: Subject,
    pub(super) made: Made,
    pub(super) took: Took,
    pub(super) user: Option<User>,
}

/// What a subject's user space took and said.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct User {
    pub(super) cpu: Duration,
    pub(super) idle_memory: u64,
    pub(super) peak_memory: u64,
    pub(super) account: Account,
    pub(super) exported: Option<Exported>,
}

/// What the receiver got and took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exported {
    pub(super) spans: u64,
    pub(super) receiver_cpu: Duration,
}

impl Pace {
    /// Connections per second.
    pub(super) fn rate(&self) -> f64 {
        self.made.connections as f64 / self.took.wall.as_secs_f64()
    }

    /// Microseconds of CPU that a connection took where it was made.
    pub(super) fn burden(&self) -> f64 {
        self.took.cpu.as_secs_f64() * 1e6 / self.made.connections as f64
    }

    /// Nanoseconds of some CPU time for a transition that the traffic made.
    pub(super) fn each(&self, cpu: Duration) -> f64 {
        cpu.as_nanos() as f64 / self.made.transitions() as f64
    }

    pub(super) fn json(&self) -> Value {
        let Self { round, traffic, subject, made, took, user } = self;
        let user = user.as_ref().map(|User { cpu, idle_memory, peak_memory, account, exported }| {
            json!({ "cpu_ns": cpu.as_nanos() as u64, "idle_bytes": idle_memory, "peak_bytes": peak_memory,
                    "events": account.events, "transitions": account.transitions, "lost": account.lost,
                    "spans": exported.map(|exported| exported.spans),
                    "receiver_cpu_ns": exported.map(|exported| exported.receiver_cpu.as_nanos() as u64) })
        });
        json!({ "round": round, "threads": traffic.threads, "traffic": traffic.name(), "subject": subject.name(), "connections": made.connections,
                "expected_events": made.events(), "seconds": took.wall.as_secs_f64(),
                "traffic_cpu_seconds": took.cpu.as_secs_f64(), "user_space": user })
    }
}

/// All rounds.
pub(super) fn measure(tools: &Tools, plan: Plan) -> Result<Vec<Pace>> {
    let _off = Statistics::switch(false)?;
    let mut receiver = Receiver::start(&tools.receiver, plan.cpus)?;
    let mut paces = Vec::new();
    for round in 0..plan.rounds {
        for traffic in plan.traffic() {
            for turn in 0..SUBJECTS.len() {
                // Nobody always comes first.
                let subject = SUBJECTS[(turn + round as usize) % SUBJECTS.len()];
                let (made, took, user) = turn_of(subject, tools, &mut receiver, traffic, plan.connections)
                    .with_context(|| subject.name())?;
                let pace = Pace { round, traffic, subject, made, took, user };
                let (name, rate) = (subject.name(), short(pace.rate()));
                cmd::say("bench", format!("round {}, {}: {name}: {rate} connections/s", round + 1, traffic.name()));
                paces.push(pace);
            }
        }
    }
    Ok(paces)
}

fn turn_of(
    subject: Subject,
    tools: &Tools,
    receiver: &mut Receiver,
    traffic: Traffic,
    connections: u64,
) -> Result<(Made, Took, Option<User>)> {
    let arena = Arena::new()?;
    let (spans_before, receiver_before) = (receiver.spans()?, receiver.cpu()?);
    let Some(running) = subject.start(tools, &arena, receiver.endpoint())? else {
        let (made, took) = load::connections(&arena, traffic, connections)?;
        return Ok((made, took, None));
    };
    let idle_memory = Memory::of(running.pid())?.now;
    let cpu_before = process::cpu(running.pid())?;
    let (made, took) = load::connections(&arena, traffic, connections)?;
    thread::sleep(ECHO);
    let exports = subject == Subject::SynfinOtlp;
    if exports {
        receiver.wait_for(spans_before + made.spans())?;
    }
    let receiver_cpu = receiver.cpu()?.saturating_sub(receiver_before);
    let cpu = process::cpu(running.pid())?.saturating_sub(cpu_before);
    let peak_memory = Memory::of(running.pid())?.peak;
    let account = Running::finish(running)?;
    let exported =
        if exports { Some(Exported { spans: receiver.spans()? - spans_before, receiver_cpu }) } else { None };
    Ok((made, took, Some(User { cpu, idle_memory, peak_memory, account, exported })))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::load::Cargo;
    use super::*;

    /// A user space that gave this account.
    pub(in super::super) fn user(events: u64, lost: u64) -> User {
        let account = Account { events: Some(events), transitions: None, lost: Some(lost) };
        User { cpu: Duration::from_micros(10), idle_memory: 1, peak_memory: 2, account, exported: None }
    }

    #[test]
    fn a_turn_comes_to_rates() {
        let made = Made { connections: 1000, listeners: 0 };
        let took = Took { wall: Duration::from_millis(500), cpu: Duration::from_millis(40) };
        let traffic = Traffic { threads: 1, cargo: Cargo::Nothing };
        let pace =
            Pace { round: 0, traffic, subject: Subject::SynfinFiltered, made, took, user: Some(user(12_000, 0)) };
        assert_eq!(format!("{:.1} {:.1}", pace.rate(), pace.burden()), "2000.0 40.0");
        assert_eq!(format!("{:.3}", pace.each(Duration::from_micros(10))), "1.000");
        assert_eq!(pace.json()["user_space"]["events"], pace.json()["expected_events"]);
    }
}
