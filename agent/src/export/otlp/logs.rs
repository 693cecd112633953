//! Log records that are events: things of the agent's own life that a backend's owner wants to see among the data.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use opentelemetry::InstrumentationScope;
use opentelemetry::Key;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::logs::v1::LogRecord as Message;
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};
use prost::Message as _;

use super::changes::Changes;
use super::link::Link;
use super::queue::{Batch, Bounds, Counts, Queue, Worth};
use super::sender::Sender;
use super::worker::{Outlet, Sent, spawn};
use crate::clock::Clock;
use crate::config::Otlp as Settings;
use crate::distribution::Place;

/// Makes event records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs {
    queue: Arc<Queue<VecDeque<Record>>>,
    link: Arc<Link>,
    /// Makes empty records; nothing is emitted through it, because its processors lose records without counting them.
    logger: SdkLogger,
    clock: Arc<Clock>,
}

/// A record as it waits.
#[derive(Debug)]
pub(super) struct Record(SdkLogRecord);

/// What a detector has found, as it is told: the record for [`Logs::finding`].
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which detector found it.
    pub detector: &'static str,
    /// What has become of it: `opened`, `updated`, `closed`.
    pub state: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// For people.
    pub body: String,
    /// Where, since when, the numbers that convinced it.
    pub attributes: Vec<(Key, AnyValue)>,
    /// Connections that show it. The first is the record's own trace context.
    pub exhibits: Vec<Place>,
}

impl Finding {
    /// Name of the event.
    const NAME: &'static str = "synfin.finding";
}

impl Logs {
    /// Starts the worker.
    pub(super) fn start(
        sender: Sender,
        link: Link,
        settings: &Settings,
        clock: Arc<Clock>,
        scope: InstrumentationScope,
    ) -> io::Result<Self> {
        let logger = SdkLoggerProvider::builder().build().logger_with_scope(scope);
        // By default hours of the agent's events, which are rate-limited where they arise.
        let Settings { log_queue: items, log_batch: batch, log_delay: delay, max_age: age, .. } = *settings;
        let bounds = Bounds { items, bytes: usize::MAX, batch: batch.min(items), age };
        let logs = Self { queue: Arc::new(Queue::new(bounds)), link: Arc::new(link), logger, clock };
        let outlet = Records { sender, changes: Changes::default(), logs: logs.clone() };
        spawn("otlp-logs", Arc::clone(&logs.queue), Arc::clone(&logs.link), delay, outlet)?;
        Ok(logs)
    }

    /// Adds an event of this moment. Never blocks; a full queue sheds what is least severe and counts it.
    ///
    /// `name` identifies the structure of the event (`synfin.…`), `body` is for people.
    pub fn event(&self, name: &'static str, severity: Severity, body: String, attributes: Vec<(Key, AnyValue)>) {
        let worth = if severity >= Severity::Warn { Worth::More } else { Worth::Least };
        let record = self.record(name, severity, body, attributes);
        self.offer(record, worth);
    }

    /// Adds a finding of this moment. When the queue is full, all else goes first.
    pub fn finding(&self, finding: Finding) {
        let Finding { detector, state, severity, body, attributes, exhibits } = finding;
        let mut record = self.record(Finding::NAME, severity, body, attributes);
        record.add_attribute("synfin.finding.detector", detector);
        record.add_attribute("synfin.finding.state", state);
        if let Some(first) = exhibits.first() {
            record.set_trace_context(TraceId::from_bytes(first.trace), SpanId::from_bytes(first.span), None);
        }
        let exhibits: Vec<AnyValue> = exhibits.iter().map(|place| exhibit(place).into()).collect();
        record.add_attribute("synfin.finding.exhibits", AnyValue::ListAny(Box::new(exhibits)));
        self.offer(record, Worth::Most);
    }

    fn offer(&self, record: SdkLogRecord, worth: Worth) {
        self.queue.offer([Record(record)], |_| worth, |record, line| line.push_back(record));
    }

    fn record(
        &self,
        name: &'static str,
        severity: Severity,
        body: String,
        attributes: Vec<(Key, AnyValue)>,
    ) -> SdkLogRecord {
        let now = self.clock.offset().system_time(self.clock.monotonic_ns());
        let mut record = self.logger.create_log_record();
        record.set_event_name(name);
        record.set_severity_number(severity);
        record.set_severity_text(severity.name());
        record.set_timestamp(now);
        record.set_observed_timestamp(now);
        record.set_body(body.into());
        record.add_attributes(attributes);
        record
    }

    pub(super) fn counts(&self) -> Counts {
        self.queue.counts()
    }

    pub(super) fn queue(&self) -> &Queue<VecDeque<Record>> {
        &self.queue
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }
}

/// Trace and span of an exhibit, as a `traceparent` has them.
fn exhibit(place: &Place) -> String {
    format!("{:032x}-{:016x}", u128::from_be_bytes(place.trace), u64::from_be_bytes(place.span))
}

/// Encodes and sends.
struct Records {
    sender: Sender,
    changes: Changes,
    logs: Logs,
}

impl Outlet for Records {
    type Line = VecDeque<Record>;

    fn send(&mut self, batch: &Batch<VecDeque<Record>>) -> Sent {
        // A record a second at most: OpenTelemetry's own message is good enough.
        self.sender.send(batch.lines().iter().flatten(), |Record(record), to| {
            to.fields(&Message::from(record).encode_to_vec());
        })
    }

    fn tick(&mut self) {
        for event in self.changes.observe(&self.sender.board.latest()) {
            self.logs.event(event.name, event.severity, event.body, event.attributes);
        }
    }
}
