//! Prometheus: the catalogue as text, for whoever asks. The same table and the same readings as OTLP.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use opentelemetry_sdk::Resource;

use super::catalogue::{CATALOGUE, Instrument, Metric};
use super::readings::Snapshot;
use super::resource::{SCHEMA_URL, SCOPE};
use super::series::{Data, Point, Series, Tell};
use super::subject::{Subject, Who};
use crate::config::Temporality;
use crate::owner::identity::Instance;

mod accept;
pub mod names;
pub mod text;

pub use accept::negotiate;
pub use text::Format;

use names::Kind;
use text::{Family, Labels, Writer, float};

/// What every answer has.
#[derive(Debug)]
pub struct Exposition {
    /// Of `target_info`.
    target: Labels,
    /// Of every series.
    scope: Labels,
    series: Mutex<Series>,
}

impl Exposition {
    /// In the name of `resource`, with at most `budget` series.
    pub fn new(resource: &Resource, budget: usize) -> Self {
        let scope = [
            ("otel.scope.name", SCOPE),
            ("otel.scope.version", env!("CARGO_PKG_VERSION")),
            ("otel.scope.schema_url", SCHEMA_URL),
        ];
        Self {
            target: Labels::of(resource.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
            scope: Labels::of(scope.map(|(key, value)| (key, Cow::Borrowed(value)))),
            series: Mutex::new(Series::new(budget, Temporality::Cumulative)),
        }
    }

    /// The whole answer. Families without a series are left out, as OTLP leaves them out.
    pub fn render(&self, snapshot: &Snapshot, format: Format) -> String {
        let mut families = Families { scope: &self.scope, format, subject: None, texts: HashMap::new() };
        self.series.lock().unwrap_or_else(PoisonError::into_inner).collect(snapshot, &mut families);
        let mut writer = Writer::new(format);
        writer.info("target", "Who tells this: the attributes of the OpenTelemetry resource.", &self.target);
        for metric in CATALOGUE {
            if let Some(text) = families.texts.get(metric.name) {
                writer.append(text);
            }
        }
        writer.finish()
    }
}

/// Puts points that come subject by subject into families, whose series stand together.
struct Families<'a> {
    scope: &'a Labels,
    format: Format,
    subject: Option<Who>,
    texts: HashMap<&'static str, Writer>,
}

impl Tell for Families<'_> {
    fn subject(&mut self, subject: &Subject) {
        self.subject = Some(subject.who.clone());
    }

    fn metric(&mut self, _metric: &Metric) {}

    fn point(&mut self, metric: &Metric, point: &Point<'_>) -> usize {
        let kind = Kind::of(metric.instrument);
        let name = names::family(metric.name, metric.unit, kind);
        let unit = names::unit(metric.unit, kind);
        let family = Family { name: &name, kind, unit: unit.as_deref(), help: metric.description };
        let writer = self.texts.entry(metric.name).or_insert_with(|| Writer::new(self.format));
        if writer.is_empty() {
            writer.head(family);
        }
        // A scrape has one target: what tells an owner from another is in labels.
        let owner = match &self.subject {
            Some(Who::Owner(identity)) => Some(identity),
            Some(Who::Host | Who::Overflow) | None => None,
        };
        // Two instances of a template are one service, and two series.
        let unit = owner.and_then(|identity| match identity.instance() {
            Instance::Local(path) => Some(("service.instance.id", path)),
            Instance::Global(_) => None,
        });
        let owner = owner.into_iter().flat_map(|identity| identity.attributes()).chain(unit);
        let labels = Labels::of_point(point.attributes, owner, self.scope);
        match (point.data, metric.instrument) {
            (Data::Integer(value), _) => writer.number(family, &labels, &value.to_string()),
            (Data::Real(value), _) => writer.number(family, &labels, &float(value)),
            (Data::Distribution(histogram), Instrument::Histogram(bounds, _)) => {
                writer.histogram(family, &labels, bounds, histogram);
            }
            (Data::Distribution(_), _) => {}
        }
        0
    }
}

#[cfg(test)]
mod tests;
