//! OTLP over gRPC: one call, one message each way.
//!
//! The calls are made on tonic's HTTP/2 channel, the few bytes of gRPC around them are ours: tonic's own client panics
//! at a status whose details are no base64 (0.14.9), and gives errors of the connection the same codes as answers of
//! the endpoint, of which only the latter may be final.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::runtime::Handle;
use tonic::Code;
use tonic::body::Body;
use tonic::client::GrpcService as _;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic_types::{RetryInfo, RpcStatusExt as _, pb};

use super::super::request::{FRAME, Request, frame};
use super::super::words::NOT_GRPC;
use super::super::worker::Failure;
use super::packer::{self, Packer};
use super::{USER_AGENT, answer, tls};
use crate::config::{Credentials, Signal};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: &str = "grpc-status-details-bin";

/// A way to one method of one endpoint.
#[derive(Debug)]
pub(crate) struct Grpc {
    channel: Channel,
    runtime: Handle,
    path: PathAndQuery,
    headers: HeaderMap,
    packer: Packer,
    timeout: Duration,
}

impl Grpc {
    /// Connects when there is something to send, and again after each time that the connection breaks.
    pub(super) fn new(
        signal: &Signal,
        credentials: &Credentials,
        method: &'static str,
        runtime: &Handle,
        mut headers: HeaderMap,
    ) -> Result<Self, tonic::transport::Error> {
        let Signal { endpoint, compression, timeout, .. } = signal;
        let (packer, timeout) = (Packer::new(*compression), *timeout);
        let mut endpoint = Endpoint::from_shared(endpoint.clone())?.user_agent(USER_AGENT)?.connect_timeout(timeout);
        if endpoint.uri().scheme() == Some(&http::uri::Scheme::HTTPS) {
            endpoint = endpoint.tls_config(tls::channel(credentials))?;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        for (name, value) in [(ENCODING, packer.encoding()), (ACCEPT_ENCODING, packer.accepts())] {
            headers.extend(value.map(|value| (name, value)));
        }
        let _guard = runtime.enter();
        Ok(Self {
            channel: endpoint.connect_lazy(),
            runtime: runtime.clone(),
            path: PathAndQuery::from_static(method),
            headers,
            packer,
            timeout,
        })
    }

    /// Sends a request and gives the message of the answer.
    pub(super) fn send(&self, request: &Request) -> Result<Bytes, Failure> {
        let call = call(self.channel.clone(), self.http(request)?);
        // Connecting, sending, and every byte of the answer together.
        let answered = self.runtime.block_on(async { tokio::time::timeout(self.timeout, call).await });
        answered.unwrap_or_else(|elapsed| Err(Failure::later(&elapsed)))
    }

    fn http(&self, request: &Request) -> Result<http::Request<Body>, Failure> {
        let body = if self.packer.encoding().is_some() {
            let packed = self.packer.pack(&request.message(), |length| frame(true, length));
            packed.map_err(|error| Failure::later(&error))?
        } else {
            request.framed()
        };
        let mut http = http::Request::post(Uri::from(self.path.clone()))
            .version(http::Version::HTTP_2)
            .body(Body::new(Full::new(body)))
            .map_err(|error| Failure::later(&error))?;
        *http.headers_mut() = self.headers.clone();
        Ok(http)
    }
}

async fn call(mut channel: Channel, request: http::Request<Body>) -> Result<Bytes, Failure> {
    poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| Failure::later(&error))?;
    let response = channel.call(request).await.map_err(|error| Failure::later(&error))?;
    let (head, mut body) = response.into_parts();
    if let Some(outcome) = status(&head.headers) {
        return outcome.map(|()| Bytes::new());
    }
    match head.status {
        StatusCode::OK => {}
        // A server of HTTP/2 that has no such page. Others may stand before a gRPC server and mean what they say.
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            return Err(Failure::Rejected(format!("{NOT_GRPC} (HTTP status {})", head.status)));
        }
        _ => return Err(answer::refused(head.status, &head.headers)),
    }
    if !head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Err(Failure::Rejected(NOT_GRPC.to_owned()));
    }
    let mut received = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::later(&error))?;
        match frame.into_data() {
            Ok(data) if received.len() + data.len() <= answer::LONGEST => received.extend_from_slice(&data),
            // Only what was taken is answered with a message: enough is known without the rest.
            Ok(_) => return Ok(Bytes::new()),
            Err(frame) => {
                if let Some(outcome) = frame.trailers_ref().and_then(status) {
                    return outcome.map(|()| message(&received, &head.headers));
                }
            }
        }
    }
    Err(Failure::Retry { why: "the answer broke off before its status".to_owned(), after: None })
}

/// The message in what was received; nothing if it cannot be read, because the status has said that all is well.
fn message(received: &[u8], headers: &HeaderMap) -> Bytes {
    let Some((frame, message)) = received.split_first_chunk::<FRAME>() else { return Bytes::new() };
    if frame[0] == 1 {
        packer::unpack(headers.get(ENCODING), message, answer::LONGEST).unwrap_or_default().into()
    } else {
        Bytes::copy_from_slice(message)
    }
}

/// What the status in these headers says, if there is one.
fn status(headers: &HeaderMap) -> Option<Result<(), Failure>> {
    let code = Code::from_bytes(headers.get(STATUS)?.as_bytes());
    Some(if code == Code::Ok { Ok(()) } else { Err(refused(code, headers)) })
}

/// Whether trying again makes sense, as OTLP says ("Failures" of OTLP/gRPC).
fn refused(code: Code, headers: &HeaderMap) -> Failure {
    let mut why = format!("gRPC status {code:?}");
    if let Some(text) = headers.get(MESSAGE) {
        let text = percent_encoding::percent_decode(text.as_bytes()).decode_utf8_lossy();
        why.push_str(": ");
        why.extend(text.chars().take(LONGEST_MESSAGE));
    }
    match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failure::Retry { why, after: retry_info(headers).and_then(|info| info.retry_delay) },
        // Overload and a request that is too large have the same code: the first comes with the advice to try again.
        Code::ResourceExhausted => match retry_info(headers) {
            Some(info) => Failure::Retry { why, after: info.retry_delay },
            None => Failure::Rejected(why),
        },
        _ => Failure::Rejected(why),
    }
}

/// As much of a message is worth showing.
const LONGEST_MESSAGE: usize = 200;

/// google.rpc.RetryInfo among the details of a status.
fn retry_info(headers: &HeaderMap) -> Option<RetryInfo> {
    let details = MetadataMap::from_headers(headers.clone()).get_bin(DETAILS)?.to_bytes().ok()?;
    <pb::Status as prost::Message>::decode(details).ok()?.get_details_retry_info()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            body in prop::collection::vec(any::<u8>(), 0..100),
            code in "\\PC{0,3}|[0-9]{1,2}",
            text in "\\PC{0,40}",
            details in "\\PC{0,40}|[A-Za-z0-9+/]{0,40}={0,2}",
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in [("grpc-status", code), ("grpc-message", text), (DETAILS, details)] {
                if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                    headers.insert(name, value);
                }
            }
            _ = status(&headers);
            message(&body, &headers);
            for encoding in ["gzip", "zstd", "br"] {
                headers.insert(ENCODING, HeaderValue::from_static(encoding));
                message(&body, &headers);
                message(&[&[1, 0, 0, 0, 0], &body[..]].concat(), &headers);
            }
        }
    }
}
