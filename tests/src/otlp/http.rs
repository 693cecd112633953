//! OTLP/HTTP with binary protobuf or JSON.

use std::{io::Read as _, sync::Arc};

use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
};
use tonic::body::Body;

use super::{Shared, Signal, Via, json};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
/// No request of synfin unpacks to more.
const LONGEST: usize = 64 << 20;

/// Serves one request.
pub async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let signal = match (&head.method, head.uri.path()) {
        (&Method::POST, "/v1/traces") => Some(Signal::Traces),
        (&Method::POST, "/v1/metrics") => Some(Signal::Metrics),
        (&Method::POST, "/v1/logs") => Some(Signal::Logs),
        _ => None,
    };
    let Some(signal) = signal else {
        shared.judge().complain(format!("HTTP {} {}, which is no OTLP request", head.method, head.uri));
        return reply(StatusCode::NOT_FOUND, PROTOBUF);
    };
    let (via, kind) = match kind {
        PROTOBUF => (Via::Http, PROTOBUF),
        JSON => (Via::Json, JSON),
        other => {
            shared.judge().complain(format!("content-type {other:?} for {signal:?}, neither {PROTOBUF} nor {JSON}"));
            return reply(StatusCode::UNSUPPORTED_MEDIA_TYPE, PROTOBUF);
        }
    };
    let Ok(body) = body.collect().await else {
        return reply(StatusCode::BAD_REQUEST, kind); // the sender went away in the middle
    };
    let encoding = head.headers.get(CONTENT_ENCODING).map(|encoding| String::from_utf8_lossy(encoding.as_bytes()));
    let message = unpacked(encoding.as_deref(), &body.to_bytes()).and_then(|body| match via {
        Via::Json => json::to_protobuf(signal, &body),
        Via::Http | Via::Grpc => Ok(body),
    });
    let message = match message {
        Ok(message) => Bytes::from(message),
        Err(error) => {
            shared.judge().complain(format!("{signal:?} by {via:?} as {encoding:?}: {error:#}"));
            return reply(StatusCode::BAD_REQUEST, kind);
        }
    };
    if let Some(encoding) = encoding {
        *shared.judge().encodings.entry((via, encoding.into_owned())).or_default() += 1;
    }
    if shared.take(signal, via, &message).await {
        reply(StatusCode::OK, kind) // an empty Export…ServiceResponse: all taken
    } else {
        reply(StatusCode::SERVICE_UNAVAILABLE, kind)
    }
}

fn unpacked(encoding: Option<&str>, body: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    match encoding {
        None => plain.extend_from_slice(body),
        Some("gzip") => {
            flate2::read::GzDecoder::new(body).take(LONGEST as u64).read_to_end(&mut plain)?;
        }
        Some("zstd") => plain = zstd::bulk::decompress(body, LONGEST)?,
        Some(other) => bail!("unknown encoding {other}"),
    }
    Ok(plain)
}

fn reply(status: StatusCode, kind: &'static str) -> Response<Body> {
    let body = if kind == JSON { "{}" } else { "" };
    let mut response = Response::new(Body::new(Full::new(Bytes::from_static(body.as_bytes()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
