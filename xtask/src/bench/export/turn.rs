//! One run of `export_cost`, and what it said.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::owners::Crowds;
use crate::bench::receiver::Receiver;
use crate::cmd;

/// What is exported, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Lean,
    LeanHttp,
    SdkLean,
    Full,
    FullHttp,
    Points,
    PointsHttp,
    PointsCrowded,
    SdkPoints,
}

/// In the order in which tables have them.
pub(super) const WAYS: [Way; 9] = [
    Way::Lean,
    Way::LeanHttp,
    Way::SdkLean,
    Way::Full,
    Way::FullHttp,
    Way::Points,
    Way::PointsHttp,
    Way::PointsCrowded,
    Way::SdkPoints,
];

impl Way {
    /// In tables and raw data.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lean => "span of 15 attributes and 2 events, gRPC",
            Self::LeanHttp => "span of 15 attributes and 2 events, HTTP/protobuf",
            Self::SdkLean => "SDK, span of 15 attributes and 2 events, gRPC",
            Self::Full => "span of 33 attributes and 5 events, gRPC",
            Self::FullHttp => "span of 33 attributes and 5 events, HTTP/protobuf",
            Self::Points => "data point, gRPC",
            Self::PointsHttp => "data point, HTTP/protobuf",
            Self::PointsCrowded => "data point where a quarter of all series is refused, gRPC",
            Self::SdkPoints => "SDK, data point, gRPC",
        }
    }

    /// The way of the SDK that tells the same.
    pub(super) const fn sdk(self) -> Option<Self> {
        match self {
            Self::Lean | Self::LeanHttp | Self::SdkLean => Some(Self::SdkLean),
            Self::Points | Self::PointsHttp | Self::SdkPoints => Some(Self::SdkPoints),
            Self::Full | Self::FullHttp | Self::PointsCrowded => None,
        }
    }

    /// Whether it makes spans, which the receiver counts.
    const fn is_spans(self) -> bool {
        !matches!(self, Self::Points | Self::PointsHttp | Self::PointsCrowded | Self::SdkPoints)
    }

    fn words(self, endpoint: &str, [fitting, exceeding]: [&str; 2], series: u64) -> Vec<String> {
        let traces = format!("{endpoint}/v1/traces");
        let metrics = format!("{endpoint}/v1/metrics");
        let words: &[&str] = match self {
            Self::Lean => &["spans", endpoint, "grpc", "none", "lean"],
            Self::LeanHttp => &["spans", &traces, "http/protobuf", "none", "lean"],
            Self::SdkLean => &["sdk-spans", endpoint],
            Self::Full => &["spans", endpoint, "grpc", "none", "full"],
            Self::FullHttp => &["spans", &traces, "http/protobuf", "none", "full"],
            Self::Points => &["points", endpoint, "grpc", fitting],
            Self::PointsHttp => &["points", &metrics, "http/protobuf", fitting],
            Self::PointsCrowded => &["points", endpoint, "grpc", exceeding],
            Self::SdkPoints => &["sdk-points", endpoint, &series.to_string()],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

/// What exporting took.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::bench) struct Cost {
    pub(super) round: u32,
    pub(super) way: Way,
    /// Spans or data points.
    pub(super) items: u64,
    /// CPU of the whole process for all of them.
    pub(super) cpu_ns: u64,
    /// Of it, where they are handed over.
    pub(super) handing_over_ns: Option<u64>,
    pub(super) allocations: Option<u64>,
    /// Of data points: so many in each collection.
    pub(super) series: Option<u64>,
}

impl Cost {
    /// Microseconds for each.
    pub(super) fn each(&self, ns: u64) -> f64 {
        ns as f64 / 1e3 / self.items.max(1) as f64
    }

    pub(super) fn json(&self) -> Value {
        let Self { round, way, items, cpu_ns, handing_over_ns, allocations, series } = self;
        json!({ "round": round, "way": way.name(), "items": items, "cpu_ns": cpu_ns,
                "handing_over_ns": handing_over_ns, "allocations": allocations, "series": series })
    }
}

/// What waiting took.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::bench) struct Wait {
    pub(super) round: u32,
    pub(super) connections: u64,
    /// By the queue's own account.
    pub(super) bytes: u64,
    /// Of the memory of the process.
    pub(super) growth: u64,
}

impl Wait {
    pub(super) fn json(&self) -> Value {
        let Self { round, connections, bytes, growth } = self;
        json!({ "round": round, "connections": connections, "bytes": bytes, "growth_bytes": growth })
    }
}

/// Exports once. Of spans, all must have arrived.
pub(super) fn cost(
    program: &Path,
    round: u32,
    way: Way,
    receiver: &mut Receiver,
    owners: &Crowds,
    series: u64,
) -> Result<Cost> {
    let before = receiver.spans()?;
    let said = said(program, &way.words(receiver.endpoint(), owners.folders(), series))?;
    let number = |key: &str| said[key].as_u64();
    let items = number(if way.is_spans() { "spans" } else { "points" }).context("it says nothing of items")?;
    if way.is_spans() {
        let received = receiver.spans()? - before;
        ensure!(received == items, "{received} of {items} spans have arrived");
    }
    let cost = Cost {
        round,
        way,
        items,
        cpu_ns: number("cpu_ns").context("it says nothing of CPU")?,
        handing_over_ns: number("handing_over_ns"),
        allocations: number("allocations"),
        series: number("series"),
    };
    cmd::say("bench", format!("round {}: {}: {:.2} µs", round + 1, way.name(), cost.each(cost.cpu_ns)));
    Ok(cost)
}

/// Lets connections wait once.
pub(super) fn wait(program: &Path, round: u32) -> Result<Wait> {
    let said = said(program, &["queue".to_owned()])?;
    let number = |key: &str| said[key].as_u64().with_context(|| format!("it says nothing of {key}"));
    let wait =
        Wait { round, connections: number("connections")?, bytes: number("bytes")?, growth: number("growth_bytes")? };
    cmd::say("bench", format!("round {}: {} connections wait in {} bytes", round + 1, wait.connections, wait.bytes));
    Ok(wait)
}

fn said(program: &Path, words: &[String]) -> Result<Value> {
    let text = cmd::capture(cmd::command(program).args(words))?;
    serde_json::from_str(&text).with_context(|| format!("{} says {text:?}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_its_words_and_its_name() {
        let words = |way: Way| way.words("http://[::1]:9", ["/few", "/many"], 7).join(" ");
        assert_eq!(words(Way::LeanHttp), "spans http://[::1]:9/v1/traces http/protobuf none lean");
        assert_eq!(words(Way::Points), "points http://[::1]:9 grpc /few");
        assert_eq!(words(Way::SdkPoints), "sdk-points http://[::1]:9 7");
        for way in WAYS {
            assert!(
                WAYS.iter().filter(|other| other.name() == way.name() || words(**other) == words(way)).count() == 1
            );
            assert!(way.sdk().is_none_or(|sdk| sdk.is_spans() == way.is_spans()));
        }
    }
}
