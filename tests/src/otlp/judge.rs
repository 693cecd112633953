//! Judges everything that was received, and remembers it for the test's own questions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;

use super::{Signal, Via, allow, metrics::Series, schema, spans};

/// Attributes of one span or data point, more of which no backend takes.
const MOST_ATTRIBUTES: usize = 128;
/// A resource with one of these is an owner's, unless it is the agent's.
const OWNERS: [&str; 3] = ["container.id", "k8s.pod.uid", "service.name"];
/// Complaints kept; the first ones say it all.
const MOST_COMPLAINTS: usize = 50;

/// What was received, and what was wrong with it.
#[derive(Debug, Default)]
pub struct Judge {
    complaints: Vec<String>,
    /// With the number of their resource.
    span_ids: HashMap<Vec<u8>, usize>,
    /// Attributes of the agent's resource; one agent has one.
    pub resource: Vec<KeyValue>,
    /// Attributes of every resource, in the order in which they came.
    pub resources: Vec<Vec<KeyValue>>,
    /// Every span, unless they are forgotten.
    pub spans: Vec<Span>,
    /// Judges and counts spans without keeping them: some hundred thousand would take a gigabyte.
    pub forget_spans: bool,
    /// Somebody between puts several requests of the agent into one.
    pub batched: bool,
    /// Spans by `network.connection.end`, the empty text where a span has none; forgotten ones too.
    pub ends: BTreeMap<String, u64>,
    /// Every log record.
    pub logs: Vec<LogRecord>,
    /// Metrics by name, each series at its last value.
    pub series: Series,
    /// Requests taken, by signal and protocol.
    pub requests: BTreeMap<(Signal, Via), u64>,
    /// How requests came compressed; those that did not are not counted.
    pub encodings: BTreeMap<(Via, String), u64>,
    /// Requests refused or left hanging.
    pub refused: u64,
}

impl Judge {
    /// Takes one export request.
    pub fn take(&mut self, signal: Signal, via: Via, message: &Bytes) {
        *self.requests.entry((signal, via)).or_default() += 1;
        let judged = match signal {
            Signal::Traces => self.traces(message),
            Signal::Metrics => self.metrics(message),
            Signal::Logs => self.log_records(message),
        };
        if let Err(error) = judged {
            self.complain(format!("{signal:?} by {via:?}: {error:#}"));
        }
    }

    /// Notes something wrong.
    pub fn complain(&mut self, complaint: String) {
        if self.complaints.len() < MOST_COMPLAINTS {
            self.complaints.push(complaint);
        }
    }

    /// Fails with all complaints, if there are any.
    pub fn verdict(&self) -> Result<()> {
        ensure!(self.complaints.is_empty(), "OTLP received is wrong:\n  {}", self.complaints.join("\n  "));
        Ok(())
    }

    /// Spans so far, forgotten ones too.
    pub fn span_count(&self) -> u64 {
        self.span_ids.len() as u64
    }

    /// One line for messages of tests.
    pub fn summary(&self) -> String {
        format!(
            "received: requests {:?}, refused {}, {} spans, {} log records, metrics {:?}",
            self.requests,
            self.refused,
            self.span_count(),
            self.logs.len(),
            self.series.names().collect::<Vec<_>>()
        )
    }

    /// Attributes of the resource that a span came with.
    pub fn resource_of(&self, span: &Span) -> &[KeyValue] {
        self.span_ids.get(&span.span_id).map_or(&[], |number| &self.resources[*number])
    }

    /// Judges a resource and gives its number. `seen` are those that were in the request before: each comes once.
    fn resource(&mut self, resource: Option<&Resource>, seen: &mut BTreeSet<usize>) -> Result<usize> {
        let resource = resource.context("no resource")?;
        // A set: in which order they come means nothing.
        let mut found = resource.attributes.clone();
        found.sort_by(|one, other| one.key.cmp(&other.key));
        let found = &found;
        ensure!(resource.dropped_attributes_count == 0, "resource attributes were dropped");
        ensure!(text(found, "host.name").is_some(), "the resource has no host.name");
        if OWNERS.iter().any(|name| value(found, name).is_some()) && text(found, "service.name") != Some("synfin") {
            attributes(found, allow::OWNER).context("resource of an owner")?;
            ensure!(text(found, "service.instance.id").is_some(), "an owner has no service.instance.id");
        } else {
            attributes(found, allow::RESOURCE).context("resource")?;
            ensure!(text(found, "service.name") == Some("synfin"), "service.name is not synfin");
            ensure!(text(found, "service.version").is_some(), "the resource has no service.version");
            ensure!(self.resource.is_empty() || self.resource == *found, "the resource was another before");
            self.resource.clone_from(found);
        }
        let number = self.resources.iter().position(|known| known == found).unwrap_or_else(|| {
            self.resources.push(found.clone());
            self.resources.len() - 1
        });
        ensure!(seen.insert(number) || self.batched, "a resource comes twice in one request: {found:?}");
        Ok(number)
    }

