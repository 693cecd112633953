//! Metrics: the catalogue, read at intervals, written and sent by a thread of its own.
//!
//! Nothing waits here for longer than until the next export: totals come again with it, and differences are told until they have arrived.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::link::Link;
use super::pause::LONGEST_ASKED;
use super::source::{Reader, Source};
use super::transport::Transport;
use super::worker::{Accepted, Failure};
use crate::config::Temporality;
use crate::export::readings::Snapshot;
use crate::export::series::Series;
use crate::priority;

mod deliver;
mod encode;
mod names;

use deliver::{Until, deliver};
use encode::{Desk, Encoder};
pub(super) use names::Names;

/// What became of data points. Totals.
#[derive(Debug, Default)]
struct Books {
    exported: AtomicU64,
    /// Refused by the endpoint for good.
    rejected: AtomicU64,
    /// In exports that did not arrive; the next one had the same totals.
    missed: AtomicU64,
}

/// What became of data points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Data points that the endpoint took, a total.
    pub exported: u64,
    /// Data points that it refused, a total.
    pub rejected: u64,
    /// Data points of exports that did not arrive, a total: their totals were told again.
    pub missed: u64,
}

impl Books {
    /// Counts the points of a request by what was answered, and tells the link.
    fn enter(&self, answer: &Result<Accepted, Failure>, points: u64, link: &Link) {
        let add = |count: &AtomicU64, points| {
            count.fetch_add(points, Ordering::Relaxed);
        };
        match answer {
            Ok(Accepted { rejected, message }) => {
                let rejected = (*rejected).min(points);
                link.answered(rejected.try_into().unwrap_or(usize::MAX), message);
                add(&self.rejected, rejected);
                add(&self.exported, points - rejected);
            }
            // What went wrong was told after each attempt.
            Err(Failure::Retry { .. }) => add(&self.missed, points),
            Err(Failure::Rejected(why)) => {
                link.refused(why);
                add(&self.rejected, points);
            }
        }
    }

    fn read(&self) -> Points {
        Points {
            exported: self.exported.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            missed: self.missed.load(Ordering::Relaxed),
        }
    }
}

/// When to stop.
#[derive(Debug, Default)]
struct Stop {
    /// The last export must be done by then.
    end: Option<Instant>,
    /// Whether it is, and if it did not arrive, why.
    done: Option<Result<(), String>>,
}

/// What the thread and its owner share.
#[derive(Debug, Default)]
struct Shared {
    books: Books,
    stop: Mutex<Stop>,
    changed: Condvar,
}

impl Shared {
    fn stop(&self) -> std::sync::MutexGuard<'_, Stop> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until `due`, or until it is time to stop: then by when the last export must be done.
    fn sleep(&self, due: Instant) -> Option<Instant> {
        let mut stop = self.stop();
        while stop.end.is_none() {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            stop = self.changed.wait_timeout(stop, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        stop.end
    }

    fn finish(&self, outcome: Result<(), String>) {
        self.stop().done.get_or_insert(outcome);
        self.changed.notify_all();
    }
}

/// The running exports.
#[derive(Debug)]
pub(super) struct Metrics {
    shared: Arc<Shared>,
    pub(super) link: Arc<Link>,
}

/// How metrics are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Time between two exports.
    pub(super) interval: Duration,
    /// Series that are told at most.
    pub(super) budget: usize,
    /// Totals or differences.
    pub(super) temporality: Temporality,
    /// Whether histograms have exponential buckets.
    pub(super) is_exponential: bool,
}

/// Exports that have not begun.
pub(super) struct Prepared {
    exporter: Exporter,
}

impl Metrics {
    /// Makes ready what the thread needs.
    pub(super) fn prepare(transport: Transport, link: Link, names: Names, manner: Manner) -> Prepared {
        let series = Series::new(manner.budget, manner.temporality);
        let (link, shared) = (Arc::new(link), Arc::default());
        Prepared { exporter: Exporter { transport, link, shared, desk: Desk::new(names), manner, series } }
    }

