//! Small OTLP endpoints inside the test process: real sockets, real encodings, and answers as told.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder as Http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::config::{Compression, Protocol, Signal, Tls};

/// What arrived.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) spans: Vec<Span>,
    pub(super) logs: Vec<LogRecord>,
    /// The latest export.
    pub(super) metrics: Vec<Metric>,
    /// Names of the services that sent.
    pub(super) services: Vec<String>,
    /// Answers for the next requests; afterwards everything is taken.
    pub(super) refusals: Vec<Status>,
    /// What requests with metrics said in the header `x-tenant`.
    pub(super) tenants: Vec<String>,
    /// Spans or data points that it says to reject of each request, and why.
    pub(super) partial: Option<(i64, String)>,
}

/// A gRPC endpoint on a port of its own.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    pub(super) inbox: Arc<Mutex<Inbox>>,
}

impl Receiver {
    /// On any free port.
    pub(super) fn start() -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(super) fn on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), inbox: Arc::default() };
        let service = receiver.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let incoming = tonic::transport::server::TcpIncoming::from(listener);
                let traces = TraceServiceServer::new(service.clone())
                    .accept_compressed(CompressionEncoding::Gzip)
                    .accept_compressed(CompressionEncoding::Zstd)
                    .send_compressed(CompressionEncoding::Gzip)
                    .send_compressed(CompressionEncoding::Zstd);
                let server = tonic::transport::Server::builder()
                    .add_service(traces)
                    .add_service(LogsServiceServer::new(service.clone()))
                    .add_service(MetricsServiceServer::new(service).accept_compressed(CompressionEncoding::Gzip));
                server.serve_with_incoming(incoming).await.unwrap();
            });
        });
        receiver
    }

    /// How to get there.
    pub(super) fn signal(&self) -> Signal {
        signal(format!("http://{}", self.address), Protocol::Grpc)
    }

    /// Waits until `enough` of what arrived.
    pub(super) fn wait(&self, enough: impl Fn(&Inbox) -> bool) {
        for _ in 0..400 {
            if enough(&self.inbox.lock().unwrap()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it did not arrive within 20 s: {:?}", self.inbox.lock().unwrap());
    }

    fn take<R>(&self, add: impl FnOnce(&mut Inbox) -> R) -> Result<Response<R>, Status> {
        let mut inbox = self.inbox.lock().unwrap();
        match inbox.refusals.pop() {
            Some(status) => Err(status),
            None => Ok(Response::new(add(&mut inbox))),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(|inbox| {
            for resource in request.into_inner().resource_spans {
                let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
                let name = attributes.into_iter().find(|pair| pair.key == "service.name");
                inbox.services.push(format!("{:?}", name.and_then(|pair| pair.value)));
                inbox.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
            let partial_success = inbox
                .partial
                .clone()
                .map(|(rejected_spans, error_message)| ExportTracePartialSuccess { rejected_spans, error_message });
            ExportTraceServiceResponse { partial_success }
        })
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take(|inbox| {
            let scopes = request.into_inner().resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
            inbox.logs.extend(scopes.flat_map(|scope| scope.log_records));
            ExportLogsServiceResponse::default()
        })
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(|inbox| {
            let tenant = request.metadata().get("x-tenant").and_then(|value| value.to_str().ok());
            inbox.tenants.extend(tenant.map(str::to_owned));
            let scopes = request.into_inner().resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
            inbox.metrics = scopes.flat_map(|scope| scope.metrics).collect();
            let partial_success = inbox.partial.clone().map(|(rejected_data_points, error_message)| {
                ExportMetricsPartialSuccess { rejected_data_points, error_message }
            });
            ExportMetricsServiceResponse { partial_success }
        })
    }
}

/// Head and body of each request.
pub(super) type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// An HTTP endpoint that answers every request with `status`.
pub(super) fn http(status: &'static str) -> (SocketAddr, Requests) {
    answering(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes())
}

/// An HTTP endpoint that answers every request with these bytes, right or wrong, and closes the connection.
pub(super) fn answering(answer: Vec<u8>) -> (SocketAddr, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let taken = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut data = Vec::new();
            let mut chunk = vec![0; 65_536];
            let (head, length) = loop {
                let read = stream.read(&mut chunk).unwrap();
                data.extend_from_slice(&chunk[..read]);
                if let Some(end) = data.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&data[..end]).to_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    break (head.clone(), end + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap()));
                }
                if read == 0 {
                    break (String::new(), 0);
                }
            };
            while data.len() < length {
                let read = stream.read(&mut chunk).unwrap();
                data.extend_from_slice(&chunk[..read]);
            }
            let body = data[head.len() + 4..].to_vec();
            taken.lock().unwrap().push((head, body));
            // The sender may have heard enough before the end.
            _ = stream.write_all(&answer);
            hang_up(&mut stream);
        }
    });
    (address, requests)
}

/// A server of another protocol, which meets a request of HTTP/2 with these bytes and closes the connection.
pub(super) fn answering_http2(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A connection that ends before there is a request on it ends without a reason that anybody is told.
            if read_http2_request(&mut stream) && stream.write_all(answer).is_ok() {
                hang_up(&mut stream);
            }
        }
    });
    address
}

/// Until the head of the first request; false if the sender goes away before.
fn read_http2_request(stream: &mut TcpStream) -> bool {
    const PREFACE: usize = 24;
    const HEAD: usize = 9;
    const HEADERS: u8 = 1;
    let (mut data, mut chunk) = (Vec::new(), [0; 4_096]);
    let mut frame = PREFACE;
    loop {
        while let Some(&[a, b, c, kind, ..]) = data.get(frame..frame + HEAD) {
            if kind == HEADERS {
                return true;
            }
            frame += HEAD + u32::from_be_bytes([0, a, b, c]) as usize;
        }
        match stream.read(&mut chunk) {
            Ok(read @ 1..) => data.extend_from_slice(&chunk[..read]),
            Ok(0) | Err(_) => return false,
        }
    }
}

/// Closes a connection so that what was sent on it arrives: with bytes of the sender still unread it would be reset, and
/// a reset takes away what the sender has not read yet.
pub(super) fn hang_up(stream: &mut TcpStream) {
    _ = stream.shutdown(Shutdown::Write);
    _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    _ = std::io::copy(stream, &mut std::io::sink());
}

/// A gRPC endpoint that speaks HTTP/2 well and gRPC as told: headers, body and trailers as they are.
pub(super) fn raw_grpc(
    headers: &[(&'static str, String)],
    body: Option<Vec<u8>>,
    trailers: &[(&'static str, String)],
) -> SocketAddr {
    let map = |pairs: &[(&'static str, String)]| -> http::HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    };
    let (headers, trailers) = (map(headers), map(trailers));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let answer = move || {
        let body = Full::new(bytes::Bytes::from(body.clone().unwrap_or_default()));
        let trailers = (!trailers.is_empty()).then(|| Ok(trailers.clone()));
        let mut response = http::Response::new(body.with_trailers(std::future::ready(trailers)));
        *response.headers_mut() = headers.clone();
        response
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = answer.clone();
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let response = answer();
                    async move {
                        request.into_body().collect().await?;
                        Ok::<_, hyper::Error>(response)
                    }
                });
                tokio::spawn(async move {
                    // An error here is the sender going away.
                    _ = Http2::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    address
}

/// A signal with short patience.
pub(super) fn signal(endpoint: String, protocol: Protocol) -> Signal {
    Signal {
        endpoint,
        protocol,
        headers: BTreeMap::new(),
        timeout: Duration::from_secs(5),
        compression: Compression::None,
        tls: Tls::default(),
    }
}
