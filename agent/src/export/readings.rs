//! Where each metric of the catalogue gets its values from: plain functions from one snapshot to points.

pub(in crate::export) mod census;

use std::sync::Arc;

use synfin_common::event::NO_REASON;

use super::attribute::{Attribute, Value, text};
use super::otlp::sampling::SampledOut;
use super::otlp::{self, queue};
use super::series::Usage;
use super::subject::Subject;
use crate::distribution::Histogram;
use crate::event::{Cause, Direction, EventKind, State};
use crate::health::{Cost, roll_up};
use crate::ledger::{Counts, End, Role, Side, seconds};
use crate::peers::Sums;
use crate::status::Status;

/// Takes points: a value with its attributes.
pub type Points<'a, T> = dyn FnMut(T, &[Attribute<'_>]) + 'a;

/// Takes points of a distribution.
pub type Histograms<'a> = dyn FnMut(&Histogram, &[Attribute<'_>]) + 'a;

/// Everything that one export tells, taken at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What the agent knows.
    pub status: Arc<Status>,
    /// Whom it tells of, the host last.
    pub subjects: Arc<[Subject]>,
    /// When that was, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Cgroups whose owner could not be found out, where owners are told apart.
    pub unresolved: Option<u64>,
    /// The queue of spans, when they are exported.
    pub spans: Option<Line>,
    /// Spans that sampling left out.
    pub sampled_out: SampledOut,
    /// The queue of log records, when they are exported.
    pub logs: Option<Line>,
    /// The reader's budget of series, after the last time that it was told.
    pub series: Usage,
    /// What became of data points, when they are exported by OTLP, and `otel.component.type` of the exporter.
    pub points: Option<(otlp::Points, &'static str)>,
}

/// What a reading reads: one subject at one moment. What only the host has is asked of the host alone.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The moment.
    pub snapshot: &'a Snapshot,
    /// The subject.
    pub subject: &'a Subject,
}

impl<'a> View<'a> {
    /// What the agent knows.
    fn status(&self) -> &'a Status {
        &self.snapshot.status
    }
}

/// A queue with its exporter.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Its books.
    pub counts: queue::Counts,
    /// `otel.component.type` of the queue.
    pub processor: &'static str,
    /// `otel.component.type` of the exporter.
    pub exporter: &'static str,
}

const fn pair(key: &'static str, value: &'static str) -> Attribute<'static> {
    text(key, value)
}

pub(in crate::export) fn transitions(view: &View<'_>, point: &mut Points<'_, u64>) {
    for old in State::ALL {
        for new in State::ALL {
            // 121 pairs, of which TCP knows about twenty: one appears when it first happens.
            let count = view.subject.counts.transitions[old.index()][new.index()];
            if count != 0 {
                let previous = pair("network.tcp.state.previous", old.name());
                point(count, &[previous, pair("network.connection.state", new.name())]);
            }
        }
    }
}

pub(in crate::export) fn opened(view: &View<'_>, point: &mut Points<'_, u64>) {
    for role in Role::ALL {
        point(view.subject.counts.opened[role.index()], &[of(role)]);
    }
}

pub(in crate::export) fn successes(view: &View<'_>, point: &mut Points<'_, u64>) {
    for role in Role::ALL {
        point(view.subject.counts.established[role.index()], &[of(role)]);
    }
}

pub(in crate::export) fn failures(view: &View<'_>, point: &mut Points<'_, u64>) {
    for role in Role::ALL {
        for (&error, &count) in &view.subject.counts.failures[role.index()] {
            point(count, &[of(role), pair("error.type", error)]);
        }
    }
}

pub(in crate::export) fn ended(view: &View<'_>, point: &mut Points<'_, u64>) {
    for end in End::ALL {
        point(view.subject.counts.ended[end.index()], &[ended_as(end)]);
    }
}

pub(in crate::export) fn retransmits(view: &View<'_>, point: &mut Points<'_, u64>) {
    let counts = &view.subject.counts;
    let mut tell = |kind, cause: Option<Cause>, count| {
        let mut attributes = vec![pair("network.tcp.segment.type", kind)];
        attributes.extend(cause.map(|cause| pair("network.tcp.retransmit.type", cause.name())));
        point(count, &attributes);
    };
    for cause in Cause::ALL {
        tell("data", Some(cause), counts.retransmits_data[cause.index()]);
    }
    tell("data", None, counts.retransmits_data[Cause::ALL.len()]);
    // Their timers alone send them again.
    tell("syn", Some(Cause::Timeout), counts.retransmits_syn);
    if view.subject.is_host() {
        // Half-open connections are in nobody's cgroup.
        tell("syn_ack", Some(Cause::Timeout), view.status().totals.retransmits_syn_ack);
    }
}

