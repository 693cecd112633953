//! What export costs: CPU for a span and for a data point, beside OpenTelemetry's SDK, and memory for connections that wait. `export_cost`
//! of the agent's examples is measured, which uses the library as the service does.

mod owners;
mod page;
mod turn;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use self::owners::{Crowds, Owners};
pub(super) use self::page::page;
use self::turn::{Cost, WAYS, Wait, Way};
use super::receiver::Receiver;
use super::spread::Spread;
use super::{Plan, Tools};

/// Cgroups of containers: about as many as fill the part of the default budget of series that owners may take.
const OWNERS: u64 = 380;
/// So many that a quarter of their series is refused.
const CROWD: u64 = 500;

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Exports {
    pub(super) costs: Vec<Cost>,
    pub(super) waits: Vec<Wait>,
}

/// All of it.
pub(super) fn measure(tools: &Tools, plan: Plan) -> Result<Exports> {
    let mut exports = Exports::default();
    let owners = Crowds { fitting: Owners::found(OWNERS)?, exceeding: Owners::found(CROWD)? };
    let mut receiver = Receiver::start(&tools.receiver, plan.cpus)?;
    // The SDK is asked for as many series as the agent has told, whose turn comes first in the first round.
    let mut series = 0;
    for round in 0..plan.rounds {
        exports.waits.push(turn::wait(&tools.export_cost, round)?);
        for turn in 0..WAYS.len() {
            // Nobody always comes first.
            let way = WAYS[(turn + round as usize) % WAYS.len()];
            let cost = turn::cost(&tools.export_cost, round, way, &mut receiver, &owners, series);
            let cost = cost.with_context(|| way.name())?;
            if way == Way::Points {
                series = cost.series.unwrap_or(series);
            }
            exports.costs.push(cost);
        }
    }
    Ok(exports)
}

impl Exports {
    pub(super) fn is_empty(&self) -> bool {
        self.costs.is_empty() && self.waits.is_empty()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "costs": self.costs.iter().map(Cost::json).collect::<Vec<_>>(),
            "waits": self.waits.iter().map(Wait::json).collect::<Vec<_>>(),
        })
    }

    /// Something of a way, over the rounds.
    fn costs(&self, way: Way, what: impl Fn(&Cost) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.costs.iter().filter(|cost| cost.way == way).filter_map(what))
    }

    /// Microseconds of CPU for each item of a way.
    fn each(&self, way: Way) -> Option<Spread> {
        self.costs(way, |cost| Some(cost.each(cost.cpu_ns)))
    }

    /// What one way takes as a multiple of another, round by round.
    fn ratio(&self, way: Way, other: Way) -> Option<Spread> {
        Spread::of(self.costs.iter().filter(|cost| cost.way == way).filter_map(|cost| {
            let base = self.costs.iter().find(|base| base.way == other && base.round == cost.round)?;
            Some(cost.each(cost.cpu_ns) / base.each(base.cpu_ns))
        }))
    }

    /// Microseconds of CPU for a lean span, over gRPC and over HTTP.
    pub(super) fn span(&self) -> [Option<Spread>; 2] {
        [self.each(Way::Lean), self.each(Way::LeanHttp)]
    }

    /// What the SDK takes for one as a multiple of that over gRPC.
    pub(super) fn sdk_span(&self) -> Option<Spread> {
        self.ratio(Way::SdkLean, Way::Lean)
    }

    /// Microseconds of CPU for a data point, over gRPC.
    pub(super) fn point(&self) -> Option<Spread> {
        self.each(Way::Points)
    }

    /// Bytes for a connection that waits, by the queue's own account.
    pub(super) fn waiting(&self) -> Option<Spread> {
        Spread::of(self.waits.iter().map(|wait| wait.bytes as f64 / wait.connections as f64))
    }

    /// By how many bytes the process has grown when 100,000 wait.
    pub(super) fn growth(&self) -> Option<Spread> {
        Spread::of(self.waits.iter().map(|wait| wait.growth as f64))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::bench) fn exports() -> Exports {
        let cost = |round, way, cpu_ns| Cost {
            round,
            way,
            items: 1_000,
            cpu_ns,
            handing_over_ns: Some(500_000),
            allocations: Some(60),
            series: None,
        };
        Exports {
            costs: vec![
                cost(0, Way::Lean, 2_000_000),
                cost(0, Way::SdkLean, 10_000_000),
                cost(1, Way::SdkLean, 24_000_000),
                cost(1, Way::Lean, 4_000_000),
                cost(1, Way::Points, 400_000),
            ],
            waits: vec![Wait { round: 0, connections: 100_000, bytes: 12_000_000, growth: 15_728_640 }],
        }
    }

    #[test]
    fn ratios_are_within_a_round() {
        let exports = exports();
        assert_eq!(exports.sdk_span(), Some(Spread { median: 5.5, min: 5.0, max: 6.0 }));
        assert_eq!(exports.span()[0], Some(Spread { median: 3.0, min: 2.0, max: 4.0 }));
        assert_eq!(exports.span()[1], None);
        assert_eq!(exports.point().map(|point| point.median), Some(0.4));
        assert_eq!(exports.waiting().map(|bytes| bytes.median), Some(120.0));
        assert_eq!(Exports::default().growth(), None);
    }

    #[test]
    fn the_stored_form_has_everything() {
        let json = exports().json();
        assert_eq!(json["costs"].as_array().map(Vec::len), Some(5));
        assert_eq!(json["costs"][1]["way"], "SDK, span of 15 attributes and 2 events, gRPC");
        assert_eq!(json["waits"][0]["growth_bytes"], 15_728_640);
        assert!(!exports().is_empty() && Exports::default().is_empty());
    }
}
