//! What the OTLP exporters need to know. Plain data: `config` fills it from flags, file and environment.

use std::time::Duration;

/// Which signals go where, and within which bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Spans; None switches them off.
    pub traces: Option<Signal>,
    /// Metrics; None switches them off.
    pub metrics: Option<Signal>,
    /// Log records; None switches them off.
    pub logs: Option<Signal>,
    /// Time between two exports of metrics.
    pub metrics_interval: Duration,
    /// Ended connections that wait for export at most. Each takes 400 bytes while it waits.
    pub queue: usize,
    /// Share of the normal connections that become spans, 0 to 1. Abnormal ones always do.
    pub trace_sample_ratio: f64,
    /// How long [`super::Otlp::shutdown`] may try to send what still waits.
    pub shutdown_timeout: Duration,
    /// `service.name`.
    pub service_name: String,
    /// Further resource attributes; they win over what the agent finds out itself.
    pub resource_attributes: Vec<(String, String)>,
}

impl Settings {
    /// The default of `service.name`. Only this one yields to a `service.name` in [`Settings::resource_attributes`] or
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub const SERVICE_NAME: &'static str = "synfin";
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            traces: None,
            metrics: None,
            logs: None,
            metrics_interval: Duration::from_mins(1),
            queue: 16_384,
            trace_sample_ratio: 1.0,
            shutdown_timeout: Duration::from_secs(5),
            service_name: Self::SERVICE_NAME.to_owned(),
            resource_attributes: Vec::new(),
        }
    }
}

/// Where and how one signal is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The final URL: with `/v1/traces` and the like for HTTP, scheme, host and port for gRPC.
    pub endpoint: String,
    /// How.
    pub protocol: Protocol,
    /// Headers (HTTP) or metadata (gRPC) of each request.
    pub headers: Vec<(String, String)>,
    /// How long one request may take.
    pub timeout: Duration,
}

/// The encodings of OTLP that synfin speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP/1.1.
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
}
