use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_sdk::Resource;
use prost::Message as _;
use tokio::runtime::Runtime;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::super::receiver::{Receiver, answering, answering_http2, hang_up, http, raw_grpc, signal};
use super::super::request::Requests;
use super::*;
use crate::config::Compression;

/// Sends one span.
fn send(signal: &Signal) -> Result<Accepted, Failure> {
    _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Runtime::new().unwrap();
    let credentials = Credentials::default();
    let builder = Builder { name: "traces", signal, credentials: &credentials, runtime: Some(runtime.handle()) };
    let scope = InstrumentationScope::builder("synfin").build();
    let mut requests = Requests::new(&Resource::builder_empty().build(), &scope);
    let (request, _) = requests.encode(&["tcp connect"], |name, to| to.bytes(5, name.as_bytes()));
    let transport = builder.transport(method::TRACES).unwrap();
    transport.send(&request)
}

fn is_final(result: &Result<Accepted, Failure>) -> bool {
    match result {
        Err(Failure::Rejected(_)) => true,
        Err(Failure::Retry { .. }) => false,
        Ok(_) => panic!("it was taken"),
    }
}

/// How long the endpoint asked to be left alone.
fn asked(result: Result<Accepted, Failure>) -> Option<Duration> {
    match result {
        Err(Failure::Retry { after, .. }) => after,
        other => panic!("{other:?}"),
    }
}

fn partial() -> Vec<u8> {
    let partial = ExportTracePartialSuccess { rejected_spans: 1, error_message: "too old".to_owned() };
    ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
}

/// What [`partial`] says.
fn partly() -> Accepted {
    Accepted { rejected: 1, message: "too old".to_owned() }
}

/// HTTP, as it stands on the wire.
fn answer(head: &str, body: &[u8]) -> Signal {
    let (address, _) = answering([format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes(), body].concat());
    signal(format!("http://{address}/v1/traces"), Protocol::HttpProtobuf)
}

