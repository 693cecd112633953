//! Export by OTLP: where each signal goes, and how. [`super::exporter`] works it out from the settings.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use url::Url;

use super::tls::Tls;

/// Export by OTLP. It is off when no signal has an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// Where spans go; None: nowhere.
    pub traces: Option<Signal>,
    /// Where metrics go; None: nowhere.
    pub metrics: Option<Signal>,
    /// Where log records go; None: nowhere.
    pub logs: Option<Signal>,
    /// Time between two exports of metrics.
    pub metrics_interval: Duration,
    /// Totals or differences.
    pub metrics_temporality: Temporality,
    /// Which buckets histograms have.
    pub metrics_histograms: Histograms,
    /// Ended connections that may wait for export, with 128 bytes of memory for each; beyond it they are dropped and counted.
    pub queue: usize,
    /// Spans of one request at most.
    pub span_batch: usize,
    /// How long spans wait for company before they are sent.
    pub span_delay: Duration,
    /// Log records that may wait for export.
    pub log_queue: usize,
    /// Log records of one request at most.
    pub log_batch: usize,
    /// How long log records wait for company before they are sent.
    pub log_delay: Duration,
    /// How long a span or a log record may wait for export; what is older is dropped and counted.
    pub max_age: Duration,
    /// Share of normal connections that become spans, 0 to 1.
    pub trace_sample_ratio: f64,
    /// Spans of normal connections a second, on average; None: no limit.
    pub trace_rate_limit: Option<u32>,
    /// Share of the segments sent from which on those that were sent again are abnormal, 0 to 1.
    pub abnormal_retransmit_ratio: f64,
    /// Segments sent again that are abnormal, at least.
    pub abnormal_retransmits: u32,
    /// Time from SYN to ESTABLISHED from which on it is abnormal.
    pub abnormal_handshake: Duration,
    /// Time between two checkpoints of a connection that lives long, each of them a span; None: no checkpoints.
    pub checkpoint_interval: Option<Duration>,
    /// Longest wait for the last exports at the end.
    pub shutdown_timeout: Duration,
    /// `service.name`.
    pub service_name: String,
    /// More attributes of the resource; never `service.name`.
    pub resource_attributes: BTreeMap<String, String>,
    /// In whose name things are told.
    pub resources: Resources,
    /// What these came from, for whoever asks what is in effect while nothing is sent.
    pub sections: Sections,
}

/// The sections of the file, with what is in effect: what is missing in one of a signal comes from the general one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sections {
    /// `otlp`, with all but an endpoint.
    pub general: Section,
    /// `otlp.traces`; with all once spans are sent.
    pub traces: Section,
    /// `otlp.metrics`, likewise.
    pub metrics: Section,
    /// `otlp.logs`, likewise.
    pub logs: Section,
}

/// What one section says of an exporter.
#[derive(Clone, PartialEq, Eq)]
pub struct Section {
    /// False switches it off.
    pub enabled: bool,
    /// See [`Signal::endpoint`].
    pub endpoint: Option<Url>,
    /// Whether a gRPC endpoint without a scheme is http (true) or https; None: such a one is an error.
    pub insecure: Option<bool>,
    /// See [`Signal::protocol`].
    pub protocol: Option<Protocol>,
    /// See [`Signal::headers`].
    pub headers: Option<BTreeMap<String, String>>,
    /// See [`Signal::timeout`].
    pub timeout: Option<Duration>,
    /// See [`Signal::compression`].
    pub compression: Option<Compression>,
    /// See [`Signal::tls`].
    pub tls: Tls,
}

impl Section {
    /// A section that says nothing.
    pub(super) const SILENT: Self = Self {
        enabled: true,
        endpoint: None,
        insecure: None,
        protocol: None,
        headers: None,
        timeout: None,
        compression: None,
        tls: Tls::NONE,
    };

    /// With the defaults for what is missing.
    pub(super) fn filled(self) -> Self {
        Self {
            protocol: Some(self.protocol.unwrap_or_default()),
            headers: Some(self.headers.unwrap_or_default()),
            timeout: Some(self.timeout.unwrap_or(Signal::TIMEOUT)),
            compression: Some(self.compression.unwrap_or_default()),
            ..self
        }
    }
}

impl Default for Sections {
    fn default() -> Self {
        let silent = || Section::SILENT;
        Self { general: silent().filled(), traces: silent(), metrics: silent(), logs: silent() }
    }
}

