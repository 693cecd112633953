//! Export by OTLP: where each signal goes, and how. [`super::exporter`] works it out from the settings.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

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
    /// Ended connections that may wait for export; beyond it they are dropped and counted.
    pub queue: usize,
    /// Share of ended connections that become spans, 0 to 1.
    pub trace_sample_ratio: f64,
    /// Longest wait for the last exports at the end.
    pub shutdown_timeout: Duration,
    /// `service.name`.
    pub service_name: String,
    /// More attributes of the resource; never `service.name`.
    pub resource_attributes: BTreeMap<String, String>,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            traces: None,
            metrics: None,
            logs: None,
            metrics_interval: Duration::from_secs(10),
            queue: 65_536,
            trace_sample_ratio: 1.0,
            shutdown_timeout: Duration::from_secs(5),
            service_name: "synfin".to_owned(),
            resource_attributes: BTreeMap::new(),
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
}

impl Signal {
    /// Timeout that the specification gives for one export.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
}

// By hand, so that no header's value gets into a log.
impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, protocol, headers, timeout, compression } = self;
        f.debug_struct("Signal")
            .field("endpoint", endpoint)
            .field("protocol", protocol)
            .field("headers", &headers.keys().collect::<Vec<_>>())
            .field("timeout", timeout)
            .field("compression", compression)
            .finish()
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
}

impl Protocol {
    /// The value of `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self, &'static str> {
        match name {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::HttpProtobuf),
            "http/json" => Err("synfin does not send JSON; use http/protobuf, which the same receivers take"),
            _ => Err("not a protocol of OTLP; use grpc or http/protobuf"),
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
}

impl Compression {
    /// The value of `OTEL_EXPORTER_OTLP_COMPRESSION`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self, &'static str> {
        match name {
            "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            _ => Err("not a compression of synfin; use none or gzip"),
        }
    }
}
