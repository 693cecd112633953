use std::net::TcpListener;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message as _;
use tokio::runtime::Runtime;
use tonic::Status;

use super::super::super::receiver::{Receiver, answering, http, raw_grpc, signal};
use super::super::{Builder, gzip};
use super::*;
use crate::config::{Compression, Credentials, Protocol as Speaks, Signal};

/// Sends so many times by one exporter.
fn send<const TIMES: usize>(signal: &Signal) -> [Outcome; TIMES] {
    _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Runtime::new().unwrap();
    let (credentials, runtime) = (Credentials::default(), Some(runtime.handle()));
    let exporter = Builder { name: "metrics", signal, credentials: &credentials, runtime }.metrics().unwrap();
    let metrics = ResourceMetrics::default();
    std::array::from_fn(|_| match pin!(exporter.send(&metrics)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("it waits for something else than the transport"),
    })
}

fn over_http(address: std::net::SocketAddr) -> Signal {
    signal(format!("http://{address}/v1/metrics"), Speaks::HttpProtobuf)
}

fn over_grpc(address: std::net::SocketAddr) -> Signal {
    signal(format!("http://{address}"), Speaks::Grpc)
}

fn retry(why: &str, after: Option<Duration>) -> Outcome {
    Err(Failure::Retry { why: why.to_owned(), after })
}

#[test]
fn what_a_partial_success_rejects_is_known_by_both_protocols() {
    let expected = Ok(Accepted { rejected: 3, message: "too old".to_owned() });
    let partial = ExportMetricsPartialSuccess { rejected_data_points: 3, error_message: "too old".to_owned() };
    let body = ExportMetricsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let (address, _) = answering([head.as_bytes(), &body].concat());
    assert_eq!(send(&over_http(address)), [expected.clone(), expected.clone()]);

    let receiver = Receiver::start();
    receiver.inbox.lock().unwrap().partial = Some((3, "too old".to_owned()));
    assert_eq!(send(&receiver.signal()), [expected.clone(), expected]);
}

#[test]
fn what_the_endpoint_says_is_kept_in_its_words() {
    let (address, _) =
        answering(b"HTTP/1.1 503 Away\r\ncontent-length: 0\r\nretry-after: 17\r\nconnection: close\r\n\r\n".to_vec());
    let away = retry("HTTP status 503 Service Unavailable", Some(Duration::from_secs(17)));
    assert_eq!(send(&over_http(address)), [away.clone(), away]);
    let (address, requests) = http("401 Unauthorized");
    assert_eq!(send(&over_http(address)), [Err(Failure::Rejected("HTTP status 401 Unauthorized".to_owned()))]);
    assert_eq!(requests.lock().unwrap().len(), 1, "tried once");

    let receiver = Receiver::start();
    let told = [Status::unauthenticated("who are you"), Status::unavailable("busy")];
    receiver.inbox.lock().unwrap().refusals.extend(told);
    let expected = [
        retry("gRPC status Unavailable: busy", None),
        Err(Failure::Rejected("gRPC status Unauthenticated: who are you".to_owned())),
        Ok(Accepted::default()),
    ];
    assert_eq!(send(&receiver.signal()), expected);
}

#[test]
fn an_endpoint_that_is_away_is_told_in_plain_words() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for signal in [over_http(gone), over_grpc(gone)] {
        let [Err(Failure::Retry { why, .. })] = send(&signal) else { panic!("somebody listens") };
        assert!(why.starts_with("nobody listens there ("), "{why}");
    }
}

#[test]
fn details_that_are_no_base64_do_not_end_the_readers_thread() {
    let odd = [
        ("content-type", "application/grpc".to_owned()),
        ("grpc-status", "14".to_owned()),
        ("grpc-status-details-bin", "no base64!".to_owned()),
    ];
    for (headers, trailers) in [(&odd[..], &[][..]), (&odd[..1], &odd[1..])] {
        let expected = retry("gRPC status Unavailable", None);
        assert_eq!(send(&over_grpc(raw_grpc(headers, None, trailers))), [expected.clone(), expected]);
    }
}

#[test]
fn headers_and_gzip_arrive_by_both_protocols() {
    let (address, requests) = http("200 OK");
    let with = |signal| Signal {
        compression: Compression::Gzip,
        headers: [("x-tenant".to_owned(), "50%25 off".to_owned())].into(),
        ..signal
    };
    assert_eq!(send(&with(over_http(address))), [Ok(Accepted::default())]);
    let requests = requests.lock().unwrap();
    let (head, body) = &requests[0];
    assert!(head.starts_with("post /v1/metrics "), "{head}");
    assert!(head.contains("x-tenant: 50%25 off") && head.contains("content-encoding: gzip"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    assert!(head.contains(concat!("user-agent: synfin/", env!("CARGO_PKG_VERSION"))), "{head}");
    ExportMetricsServiceRequest::decode(gzip::decompress(body, 1 << 20).unwrap().as_slice()).unwrap();

    let receiver = Receiver::start();
    assert_eq!(send(&with(receiver.signal())), [Ok(Accepted::default())]);
    assert_eq!(receiver.inbox.lock().unwrap().tenants, ["50%25 off"]);
}
