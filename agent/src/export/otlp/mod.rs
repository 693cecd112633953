//! OTLP: spans of connections, metrics, and log records of the agent's own events.
//!
//! Spans and log records go their own way: what waits, what is shed and what is lost is counted ([`queue`]), spans are
//! encoded straight from what the ledger knew ([`span`]), and the endpoint's answers are taken by what they say
//! (`transport`). OpenTelemetry's SDK loses some without counting them, takes five times the CPU, which the traffic that
//! is watched then lacks, and knows answers as text. Metrics are written from the catalogue in the same way (`metrics`): the
//! SDK has one resource for all, no examples, and no end for a series. An endpoint that is away is no error: what fits the
//! queue waits for it, the rest is counted, and totals come again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;
use tokio::runtime::{Handle, Runtime};

use crate::clock::Clock;
use crate::config::{Credentials, Histograms, Otlp as Settings, Protocol, Signal};
use crate::distribution::Place;
use crate::export::resource::{SCHEMA_URL, SCOPE};
use crate::ledger::{Checkpoint, Connection, End};
use crate::priority;
use crate::status::Export;

mod ages;
mod changes;
mod envelope;
mod groups;
pub mod ids;
mod line;
mod link;
pub mod logs;
mod metrics;
mod owned;
mod packed;
mod pause;
mod protobuf;
pub mod queue;
mod request;
mod resources;
pub mod sampling;
mod sender;
mod source;
pub mod span;
mod traces;
mod transport;
mod words;
mod worker;

use link::Link;
use logs::Logs;
pub use metrics::Points;
use metrics::{Manner, Metrics, Names};
use owned::Owned;
use queue::Counts;
use request::Requests;
use sampling::SampledOut;
use sender::Sender;
pub use source::{Reader, Source};
use span::Part;
use traces::Traces;
use transport::{Builder, method};

/// The last export of metrics gets this much even if the spans used up the time: it carries the final totals.
const LAST_METRICS: Duration = Duration::from_secs(1);

/// Why OTLP cannot start. An endpoint that does not answer is not among the reasons.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint is no URL that can be used.
    #[error(
        "the OTLP endpoint for {signal} is not usable: {endpoint:?}: {why}; \
         give a URL like http://localhost:4317 (gRPC) or http://localhost:4318/v1/{signal} (HTTP)"
    )]
    Endpoint {
        /// Of which signal.
        signal: &'static str,
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// A header that HTTP does not allow. Its value is not shown: it may be a secret.
    #[error("the OTLP header {header:?} for {signal} has a name or a value that HTTP does not allow")]
    Header {
        /// Of which signal.
        signal: &'static str,
        /// Its name.
        header: String,
    },
    /// The exporter cannot be made.
    #[error("the OTLP exporter for {signal} cannot be set up: {why}")]
    Exporter {
        /// Of which signal.
        signal: &'static str,
        /// What it says.
        why: String,
    },
    /// The system gives no thread.
    #[error("no thread for OTLP")]
    Thread(#[from] std::io::Error),
}

/// The exporters at work. Made to be shared: one thread hands over connections, another asks for [`Otlp::stats`].
#[derive(Debug)]
pub struct Otlp {
    clock: Arc<Clock>,
    traces: Option<Arc<Traces>>,
    logs: Option<Logs>,
    metrics: Option<Metrics>,
    source: Source,
    /// What gRPC's connections live on.
    runtime: Option<Runtime>,
    shutdown_timeout: Duration,
}

/// How export stands, for the agent's own views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Spans, when they are exported.
    pub spans: Option<Counts>,
    /// Spans that sampling left out.
    pub sampled_out: SampledOut,
    /// Log records, when they are exported.
    pub logs: Option<Counts>,
    /// Signals whose last attempt failed.
    pub failing: u8,
}

/// What became of everything, at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Spans, when they were exported.
    pub spans: Option<Counts>,
    /// Spans that sampling left out.
    pub sampled_out: SampledOut,
    /// Log records, when they were exported.
    pub logs: Option<Counts>,
    /// Whether the final totals arrived, and if not the last error, when metrics were exported.
    pub metrics: Option<Result<(), String>>,
}

