//! The ways to an endpoint: bytes go through [`Transport`], which says in types what the endpoint answered.

use std::str::FromStr as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use tokio::runtime::Handle;

use super::OtlpError;
use super::link::redacted;
use super::request::Request;
use super::worker::{Accepted, Failure, causes};
use crate::config::{Credentials, Protocol, Signal};
use crate::priority;

mod answer;
mod grpc;
mod gzip;
mod json;
mod over_http;
mod packer;
mod tls;
mod zstd;

use grpc::Grpc;
use over_http::Http;

const USER_AGENT: &str = concat!("synfin/", env!("CARGO_PKG_VERSION"));

/// A way for one signal. It tries once: trying again is the worker's business, which loses nothing meanwhile.
#[derive(Debug)]
pub(super) enum Transport {
    Grpc(Grpc),
    Http(Http),
}

impl Transport {
    /// Sends a request, blocking until it is answered or timed out.
    pub(super) fn send(&self, request: &Request) -> Result<Accepted, Failure> {
        let body = match self {
            Self::Grpc(grpc) => grpc.send(request),
            Self::Http(http) => http.send(request),
        }?;
        Ok(answer::accepted(&body))
    }
}

/// The methods of gRPC.
pub(super) mod method {
    pub(crate) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    pub(crate) const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    pub(crate) const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
}

/// What the ways of all signals are built from.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    /// Name of the signal in messages.
    pub(super) name: &'static str,
    /// Where it goes.
    pub(super) signal: &'a Signal,
    /// What TLS takes.
    pub(super) credentials: &'a Credentials,
    /// The runtime for gRPC.
    pub(super) runtime: Option<&'a Handle>,
}

impl Builder<'_> {
    /// A way for the signal, by this method if it is gRPC.
    pub(super) fn transport(&self, method: &'static str) -> Result<Transport, OtlpError> {
        let Self { signal, credentials, .. } = self;
        let (url, headers) = (self.url()?, self.headers()?);
        match (signal.protocol, self.runtime) {
            (Protocol::Grpc, Some(runtime)) => Grpc::new(signal, credentials, method, runtime, headers)
                .map(Transport::Grpc)
                .map_err(|error| self.refused(causes(&error))),
            (Protocol::Grpc, None) => Err(self.refused("gRPC without a runtime")),
            (Protocol::HttpProtobuf | Protocol::HttpJson, _) => self
                .off_runtime(|| Http::new(signal, credentials, method, url, headers))?
                .map(Transport::Http)
                .map_err(|error| self.without_certificates(&error)),
        }
    }

    /// Runs `make` on a thread of its own: a blocking client must not be made on a thread of a runtime, and who calls
    /// this may be on one. The client's thread inherits the priority.
    fn off_runtime<T: Send>(&self, make: impl FnOnce() -> T + Send) -> Result<T, OtlpError> {
        let make = || {
            priority::lower();
            make()
        };
        std::thread::scope(|scope| scope.spawn(make).join()).map_err(|_panic| self.refused("the HTTP client panicked"))
    }

    fn url(&self) -> Result<Url, OtlpError> {
        let invalid =
            |why: String| OtlpError::Endpoint { signal: self.name, endpoint: redacted(&self.signal.endpoint), why };
        let url = Url::parse(&self.signal.endpoint).map_err(|error| invalid(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(invalid("neither http nor https".to_owned()));
        }
        Ok(url)
    }

    fn headers(&self) -> Result<HeaderMap, OtlpError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.signal.headers {
            let wrong = || OtlpError::Header { signal: self.name, header: name.clone() };
            // The errors would show what may be a secret.
            let name = HeaderName::from_str(name).map_err(|_secret| wrong())?;
            let mut value = HeaderValue::from_str(value).map_err(|_secret| wrong())?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(headers)
    }

    fn without_certificates(&self, error: &reqwest::Error) -> OtlpError {
        self.refused(format!(
            "{}; for https the system's CA certificates must be installed, or one be named by otlp.certificate",
            causes(error)
        ))
    }

    fn refused(&self, why: impl Into<String>) -> OtlpError {
        OtlpError::Exporter { signal: self.name, why: why.into() }
    }
}

#[cfg(test)]
mod tests;
