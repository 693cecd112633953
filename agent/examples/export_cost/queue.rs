//! What waits while the endpoint is away.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use synfin::config::{Compression, Otlp as Settings, Protocol};

use crate::connections::Kind;
use crate::{PASS, SPANS, own};

/// Nothing listens there.
const AWAY: &str = "http://127.0.0.1:1";

/// Lets [`SPANS`] connections of which all is known wait in a queue as the service has it, and tells what that takes.
pub(crate) fn measure() -> Result<Value> {
    let settings = Settings {
        traces: Some(own::signal(AWAY, Protocol::Grpc, Compression::None)),
        trace_rate_limit: None,
        ..Settings::default()
    };
    let (otlp, _directory) = own::start(&settings, Arc::default())?;
    let kind = Kind::Full;
    // Its memory is there before the first look, and is used again for each pass.
    let mut pass = kind.connections(PASS)?;
    let before = resident()?;
    for number in (0..SPANS).step_by(PASS) {
        for (at, connection) in pass.iter_mut().enumerate() {
            *connection = kind.connection((number + at) as u32);
        }
        otlp.ended(pass.iter().map(|connection| (connection, kind.end())));
    }
    let growth = resident()?.saturating_sub(before);
    let counts = otlp.stats().spans.context("spans are exported")?;
    ensure!(counts.waiting == SPANS as u64, "not all connections wait: {counts:?}");
    Ok(json!({ "connections": counts.waiting, "bytes": counts.bytes, "growth_bytes": growth }))
}

/// Memory of this process, bytes.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