#[test]
fn answers_over_http_are_understood() {
    for (status, expected) in [
        ("301 Moved Permanently", true),
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
    let request = ExportTraceServiceRequest::decode(requests[0].1.as_slice()).unwrap();
    assert_eq!(request.resource_spans[0].scope_spans[0].spans[0].name, "tcp connect");
}

#[test]
fn an_http_endpoint_is_left_alone_for_as_long_as_it_asks() {
    let after = |headers: &str| asked(send(&answer(&format!("503 Away\r\ncontent-length: 0\r\n{headers}"), b"")));
    assert_eq!(after("retry-after: 17"), Some(Duration::from_secs(17)));
    let dates = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:37 GMT";
    assert_eq!(after(dates), Some(Duration::from_mins(1)));
    assert_eq!(after("retry-after: soon"), None);
}

#[test]
fn what_an_http_endpoint_says_with_its_200_is_read_as_far_as_it_makes_sense() {
    let body = partial();
    let head = |length: usize| format!("200 OK\r\ncontent-length: {length}");
    assert_eq!(send(&answer(&head(body.len()), &body)), Ok(partly()));
    assert_eq!(send(&answer(&head(2), b"{}")), Ok(Accepted::default()), "some answer in JSON");
    let large = vec![b'x'; 10 << 20];
    assert_eq!(send(&answer(&head(large.len()), &large)), Ok(Accepted::default()));
    assert!(!is_final(&send(&answer(&head(body.len() + 1), &body))), "it broke off");
    assert!(!is_final(&send(&answer("200 OK\r\ncontent-length: what", b""))));
}

#[test]
fn only_a_redirect_that_keeps_the_request_is_followed() {
    let (address, requests) = http("200 OK");
    let to = |status: &str| answer(&format!("{status}\r\ncontent-length: 0\r\nlocation: http://{address}/other"), b"");
    assert!(is_final(&send(&to("302 Found"))));
    assert!(requests.lock().unwrap().is_empty());
    send(&to("308 Permanent Redirect")).unwrap();
    assert!(requests.lock().unwrap()[0].0.starts_with("post /other "));
    let mut with_key = to("308 Permanent Redirect");
    with_key.headers = [("x-api-key".to_owned(), "secret".to_owned())].into();
    assert!(is_final(&send(&with_key)), "the key is for the endpoint alone");
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[test]
fn answers_over_grpc_are_understood() {
    for (code, expected) in [
        (Code::Cancelled, false),
        (Code::Unknown, true),
        (Code::InvalidArgument, true),
        (Code::DeadlineExceeded, false),
        (Code::NotFound, true),
        (Code::AlreadyExists, true),
        (Code::PermissionDenied, true),
        (Code::ResourceExhausted, true),
        (Code::FailedPrecondition, true),
        (Code::Aborted, false),
        (Code::OutOfRange, false),
        (Code::Unimplemented, true),
        (Code::Internal, true),
        (Code::Unavailable, false),
        (Code::DataLoss, false),
        (Code::Unauthenticated, true),
    ] {
        let receiver = Receiver::start();
        receiver.inbox.lock().unwrap().refusals.push(Status::new(code, "as told"));
        let result = send(&receiver.signal());
        assert_eq!(is_final(&result), expected, "{code:?}: {result:?}");
        assert!(format!("{result:?}").contains("as told"), "{result:?}");
        send(&receiver.signal()).unwrap();
        assert_eq!(receiver.inbox.lock().unwrap().spans.len(), 1);
    }
}

#[test]
fn a_grpc_endpoint_is_left_alone_for_as_long_as_it_asks() {
    let receiver = Receiver::start();
    let delay = Some(Duration::from_millis(17_500));
    for code in [Code::ResourceExhausted, Code::Unavailable] {
        let details = ErrorDetails::with_retry_info(delay);
        let status = Status::with_error_details(code, "as told", details);
        receiver.inbox.lock().unwrap().refusals.push(status);
        assert_eq!(asked(send(&receiver.signal())), delay, "{code:?}");
    }
    let without = Status::with_error_details(Code::ResourceExhausted, "as told", ErrorDetails::with_retry_info(None));
    receiver.inbox.lock().unwrap().refusals.push(without);
    assert_eq!(asked(send(&receiver.signal())), None);
}

#[test]
fn what_a_grpc_endpoint_says_with_its_ok_is_read_as_far_as_it_makes_sense() {
    let receiver = Receiver::start();
    receiver.inbox.lock().unwrap().partial = Some((1, "too old".to_owned()));
    assert_eq!(send(&receiver.signal()), Ok(partly()));

    let is_grpc = [("content-type", "application/grpc".to_owned())];
    let ok = [("grpc-status", "0".to_owned())];
    let told = |headers: &[(&'static str, String)], body: Option<Vec<u8>>, trailers: &[(&'static str, String)]| {
        send(&signal(format!("http://{}", raw_grpc(headers, body, trailers)), Protocol::Grpc))
    };
    let framed = |message: &[u8]| [&[0, 0, 0, 0, message.len() as u8], message].concat();
    assert_eq!(told(&is_grpc, Some(framed(&partial())), &ok), Ok(partly()));
    assert_eq!(told(&is_grpc, Some(framed(b"garbage")), &ok), Ok(Accepted::default()));
    assert_eq!(told(&is_grpc, Some(b"ga".to_vec()), &ok), Ok(Accepted::default()));
    assert_eq!(told(&is_grpc, Some(vec![0; 1 << 20]), &ok), Ok(Accepted::default()));
    assert!(!is_final(&told(&is_grpc, Some(framed(&partial())), &[])), "it broke off");
    assert!(is_final(&told(&[("content-type", "text/html".to_owned())], Some(b"<html>".to_vec()), &[])));
    let odd = [("grpc-status", "8".to_owned()), ("grpc-status-details-bin", "no base64!".to_owned())];
    assert!(is_final(&told(&is_grpc, None, &odd)));
    let headers = [&is_grpc[..], &odd[..]].concat();
    assert!(is_final(&told(&headers, None, &[])), "all in the headers");
    assert!(is_final(&told(&is_grpc, None, &[("grpc-status", "many".to_owned())])));
}

#[test]
fn an_endpoint_of_the_other_protocol_is_told_as_such() {
    let why = |result: Result<Accepted, Failure>| match result {
        Err(Failure::Retry { why, .. } | Failure::Rejected(why)) => why,
        Ok(_) => panic!("it was taken"),
    };
    // What servers of HTTP/1 say to HTTP/2: some with a head, some without.
    for answer in ["HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n", "<!DOCTYPE HTML>\n<html lang=\"en\">\n"] {
        let address = answering_http2(answer.as_bytes());
        let said = why(send(&signal(format!("http://{address}"), Protocol::Grpc)));
        assert!(said.starts_with("the endpoint answers, but not in gRPC: try --otlp-protocol http/protobuf"), "{said}");
        // One that answers the first line closes the connection before there is a request, or after: then the answer is
        // known or not, and the advice the same.
        let (address, _) = answering(answer.as_bytes().to_vec());
        let said = why(send(&signal(format!("http://{address}"), Protocol::Grpc)));
        assert!(said.contains("--otlp-protocol") && said.contains("http/protobuf"), "{said}");
    }
    let page = raw_grpc(&[("content-type", "text/html".to_owned())], Some(b"<html>".to_vec()), &[]);
    let said = why(send(&signal(format!("http://{page}"), Protocol::Grpc)));
    assert!(said.contains("not in gRPC"), "{said}");

    // A server of gRPC begins with its settings; then it may break off before they are read.
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let (address, _) = answering(settings.to_vec());
    let said = why(send(&signal(format!("http://{address}/v1/traces"), Protocol::HttpProtobuf)));
    assert!(said.starts_with("the endpoint answers, but not in HTTP/1; it may speak gRPC: try --otlp-"), "{said}");
    let receiver = Receiver::start();
    let said = why(send(&signal(format!("http://{}/v1/traces", receiver.address), Protocol::HttpProtobuf)));
    assert!(said.contains("--otlp-protocol") && said.contains("grpc"), "{said}");

    // As servers without TLS do at a greeting in TLS.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in plain.incoming() {
            let mut stream = stream.unwrap();
            _ = stream.read(&mut [0; 4_096]);
            _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
            hang_up(&mut stream);
        }
    });
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let said = why(send(&signal(format!("https://{address}"), protocol)));
        assert!(said.starts_with("the endpoint answers, but not in TLS: try http://"), "{said}");
    }
}

