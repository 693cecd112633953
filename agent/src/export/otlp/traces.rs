//! Spans: one for each connection that ended, and for each checkpoint of those that live long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ids::Names;
use super::link::Link;
use super::owned::Owned;
use super::packed::Packed;
use super::protobuf::Writer;
use super::queue::{Batch, Bounds, Counts, Queue, Worth};
use super::sampling::{SampledOut, Sampler, Terms};
use super::sender::Sender;
use super::span::{Part, SpanFields, Subject, describe};
use super::worker::{Outlet, Sent, spawn};
use crate::clock::Clock;
use crate::config::Otlp as Settings;
use crate::ledger::Connection;

/// Bytes for each span that may wait. An IPv4 connection takes less, one of IPv6 with all there is to tell a few more.
const BYTES: usize = 128;

/// The way of connections into spans.
#[derive(Debug)]
pub(super) struct Traces {
    pub(super) queue: Arc<Queue<Packed>>,
    pub(super) link: Arc<Link>,
    pub(super) names: Names,
    pub(super) sampler: Sampler,
    /// As [`SampledOut`] has them.
    sampled_out: [AtomicU64; 2],
}

impl Traces {
    /// Starts the worker.
    pub(super) fn start(sender: Sender, link: Link, owners: Option<Owned>, settings: &Settings) -> io::Result<Self> {
        let Settings { queue: items, span_batch: batch, span_delay: delay, max_age: age, .. } = *settings;
        let bounds = Bounds { items, bytes: items.saturating_mul(BYTES), batch: batch.min(items), age };
        let queue = Arc::new(Queue::new(bounds));
        let link = Arc::new(link);
        let sampler = Sampler::new(settings);
        let outlet = Spans { sender, owners, terms: sampler.terms(), most: batch };
        spawn("otlp-spans", Arc::clone(&queue), Arc::clone(&link), delay, outlet)?;
        Ok(Self { queue, link, names: Names::draw(), sampler, sampled_out: Default::default() })
    }

    /// Takes connections that ended or had a checkpoint. On the thread that drains the ring: no waiting, one lock for all of them.
    pub(super) fn offer<'a>(&self, clock: &Clock, parts: impl Iterator<Item = (&'a Connection, Part)>) {
        let offset = clock.offset();
        let mut sampled_out = SampledOut::default();
        let mut decisions = self.sampler.begin(clock.monotonic_ns());
        let kept = parts.filter_map(|(connection, part)| {
            let ids = self.names.of(connection);
            let kept = decisions.decide(connection, part.end(), ids.trace);
            let kept = kept.map_err(|left_out| sampled_out.add(left_out)).ok()?;
            Some(Subject { connection: *connection, part, offset, ids, kept })
        });
        let worth = |subject: &Subject| if subject.kept.is_abnormal() { Worth::More } else { Worth::Least };
        self.queue.offer(kept, worth, |subject, line| line.push(&subject));
        let SampledOut { ratio, rate_limit } = sampled_out;
        for (total, more) in self.sampled_out.iter().zip([ratio, rate_limit]) {
            total.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.queue.counts()
    }

    /// Spans that sampling left out.
    pub(super) fn sampled_out(&self) -> SampledOut {
        let [ratio, rate_limit] = self.sampled_out.each_ref().map(|total| total.load(Ordering::Relaxed));
        SampledOut { ratio, rate_limit }
    }
}

/// Encodes and sends.
struct Spans {
    sender: Sender,
    /// None: all are told in the agent's name.
    owners: Option<Owned>,
    terms: Terms,
    /// Spans of one request at most.
    most: usize,
}

impl Outlet for Spans {
    type Line = Packed;

    fn send(&mut self, batch: &Batch<Packed>) -> Sent {
        let status = self.sender.board.latest();
        let Self { sender, owners, terms, most } = self;
        let spans = batch.lines().iter().flat_map(Packed::iter).take(*most);
        let encode = |subject: Subject, to: &mut Writer| describe(&subject, *terms, &status, &mut SpanFields(to));
        match owners {
            Some(owners) => {
                owners.begin();
                sender.send_grouped(spans, |subject, groups| owners.group(subject.connection.cgroup, groups), encode)
            }
            None => sender.send(spans, encode),
        }
    }
}
