//! Where each metric of the catalogue gets its values from: plain functions from one snapshot to points.

pub(in crate::export) mod census;

use std::sync::Arc;

use opentelemetry::KeyValue;
use synfin_common::event::NO_REASON;

use super::otlp::queue::Counts;
use super::otlp::sampling::SampledOut;
use crate::distribution::Histogram;
use crate::event::{Cause, Direction, EventKind, State};
use crate::health::{Cost, roll_up};
use crate::ledger::{End, Role, Side};
use crate::status::Status;

/// Takes points: a value with its attributes.
pub type Points<'a, T> = dyn FnMut(T, &[KeyValue]) + 'a;

/// Takes points of a distribution.
pub type Histograms<'a> = dyn FnMut(&Histogram, &[KeyValue]) + 'a;

/// Everything that one export tells, taken at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What the agent knows.
    pub status: Arc<Status>,
    /// The queue of spans, when they are exported.
    pub spans: Option<Line>,
    /// Spans that sampling left out.
    pub sampled_out: SampledOut,
    /// The queue of log records, when they are exported.
    pub logs: Option<Line>,
}

/// A queue with its exporter.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Its books.
    pub counts: Counts,
    /// `otel.component.type` of the queue.
    pub processor: &'static str,
    /// `otel.component.type` of the exporter.
    pub exporter: &'static str,
}

fn pair(key: &'static str, value: &'static str) -> KeyValue {
    KeyValue::new(key, value)
}

pub(in crate::export) fn transitions(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    for old in State::ALL {
        for new in State::ALL {
            // 121 pairs, of which TCP knows about twenty: one appears when it first happens.
            let count = snapshot.status.totals.transitions[old.index()][new.index()];
            if count != 0 {
                let previous = pair("network.tcp.state.previous", old.name());
                point(count, &[previous, pair("network.connection.state", new.name())]);
            }
        }
    }
}

pub(in crate::export) fn opened(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    for role in Role::ALL {
        point(snapshot.status.totals.opened[role.index()], &[of(role)]);
    }
}

pub(in crate::export) fn successes(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    for role in Role::ALL {
        point(snapshot.status.totals.established(role), &[of(role)]);
    }
}

pub(in crate::export) fn failures(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    for role in Role::ALL {
        for (&error, &count) in &snapshot.status.totals.failures[role.index()] {
            point(count, &[of(role), pair("error.type", error)]);
        }
    }
}

pub(in crate::export) fn ended(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    for end in End::ALL {
        point(snapshot.status.totals.ended[end.index()], &[ended_as(end)]);
    }
}

pub(in crate::export) fn retransmits(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    let totals = &snapshot.status.totals;
    let mut tell = |kind, cause: Option<Cause>, count| {
        let mut attributes = vec![pair("network.tcp.segment.type", kind)];
        attributes.extend(cause.map(|cause| pair("network.tcp.retransmit.type", cause.name())));
        point(count, &attributes);
    };
    for cause in Cause::ALL {
        tell("data", Some(cause), totals.retransmits_data[cause.index()]);
    }
    tell("data", None, totals.retransmits_data[Cause::ALL.len()]);
    // Their timers alone send them again.
    tell("syn", Some(Cause::Timeout), totals.retransmits_syn);
    tell("syn_ack", Some(Cause::Timeout), totals.retransmits_syn_ack);
}

pub(in crate::export) fn resets(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    let status = &snapshot.status;
    let direction = |direction: Direction| pair("network.io.direction", direction.name());
    let socket = |known: bool| KeyValue::new("synfin.reset.socket", known);
    point(status.totals.resets_received, &[direction(Direction::Receive), socket(true)]);
    for (known, rows) in [(true, &status.totals.resets_sent), (false, &status.totals.resets_without_socket)] {
        for (&reason, &count) in rows {
            let mut attributes = vec![direction(Direction::Transmit), socket(known)];
            if reason != NO_REASON {
                // A number that this kernel's BTF does not name still keeps its own series.
                let name = status.reset_reason(reason).map_or_else(|| reason.to_string(), str::to_owned);
                attributes.push(KeyValue::new("network.tcp.reset.reason", name));
            }
            point(count, &attributes);
        }
    }
}

