//! Log records that are events: things of the agent's own life that a backend's owner wants to see among the data.

use std::io;
use std::sync::Arc;

use opentelemetry::Key;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry_otlp::LogExporter;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider};

use super::changes::Changes;
use super::link::Link;
use super::queue::{Counts, Item, Queue};
use super::transport::{Sender, classify};
use super::worker::{Failure, Outlet, spawn};
use crate::clock::Clock;

/// Records that wait at most: hours of the agent's events, which are rate-limited where they arise.
const QUEUE: usize = 2_048;
/// Records in one request.
const BATCH: usize = 512;

/// Makes event records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs {
    queue: Arc<Queue<Record>>,
    link: Arc<Link>,
    /// Makes empty records; nothing is emitted through it, because its processors lose records without counting them.
    logger: SdkLogger,
    clock: Arc<Clock>,
}

/// A record as it waits.
#[derive(Debug)]
pub(super) struct Record(SdkLogRecord);

impl Item for Record {
    fn is_precious(&self) -> bool {
        self.0.severity_number().is_some_and(|severity| severity >= Severity::Warn)
    }
}

impl Logs {
    /// Starts the worker.
    pub(super) fn start(sender: Sender<LogExporter>, link: Link, clock: Arc<Clock>) -> io::Result<Self> {
        let logger = SdkLoggerProvider::builder().build().logger_with_scope(sender.scope.clone());
        let logs = Self { queue: Arc::new(Queue::new(QUEUE, BATCH)), link: Arc::new(link), logger, clock };
        let outlet = Records { sender, changes: Changes::default(), logs: logs.clone() };
        spawn("otlp-logs", Arc::clone(&logs.queue), Arc::clone(&logs.link), outlet)?;
        Ok(logs)
    }

    /// Adds an event of this moment. Never blocks; a full queue sheds what is least severe and counts it.
    ///
    /// `name` identifies the structure of the event (`synfin.…`), `body` is for people.
    pub fn event(&self, name: &'static str, severity: Severity, body: String, attributes: Vec<(Key, AnyValue)>) {
        let now = self.clock.offset().system_time(self.clock.monotonic_ns());
        let mut record = self.logger.create_log_record();
        record.set_event_name(name);
        record.set_severity_number(severity);
        record.set_severity_text(severity.name());
        record.set_timestamp(now);
        record.set_observed_timestamp(now);
        record.set_body(body.into());
        record.add_attributes(attributes);
        self.queue.offer([Record(record)]);
    }

    pub(super) fn counts(&self) -> Counts {
        self.queue.counts()
    }

    pub(super) fn queue(&self) -> &Queue<Record> {
        &self.queue
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_up()
    }
}

/// Encodes and sends.
struct Records {
    sender: Sender<LogExporter>,
    changes: Changes,
    logs: Logs,
}

impl Outlet for Records {
    type Item = Record;

    fn send(&mut self, batch: &[Record]) -> Result<(), Failure> {
        let Sender { exporter, driver, scope, .. } = &self.sender;
        let records: Vec<_> = batch.iter().map(|record| (&record.0, scope)).collect();
        driver.block_on(exporter.export(LogBatch::new(&records))).map_err(|error| classify(&error))
    }

    fn tick(&mut self) {
        for event in self.changes.observe(&self.sender.board.latest()) {
            self.logs.event(event.name, event.severity, event.body, event.attributes);
        }
    }
}
