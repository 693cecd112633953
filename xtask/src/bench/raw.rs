//! Everything that was measured, and the questions that the report asks of it.

use serde_json::{Value, json};

use super::census::Censuses;
use super::cost::Cost;
use super::export::Exports;
use super::load::Traffic;
use super::machine::Machine;
use super::pace::{Pace, User};
use super::spread::Spread;
use super::subject::Subject;
use super::{Part, Plan};

/// One run of the bench.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) plan: Plan,
    pub(super) machine: Machine,
    pub(super) costs: Vec<Cost>,
    pub(super) paces: Vec<Pace>,
    /// Nanoseconds for a transition that is replayed.
    pub(super) replays: Vec<f64>,
    pub(super) census: Censuses,
    pub(super) exports: Exports,
}

impl Raw {
    /// Nothing measured yet.
    pub(super) fn new(plan: Plan, machine: Machine) -> Self {
        Self {
            plan,
            machine,
            costs: Vec::new(),
            paces: Vec::new(),
            replays: Vec::new(),
            census: Censuses::default(),
            exports: Exports::default(),
        }
    }

    /// As it is stored.
    pub(super) fn json(&self) -> Value {
        json!({
            "machine": self.machine.json(),
            "cpus": self.plan.cpus,
            "rounds": self.plan.rounds,
            "only": self.plan.only.map(Part::name),
            "programs": self.costs.iter().map(Cost::json).collect::<Vec<_>>(),
            "connections": self.paces.iter().map(Pace::json).collect::<Vec<_>>(),
            "replays_ns": self.replays,
            "census": self.census.json(),
            "export": self.exports.json(),
        })
    }

    fn costs(&self, subject: Subject, program: Option<&str>, threads: usize) -> impl Iterator<Item = &Cost> {
        self.costs.iter().filter(move |cost| {
            cost.subject == subject && cost.threads == threads && program.is_none_or(|program| cost.program == program)
        })
    }

    /// Nanoseconds for a run of a program; None for the only program of the subject.
    pub(super) fn cost(&self, subject: Subject, program: Option<&str>, threads: usize) -> Option<Spread> {
        Spread::of(self.costs(subject, program, threads).map(Cost::each))
    }

    /// The same as a multiple of another's, round by round.
    pub(super) fn cost_ratio(
        &self,
        (subject, program): (Subject, Option<&str>),
        (other, other_program): (Subject, Option<&str>),
        threads: usize,
    ) -> Option<Spread> {
        Spread::of(self.costs(subject, program, threads).filter_map(|cost| {
            let base = self.costs(other, other_program, threads).find(|base| base.round == cost.round)?;
            Some(cost.each() / base.each())
        }))
    }

    /// Turns of a subject.
    pub(super) fn paces(&self, subject: Subject, traffic: Traffic) -> impl Iterator<Item = &Pace> {
        self.paces.iter().filter(move |pace| pace.subject == subject && pace.traffic == traffic)
    }

    /// Connections per second.
    pub(super) fn rate(&self, subject: Subject, traffic: Traffic) -> Option<Spread> {
        Spread::of(self.paces(subject, traffic).map(Pace::rate))
    }

    /// The share of connections per second that is left of what the machine does with nothing attached, round by round.
    pub(super) fn kept(&self, subject: Subject, traffic: Traffic) -> Option<Spread> {
        self.against_nothing(subject, traffic, |pace, base| pace.rate() / base.rate())
    }

    /// The same of connections per second of CPU that their traffic got.
    pub(super) fn kept_by_cpu(&self, subject: Subject, traffic: Traffic) -> Option<Spread> {
        self.against_nothing(subject, traffic, |pace, base| base.burden() / pace.burden())
    }

    fn against_nothing(
        &self,
        subject: Subject,
        traffic: Traffic,
        ratio: impl Fn(&Pace, &Pace) -> f64,
    ) -> Option<Spread> {
        Spread::of(self.paces(subject, traffic).filter_map(|pace| {
            let base = self.paces(Subject::Nothing, traffic).find(|base| base.round == pace.round)?;
            Some(ratio(pace, base))
        }))
    }

