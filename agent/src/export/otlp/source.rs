//! Where snapshots come from: what the agent knows, with the queues that export it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

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

/// In place of the time up to which a reader has been told: there is no reader.
const NOBODY: u64 = u64::MAX;

/// Takes snapshots. Cheap to copy, and never in the way of the threads that it reads from. All copies tell the same subjects.
#[derive(Clone)]
pub struct Source {
    board: Arc<Board>,
    clock: Arc<Clock>,
    /// None where everything is the host's.
    owners: Option<Owners>,
    /// By [`Reader`]: up to when each has been told, [`NOBODY`] for those who do not read.
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
        let told = Arc::new([const { AtomicU64::new(NOBODY) }; 2]);
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

    /// Whether OTLP reads. What it has not been told is kept for it from the beginning; for whoever scrapes, from the first time on:
    /// where nobody comes, nothing waits.
    #[must_use]
    pub fn with_reader(self, otlp: bool) -> Self {
        let told = [if otlp { 0 } else { NOBODY }, NOBODY];
        Self { told: Arc::new(told.map(AtomicU64::new)), ..self }
    }

    /// Up to when everybody who reads has been told, `CLOCK_MONOTONIC` nanoseconds.
    pub fn told(&self) -> impl Fn() -> u64 + Send + use<> {
        let told = Arc::clone(&self.told);
        move || told.iter().map(|told| told.load(Ordering::Relaxed)).min().unwrap_or(NOBODY)
    }

    /// This reader has been told this.
    pub fn mark_told(&self, reader: Reader, snapshot: &Snapshot) {
        let (told, time_ns) = (&self.told[reader as usize], snapshot.status.time_ns);
        if told.compare_exchange(NOBODY, time_ns, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            told.fetch_max(time_ns, Ordering::Relaxed);
        }
    }

    /// Everything at one moment, the last one: what is not looked up yet is looked up now, which may take a moment.
    pub(super) fn take_last(&self) -> Snapshot {
        // All that there is has been heard of.
        let heard = Instant::now();
        self.take_with(|owners, cgroup| owners.directory.resolve(cgroup, heard).map_or(Known::Host, Known::Of))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    fn at(time_ns: u64) -> Snapshot {
        Snapshot { status: Arc::new(Status { time_ns, ..Status::default() }), ..Snapshot::default() }
    }

    #[test]
    fn a_reader_is_waited_for_from_when_it_reads() {
        let source = |otlp| Source::new(Arc::default(), Arc::default(), None).with_reader(otlp);
        let (alone, told) = (source(true), source(true).told());
        assert_eq!((alone.told()(), told()), (0, 0), "OTLP's endpoint has been told nothing yet");
        alone.mark_told(Reader::Otlp, &at(10));
        assert_eq!(alone.told()(), 10, "nobody has ever scraped");
        alone.mark_told(Reader::Prometheus, &at(7));
        assert_eq!(alone.told()(), 7);
        alone.mark_told(Reader::Prometheus, &at(30));
        alone.mark_told(Reader::Prometheus, &at(20));
        assert_eq!(alone.told()(), 10, "scrapes may overtake each other");

        let scraped = source(false);
        assert_eq!(scraped.told()(), NOBODY);
        scraped.mark_told(Reader::Prometheus, &at(5));
        assert_eq!(scraped.told()(), 5);
    }
}