pub(in crate::export) fn resets(view: &View<'_>, point: &mut Points<'_, u64>) {
    let (status, counts) = (view.status(), &view.subject.counts);
    let direction = |direction: Direction| pair("network.io.direction", direction.name());
    let socket = |known| ("synfin.reset.socket", Value::Flag(known));
    point(counts.resets_received, &[direction(Direction::Receive), socket(true)]);
    // Those without a socket are nobody's.
    let without = view.subject.is_host().then_some(&status.totals.resets_without_socket);
    for (known, rows) in [(true, Some(&counts.resets_sent)), (false, without)] {
        for (&reason, &count) in rows.into_iter().flatten() {
            // A number that this kernel's BTF does not name still keeps its own series.
            let number = reason.to_string();
            let name = status.reset_reason(reason).unwrap_or(&number);
            let attributes = [direction(Direction::Transmit), socket(known), text("network.tcp.reset.reason", name)];
            let told = if reason == NO_REASON { &attributes[..2] } else { &attributes };
            point(count, told);
        }
    }
}

pub(in crate::export) fn time_wait(view: &View<'_>, point: &mut Points<'_, u64>) {
    for first in [Some(Side::Local), Some(Side::Peer), None] {
        let count = view.subject.counts.time_wait[Counts::time_wait_index(first)];
        match first {
            Some(side) => point(count, &[pair("network.tcp.close.first", side.name())]),
            None => point(count, &[]),
        }
    }
}

pub(in crate::export) fn events(view: &View<'_>, point: &mut Points<'_, u64>) {
    for kind in EventKind::ALL {
        point(view.status().events[kind.index()], &[pair("synfin.event.kind", kind.name())]);
    }
}

pub(in crate::export) fn losses(view: &View<'_>, point: &mut Points<'_, u64>) {
    for loss in &view.status().losses {
        let mut attributes = vec![pair("synfin.loss.reason", loss.reason.name())];
        attributes.extend(loss.kind.map(|kind| pair("synfin.event.kind", kind.name())));
        point(loss.count, &attributes);
    }
}

pub(in crate::export) fn tracked(view: &View<'_>, point: &mut Points<'_, i64>) {
    for state in State::ALL {
        let count = view.status().tracked[state.index()];
        point(count as i64, &[pair("network.connection.state", state.name())]);
    }
}

pub(in crate::export) fn ledger_limit(view: &View<'_>, point: &mut Points<'_, i64>) {
    point(view.status().ledger_limit as i64, &[]);
}

pub(in crate::export) fn corrections(view: &View<'_>, point: &mut Points<'_, u64>) {
    let totals = &view.status().totals;
    let rows = [
        ("unknown", totals.unknown_connections),
        ("adopted", view.status().drift.adopted),
        ("stale_state", totals.stale_states),
        ("missed_close", totals.missed_closes),
        ("gap", totals.gaps),
        ("folded", totals.folded),
    ];
    for (kind, count) in rows {
        point(count, &[pair("synfin.correction.kind", kind)]);
    }
}

pub(in crate::export) fn ring_usage(view: &View<'_>, point: &mut Points<'_, i64>) {
    point(view.status().ring_fill.0 as i64, &[]);
}

pub(in crate::export) fn ring_size(view: &View<'_>, point: &mut Points<'_, i64>) {
    point(view.status().ring_fill.1 as i64, &[]);
}

pub(in crate::export) fn lag(view: &View<'_>, point: &mut Points<'_, f64>) {
    point(view.status().lag.as_secs_f64(), &[]);
}

fn costs(view: &View<'_>, mut point: impl FnMut(&Cost, &[Attribute<'_>])) {
    for probe in &view.status().probes {
        if let Some(cost) = &probe.cost {
            point(cost, &[pair("synfin.probe", probe.name)]);
        }
    }
}

