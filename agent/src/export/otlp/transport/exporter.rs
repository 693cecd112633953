//! OpenTelemetry's exporter of metrics, with a client of ours below it.
//!
//! The exporter makes the requests. The client takes them to the endpoint as all else goes, in HTTP or in gRPC, and
//! keeps aside what came of it: the exporter tells that as text, "network error" for all that happens on the way, and
//! what a partial success rejects not at all. Its own client of gRPC would hide the endpoint's message too, and tonic's
//! below it panics at a status whose details are no base64 (0.14.9): the reader's thread would end, and with it all
//! metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter as _;
use reqwest::Url;

use super::super::metrics::Way;
use super::super::request::Request;
use super::super::worker::{Accepted, Failure};
use super::Transport;

type Outcome = Result<Accepted, Failure>;

/// The exporter, and what came of its last request.
#[derive(Debug)]
pub(crate) struct Exporter {
    exporter: MetricExporter,
    noted: Arc<Mutex<Option<Outcome>>>,
}

impl Exporter {
    /// All is said here, or the exporter would ask `OTEL_*` variables, which the configuration has read already and
    /// which flags and files win over. Headers and compression are the transport's.
    pub(super) fn new(transport: Transport, url: &Url, timeout: Duration) -> Result<Self, ExporterBuildError> {
        let noted = Arc::default();
        let exporter = MetricExporter::builder()
            .with_temporality(Temporality::Cumulative)
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url.as_str())
            .with_timeout(timeout)
            .with_retry_policy(RetryPolicy::disabled()) // the next export has the same totals
            .with_http_client(Client { transport, noted: Arc::clone(&noted) })
            .build()?;
        Ok(Self { exporter, noted })
    }

    fn noted(&self) -> Option<Outcome> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Way for Exporter {
    async fn send(&self, metrics: &ResourceMetrics) -> Outcome {
        let told = self.exporter.export(metrics).await;
        self.noted().unwrap_or_else(|| match told {
            Ok(()) => Ok(Accepted::default()),
            // It was not sent: the same totals would be refused again.
            Err(error) => Err(Failure::Rejected(error.to_string())),
        })
    }
}

/// What the exporter sends through.
#[derive(Debug)]
struct Client {
    transport: Transport,
    noted: Arc<Mutex<Option<Outcome>>>,
}

#[async_trait]
impl HttpClient for Client {
    /// Blocks: it is called on the reader's own thread, which has nothing else to do meanwhile.
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let outcome = self.transport.send(&Request::of(request.body()));
        let answer = match &outcome {
            // Empty: what the endpoint said is told by the link, once.
            Ok(_) => Ok(http::Response::new(Bytes::new())),
            Err(Failure::Retry { why, .. } | Failure::Rejected(why)) => Err(why.clone().into()),
        };
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        answer
    }
}

#[cfg(test)]
mod tests;