impl Otlp {
    /// Starts what `settings` asks for, with what [`Settings::credentials`] read for it, in the name of `resource`: what `source` tells, in
    /// at most `series` series of metrics. Fails only for settings that can never work; the network is not tried here.
    pub fn start(
        settings: &Settings,
        credentials: &[Credentials; 3],
        resource: Resource,
        source: Source,
        series: usize,
    ) -> Result<Self, OtlpError> {
        let runtime = runtime(settings)?;
        let clock = source.clock();
        let start = Start {
            settings,
            credentials,
            source,
            series,
            runtime: runtime.as_ref().map(Runtime::handle),
            resource,
            scope: InstrumentationScope::builder(SCOPE)
                .with_version(env!("CARGO_PKG_VERSION"))
                .with_schema_url(SCHEMA_URL)
                .build(),
        };
        let traces = settings.traces.as_ref().map(|signal| start.traces(signal)).transpose()?.map(Arc::new);
        let logs = settings.logs.as_ref().map(|signal| start.logs(signal)).transpose()?;
        let source = start.source(traces.as_ref(), logs.as_ref());
        let (metrics, source) = match &settings.metrics {
            Some(signal) => start.metrics(signal, source).map(|(metrics, source)| (Some(metrics), source))?,
            None => (None, source),
        };
        Ok(Self { clock, traces, logs, metrics, source, runtime, shutdown_timeout: settings.shutdown_timeout })
    }

    /// Takes connections that ended. Made for the thread that drains the ring: it never waits for the network, and takes
    /// one short lock for all of them, so hand them over in batches.
    pub fn ended<'a>(&self, ended: impl IntoIterator<Item = (&'a Connection, End)>) {
        if let Some(traces) = &self.traces {
            let ended = ended.into_iter();
            traces.offer(&self.clock, ended.map(|(connection, end)| (connection, Part::Whole(end))));
        }
    }

    /// Takes checkpoints of connections that live long. As [`Otlp::ended`].
    pub fn checkpoints(&self, checkpoints: &[Checkpoint]) {
        if let Some(traces) = &self.traces {
            let part = |at: &Checkpoint| Part::Stretch { from_ns: at.from_ns, to_ns: at.to_ns };
            traces.offer(&self.clock, checkpoints.iter().map(|at| (&at.connection, part(at))));
        }
    }

    /// The span of a connection that has just been handed over by [`Otlp::ended`]; None where sampling leaves it out.
    pub fn place(&self, connection: &Connection, end: End) -> Option<Place> {
        let traces = self.traces.as_ref()?;
        let ids = traces.names.of(connection);
        traces
            .sampler
            .has_kept(connection, Some(end), ids.trace)
            .then(|| Place { trace: ids.trace.to_bytes(), span: ids.span.to_bytes() })
    }

    /// What the metrics are read from, for other exporters.
    pub fn source(&self) -> Source {
        self.source.clone()
    }

    /// Where event records go, when logs are exported.
    pub fn logs(&self) -> Option<&Logs> {
        self.logs.as_ref()
    }

    /// How export stands.
    pub fn stats(&self) -> Stats {
        let up = [
            self.traces.as_ref().map(|traces| traces.link.is_up()),
            self.logs.as_ref().map(|logs| logs.link().is_up()),
            self.metrics.as_ref().map(|metrics| metrics.link.is_up()),
        ];
        Stats {
            spans: self.traces.as_ref().map(|traces| traces.counts()),
            sampled_out: self.traces.as_ref().map_or_else(SampledOut::default, |traces| traces.sampled_out()),
            logs: self.logs.as_ref().map(Logs::counts),
            failing: up.into_iter().flatten().filter(|up| !up).count() as u8,
        }
    }

    /// How export stands, signal by signal, for the agent's own views.
    pub fn exports(&self) -> Vec<Export> {
        let spans = self.traces.as_ref().map(|traces| traces.link.export("spans", Some(traces.counts())));
        let logs = self.logs.as_ref().map(|logs| logs.link().export("logs", Some(logs.counts())));
        let metrics = self.metrics.as_ref().map(|metrics| metrics.link.export("metrics", None));
        spans.into_iter().chain(logs).chain(metrics).collect()
    }

    /// Sends what still waits, as far as the time allows, and says what became of everything. Blocks; not for a task of
    /// an async runtime. Connections that end later are counted as lost.
    pub fn shutdown(&self) -> Report {
        let end = Instant::now() + self.shutdown_timeout;
        if let Some(metrics) = &self.metrics {
            metrics.link.end();
        }
        if let Some(traces) = &self.traces {
            traces.queue.close(end);
        }
        if let Some(logs) = &self.logs {
            logs.queue().close(end);
        }
        let spans = self.traces.as_ref().map(|traces| traces.queue.wait_finished(end));
        let logs = self.logs.as_ref().map(|logs| logs.queue().wait_finished(end));
        // Last: these totals tell of the spans and records above.
        let left = end.saturating_duration_since(Instant::now()).max(LAST_METRICS);
        let metrics = self.metrics.as_ref().map(|metrics| metrics.shutdown(left));
        let sampled_out = self.traces.as_ref().map_or_else(SampledOut::default, |traces| traces.sampled_out());
        Report { spans, sampled_out, logs, metrics }
    }
}

