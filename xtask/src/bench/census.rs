//! What the census costs, beside `ss`, with the sockets of a busy host, among many namespaces, and at the start of the service.

mod crowd;
pub(crate) mod hold;
mod page;
mod quiet;
mod start;
mod walk;

use anyhow::Result;
use serde_json::{Value, json};

use self::crowd::{Crowd, Villages};
pub(super) use self::page::page;
use self::quiet::Quiet;
use self::start::Start;
use self::walk::{Walk, Way};
use super::arena::Arena;
use super::load::{self, Cargo, Traffic};
use super::spread::Spread;
use super::{Plan, Tools};
use crate::cmd;

/// Both ends of connections that stay open.
pub(super) const OPEN: u64 = 50_000;
/// Those in TIME_WAIT beside them, when the walk is compared with others.
const CLOSED: u64 = 30_000;
/// Namespaces beside the big one.
const VILLAGES: u64 = 100;

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Censuses {
    pub(super) walks: Vec<Walk>,
    pub(super) starts: Vec<Start>,
    pub(super) quiet: Option<Quiet>,
}

/// All of it.
pub(super) fn measure(tools: &Tools, plan: Plan) -> Result<Censuses> {
    let mut censuses = Censuses::default();
    let arena = Arena::new()?;
    let crowd = Crowd::gather(&arena, OPEN)?;
    for round in 0..plan.rounds {
        censuses.starts.push(start::measure(tools, round, crowd.sockets())?);
    }
    {
        let villages = Villages::found(VILLAGES)?;
        let netns = villages.names().chain([arena.inode()?.to_string()]).collect::<Vec<_>>();
        let sockets = crowd.sockets() + villages.sockets();
        for round in 0..plan.rounds {
            censuses.walks.push(walk::of_synfin(tools, round, Way::Alone, &netns[netns.len() - 1..], crowd.sockets())?);
            censuses.walks.push(walk::of_synfin(tools, round, Way::Everywhere, &netns, sockets)?);
        }
        censuses.quiet = Some(quiet::measure(tools, &netns, sockets)?);
    }
    cmd::say("bench", format!("{CLOSED} sockets in TIME_WAIT"));
    load::connections(&arena, Traffic { threads: plan.cpus, cargo: Cargo::Nothing }, CLOSED)?;
    for round in 0..plan.rounds {
        censuses.walks.extend(walk::beside_others(tools, round, &arena, crowd.sockets() + CLOSED)?);
    }
    // Its sockets are closed before their namespace is deleted.
    drop(crowd);
    Ok(censuses)
}

impl Censuses {
    pub(super) fn is_empty(&self) -> bool {
        self.walks.is_empty() && self.starts.is_empty() && self.quiet.is_none()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "walks": self.walks.iter().map(Walk::json).collect::<Vec<_>>(),
            "starts": self.starts.iter().map(Start::json).collect::<Vec<_>>(),
            "quiet": self.quiet.as_ref().map(Quiet::json),
        })
    }

    /// Something of a way to look, over the rounds.
    fn walks(&self, way: Way, what: impl Fn(&Walk) -> f64) -> Option<Spread> {
        Spread::of(self.walks.iter().filter(|walk| walk.way == way).map(what))
    }

    /// How long one way takes as a multiple of another, round by round.
    fn ratio(&self, way: Way, other: Way) -> Option<Spread> {
        Spread::of(self.walks.iter().filter(|walk| walk.way == way).filter_map(|walk| {
            let base = self.walks.iter().find(|base| base.way == other && base.round == walk.round)?;
            Some(walk.took.as_secs_f64() / base.took.as_secs_f64())
        }))
    }

    /// The aggregate walk as a share of `ss -tan`.
    pub(super) fn of_ss(&self) -> Option<Spread> {
        self.ratio(Way::Iterator, Way::Ss)
    }

    /// One walk of all namespaces as a multiple of one of the big namespace alone.
    pub(super) fn everywhere(&self) -> Option<Spread> {
        self.ratio(Way::Everywhere, Way::Alone)
    }

    /// The share of a core that the census of the service takes with many quiet namespaces.
    pub(super) fn share(&self) -> Option<f64> {
        Some(self.quiet.as_ref()?.share())
    }

    /// What that comes to for each census, as a multiple of one walk of the big namespace alone.
    pub(super) fn each(&self) -> Option<f64> {
        let alone = self.walks(Way::Alone, |walk| walk.took.as_secs_f64())?;
        Some(self.share()? * quiet::PERIOD.as_secs_f64() / alone.median)
    }

    /// Milliseconds from the start of the process until the older sockets are known.
    pub(super) fn known(&self) -> Option<Spread> {
        Spread::of(self.starts.iter().map(|start| ms(start.known)))
    }
}

/// In milliseconds.
fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    pub(in crate::bench) fn censuses() -> Censuses {
        let walk = |round, way, took| Walk {
            round,
            way,
            took: Duration::from_millis(took),
            command: Duration::from_millis(300),
            cpu: Duration::from_millis(200),
            sockets: None,
            namespaces: None,
        };
        let start = |round, known| Start {
            round,
            attached: Duration::from_millis(200),
            known: Duration::from_millis(known),
            listing: Duration::from_millis(150),
            sockets: 50_000,
            namespaces: 2,
        };
        Censuses {
            walks: vec![
                walk(0, Way::Ss, 200),
                walk(0, Way::Iterator, 50),
                walk(1, Way::Ss, 400),
                walk(1, Way::Iterator, 100),
                walk(0, Way::Alone, 40),
                walk(0, Way::Everywhere, 800),
            ],
            starts: vec![start(0, 500), start(1, 700)],
            quiet: Some(quiet::tests::quiet()),
        }
    }

    #[test]
    fn ratios_are_within_a_round() {
        let censuses = censuses();
        assert_eq!(censuses.of_ss(), Some(Spread { median: 0.25, min: 0.25, max: 0.25 }));
        assert_eq!(censuses.everywhere().map(|ratio| ratio.median), Some(20.0));
        assert_eq!(censuses.known().map(|known| known.median), Some(600.0));
        assert_eq!(Censuses::default().of_ss(), None);
    }

    #[test]
    fn a_census_of_the_service_is_compared_with_a_walk() {
        let censuses = censuses();
        let expected = censuses.share().unwrap() * 5.0 / 0.040;
        assert!((censuses.each().unwrap() - expected).abs() < 1e-9);
    }

    #[test]
    fn the_stored_form_has_everything() {
        let json = censuses().json();
        assert_eq!(json["walks"].as_array().map(Vec::len), Some(6));
        assert_eq!(json["walks"][1]["way"], "synfin census, iterators");
        assert_eq!(json["starts"][1]["known_seconds"], 0.7);
        assert_eq!(json["quiet"]["namespaces"], 101);
        assert!(!censuses().is_empty() && Censuses::default().is_empty());
    }
}