    /// Microseconds of CPU that a connection took where it was made.
    pub(super) fn burden(&self, subject: Subject, traffic: Traffic) -> Option<Spread> {
        Spread::of(self.paces(subject, traffic).map(Pace::burden))
    }

    /// Nanoseconds of user space's CPU for a transition.
    pub(super) fn cpu_each(&self, subject: Subject, traffic: Traffic) -> Option<Spread> {
        Spread::of(self.paces(subject, traffic).filter_map(|pace| Some(pace.each(pace.user.as_ref()?.cpu))))
    }

    /// Nanoseconds of the receiver's CPU for a transition.
    pub(super) fn receiver_each(&self, traffic: Traffic) -> Option<Spread> {
        let turns = self.paces(Subject::SynfinOtlp, traffic);
        Spread::of(turns.filter_map(|pace| Some(pace.each(pace.user.as_ref()?.exported?.receiver_cpu))))
    }

    /// Turns in which synfin ran.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&Pace, &User)> {
        let ours = |pace: &&Pace| matches!(pace.subject, Subject::SynfinFiltered | Subject::SynfinOtlp);
        self.paces.iter().filter(ours).filter_map(|pace| Some((pace, pace.user.as_ref()?)))
    }

    /// Something of a subject's user space, over all turns.
    pub(super) fn user(&self, subject: Subject, what: impl Fn(&Pace, &User) -> Option<f64>) -> Option<Spread> {
        let turns = self.paces.iter().filter(|pace| pace.subject == subject);
        Spread::of(turns.filter_map(|pace| what(pace, pace.user.as_ref()?)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::load::{Cargo, Made, Took};
    use super::*;

    const ALONE: Traffic = Traffic { threads: 1, cargo: Cargo::Nothing };

    pub(in super::super) fn raw() -> Raw {
        let cost = |round, subject, program: &str, time_ns| Cost {
            round,
            threads: 1,
            subject,
            program: program.to_owned(),
            runs: 10,
            time_ns,
        };
        let pace = |round, subject, seconds| Pace {
            round,
            traffic: ALONE,
            subject,
            made: Made { connections: 1000, listeners: 1 },
            took: Took { wall: Duration::from_secs(seconds), cpu: Duration::from_millis(seconds) },
            user: None,
        };
        Raw {
            costs: vec![
                cost(0, Subject::Empty, "yardstick", 100),
                cost(0, Subject::Synfin, "state", 400),
                cost(0, Subject::Synfin, "destroy", 9),
                cost(1, Subject::Empty, "yardstick", 200),
                cost(1, Subject::Synfin, "state", 800),
            ],
            paces: vec![pace(0, Subject::Nothing, 1), pace(0, Subject::SynfinOtlp, 2), pace(1, Subject::SynfinOtlp, 9)],
            ..Raw::new(Plan { rounds: 2, connections: 1000, cpus: 2, only: None }, Machine::default())
        }
    }

    #[test]
    fn ratios_are_within_a_round() {
        let raw = raw();
        let ratio = raw.cost_ratio((Subject::Synfin, Some("state")), (Subject::Empty, None), 1);
        assert_eq!(ratio, Some(Spread { median: 4.0, min: 4.0, max: 4.0 }));
        assert_eq!(raw.cost(Subject::Synfin, Some("state"), 1).map(|spread| spread.median), Some(60.0));
        assert_eq!(raw.cost(Subject::Synfin, Some("state"), 2), None);
        assert_eq!(raw.kept_by_cpu(Subject::SynfinOtlp, ALONE).map(|spread| spread.median), Some(0.5));
        assert_eq!(raw.burden(Subject::Nothing, ALONE).map(|spread| spread.median), Some(1.0));
        // Round 1 has nothing to compare with.
        assert_eq!(raw.kept(Subject::SynfinOtlp, ALONE), Some(Spread { median: 0.5, min: 0.5, max: 0.5 }));
    }

    #[test]
    fn the_stored_form_has_every_turn() {
        let json = raw().json();
        assert_eq!(json["programs"].as_array().map(Vec::len), Some(5));
        assert_eq!(json["connections"][1]["subject"], "synfin --netns --otlp-endpoint");
        assert_eq!(json["connections"][1]["expected_events"], 12_003);
    }
}
