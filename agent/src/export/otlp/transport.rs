//! OpenTelemetry's exporters, set up for one signal each.
//!
//! gRPC's exporter lives on a tokio runtime, HTTP's is blocking and must stay away from one: the worker threads drive
//! both, each in its way ([`Driver`]).

use std::collections::HashMap;
use std::future::Future;
use std::str::FromStr as _;
use std::sync::Arc;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    Compression as Codec, LogExporter, MetricExporter, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::Temporality;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;

use super::OtlpError;
use super::worker::Failure;
use crate::config::{Compression, Protocol, Signal};
use crate::status::Board;

/// How to wait for an exporter.
#[derive(Clone, Debug)]
pub(super) enum Driver {
    /// On the runtime that its connection lives on.
    Runtime(Handle),
    /// On the thread alone.
    Thread,
}

impl Driver {
    /// Waits for `future`, blocking.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Runtime(runtime) => runtime.block_on(future),
            Self::Thread => futures_executor::block_on(future),
        }
    }
}

/// An exporter with all that a worker needs besides.
#[derive(Debug)]
pub(super) struct Sender<E> {
    pub(super) exporter: E,
    pub(super) driver: Driver,
    /// Under which name spans and records go.
    pub(super) scope: InstrumentationScope,
    /// What the agent knows while it sends.
    pub(super) board: Arc<Board>,
}

/// What the exporters of all signals are built from.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    /// Name of the signal in messages.
    pub(super) name: &'static str,
    /// Where it goes.
    pub(super) signal: &'a Signal,
    /// The runtime for gRPC.
    pub(super) runtime: Option<&'a Handle>,
}

