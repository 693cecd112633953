use std::net::TcpListener;

use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::runtime::Runtime;
use tonic::Code;

use super::super::fixtures::client;
use super::super::ids::{Ids, Sampler};
use super::super::receiver::{Receiver, http, signal};
use super::super::span::{Ended, span};
use super::*;
use crate::clock::Offset;
use crate::ledger::End;
use crate::status::Status;

/// Sends one span.
fn send(signal: &Signal) -> Result<(), Failure> {
    _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Runtime::new().unwrap();
    let builder = Builder { name: "traces", signal, runtime: Some(runtime.handle()) };
    let connection = client();
    let ended = Ended { ids: Ids::of(&connection), connection, end: End::Closed, offset: Offset::from_nanos(0) };
    let scope = InstrumentationScope::builder("synfin").build();
    let spans = vec![span(&ended, Sampler::new(1.0), &scope, &Status::default())];
    let exporter = builder.spans().unwrap();
    builder.driver().block_on(exporter.export(spans)).map_err(|error| classify(&error))
}

fn is_final(result: &Result<(), Failure>) -> bool {
    match result {
        Err(Failure::Rejected(_)) => true,
        Err(Failure::Retry(_)) => false,
        Ok(()) => panic!("it was taken"),
    }
}

#[test]
fn answers_over_http_are_understood() {
    for (status, expected) in [
        ("400 Bad Request", true),
        ("401 Unauthorized", true),
        ("404 Not Found", true),
        ("413 Content Too Large", true),
        ("500 Internal Server Error", true),
        ("429 Too Many Requests", false),
        ("502 Bad Gateway", false),
        ("503 Service Unavailable", false),
        ("504 Gateway Timeout", false),
    ] {
        let (address, _) = http(status);
        let result = send(&signal(format!("http://{address}/v1/traces"), Protocol::HttpProtobuf));
        assert_eq!(is_final(&result), expected, "{status}: {result:?}");
    }
    let (address, requests) = http("200 OK");
    let mut signal = signal(format!("http://{address}/v1/traces"), Protocol::HttpProtobuf);
    signal.headers = [("x-tenant".to_owned(), "50%25 off".to_owned())].into();
    send(&signal).unwrap();
    let requests = requests.lock().unwrap();
    assert!(requests[0].0.starts_with("post /v1/traces "), "{}", requests[0].0);
    assert!(requests[0].0.contains("x-tenant: 50%25 off"), "a value is sent as it is: {}", requests[0].0);
}

#[test]
fn answers_over_grpc_are_understood() {
    for (code, expected) in [
        (Code::InvalidArgument, true),
        (Code::Unauthenticated, true),
        (Code::PermissionDenied, true),
        (Code::Unimplemented, true),
        (Code::Internal, true),
        (Code::Unavailable, false),
        (Code::ResourceExhausted, false),
        (Code::DeadlineExceeded, false),
        (Code::Aborted, false),
    ] {
        let receiver = Receiver::start();
        receiver.inbox.lock().unwrap().refusals.push(code);
        let result = send(&receiver.signal());
        assert_eq!(is_final(&result), expected, "{code:?}: {result:?}");
        send(&receiver.signal()).unwrap();
        assert_eq!(receiver.inbox.lock().unwrap().spans.len(), 1);
    }
}

#[test]
fn an_endpoint_that_is_away_or_breaks_off_is_tried_again() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rude = TcpListener::bind("127.0.0.1:0").unwrap();
    let rude_address = rude.local_addr().unwrap();
    std::thread::spawn(move || rude.incoming().for_each(drop));
    for address in [gone, rude_address] {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let result = send(&signal(format!("http://{address}"), protocol));
            assert!(!is_final(&result), "{protocol:?}: {result:?}");
        }
    }
}

#[test]
fn settings_that_cannot_work_are_told_with_the_fix() {
    let runtime = Runtime::new().unwrap();
    let tried = |endpoint: &str, headers: Vec<(String, String)>| {
        let signal =
            Signal { headers: headers.into_iter().collect(), ..signal(endpoint.to_owned(), Protocol::HttpProtobuf) };
        Builder { name: "traces", signal: &signal, runtime: Some(runtime.handle()) }.spans().unwrap_err().to_string()
    };
    for endpoint in ["localhost:4317", "ftp://x/", "http://", "not a url"] {
        let error = tried(endpoint, Vec::new());
        assert!(error.contains("give a URL like http://localhost:4317"), "{error}");
    }
    let error = tried("http://localhost:4318", vec![("auth".to_owned(), "secret\n".to_owned())]);
    assert!(error.contains("\"auth\"") && !error.contains("secret"), "{error}");
}

#[test]
fn https_can_be_set_up_for_both_protocols() {
    _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Runtime::new().unwrap();
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        // Nobody listens: it is enough that the client knows how to speak TLS.
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let signal = signal(format!("https://{gone}"), protocol);
        let builder = Builder { name: "traces", signal: &signal, runtime: Some(runtime.handle()) };
        builder.spans().unwrap();
        builder.logs().unwrap();
        builder.metrics().unwrap();
        assert!(!is_final(&send(&signal)), "{protocol:?}");
    }
}