pub(in crate::export) fn time_wait(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    for first in [Some(Side::Local), Some(Side::Peer), None] {
        let count = snapshot.status.totals.time_wait[crate::ledger::Totals::time_wait_index(first)];
        match first {
            Some(side) => point(count, &[pair("network.tcp.close.first", side.name())]),
            None => point(count, &[]),
        }
    }
}

pub(in crate::export) fn events(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    for kind in EventKind::ALL {
        point(snapshot.status.events[kind.index()], &[pair("synfin.event.kind", kind.name())]);
    }
}

pub(in crate::export) fn losses(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    for loss in &snapshot.status.losses {
        let mut attributes = vec![pair("synfin.loss.reason", loss.reason.name())];
        attributes.extend(loss.kind.map(|kind| pair("synfin.event.kind", kind.name())));
        point(loss.count, &attributes);
    }
}

pub(in crate::export) fn tracked(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    for state in State::ALL {
        let count = snapshot.status.tracked[state.index()];
        point(count as i64, &[pair("network.connection.state", state.name())]);
    }
}

pub(in crate::export) fn ledger_limit(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    point(snapshot.status.ledger_limit as i64, &[]);
}

pub(in crate::export) fn corrections(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    let totals = &snapshot.status.totals;
    let rows = [
        ("unknown", totals.unknown_connections),
        ("adopted", snapshot.status.drift.adopted),
        ("stale_state", totals.stale_states),
        ("missed_close", totals.missed_closes),
        ("gap", totals.gaps),
        ("folded", totals.folded),
    ];
    for (kind, count) in rows {
        point(count, &[pair("synfin.correction.kind", kind)]);
    }
}

pub(in crate::export) fn ring_usage(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    point(snapshot.status.ring_fill.0 as i64, &[]);
}

pub(in crate::export) fn ring_size(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    point(snapshot.status.ring_fill.1 as i64, &[]);
}

pub(in crate::export) fn lag(snapshot: &Snapshot, point: &mut Points<'_, f64>) {
    point(snapshot.status.lag.as_secs_f64(), &[]);
}

fn costs(snapshot: &Snapshot, mut point: impl FnMut(&Cost, &[KeyValue])) {
    for probe in &snapshot.status.probes {
        if let Some(cost) = &probe.cost {
            point(cost, &[pair("synfin.probe", probe.name)]);
        }
    }
}

pub(in crate::export) fn program_time(snapshot: &Snapshot, point: &mut Points<'_, f64>) {
    costs(snapshot, |cost, attributes| point(cost.time.as_secs_f64(), attributes));
}

pub(in crate::export) fn program_runs(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    costs(snapshot, |cost, attributes| point(cost.runs, attributes));
}

pub(in crate::export) fn program_misses(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    costs(snapshot, |cost, attributes| point(cost.recursion_misses, attributes));
}

pub(in crate::export) fn probes(snapshot: &Snapshot, point: &mut Points<'_, f64>) {
    for probe in &snapshot.status.probes {
        let mut attributes = vec![pair("synfin.probe", probe.name), pair("synfin.probe.verdict", probe.verdict.name())];
        attributes.extend(probe.verdict.rung().map(|rung| pair("synfin.probe.rung", rung.name())));
        point(1.0, &attributes);
    }
}

pub(in crate::export) fn health(snapshot: &Snapshot, point: &mut Points<'_, f64>) {
    if !snapshot.status.probes.is_empty() {
        point(1.0, &[pair("synfin.health", roll_up(&snapshot.status.probes).name())]);
    }
}

pub(in crate::export) fn clock_jumps(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    point(snapshot.status.clock_jumps, &[]);
}

pub(in crate::export) fn missing_namespaces(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    point(snapshot.status.missing_namespaces as i64, &[]);
}

pub(in crate::export) fn sampled_out(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    if snapshot.spans.is_some() {
        let SampledOut { ratio, rate_limit } = snapshot.sampled_out;
        point(ratio, &[pair("synfin.sampling.reason", "ratio")]);
        point(rate_limit, &[pair("synfin.sampling.reason", "rate_limit")]);
    }
}

