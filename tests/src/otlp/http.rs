//! OTLP/HTTP with binary protobuf.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use tonic::body::Body;

use super::{Shared, Signal, Via};

const PROTOBUF: &str = "application/x-protobuf";

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
        return reply(StatusCode::NOT_FOUND);
    };
    if kind != PROTOBUF {
        shared.judge().complain(format!("content-type {kind:?} for {signal:?}, not {PROTOBUF}"));
        return reply(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let Ok(body) = body.collect().await else {
        return reply(StatusCode::BAD_REQUEST); // the sender went away in the middle
    };
    if shared.take(signal, Via::Http, &body.to_bytes()).await {
        reply(StatusCode::OK) // an empty Export…ServiceResponse: all taken
    } else {
        reply(StatusCode::SERVICE_UNAVAILABLE)
    }
}

fn reply(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::new())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    response
}
