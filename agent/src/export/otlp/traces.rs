//! Spans: one for each connection that ended.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ids::{Ids, Sampler, TraceStates};
use super::link::Link;
use super::packed::Packed;
use super::queue::{Batch, Bounds, Counts, Queue};
use super::sender::Sender;
use super::span::{Ended, SpanFields, describe};
use super::worker::{Outlet, Sent, spawn};
use crate::clock::Clock;
use crate::config::Otlp as Settings;
use crate::ledger::{Connection, End};

/// Spans that are worth a request before the usual pause is over: about what one request holds.
const BATCH: usize = 512;

/// Bytes for each span that may wait. An IPv4 connection takes less, one of IPv6 with all there is to tell a few more.
const BYTES: usize = 128;

/// The way of ended connections into spans.
#[derive(Debug)]
pub(super) struct Traces {
    pub(super) queue: Arc<Queue<Packed>>,
    pub(super) link: Arc<Link>,
    sampler: Sampler,
    sampled_out: AtomicU64,
}

impl Traces {
    /// Starts the worker.
    pub(super) fn start(sender: Sender, link: Link, settings: &Settings) -> io::Result<Self> {
        let Settings { queue: items, max_age: age, trace_sample_ratio: ratio, .. } = *settings;
        let bounds = Bounds { items, bytes: items.saturating_mul(BYTES), batch: BATCH, age };
        let queue = Arc::new(Queue::new(bounds));
        let link = Arc::new(link);
        let sampler = Sampler::new(ratio);
        spawn("otlp-spans", Arc::clone(&queue), Arc::clone(&link), Spans { sender, states: sampler.trace_states() })?;
        Ok(Self { queue, link, sampler, sampled_out: AtomicU64::new(0) })
    }

    /// Takes connections that ended. On the thread that drains the ring: no waiting, one lock for all of them.
    pub(super) fn ended<'a>(&self, clock: &Clock, ended: impl Iterator<Item = (&'a Connection, End)>) {
        let offset = clock.offset();
        let mut sampled_out = 0;
        let kept = ended.filter_map(|(connection, end)| {
            let ended = Ended { connection: *connection, end, offset, ids: Ids::of(connection) };
            let kept = ended.is_abnormal() || self.sampler.keeps(ended.ids.trace);
            sampled_out += u64::from(!kept);
            kept.then_some(ended)
        });
        self.queue.offer(kept, Ended::is_abnormal, |ended, line| line.push(&ended));
        self.sampled_out.fetch_add(sampled_out, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> Counts {
        self.queue.counts()
    }

    /// Connections that sampling left out.
    pub(super) fn sampled_out(&self) -> u64 {
        self.sampled_out.load(Ordering::Relaxed)
    }
}

/// Encodes and sends.
struct Spans {
    sender: Sender,
    states: TraceStates,
}

impl Outlet for Spans {
    type Line = Packed;

    fn send(&mut self, batch: &Batch<Packed>) -> Sent {
        let status = self.sender.board.latest();
        let spans = batch.lines().into_iter().flat_map(Packed::iter);
        self.sender.send(spans, |ended, to| describe(&ended, &self.states, &status, &mut SpanFields(to)))
    }
}