fn size(line: Option<Line>, point: &mut Points<'_, i64>) {
    if let Some(line) = line {
        point(line.counts.waiting as i64, &[component(line.processor)]);
    }
}

fn capacity(line: Option<Line>, point: &mut Points<'_, i64>) {
    if let Some(line) = line {
        point(line.counts.capacity as i64, &[component(line.processor)]);
    }
}

fn processed(line: Option<Line>, point: &mut Points<'_, u64>) {
    if let Some(Line { counts, processor, .. }) = line {
        point(counts.exported + counts.rejected, &[component(processor)]);
        point(counts.queue_full, &[component(processor), pair("error.type", "queue_full")]);
        point(counts.expired, &[component(processor), pair("error.type", "expired")]);
        point(counts.shutdown, &[component(processor), pair("error.type", "shutdown")]);
    }
}

fn exported(line: Option<Line>, point: &mut Points<'_, u64>) {
    if let Some(Line { counts, exporter, .. }) = line {
        point(counts.exported, &[component(exporter)]);
        point(counts.rejected, &[component(exporter), pair("error.type", "rejected")]);
    }
}

pub(in crate::export) fn span_queue_size(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    size(snapshot.spans, point);
}

pub(in crate::export) fn span_queue_capacity(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    capacity(snapshot.spans, point);
}

pub(in crate::export) fn span_queue_memory(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    if let Some(line) = snapshot.spans {
        point(line.counts.bytes as i64, &[]);
    }
}

pub(in crate::export) fn spans_processed(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    processed(snapshot.spans, point);
}

pub(in crate::export) fn spans_exported(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    exported(snapshot.spans, point);
}

pub(in crate::export) fn spans_in_flight(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    if let Some(line) = snapshot.spans {
        point(line.counts.in_flight as i64, &[component(line.exporter)]);
    }
}

pub(in crate::export) fn log_queue_size(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    size(snapshot.logs, point);
}

pub(in crate::export) fn log_queue_capacity(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    capacity(snapshot.logs, point);
}

pub(in crate::export) fn logs_processed(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    processed(snapshot.logs, point);
}

pub(in crate::export) fn logs_exported(snapshot: &Snapshot, point: &mut Points<'_, u64>) {
    exported(snapshot.logs, point);
}

pub(in crate::export) fn cpu(snapshot: &Snapshot, point: &mut Points<'_, f64>) {
    point(snapshot.status.cpu.as_secs_f64(), &[]);
}

pub(in crate::export) fn drain_cpu(snapshot: &Snapshot, point: &mut Points<'_, f64>) {
    point(snapshot.status.drain_cpu.as_secs_f64(), &[]);
}

pub(in crate::export) fn memory(snapshot: &Snapshot, point: &mut Points<'_, i64>) {
    point(snapshot.status.memory as i64, &[]);
}

pub(in crate::export) fn uptime(snapshot: &Snapshot, point: &mut Points<'_, f64>) {
    point(snapshot.status.uptime.as_secs_f64(), &[]);
}

pub(in crate::export) fn handshakes(snapshot: &Snapshot, point: &mut Histograms<'_>) {
    for (role, histogram) in snapshot.status.distributions.iter().flat_map(|all| all.handshakes()) {
        point(histogram, &[of(role)]);
    }
}

pub(in crate::export) fn connections(snapshot: &Snapshot, point: &mut Histograms<'_>) {
    for (role, end, histogram) in snapshot.status.distributions.iter().flat_map(|all| all.connections()) {
        match role {
            Some(role) => point(histogram, &[of(role), ended_as(end)]),
            None => point(histogram, &[ended_as(end)]),
        }
    }
}

pub(in crate::export) fn of(role: Role) -> KeyValue {
    pair("network.tcp.handshake.role", role.name())
}

pub(in crate::export) fn ended_as(end: End) -> KeyValue {
    pair("network.connection.end", end.name())
}

fn component(kind: &'static str) -> KeyValue {
    pair("otel.component.type", kind)
}
