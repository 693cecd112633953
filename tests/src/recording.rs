//! What `synfin watch --json` printed, held to docs/EVENTS.md.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    kernel,
    netns::Netns,
    state::{ByNamespace, Counts, State},
};

/// The contract itself: each key must be written in it.
const CONTRACT: &str = include_str!("../../docs/EVENTS.md");

/// The reason of a loss that the kernel decides on, see [`Recording::lost`].
const RECURSION: &str = "recursion";

/// The lines of one complete run.
#[derive(Debug)]
pub struct Recording {
    lines: Vec<Value>,
}

impl Recording {
    /// Reads lines and judges each by the contract; the first is `start`, the last `end`.
    pub fn parse(lines: &[String]) -> Result<Self> {
        let known = documented_keys();
        let mut values: Vec<Value> = Vec::with_capacity(lines.len());
        for line in lines {
            let value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))?;
            let cookies = makes_cookies(values.first().unwrap_or(&value))?;
            judge(&value, &known, cookies).with_context(|| format!("line breaks docs/EVENTS.md: {line}"))?;
            values.push(value);
        }
        let kind = |value: Option<&Value>| value.and_then(|value| value["type"].as_str()).map(str::to_owned);
        ensure!(
            kind(values.first()).as_deref() == Some("start"),
            "the first line is {:?}, not `start`",
            values.first()
        );
        ensure!(kind(values.last()).as_deref() == Some("end"), "the last line is {:?}, not `end`", values.last());
        Ok(Self { lines: values })
    }

    /// Judges one line by the contract.
    pub fn judge(line: &str) -> Result<()> {
        let value = serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))?;
        judge(&value, &documented_keys(), true).with_context(|| format!("line breaks docs/EVENTS.md: {line}"))
    }

    /// Whether every socket has a cookie here.
    pub fn has_cookies(&self) -> Result<bool> {
        self.lines.first().map_or(Ok(false), makes_cookies)
    }

    /// Lines of a type.
    pub fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter(move |line| line["type"] == kind)
    }

    /// Lines of a type about a namespace.
    pub fn about<'a>(&'a self, kind: &'a str, netns: &Netns) -> impl Iterator<Item = &'a Value> + use<'a> {
        let inode = netns.inode();
        self.of_type(kind).filter(move |line| line["linux.netns.inode"] == inode)
    }

    /// Transitions by namespace.
    pub fn transitions(&self) -> Result<ByNamespace> {
        let mut all = ByNamespace::new();
        for line in self.of_type("transition") {
            let netns = line["linux.netns.inode"].as_u64().context("linux.netns.inode")?;
            let (old, new) = step(line)?;
            all.entry(netns).or_default().add(old, new, 1);
        }
        Ok(all)
    }

    /// Transitions of one namespace.
    pub fn counts(&self, netns: &Netns) -> Result<Counts> {
        Ok(self.transitions()?.remove(&netns.inode()).unwrap_or_default())
    }

    /// Transitions that mean a failed attempt as the kernel counts it: with an error, not by close().
    pub fn attempt_fails(&self, netns: &Netns) -> Result<u64> {
        let mut fails = 0;
        for line in self.about("transition", netns) {
            let step = step(line)?;
            let failed = matches!(step, (State::SynSent | State::SynReceived, State::Closed));
            fails += u64::from(failed && line.get("linux.errno").is_some());
        }
        Ok(fails)
    }

    /// Segments sent again.
    pub fn segments(&self, netns: &Netns) -> u64 {
        self.about("retransmit", netns).filter_map(|line| line["network.tcp.segments"].as_u64()).sum()
    }

    /// Those of them that were sent again for this cause.
    pub fn segments_sent_again(&self, netns: &Netns, cause: &str) -> u64 {
        self.about("retransmit", netns)
            .filter(|line| line["network.tcp.retransmit.type"] == cause)
            .filter_map(|line| line["network.tcp.segments"].as_u64())
            .sum()
    }

    /// RSTs in a direction: `transmit` or `receive`.
    pub fn resets(&self, netns: &Netns, direction: &str) -> u64 {
        self.about("reset", netns)
            .filter(|line| line["network.io.direction"] == direction)
            .filter_map(|line| line["network.tcp.resets"].as_u64())
            .sum()
    }

    /// What the end line says was lost, by reason, without zeroes.
    ///
    /// And without `recursion`: that is the kernel skipping a program for an event of any namespace, also of those that
    /// the filter would have left out. Where it concerns a test, the test's own counts do not match.
    pub fn lost(&self) -> Result<BTreeMap<String, u64>> {
        let mut lost = self.totals("synfin.lost")?;
        lost.remove(RECURSION);
        Ok(lost)
    }

    /// How many events, in whichever namespace, the kernel skipped because the program was running on that CPU.
    pub fn skipped(&self) -> Result<u64> {
        Ok(self.totals("synfin.lost")?.remove(RECURSION).unwrap_or_default())
    }

    /// What the end line says was seen, by kind.
    pub fn events(&self) -> Result<BTreeMap<String, u64>> {
        self.totals("synfin.events")
    }

    fn totals(&self, key: &str) -> Result<BTreeMap<String, u64>> {
        let end = self.of_type("end").last().context("an end line")?;
        let totals = end[key].as_object().with_context(|| format!("`end` has no object {key}: {end}"))?;
        let count = |(name, count): (&String, &Value)| Some((name.clone(), count.as_u64()?));
        Ok(totals.iter().filter_map(count).filter(|(_, count)| *count > 0).collect())
    }
}

