//! An OTLP receiver (gRPC and HTTP/protobuf) that counts and forgets: where `cargo xtask bench` lets synfin export to, and where you may. It takes
//! as little CPU as it can, because it shares the machine with what is measured; whether what comes is right is for the tests to judge.
//!
//! It listens on the loopback port that is its argument, else on one of the kernel's choice. Its first line on stdout is
//! its URL; each line on stdin is answered with its counts so far; it ends with its stdin.

use std::{
    convert::Infallible,
    env,
    io::{self, BufRead as _, Write as _},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use anyhow::{Context as _, Result};
use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Incoming},
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use prost::Message;
use tokio::net::TcpListener;

/// Length of what gRPC puts before a message: one byte for compression, four for its size.
const PREFIX: usize = 5;

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    bytes: AtomicU64,
    spans: AtomicU64,
    /// Requests for spans that are compressed, in JSON, or not what they say they are.
    unread: AtomicU64,
}

/// `ExportTraceServiceRequest`, down to where spans can be counted: these stay bytes, which costs nothing.
#[derive(Clone, PartialEq, Message)]
struct Traces {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
}

fn main() -> Result<()> {
    let counts = Arc::new(Counts::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let port = match env::args().nth(1) {
        Some(port) => port.parse().with_context(|| format!("{port} is no port; give a number up to 65535"))?,
        None => 0,
    };
    let listener = runtime
        .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
        .with_context(|| format!("listening on loopback port {port}"))?;
    let mut out = io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    thread::spawn({
        let counts = Arc::clone(&counts);
        move || runtime.block_on(serve(listener, counts))
    });
    for line in io::stdin().lock().lines() {
        line?;
        let [requests, bytes, spans, unread] =
            [&counts.requests, &counts.bytes, &counts.spans, &counts.unread].map(|count| count.load(Relaxed));
        let said = serde_json::json!({ "requests": requests, "bytes": bytes, "spans": spans, "unread": unread });
        writeln!(out, "{said}")?;
    }
    Ok(())
}

async fn serve(listener: TcpListener, counts: Arc<Counts>) {
    while let Ok((stream, _)) = listener.accept().await {
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&counts)));
            // An error here is the sender going away.
            drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    counts: Arc<Counts>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    let path = request.uri().path();
    let is_grpc = !path.starts_with("/v1/");
    let is_traces = path.ends_with("TraceService/Export") || path == "/v1/traces";
    let is_packed =
        [CONTENT_ENCODING.as_str(), "grpc-encoding"].iter().any(|name| request.headers().contains_key(*name));
    let mut body = request.into_body().collect().await?.to_bytes();
    counts.requests.fetch_add(1, Relaxed);
    counts.bytes.fetch_add(body.len() as u64, Relaxed);
    if is_grpc {
        body.advance(PREFIX.min(body.len()));
    }
    if is_traces {
        match Traces::decode(body) {
            Ok(traces) if !is_packed => {
                let scopes = traces.resource_spans.iter().flat_map(|group| &group.scope_spans);
                counts.spans.fetch_add(scopes.map(|group| group.spans.len() as u64).sum(), Relaxed);
            }
            // The bench then misses spans, and whoever looks knows why.
            Ok(_) | Err(_) => drop(counts.unread.fetch_add(1, Relaxed)),
        }
    }
    // An empty message says that all was taken.
    let (content_type, message, trailers) = if is_grpc {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        ("application/grpc", Bytes::from_static(&[0; PREFIX]), Some(Ok(trailers)))
    } else {
        ("application/x-protobuf", Bytes::new(), None)
    };
    let mut response = Response::new(Full::new(message).with_trailers(async { trailers }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}