// By hand, so that no header's value gets into a log.
impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { enabled, endpoint, insecure, protocol, headers, timeout, compression, tls } = self;
        f.debug_struct("Section")
            .field("enabled", enabled)
            .field("endpoint", &endpoint.as_ref().map(Url::as_str))
            .field("insecure", insecure)
            .field("protocol", protocol)
            .field("headers", &headers.as_ref().map(|headers| headers.keys().collect::<Vec<_>>()))
            .field("timeout", timeout)
            .field("compression", compression)
            .field("tls", tls)
            .finish()
    }
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            traces: None,
            metrics: None,
            logs: None,
            metrics_interval: Duration::from_secs(10),
            metrics_temporality: Temporality::Cumulative,
            metrics_histograms: Histograms::Explicit,
            queue: 131_072,
            span_batch: 1_024,
            span_delay: Duration::from_secs(1),
            log_queue: 2_048,
            log_batch: 512,
            log_delay: Duration::from_secs(1),
            max_age: Duration::from_hours(1),
            trace_sample_ratio: 1.0,
            trace_rate_limit: Some(1_000),
            abnormal_retransmit_ratio: 0.05,
            abnormal_retransmits: 1,
            abnormal_handshake: Duration::from_secs(1),
            checkpoint_interval: Some(Duration::from_mins(10)),
            shutdown_timeout: Duration::from_secs(5),
            service_name: "synfin".to_owned(),
            resource_attributes: BTreeMap::new(),
            resources: Resources::default(),
            sections: Sections::default(),
        }
    }
}

impl Otlp {
    /// Whether anything is exported.
    pub const fn is_on(&self) -> bool {
        self.traces.is_some() || self.metrics.is_some() || self.logs.is_some()
    }
}

/// Where one signal goes, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Signal {
    /// Final URL: with the signal's path for HTTP, without a path for gRPC. `http` or `https`.
    pub endpoint: String,
    /// Encoding and transport.
    pub protocol: Protocol,
    /// Sent with each request: lower-case names, ASCII values. The values may be secrets.
    pub headers: BTreeMap<String, String>,
    /// For one export.
    pub timeout: Duration,
    /// Of request bodies.
    pub compression: Compression,
    /// Files for https.
    pub tls: Tls,
}

impl Signal {
    /// Timeout that the specification gives for one export.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
}

// By hand, so that no header's value gets into a log.
impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, protocol, headers, timeout, compression, tls } = self;
        f.debug_struct("Signal")
            .field("endpoint", endpoint)
            .field("protocol", protocol)
            .field("headers", &headers.keys().collect::<Vec<_>>())
            .field("timeout", timeout)
            .field("compression", compression)
            .field("tls", tls)
            .finish()
    }
}

/// In whose name things are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resources {
    /// In that of each container, pod and service that connections belong to, and the agent's for all else.
    #[default]
    Owner,
    /// In the agent's.
    Host,
}

impl Resources {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Host => "host",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self, &'static str> {
        match name {
            "owner" => Ok(Self::Owner),
            "host" => Ok(Self::Host),
            _ => Err("neither owner nor host"),
        }
    }
}

/// Encoding and transport of OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    #[default]
    Grpc,
    /// HTTP with protobuf bodies.
    HttpProtobuf,
    /// HTTP with JSON bodies.
    HttpJson,
}

impl Protocol {
    /// The value of `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self, &'static str> {
        match name {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::HttpProtobuf),
            "http/json" => Ok(Self::HttpJson),
            _ => Err("not a protocol of OTLP; use grpc, http/protobuf or http/json"),
        }
    }
}

/// Compression of request bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// The value of `OTEL_EXPORTER_OTLP_COMPRESSION`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self, &'static str> {
        match name {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err("not a compression of synfin; use none, gzip or zstd"),
        }
    }
}

/// What metrics tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Totals: an export that fails costs resolution alone.
    #[default]
    Cumulative,
    /// Of counters and histograms, what has come since the last export.
    Delta,
    /// Of histograms alone.
    LowMemory,
}

impl Temporality {
    /// The value of `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cumulative => "cumulative",
            Self::Delta => "delta",
            Self::LowMemory => "lowmemory",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self, &'static str> {
        // The specification: not case-sensitive.
        match name.to_ascii_lowercase().as_str() {
            "cumulative" => Ok(Self::Cumulative),
            "delta" => Ok(Self::Delta),
            "lowmemory" => Ok(Self::LowMemory),
            _ => Err("not a temporality; use cumulative, delta or lowmemory"),
        }
    }
}

/// Buckets of histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Histograms {
    /// With the bounds of docs/METRICS.md.
    #[default]
    Explicit,
    /// Exponential ones.
    Exponential,
}

impl Histograms {
    /// The value of `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Explicit => "explicit_bucket_histogram",
            Self::Exponential => "base2_exponential_bucket_histogram",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self, &'static str> {
        match name.to_ascii_lowercase().as_str() {
            "explicit_bucket_histogram" => Ok(Self::Explicit),
            "base2_exponential_bucket_histogram" => Ok(Self::Exponential),
            _ => Err("not an aggregation; use explicit_bucket_histogram or base2_exponential_bucket_histogram"),
        }
    }
}