impl Builder<'_> {
    /// How to wait for what is built.
    pub(super) fn driver(&self) -> Driver {
        match (self.signal.protocol, self.runtime) {
            (Protocol::Grpc, Some(runtime)) => Driver::Runtime(runtime.clone()),
            _ => Driver::Thread,
        }
    }

    /// The exporter of spans. It tries once: trying again is the worker's business, which loses nothing meanwhile.
    pub(super) fn spans(&self) -> Result<SpanExporter, OtlpError> {
        let _guard = self.runtime.map(Handle::enter);
        let builder = SpanExporter::builder();
        match self.signal.protocol {
            Protocol::Grpc => self.grpc(builder.with_tonic(), RetryPolicy::disabled())?.build(),
            Protocol::HttpProtobuf => self.http(builder.with_http(), RetryPolicy::disabled())?.build(),
        }
        .map_err(|error| self.refused(error.to_string()))
    }

    /// The exporter of log records. It tries once, like that of spans.
    pub(super) fn logs(&self) -> Result<LogExporter, OtlpError> {
        let _guard = self.runtime.map(Handle::enter);
        let builder = LogExporter::builder();
        match self.signal.protocol {
            Protocol::Grpc => self.grpc(builder.with_tonic(), RetryPolicy::disabled())?.build(),
            Protocol::HttpProtobuf => self.http(builder.with_http(), RetryPolicy::disabled())?.build(),
        }
        .map_err(|error| self.refused(error.to_string()))
    }

    /// The exporter of metrics. Totals are cumulative: an outage costs resolution and nothing else.
    pub(super) fn metrics(&self) -> Result<MetricExporter, OtlpError> {
        let _guard = self.runtime.map(Handle::enter);
        let builder = MetricExporter::builder().with_temporality(Temporality::Cumulative);
        match self.signal.protocol {
            Protocol::Grpc => self.grpc(builder.with_tonic(), RetryPolicy::recommended())?.build(),
            Protocol::HttpProtobuf => self.http(builder.with_http(), RetryPolicy::recommended())?.build(),
        }
        .map_err(|error| self.refused(error.to_string()))
    }

    fn grpc<B: WithExportConfig + WithTonicConfig>(&self, builder: B, retry: RetryPolicy) -> Result<B, OtlpError> {
        let url = self.url()?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.signal.headers {
            headers.append(self.header_name(name)?, self.header_value(name, value)?);
        }
        let mut builder = builder
            .with_endpoint(&self.signal.endpoint)
            .with_timeout(self.signal.timeout)
            .with_metadata(MetadataMap::from_headers(headers))
            .with_retry_policy(retry);
        if self.signal.compression == Compression::Gzip {
            builder = builder.with_compression(Codec::Gzip);
        }
        if url.scheme() == "https" {
            builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
        }
        Ok(builder)
    }

    fn http<B: WithExportConfig + WithHttpConfig>(&self, builder: B, retry: RetryPolicy) -> Result<B, OtlpError> {
        let url = self.url()?;
        let mut headers = HashMap::new();
        for (name, value) in &self.signal.headers {
            self.header_name(name)?;
            self.header_value(name, value)?;
            // The exporter takes the values for percent-encoded, as they are in OTEL_EXPORTER_OTLP_HEADERS.
            headers.insert(name.clone(), value.replace('%', "%25"));
        }
        let builder = builder
            .with_endpoint(&self.signal.endpoint)
            .with_timeout(self.signal.timeout)
            .with_headers(headers)
            .with_http_client(self.http_client(&url)?)
            .with_retry_policy(retry);
        Ok(match self.signal.compression {
            Compression::None => builder,
            Compression::Gzip => builder.with_compression(Codec::Gzip),
        })
    }

    fn http_client(&self, url: &Url) -> Result<reqwest::blocking::Client, OtlpError> {
        let mut client = reqwest::blocking::Client::builder().timeout(self.signal.timeout);
        if url.scheme() == "http" {
            // Otherwise the client looks for the system's certificates, and fails in a container that has none.
            client = client.tls_certs_only([]);
        }
        // A blocking client must not be made on a thread of a runtime, and who calls this may be on one.
        std::thread::scope(|scope| scope.spawn(|| client.build()).join())
            .map_err(|_panic| self.refused("the HTTP client panicked"))?
            .map_err(|error| {
                self.refused(format!("{error:?}; for https the system's CA certificates must be installed"))
            })
    }

    fn url(&self) -> Result<Url, OtlpError> {
        let invalid =
            |why: String| OtlpError::Endpoint { signal: self.name, endpoint: self.signal.endpoint.clone(), why };
        let url = Url::parse(&self.signal.endpoint).map_err(|error| invalid(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(invalid("neither http nor https".to_owned()));
        }
        Ok(url)
    }

    fn header_name(&self, name: &str) -> Result<HeaderName, OtlpError> {
        HeaderName::from_str(name).map_err(|_secret| OtlpError::Header { signal: self.name, header: name.to_owned() })
    }

    fn header_value(&self, name: &str, value: &str) -> Result<HeaderValue, OtlpError> {
        HeaderValue::from_str(value).map_err(|_secret| OtlpError::Header { signal: self.name, header: name.to_owned() })
    }

    fn refused(&self, why: impl Into<String>) -> OtlpError {
        OtlpError::Exporter { signal: self.name, why: why.into() }
    }
}

/// Whether trying again makes sense, by the rules of OTLP (specification, "Failures").
///
/// The exporters give their error as text only; `transport/tests.rs` holds that text against real servers.
pub(super) fn classify(error: &OTelSdkError) -> Failure {
    let text = match error {
        OTelSdkError::InternalFailure(text) => text,
        OTelSdkError::AlreadyShutdown | OTelSdkError::Timeout(_) => return Failure::Retry(error.to_string()),
    };
    let refused = if let Some((_, status)) = text.split_once("status code: ") {
        !matches!(status.trim(), "429" | "502" | "503" | "504")
    } else if let Some((_, code)) = text.split_once("gRPC code: ") {
        // A status that came from the server is the bare code. One with a cause behind it was made on this side, out of
        // a connection that broke, whatever its code.
        const AGAIN: [&str; 7] = [
            "Cancelled",
            "DeadlineExceeded",
            "Aborted",
            "OutOfRange",
            "Unavailable",
            "DataLoss",
            // OTLP wants RetryInfo for this one, which the exporter does not pass on. An overloaded collector is far
            // more likely than a batch that is too large: batches stay below 1 MB.
            "ResourceExhausted",
        ];
        !code.contains(": ") && !AGAIN.contains(&code.trim())
    } else {
        text.contains("will not be sent")
    };
    if refused { Failure::Rejected(text.clone()) } else { Failure::Retry(text.clone()) }
}

#[cfg(test)]
mod tests;
