//! The agent's way of spans.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::time::ClockId;
use serde_json::{Value, json};
use synfin::config::{Compression, Otlp as Settings, Protocol};

use crate::connections::Kind;
use crate::{SPANS, counting, cpu_ns, own, paced};

/// Exports [`SPANS`] connections.
pub(crate) fn measure(endpoint: &str, protocol: Protocol, compression: Compression, kind: Kind) -> Result<Value> {
    let settings = Settings {
        traces: Some(own::signal(endpoint, protocol, compression)),
        trace_rate_limit: None,
        shutdown_timeout: Duration::from_mins(1),
        ..Settings::default()
    };
    // What the cgroup of the connections is here makes no difference that can be measured.
    let (otlp, _directory) = own::start(&settings, Arc::default())?;
    let (connections, end) = (kind.connections(SPANS)?, kind.end());
    counting::begin();
    let before = cpu_ns(ClockId::ProcessCPUTime);
    let mut handing_over = 0;
    paced(&connections, |pass| {
        let before = cpu_ns(ClockId::ThreadCPUTime);
        otlp.ended(pass.iter().map(|connection| (connection, end)));
        handing_over += cpu_ns(ClockId::ThreadCPUTime) - before;
    });
    let report = otlp.shutdown();
    let cpu = cpu_ns(ClockId::ProcessCPUTime) - before;
    let allocations = counting::allocations();
    let counts = report.spans.context("spans are exported")?;
    ensure!(counts.exported == SPANS as u64, "not all spans arrived: {counts:?}");
    Ok(json!({ "spans": SPANS, "cpu_ns": cpu, "handing_over_ns": handing_over, "allocations": allocations }))
}