    fn traces(&mut self, message: &Bytes) -> Result<()> {
        let request: ExportTraceServiceRequest = strict("trace.v1.ExportTraceServiceRequest", message)?;
        let mut seen = BTreeSet::new();
        for group in request.resource_spans {
            let resource = self.resource(group.resource.as_ref(), &mut seen)?;
            schema_url(&group.schema_url)?;
            for group in group.scope_spans {
                scope(group.scope.as_ref())?;
                for span in group.spans {
                    spans::check(&span).with_context(|| format!("span {:?}", span.name))?;
                    let before = self.span_ids.insert(span.span_id.clone(), resource);
                    ensure!(before.is_none(), "span id {:02x?} came twice", span.span_id);
                    let end = text(&span.attributes, "network.connection.end").unwrap_or_default();
                    *self.ends.entry(end.to_owned()).or_default() += 1;
                    if !self.forget_spans {
                        self.spans.push(span);
                    }
                }
            }
        }
        Ok(())
    }

    fn metrics(&mut self, message: &Bytes) -> Result<()> {
        let request: ExportMetricsServiceRequest = strict("metrics.v1.ExportMetricsServiceRequest", message)?;
        let mut seen = BTreeSet::new();
        for group in request.resource_metrics {
            let resource = self.resource(group.resource.as_ref(), &mut seen)?;
            let is_owner = self.resources[resource] != self.resource;
            schema_url(&group.schema_url)?;
            let mut names = BTreeSet::new();
            for group in group.scope_metrics {
                scope(group.scope.as_ref())?;
                for metric in group.metrics {
                    ensure!(names.insert(metric.name.clone()), "metric {} comes twice in one export", metric.name);
                    self.series.take(&metric, resource, is_owner).with_context(|| format!("metric {}", metric.name))?;
                }
            }
        }
        Ok(())
    }

    fn log_records(&mut self, message: &Bytes) -> Result<()> {
        let request: ExportLogsServiceRequest = strict("logs.v1.ExportLogsServiceRequest", message)?;
        let mut seen = BTreeSet::new();
        for group in request.resource_logs {
            self.resource(group.resource.as_ref(), &mut seen)?;
            schema_url(&group.schema_url)?;
            for group in group.scope_logs {
                scope(group.scope.as_ref())?;
                for record in group.log_records {
                    log_record(&record).with_context(|| format!("log record {:?}", record.event_name))?;
                    self.logs.push(record);
                }
            }
        }
        Ok(())
    }
}

fn strict<M: Message + Default>(name: &str, message: &Bytes) -> Result<M> {
    schema::check(&format!(".opentelemetry.proto.collector.{name}"), message)?;
    Ok(M::decode(message.clone())?)
}

fn scope(scope: Option<&InstrumentationScope>) -> Result<()> {
    let scope = scope.context("no instrumentation scope")?;
    ensure!(!scope.name.is_empty(), "the instrumentation scope has no name");
    attributes(&scope.attributes, &[])
}

fn schema_url(url: &str) -> Result<()> {
    ensure!(url.is_empty() || url.starts_with("https://opentelemetry.io/schemas/1."), "schema_url is {url:?}");
    Ok(())
}

fn log_record(record: &LogRecord) -> Result<()> {
    ensure!(record.time_unix_nano != 0 || record.observed_time_unix_nano != 0, "no time");
    moment(record.time_unix_nano.max(record.observed_time_unix_nano))?;
    ensure!((1..=24).contains(&record.severity_number), "severity number {}", record.severity_number);
    ensure!(!record.event_name.is_empty() || record.body.is_some(), "neither event name nor body");
    for (id, length) in [(&record.trace_id, 16), (&record.span_id, 8)] {
        ensure!(id.is_empty() || id.len() == length && id.iter().any(|byte| *byte != 0), "id {id:02x?}");
    }
    attributes(&record.attributes, allow::TELEMETRY)
}

/// Fails unless each attribute is on the list, once, with a value.
pub fn attributes(attributes: &[KeyValue], allowed: &[&str]) -> Result<()> {
    ensure!(attributes.len() <= MOST_ATTRIBUTES, "{} attributes", attributes.len());
    let mut keys = BTreeSet::new();
    for attribute in attributes {
        let key = attribute.key.as_str();
        ensure!(allowed.contains(&key), "attribute {key} is not on the list (tests/src/otlp/allow.rs)");
        ensure!(keys.insert(key), "attribute {key} comes twice");
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        let value = value.with_context(|| format!("attribute {key} has no value"))?;
        ensure!(*value != Value::StringValue(String::new()), "attribute {key} is an empty string");
        if let Value::DoubleValue(number) = value {
            ensure!(number.is_finite(), "attribute {key} is {number}");
        }
    }
    Ok(())
}

/// The value of a string attribute.
pub fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// The value of an integer attribute.
pub fn integer(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

/// The value of a floating-point attribute.
pub fn number(attributes: &[KeyValue], key: &str) -> Option<f64> {
    match value(attributes, key)? {
        Value::DoubleValue(number) => Some(*number),
        _ => None,
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let AnyValue { value } = attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?;
    value.as_ref()
}

/// Fails unless `nanoseconds` since the epoch lie within the last day.
#[expect(clippy::disallowed_methods, reason = "the judge's clock must not be the agent's")]
pub fn moment(nanoseconds: u64) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    // A clock read on another CPU may be a little ahead.
    let (oldest, newest) = (now - 86_400_000_000_000, now + 1_000_000_000);
    ensure!((oldest..=newest).contains(&nanoseconds), "time {nanoseconds} is not of the last day (now {now})");
    Ok(())
}
