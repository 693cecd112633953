//! Where snapshots come from: what the agent knows, with the queues that export it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::logs::Logs;
use super::metrics;
use super::traces::Traces;
use crate::clock::Clock;
use crate::export::readings::{Line, Snapshot};
use crate::export::resource::Owners;
use crate::export::series::Usage;
use crate::export::subject::Subjects;
use crate::owner::directory::Known;
use crate::status::Board;

/// Who is told metrics.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    /// The endpoint of OTLP.
    Otlp,
    /// Whoever scrapes.
    Prometheus,
}

/// Reads what became of data points.
type Books = Arc<dyn Fn() -> metrics::Points + Send + Sync>;

/// Takes snapshots. Cheap to copy, and never in the way of the threads that it reads from. All copies tell the same subjects.
#[derive(Clone)]
pub struct Source {
    board: Arc<Board>,
    clock: Arc<Clock>,
    /// None where everything is the host's.
    owners: Option<Owners>,
    /// By [`Reader`]: up to when each has been told, [`u64::MAX`] for those who do not read.
    told: Arc<[AtomicU64; 2]>,
    /// None before the first snapshot.
    subjects: Arc<Mutex<Option<Subjects>>>,
    /// With the name of the exporter in self-metrics.
    spans: Option<(Arc<Traces>, &'static str)>,
    logs: Option<(Logs, &'static str)>,
    points: Option<(Books, &'static str)>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("spans", &self.spans).field("logs", &self.logs).finish_non_exhaustive()
    }
}

impl Source {
    /// Of an agent that exports nothing by OTLP, whose connections belong to `owners`.
    pub fn new(board: Arc<Board>, clock: Arc<Clock>, owners: Option<Owners>) -> Self {
        let told = Arc::new([const { AtomicU64::new(u64::MAX) }; 2]);
        Self { board, clock, owners, told, subjects: Arc::default(), spans: None, logs: None, points: None }
    }

    /// With these queues, and the names of their exporters.
    pub(super) fn with_queues(
        self,
        spans: Option<(Arc<Traces>, &'static str)>,
        logs: Option<(Logs, &'static str)>,
    ) -> Self {
        Self { spans, logs, ..self }
    }

    /// With the books of exported data points, and the name of their exporter.
    pub(super) fn with_points(
        self,
        points: impl Fn() -> metrics::Points + Send + Sync + 'static,
        exporter: &'static str,
    ) -> Self {
        Self { points: Some((Arc::new(points), exporter)), ..self }
    }

    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    pub(super) fn owners(&self) -> Option<Owners> {
        self.owners.clone()
    }

    pub(super) fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    /// Who reads: `prometheus` if that is asked for. What a reader has not been told is kept for it.
    #[must_use]
    pub fn with_readers(self, otlp: bool, prometheus: bool) -> Self {
        let told = [(Reader::Otlp, otlp), (Reader::Prometheus, prometheus)];
        let waiting = |(_, reads): (Reader, bool)| AtomicU64::new(if reads { 0 } else { u64::MAX });
        Self { told: Arc::new(told.map(waiting)), ..self }
    }

    /// Up to when everybody who reads has been told, `CLOCK_MONOTONIC` nanoseconds.
    pub fn told(&self) -> impl Fn() -> u64 + Send + use<> {
        let told = Arc::clone(&self.told);
        move || told.iter().map(|told| told.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX)
    }

    /// This reader has been told this.
    pub fn mark_told(&self, reader: Reader, snapshot: &Snapshot) {
        self.told[reader as usize].fetch_max(snapshot.status.time_ns, Ordering::Relaxed);
    }

    /// Everything at one moment, the last one: what is not looked up yet is looked up now, which may take a moment.
    pub(super) fn take_last(&self) -> Snapshot {
        self.take_with(|owners, cgroup| owners.directory.resolve(cgroup).map_or(Known::Host, Known::Of))
    }

    /// Everything at one moment.
    pub fn take(&self) -> Snapshot {
        self.take_with(|owners, cgroup| owners.directory.identity(cgroup))
    }

    fn take_with(&self, known: impl Fn(&Owners, u64) -> Known) -> Snapshot {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        // Below the lock, so that no snapshot is older than the one before it.
        let status = self.board.latest();
        let offset = self.clock.offset();
        let began_ns = status.time_ns.saturating_sub(status.uptime.as_nanos() as u64);
        let subjects = subjects.get_or_insert_with(|| Subjects::new(offset.unix_ns(began_ns), self.owners.is_some()));
        let known = |cgroup| self.owners.as_ref().map_or(Known::Host, |owners| known(owners, cgroup));
        let (unix_ns, subjects) = subjects.collect(&status, offset.unix_ns(status.time_ns), &known);
        Snapshot {
            status,
            subjects,
            unix_ns,
            series: Usage::default(), // the reader's own
            unresolved: self.owners.as_ref().map(|owners| owners.directory.unresolved()),
            spans: self.spans.as_ref().map(|(traces, exporter)| Line {
                counts: traces.counts(),
                processor: "batching_span_processor",
                exporter,
            }),
            sampled_out: self.spans.as_ref().map_or_else(Default::default, |(traces, _)| traces.sampled_out()),
            logs: self.logs.as_ref().map(|(logs, exporter)| Line {
                counts: logs.counts(),
                processor: "batching_log_processor",
                exporter,
            }),
            points: self.points.as_ref().map(|(points, exporter)| (points(), *exporter)),
        }
    }
}