    /// Exports a last time, after [`Link::end`]. Whether that arrived within the time, or the last error.
    pub(super) fn shutdown(&self, timeout: Duration) -> Result<(), String> {
        let end = Instant::now() + timeout;
        let mut stop = self.shared.stop();
        stop.end = Some(end);
        self.shared.changed.notify_all();
        while stop.done.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            stop = self.shared.changed.wait_timeout(stop, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let done = stop.done.clone();
        drop(stop);
        done.unwrap_or_else(|| {
            Err(self.link.error().unwrap_or_else(|| "the endpoint did not answer in time".to_owned()))
        })
    }

    /// Stops without a last export.
    pub(super) fn abandon(&self) {
        self.shared.stop().end = Some(Instant::now());
        self.shared.changed.notify_all();
    }
}

impl Prepared {
    /// Reads what became of data points.
    pub(super) fn points(&self) -> impl Fn() -> Points + Send + Sync + 'static {
        let shared = Arc::clone(&self.exporter.shared);
        move || shared.books.read()
    }

    /// Starts the thread.
    pub(super) fn start(self, source: Source) -> io::Result<Metrics> {
        let Self { mut exporter } = self;
        let (shared, link) = (Arc::clone(&exporter.shared), Arc::clone(&exporter.link));
        // Nobody joins the thread: it may hang in a request for as long as the endpoint's time-out.
        std::thread::Builder::new().name("otlp-metrics".to_owned()).spawn(move || {
            priority::lower();
            let shared = Arc::clone(&exporter.shared);
            let _finish = Finish(&shared);
            exporter.run(&source);
        })?;
        Ok(Metrics { shared, link })
    }
}

/// Whatever happens to the thread, nobody waits for it in vain.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finish(Err("the thread that exports metrics has failed".to_owned()));
    }
}

/// What the thread works with.
struct Exporter {
    transport: Transport,
    link: Arc<Link>,
    shared: Arc<Shared>,
    desk: Desk,
    manner: Manner,
    series: Series,
}

impl Exporter {
    fn run(&mut self, source: &Source) {
        let mut due = Instant::now() + self.manner.interval;
        loop {
            let end = self.shared.sleep(due);
            match end {
                None => {
                    // What failed is told by the link.
                    let until = Until::NextExport(Instant::now() + self.manner.interval);
                    let after = match self.export(source, &source.take(), until) {
                        Err(Failure::Retry { after: Some(after), .. }) => after.min(LONGEST_ASKED),
                        Err(_) | Ok(()) => Duration::ZERO,
                    };
                    // An export that took long does not make the next ones come in a heap; and an endpoint that asks for it is left alone.
                    due = (due + self.manner.interval).max(Instant::now() + after);
                }
                Some(end) => {
                    let outcome = self.last(source, end);
                    return self.shared.finish(outcome);
                }
            }
        }
    }

    /// The last export.
    fn last(&mut self, source: &Source, end: Instant) -> Result<(), String> {
        match self.export(source, &source.take_last(), Until::End(end)) {
            Err(Failure::Retry { why, .. } | Failure::Rejected(why)) => Err(why),
            Ok(()) => Ok(()),
        }
    }

    /// Tells everything of this moment, in as many requests as it takes: the next one is made when the one before has arrived, or was
    /// refused for good. One that does not arrive in time keeps back those behind it, as nobody can be thought to be there.
    fn export(&mut self, source: &Source, snapshot: &Snapshot, until: Until) -> Result<(), Failure> {
        let Self { transport, link, shared, desk, manner, series } = self;
        let mut outcome = Ok(());
        let mut arrived = Vec::new();
        let mut encoder = Encoder::new(desk, *manner, snapshot.unix_ns, |request, points| {
            let answer = match &outcome {
                Err(Failure::Retry { why, after }) => Err(Failure::Retry { why: why.clone(), after: *after }),
                _ => deliver(request, transport, link, shared, until),
            };
            arrived.push(!matches!(answer, Err(Failure::Retry { .. })));
            shared.books.enter(&answer, points, link);
            // Of two failures the one that may pass counts: something is to be done about it.
            if let Err(failure) = answer
                && !matches!(outcome, Err(Failure::Retry { .. }))
            {
                outcome = Err(failure);
            }
        });
        series.collect(snapshot, &mut encoder);
        encoder.finish();
        // What the endpoint has refused for good it would refuse again: its differences are lost, and counted above.
        series.delivered(|delivery| arrived.get(delivery).copied().unwrap_or(false));
        if arrived.iter().all(|arrived| *arrived) {
            source.mark_told(Reader::Otlp, snapshot);
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
