//! Metrics: the catalogue as instruments of OpenTelemetry's SDK, sent by its exporter.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::InstrumentationScope;
use opentelemetry::metrics::{Histogram, Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};

use super::link::Link;
use super::source::Source;
use super::worker::{Accepted, Failure};
use crate::distribution::Measured;
use crate::export::catalogue::{CATALOGUE, CONNECTION_DURATION, HANDSHAKE_DURATION, Instrument, Metric};
use crate::export::readings::{Snapshot, ended_as, of};
use crate::ledger::{Connection, End};

/// The snapshot of the collection that is going on: all instruments of one export read the same moment.
#[derive(Debug)]
struct Collection {
    source: Source,
    held: Mutex<Option<Arc<Snapshot>>>,
}

impl Collection {
    const fn of(source: Source) -> Self {
        Self { source, held: Mutex::new(None) }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.get_or_insert_with(|| Arc::new(self.source.take())))
    }

    /// The collection is over.
    fn release(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Pause between two attempts at the end of the agent, after which there is no next export.
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// A way that totals can go.
pub(super) trait Way: Send + Sync + 'static {
    /// Sends them once, until the endpoint has answered or the time is up.
    fn send(&self, metrics: &ResourceMetrics) -> impl Future<Output = Result<Accepted, Failure>> + Send;
}

/// What the reader exports through: tells the link how it went, and the collection that it is complete.
struct Exporter<W> {
    way: W,
    link: Arc<Link>,
    collection: Arc<Collection>,
    end: Arc<OnceLock<Instant>>,
}

impl<W: Way> PushMetricExporter for Exporter<W> {
    /// On the reader's own thread, which has nothing else to do meanwhile.
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.collection.release();
        loop {
            let why = match self.way.send(metrics).await {
                Ok(Accepted { rejected, message }) => {
                    self.link.answered(rejected.try_into().unwrap_or(usize::MAX), &message);
                    return Ok(());
                }
                Err(Failure::Retry { why, .. }) => {
                    self.link.missed(&why);
                    if self.end.get().is_some_and(|end| Instant::now() + LAST_PAUSE < *end) {
                        std::thread::sleep(LAST_PAUSE);
                        continue;
                    }
                    why
                }
                Err(Failure::Rejected(why)) => {
                    self.link.refused(&why);
                    why
                }
            };
            return Err(OTelSdkError::InternalFailure(why));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    /// An outage costs resolution and nothing else.
    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// The running instruments.
#[derive(Debug)]
pub(super) struct Metrics {
    provider: SdkMeterProvider,
    pub(super) link: Arc<Link>,
    /// When the last export must be done.
    end: Arc<OnceLock<Instant>>,
    handshake: Histogram<f64>,
    connection: Histogram<f64>,
}

impl Metrics {
    /// Starts the reader.
    pub(super) fn start(
        way: impl Way,
        link: Link,
        source: Source,
        interval: Duration,
        resource: Resource,
        scope: InstrumentationScope,
    ) -> Self {
        let (link, collection) = (Arc::new(link), Arc::new(Collection::of(source)));
        let end = Arc::default();
        let exporter =
            Exporter { way, link: Arc::clone(&link), collection: Arc::clone(&collection), end: Arc::clone(&end) };
        // The SDK folds what exceeds 2000 attribute sets of an instrument into one. The catalogue stays far below (its
        // largest is the 121 pairs of states), so that no view has to raise the limit.
        let provider = SdkMeterProvider::builder()
            .with_reader(PeriodicReader::builder(exporter).with_interval(interval).build())
            .with_resource(resource)
            .build();
        let meter = provider.meter_with_scope(scope);
        for metric in CATALOGUE {
            observe(&meter, metric, &collection);
        }
        let (handshake, connection) = (histogram(&meter, HANDSHAKE_DURATION), histogram(&meter, CONNECTION_DURATION));
        Self { provider, link, end, handshake, connection }
    }

    /// Adds a connection that ended to the distributions.
    pub(super) fn ended(&self, connection: &Connection, end: End) {
        let measured = Measured::of(connection, end);
        if let Some((seconds, role)) = measured.handshake {
            self.handshake.record(seconds, &[of(role)]);
        }
        if let Some(seconds) = measured.connection {
            match connection.role {
                Some(role) => self.connection.record(seconds, &[of(role), ended_as(end)]),
                None => self.connection.record(seconds, &[ended_as(end)]),
            }
        }
    }

    /// Exports a last time, after [`Link::end`]. Whether that arrived within the time, or the last error.
    pub(super) fn shutdown(&self, timeout: Duration) -> Result<(), String> {
        _ = self.end.set(Instant::now() + timeout);
        self.provider.shutdown_with_timeout(timeout).map_err(|error| match error {
            OTelSdkError::InternalFailure(why) => self.link.error().unwrap_or(why),
            other => self.link.error().unwrap_or_else(|| other.to_string()),
        })
    }

    #[cfg(test)]
    pub(super) fn flush(&self) {
        self.provider.force_flush().unwrap();
    }
}

/// Makes the instrument of a metric; it lives as long as the provider.
fn observe(meter: &Meter, metric: &Metric, collection: &Arc<Collection>) {
    let collection = Arc::clone(collection);
    let (name, unit, description) = (metric.name, metric.unit, metric.description);
    match metric.instrument {
        Instrument::Counter(read) => {
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    read(&collection.snapshot(), &mut |value, attributes| observer.observe(value, attributes));
                })
                .build();
        }
        Instrument::CounterFloat(read) => {
            meter
                .f64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    read(&collection.snapshot(), &mut |value, attributes| observer.observe(value, attributes));
                })
                .build();
        }
        Instrument::UpDownCounter(read) => {
            meter
                .i64_observable_up_down_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    read(&collection.snapshot(), &mut |value, attributes| observer.observe(value, attributes));
                })
                .build();
        }
        Instrument::Gauge(read) => {
            meter
                .f64_observable_gauge(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    read(&collection.snapshot(), &mut |value, attributes| observer.observe(value, attributes));
                })
                .build();
        }
        Instrument::Histogram(..) => {} // recorded, not observed: see `histogram`
    }
}

/// Makes the histogram of this name, by its row of the catalogue.
fn histogram(meter: &Meter, name: &'static str) -> Histogram<f64> {
    let mut builder = meter.f64_histogram(name);
    for metric in CATALOGUE.iter().filter(|metric| metric.name == name) {
        builder = builder.with_unit(metric.unit).with_description(metric.description);
        if let Instrument::Histogram(bounds, _) = metric.instrument {
            builder = builder.with_boundaries(bounds.to_vec());
        }
    }
    builder.build()
}

#[cfg(test)]
mod tests;