/// The states that a transition line is about.
pub fn step(line: &Value) -> Result<(State, State)> {
    let state = |key: &str| State::from_name(line[key].as_str().with_context(|| key.to_owned())?);
    Ok((state("network.tcp.state.previous")?, state("network.connection.state")?))
}

/// Every word in backquotes of the contract.
fn documented_keys() -> BTreeSet<&'static str> {
    CONTRACT.split('`').skip(1).step_by(2).collect()
}

/// Whether every socket has a cookie, by the rung that the `start` line names.
fn makes_cookies(start: &Value) -> Result<bool> {
    Ok(start["synfin.rungs"]["state"] == "tp_btf" && kernel::makes_cookies()?)
}

fn judge(line: &Value, known: &BTreeSet<&str>, cookies: bool) -> Result<()> {
    let object = line.as_object().context("not an object")?;
    for (key, value) in object {
        ensure!(known.contains(key.as_str()), "{key} is not documented");
        ensure!(!value.is_null(), "{key} is null");
        ensure!(value != "", "{key} is empty");
    }
    let kind = line["type"].as_str().context("type is no string")?;
    ensure!(line["version"] == 1, "version is {}", line["version"]);
    let time = line["time"].as_str().context("time is no string")?;
    ensure!(rfc3339_utc_nanoseconds(time), "time is {time}, not RFC 3339 in UTC with nanoseconds");
    ensure!(line["linux.time.monotonic"].is_u64(), "linux.time.monotonic is missing");
    let required: &[&str] = match kind {
        "start" => &["synfin.version", "linux.kernel.release", "synfin.probes", "synfin.rungs"],
        "end" => &["synfin.events", "synfin.lost"],
        "transition" => &["network.tcp.state.previous", "network.connection.state", "linux.socket.cookie"],
        "retransmit" => &["network.tcp.segment.type", "network.tcp.segments"],
        "reset" => &["network.io.direction", "network.tcp.resets"],
        "connection" => &["network.connection.end"],
        "loss" => &["synfin.loss.reason", "synfin.loss.count"],
        _ => bail!("type {kind} is not documented"),
    };
    for key in required {
        // The contract allows a child to have no cookie before its first ACK is processed, and any socket where no
        // program can make one.
        let young = line["network.tcp.state.previous"] == "listen";
        let excused = *key == "linux.socket.cookie" && (young || !cookies);
        ensure!(excused || object.contains_key(*key), "{key} is missing");
    }
    if matches!(kind, "transition" | "retransmit" | "reset" | "connection") {
        ensure!(line["network.transport"] == "tcp", "network.transport is {}", line["network.transport"]);
        ensure!(line["linux.netns.inode"].is_u64(), "linux.netns.inode is missing");
    }
    for port in ["network.local.port", "network.peer.port"] {
        ensure!(line.get(port).is_none_or(|port| port.as_u64().is_some_and(|port| (1..65_536).contains(&port))), port);
    }
    Ok(())
}

/// `2026-11-22T17:30:40.123456789Z`
fn rfc3339_utc_nanoseconds(text: &str) -> bool {
    let pattern = b"dddd-dd-ddTdd:dd:dd.dddddddddZ";
    text.len() == pattern.len()
        && text
            .bytes()
            .zip(pattern)
            .all(|(byte, want)| if *want == b'd' { byte.is_ascii_digit() } else { byte == *want })
}