#[test]
fn compressed_bodies_arrive_by_both_protocols() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (address, requests) = http("200 OK");
        let mut over_http = signal(format!("http://{address}/v1/traces"), Protocol::HttpProtobuf);
        over_http.compression = compression;
        send(&over_http).unwrap();
        let requests = requests.lock().unwrap();
        let encoding = compression.name();
        assert!(requests[0].0.contains(&format!("content-encoding: {encoding}")), "{}", requests[0].0);
        let encoding = HeaderValue::from_static(encoding);
        let plain = packer::unpack(Some(&encoding), &requests[0].1, 1 << 20).unwrap();
        ExportTraceServiceRequest::decode(plain.as_slice()).unwrap();

        let receiver = Receiver::start();
        receiver.inbox.lock().unwrap().partial = Some((1, "too old".to_owned()));
        let over_grpc = Signal { compression, ..receiver.signal() };
        assert_eq!(send(&over_grpc), Ok(partly()), "the answer is compressed too");
        assert_eq!(receiver.inbox.lock().unwrap().spans.len(), 1);
    }
}

#[test]
fn an_answer_may_come_in_another_compression_than_the_request() {
    let ok = [("grpc-status", "0".to_owned())];
    for (name, answer) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        let kind = ("content-type", "application/grpc".to_owned());
        let headers = [kind, ("grpc-encoding", name.to_owned())];
        let head = |length: usize| [1, 0, 0, 0, length as u8];
        let body = packer::Packer::new(answer).pack(&partial(), head).unwrap();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let address = raw_grpc(&headers, Some(body.to_vec()), &ok);
            let signal = Signal { compression, ..signal(format!("http://{address}"), Protocol::Grpc) };
            assert_eq!(send(&signal), Ok(partly()));
        }
    }
}

#[test]
fn json_goes_over_http_as_it_is_and_compressed() {
    for compression in [Compression::None, Compression::Zstd] {
        let (address, requests) = http("200 OK");
        let url = format!("http://{address}/v1/traces");
        send(&Signal { compression, ..signal(url, Protocol::HttpJson) }).unwrap();
        let requests = requests.lock().unwrap();
        let (head, body) = &requests[0];
        assert!(head.contains("content-type: application/json"), "{head}");
        let encoding = HeaderValue::from_static(compression.name());
        let body = packer::unpack(Some(&encoding), body, 1 << 20).unwrap_or_else(|| body.clone());
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"], "tcp connect");
    }
    let said = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}"#;
    let mut signal = answer(&format!("200 OK\r\ncontent-length: {}", said.len()), said.as_bytes());
    signal.protocol = Protocol::HttpJson;
    assert_eq!(send(&signal), Ok(partly()));
}

#[test]
fn an_endpoint_that_never_answers_costs_no_more_than_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    // An answer that begins and then drips.
    let dripping = TcpListener::bind("127.0.0.1:0").unwrap();
    let drips = dripping.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in dripping.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n");
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    for (address, protocol) in
        [(address, Protocol::Grpc), (address, Protocol::HttpProtobuf), (drips, Protocol::HttpProtobuf)]
    {
        let timeout = Duration::from_millis(300);
        let begin = Instant::now();
        let result = send(&Signal { timeout, ..signal(format!("http://{address}"), protocol) });
        assert!(!is_final(&result), "{protocol:?}: {result:?}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{protocol:?}: {:?}", begin.elapsed());
    }
    drop(silent);
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
        let credentials = Credentials::default();
        Builder { name: "traces", signal: &signal, credentials: &credentials, runtime: Some(runtime.handle()) }
            .transport(method::TRACES)
            .unwrap_err()
            .to_string()
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
        let credentials = Credentials::default();
        let runtime = Some(runtime.handle());
        let builder = Builder { name: "traces", signal: &signal, credentials: &credentials, runtime };
        builder.transport(method::TRACES).unwrap();
        assert!(!is_final(&send(&signal)), "{protocol:?}");
    }
}
