//! How long the service takes from its start until it knows the sockets that are older than it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bench::Tools;
use crate::bench::spread::short;
use crate::bench::subject::{Running, Subject, tied};
use crate::cmd;

/// One start.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::bench) struct Start {
    pub(super) round: u32,
    /// From the start of the process until its programs are attached.
    pub(super) attached: Duration,
    /// Until the older sockets are known.
    pub(super) known: Duration,
    /// What the service says of the listing in between, in whole milliseconds.
    pub(super) listing: Duration,
    /// Sockets that it found.
    pub(super) sockets: u64,
    /// Namespaces that it listed.
    pub(super) namespaces: u64,
}

impl Start {
    pub(super) fn json(&self) -> Value {
        let Self { round, attached, known, listing, sockets, namespaces } = self;
        json!({ "round": round, "attached_seconds": attached.as_secs_f64(), "known_seconds": known.as_secs_f64(),
                "listing_seconds": listing.as_secs_f64(), "sockets": sockets, "namespaces": namespaces })
    }
}

/// One round, beside at least so many sockets.
pub(super) fn measure(tools: &Tools, round: u32, sockets: u64) -> Result<Start> {
    let (running, start) = serve(tools, round, &[], sockets)?;
    running.finish()?;
    let known = short(super::ms(start.known));
    cmd::say("bench", format!("round {}: {} sockets known after {known} ms", round + 1, short(start.sockets as f64)));
    Ok(start)
}

/// Starts the service with its defaults, for all namespaces or only these, and waits until it knows what was there before.
pub(super) fn serve(tools: &Tools, round: u32, netns: &[String], sockets: u64) -> Result<(Running, Start)> {
    let mut command = tied(&tools.synfin);
    command.args(["run", "--no-summary", "--log-format", "json"]);
    command.args(netns.iter().flat_map(|netns| ["--netns", netns.as_str()]));
    let began = Instant::now();
    let running = Running::spawn(Subject::Synfin, command)?;
    running.wait_for("\"attached\"").context("synfin does not attach")?;
    let attached = began.elapsed();
    let line = running.wait_for("sockets older than the agent are known").context("synfin does not adopt")?;
    let known = began.elapsed();
    let (listing, found, namespaces) = read(&line).with_context(|| format!("synfin says {line:?}"))?;
    ensure!(found >= sockets, "synfin found {found} of {sockets} sockets at its start");
    Ok((running, Start { round, attached, known, listing, sockets: found, namespaces }))
}

/// Duration of the listing, sockets and namespaces out of a line of the log.
fn read(line: &str) -> Option<(Duration, u64, u64)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let number = |key: &str| line[key].as_u64();
    Some((Duration::from_millis(number("milliseconds")?), number("sockets")?, number("namespaces")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read() {
        let line =
            r#"{"message":"sockets older than the agent are known","sockets":7,"namespaces":2,"milliseconds":31}"#;
        assert_eq!(read(line), Some((Duration::from_millis(31), 7, 2)));
        assert_eq!(read(r#"{"sockets":7}"#), None);
    }
}