pub(in crate::export) fn program_time(view: &View<'_>, point: &mut Points<'_, f64>) {
    costs(view, |cost, attributes| point(cost.time.as_secs_f64(), attributes));
}

pub(in crate::export) fn program_runs(view: &View<'_>, point: &mut Points<'_, u64>) {
    costs(view, |cost, attributes| point(cost.runs, attributes));
}

pub(in crate::export) fn program_misses(view: &View<'_>, point: &mut Points<'_, u64>) {
    costs(view, |cost, attributes| point(cost.recursion_misses, attributes));
}

pub(in crate::export) fn probes(view: &View<'_>, point: &mut Points<'_, f64>) {
    for probe in &view.status().probes {
        let mut attributes = vec![pair("synfin.probe", probe.name), pair("synfin.probe.verdict", probe.verdict.name())];
        attributes.extend(probe.verdict.rung().map(|rung| pair("synfin.probe.rung", rung.name())));
        point(1.0, &attributes);
    }
}

pub(in crate::export) fn health(view: &View<'_>, point: &mut Points<'_, f64>) {
    if !view.status().probes.is_empty() {
        point(1.0, &[pair("synfin.health", roll_up(&view.status().probes).name())]);
    }
}

pub(in crate::export) fn clock_jumps(view: &View<'_>, point: &mut Points<'_, u64>) {
    point(view.status().clock_jumps, &[]);
}

pub(in crate::export) fn missing_namespaces(view: &View<'_>, point: &mut Points<'_, i64>) {
    point(view.status().missing_namespaces as i64, &[]);
}

