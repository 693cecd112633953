//! Prometheus: the catalogue as text, for whoever asks. The same table and the same readings as OTLP.

use opentelemetry::Value;
use opentelemetry_sdk::Resource;

use super::catalogue::{CATALOGUE, Instrument, Metric};
use super::readings::Snapshot;
use super::resource::{SCHEMA_URL, SCOPE};

mod accept;
pub mod names;
pub mod text;

pub use accept::negotiate;
pub use text::Format;

use names::Kind;
use text::{Family, Labels, Writer, float};

/// What every answer has.
#[derive(Clone, Debug)]
pub struct Exposition {
    /// Of `target_info`.
    target: Labels,
    /// Of every series.
    scope: Labels,
}

impl Exposition {
    /// In the name of `resource`.
    pub fn new(resource: &Resource) -> Self {
        let scope = [
            ("otel.scope.name", Value::from(SCOPE)),
            ("otel.scope.version", Value::from(env!("CARGO_PKG_VERSION"))),
            ("otel.scope.schema_url", Value::from(SCHEMA_URL)),
        ];
        Self {
            target: Labels::of(resource.iter().map(|(key, value)| (key.as_str(), value))),
            scope: Labels::of(scope.iter().map(|(key, value)| (*key, value))),
        }
    }

    /// The whole answer. Families without a series are left out, as OTLP leaves them out.
    pub fn render(&self, snapshot: &Snapshot, format: Format) -> String {
        let mut writer = Writer::new(format);
        writer.info("target", "Who tells this: the attributes of the OpenTelemetry resource.", &self.target);
        for metric in CATALOGUE {
            self.metric(&mut writer, metric, snapshot);
        }
        writer.finish()
    }

    fn metric(&self, writer: &mut Writer, metric: &Metric, snapshot: &Snapshot) {
        let kind = Kind::of(metric.instrument);
        let name = names::family(metric.name, metric.unit, kind);
        let unit = names::unit(metric.unit, kind);
        let family = Family { name: &name, kind, unit: unit.as_deref(), help: metric.description };
        // The head comes with the first series.
        let mut headed = false;
        let mut head = |writer: &mut Writer| {
            if !std::mem::replace(&mut headed, true) {
                writer.head(family);
            }
        };
        let labels = |attributes: &_| Labels::of_point(attributes, &self.scope);
        match metric.instrument {
            Instrument::Counter(read) => read(snapshot, &mut |value, attributes| {
                head(writer);
                writer.number(family, &labels(attributes), &value.to_string());
            }),
            Instrument::UpDownCounter(read) => read(snapshot, &mut |value, attributes| {
                head(writer);
                writer.number(family, &labels(attributes), &value.to_string());
            }),
            Instrument::CounterFloat(read) | Instrument::Gauge(read) => read(snapshot, &mut |value, attributes| {
                head(writer);
                writer.number(family, &labels(attributes), &float(value));
            }),
            Instrument::Histogram(bounds, read) => read(snapshot, &mut |histogram, attributes| {
                head(writer);
                writer.histogram(family, &labels(attributes), bounds, histogram);
            }),
        }
    }
}

#[cfg(test)]
mod tests;