impl Drop for Otlp {
    fn drop(&mut self) {
        // Workers that hang in a request must not hold up the end of the agent.
        let now = Instant::now();
        if let Some(traces) = &self.traces {
            traces.queue.close(now);
        }
        if let Some(logs) = &self.logs {
            logs.queue().close(now);
        }
        if let Some(metrics) = &self.metrics {
            metrics.abandon();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A runtime of its own for gRPC's connections: export neither waits for the agent's tasks nor holds them up.
fn runtime(settings: &Settings) -> Result<Option<Runtime>, OtlpError> {
    let signals = [&settings.traces, &settings.logs, &settings.metrics];
    if !signals.into_iter().flatten().any(|signal| signal.protocol == Protocol::Grpc) {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("otlp-grpc")
        .on_thread_start(priority::lower)
        .enable_all()
        .build()?;
    Ok(Some(runtime))
}

/// What all signals start from.
struct Start<'a> {
    settings: &'a Settings,
    /// Of traces, metrics and logs.
    credentials: &'a [Credentials; 3],
    source: Source,
    /// The budget of series.
    series: usize,
    runtime: Option<&'a Handle>,
    resource: Resource,
    scope: InstrumentationScope,
}

impl Start<'_> {
    fn builder<'a>(&'a self, name: &'static str, signal: &'a Signal) -> Builder<'a> {
        let [traces, metrics, logs] = self.credentials;
        let credentials = match name {
            "traces" => traces,
            "metrics" => metrics,
            _ => logs,
        };
        // rustls wants one provider named for the process; that somebody did so already is as good.
        _ = rustls::crypto::ring::default_provider().install_default();
        Builder { name, signal, credentials, runtime: self.runtime }
    }

    fn sender(&self, name: &'static str, signal: &Signal, method: &'static str) -> Result<Sender, OtlpError> {
        Ok(Sender {
            requests: Requests::new(&self.resource, &self.scope),
            transport: self.builder(name, signal).transport(method)?,
            board: self.source.board(),
        })
    }

    fn traces(&self, signal: &Signal) -> Result<Traces, OtlpError> {
        let sender = self.sender("traces", signal, method::TRACES)?;
        let link = Link::new("traces", &signal.endpoint, signal.protocol);
        let owners = self.source.owners().map(Owned::new);
        Ok(Traces::start(sender, link, owners, self.settings)?)
    }

    fn logs(&self, signal: &Signal) -> Result<Logs, OtlpError> {
        let sender = self.sender("logs", signal, method::LOGS)?;
        let link = Link::new("logs", &signal.endpoint, signal.protocol);
        Ok(Logs::start(sender, link, self.settings, self.source.clock(), self.scope.clone())?)
    }

    fn source(&self, traces: Option<&Arc<Traces>>, logs: Option<&Logs>) -> Source {
        let spans = ["otlp_grpc_span_exporter", "otlp_http_span_exporter", "otlp_http_json_span_exporter"];
        let records = ["otlp_grpc_log_exporter", "otlp_http_log_exporter", "otlp_http_json_log_exporter"];
        let spans = component(self.settings.traces.as_ref(), spans);
        let records = component(self.settings.logs.as_ref(), records);
        self.source
            .clone()
            .with_queues(traces.map(|traces| (Arc::clone(traces), spans)), logs.map(|logs| (logs.clone(), records)))
    }

    fn metrics(&self, signal: &Signal, source: Source) -> Result<(Metrics, Source), OtlpError> {
        let transport = self.builder("metrics", signal).transport(method::METRICS)?;
        let manner = Manner {
            interval: self.settings.metrics_interval,
            budget: self.series,
            temporality: self.settings.metrics_temporality,
            is_exponential: self.settings.metrics_histograms == Histograms::Exponential,
        };
        let names = Names::new(&self.resource, self.source.owners(), &self.scope);
        let link = Link::new("metrics", &signal.endpoint, signal.protocol);
        let kinds = ["otlp_grpc_metric_exporter", "otlp_http_metric_exporter", "otlp_http_json_metric_exporter"];
        let exporter = component(Some(signal), kinds);
        let metrics = Metrics::prepare(transport, link, names, manner);
        // Its own books are among what it tells.
        let source = source.with_points(metrics.points(), exporter);
        let metrics = metrics.start(source.clone())?;
        Ok((metrics, source))
    }
}

/// `otel.component.type` of a signal's exporter, out of those for gRPC, HTTP and JSON.
fn component(signal: Option<&Signal>, [grpc, http, json]: [&'static str; 3]) -> &'static str {
    match signal.map(|signal| signal.protocol) {
        Some(Protocol::HttpProtobuf) => http,
        Some(Protocol::HttpJson) => json,
        Some(Protocol::Grpc) | None => grpc,
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod receiver;
#[cfg(test)]
mod tests;
