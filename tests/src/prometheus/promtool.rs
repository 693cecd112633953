//! Prometheus' own readers.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::Scrape;
use crate::need;

/// What `promtool check metrics` exits with when it could read everything and would name something otherwise.
const LINTED: i32 = 3;

/// A time for each sample, which that tool wants and an endpoint does not give: seconds since the Unix epoch.
const TIME: u64 = 1_800_000_000;

/// `promtool check metrics` on an answer in the older format: what it would have otherwise, a line each.
pub fn check(scrape: &Scrape) -> Result<Vec<String>> {
    need::tool("promtool", "prometheus")?;
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting promtool")?;
    child.stdin.take().context("stdin was piped")?.write_all(scrape.text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(matches!(output.status.code(), Some(0 | LINTED)), "promtool: {}: {said}", output.status);
    Ok(said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Lets Prometheus' reader of OpenMetrics make a database of an answer, and answers how many series are in it.
pub fn store(scrape: &Scrape) -> Result<u64> {
    need::tool("promtool", "prometheus")?;
    let scratch = TempDir::new()?;
    let (file, data) = (scratch.path().join("metrics"), scratch.path().join("data"));
    let mut text = String::new();
    for line in scrape.text.lines() {
        let timed = match line.split_once(" # ") {
            _ if line.starts_with('#') => line.to_owned(),
            Some((sample, exemplar)) => format!("{sample} {TIME} # {exemplar}"),
            None => format!("{line} {TIME}"),
        };
        text.push_str(&timed);
        text.push('\n');
    }
    fs::write(&file, text)?;
    need::run(Command::new("promtool").args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&file).arg(&data))?;
    let listed = need::run(Command::new("promtool").args(["tsdb", "list"]).arg(&data))?;
    // Columns: block, from, to, duration, samples, chunks, series, size.
    let blocks = listed.lines().skip(1);
    blocks.map(|line| Ok(line.split_whitespace().nth(6).context("series of a block")?.parse::<u64>()?)).sum()
}