pub(in crate::export) fn sampled_out(view: &View<'_>, point: &mut Points<'_, u64>) {
    if view.snapshot.spans.is_some() {
        let SampledOut { ratio, rate_limit } = view.snapshot.sampled_out;
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

pub(in crate::export) fn span_queue_size(view: &View<'_>, point: &mut Points<'_, i64>) {
    size(view.snapshot.spans, point);
}

pub(in crate::export) fn span_queue_capacity(view: &View<'_>, point: &mut Points<'_, i64>) {
    capacity(view.snapshot.spans, point);
}

pub(in crate::export) fn span_queue_memory(view: &View<'_>, point: &mut Points<'_, i64>) {
    if let Some(line) = view.snapshot.spans {
        point(line.counts.bytes as i64, &[]);
    }
}

pub(in crate::export) fn spans_processed(view: &View<'_>, point: &mut Points<'_, u64>) {
    processed(view.snapshot.spans, point);
}

pub(in crate::export) fn spans_exported(view: &View<'_>, point: &mut Points<'_, u64>) {
    exported(view.snapshot.spans, point);
}

pub(in crate::export) fn spans_in_flight(view: &View<'_>, point: &mut Points<'_, i64>) {
    if let Some(line) = view.snapshot.spans {
        point(line.counts.in_flight as i64, &[component(line.exporter)]);
    }
}

pub(in crate::export) fn log_queue_size(view: &View<'_>, point: &mut Points<'_, i64>) {
    size(view.snapshot.logs, point);
}

pub(in crate::export) fn log_queue_capacity(view: &View<'_>, point: &mut Points<'_, i64>) {
    capacity(view.snapshot.logs, point);
}

pub(in crate::export) fn logs_processed(view: &View<'_>, point: &mut Points<'_, u64>) {
    processed(view.snapshot.logs, point);
}

pub(in crate::export) fn logs_exported(view: &View<'_>, point: &mut Points<'_, u64>) {
    exported(view.snapshot.logs, point);
}

fn peers(view: &View<'_>, mut tell: impl FnMut(Attribute<'_>, &Sums)) {
    for peer in view.status().peers.iter() {
        tell(text("network.peer.group", &peer.name), &peer.sums);
    }
}

pub(in crate::export) fn peer_ended(view: &View<'_>, point: &mut Points<'_, u64>) {
    peers(view, |peer, sums| {
        for end in End::ALL {
            if sums.ended[end.index()] != 0 {
                point(sums.ended[end.index()], &[peer, ended_as(end)]);
            }
        }
    });
}

pub(in crate::export) fn peer_retransmits(view: &View<'_>, point: &mut Points<'_, u64>) {
    peers(view, |peer, sums| point(sums.retransmits, &[peer]));
}

pub(in crate::export) fn peer_io(view: &View<'_>, point: &mut Points<'_, u64>) {
    peers(view, |peer, sums| {
        for direction in [Direction::Transmit, Direction::Receive] {
            point(sums.carried(direction), &[peer, pair("network.io.direction", direction.name())]);
        }
    });
}

pub(in crate::export) fn peer_round_trips(view: &View<'_>, point: &mut Histograms<'_>) {
    peers(view, |peer, sums| {
        if let Some(rtt) = &sums.rtt {
            point(rtt, &[peer]);
        }
    });
}

pub(in crate::export) fn owners_unresolved(view: &View<'_>, point: &mut Points<'_, u64>) {
    if let Some(unresolved) = view.snapshot.unresolved {
        point(unresolved, &[]);
    }
}

pub(in crate::export) fn points_exported(view: &View<'_>, point: &mut Points<'_, u64>) {
    if let Some((points, exporter)) = view.snapshot.points {
        point(points.exported, &[component(exporter)]);
        point(points.rejected, &[component(exporter), pair("error.type", "rejected")]);
        point(points.missed, &[component(exporter), pair("error.type", "unavailable")]);
    }
}

pub(in crate::export) fn series_told(view: &View<'_>, point: &mut Points<'_, i64>) {
    point(view.snapshot.series.told as i64, &[]);
}

pub(in crate::export) fn series_limit(view: &View<'_>, point: &mut Points<'_, i64>) {
    point(view.snapshot.series.budget as i64, &[]);
}

pub(in crate::export) fn series_refused(view: &View<'_>, point: &mut Points<'_, u64>) {
    point(view.snapshot.series.refused, &[]);
}

pub(in crate::export) fn cpu(view: &View<'_>, point: &mut Points<'_, f64>) {
    point(view.status().cpu.as_secs_f64(), &[]);
}

pub(in crate::export) fn drain_cpu(view: &View<'_>, point: &mut Points<'_, f64>) {
    point(view.status().drain_cpu.as_secs_f64(), &[]);
}

pub(in crate::export) fn memory(view: &View<'_>, point: &mut Points<'_, i64>) {
    point(view.status().memory as i64, &[]);
}

pub(in crate::export) fn uptime(view: &View<'_>, point: &mut Points<'_, f64>) {
    point(view.status().uptime.as_secs_f64(), &[]);
}

pub(in crate::export) fn handshakes(view: &View<'_>, point: &mut Histograms<'_>) {
    for (role, histogram) in view.subject.times.handshakes() {
        point(histogram, &[of(role)]);
    }
}

pub(in crate::export) fn connections(view: &View<'_>, point: &mut Histograms<'_>) {
    for (role, end, histogram) in view.subject.times.connections() {
        match role {
            Some(role) => point(histogram, &[of(role), ended_as(end)]),
            None => point(histogram, &[ended_as(end)]),
        }
    }
}

pub(in crate::export) fn states(view: &View<'_>, point: &mut Histograms<'_>) {
    for (state, histogram) in view.subject.times.states() {
        point(histogram, &[pair("network.connection.state", state.name())]);
    }
}

pub(in crate::export) fn round_trips(view: &View<'_>, point: &mut Histograms<'_>) {
    for (role, histogram) in view.subject.times.round_trips() {
        match role {
            Some(role) => point(histogram, &[of(role)]),
            None => point(histogram, &[]),
        }
    }
}

pub(in crate::export) fn close_wait_age(view: &View<'_>, point: &mut Points<'_, f64>) {
    // 0 for none, so that a backend hears that the last one is gone.
    let age_ns = view.subject.close_wait_ns.map_or(0, |since_ns| view.status().time_ns.saturating_sub(since_ns));
    point(seconds(age_ns), &[]);
}

pub(in crate::export) fn io(view: &View<'_>, point: &mut Points<'_, u64>) {
    for direction in [Direction::Transmit, Direction::Receive] {
        point(view.subject.counts.bytes[direction.index()], &[pair("network.io.direction", direction.name())]);
    }
}

fn of(role: Role) -> Attribute<'static> {
    pair("network.tcp.handshake.role", role.name())
}

fn ended_as(end: End) -> Attribute<'static> {
    pair("network.connection.end", end.name())
}

fn component(kind: &'static str) -> Attribute<'static> {
    pair("otel.component.type", kind)
}
