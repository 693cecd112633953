use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use opentelemetry_sdk::Resource;

use super::*;
use crate::clock::Source;
use crate::export::otlp;
use crate::health::{Probe, Verdict};
use crate::rung::Rung;

/// A clock that stands at this time.
struct At(i64);

impl Source for At {
    fn monotonic_ns(&self) -> i64 {
        self.0
    }

    fn realtime_ns(&self) -> i64 {
        self.0
    }
}

const SECOND: u64 = 1_000_000_000;

fn probe(verdict: Verdict) -> Probe {
    Probe { name: "state", tracepoint: "inet_sock_set_state", required: true, verdict, refused: Vec::new(), cost: None }
}

fn active() -> Verdict {
    Verdict::Active { rung: Rung::TpBtf, partial: false }
}

/// A server whose agent published this `age` ago.
fn serve(status: Status, age: u64) -> (Server, SocketAddr) {
    let board = Arc::new(Board::default());
    board.publish(Status { time_ns: 100 * SECOND, ..status });
    let clock = Arc::new(Clock::new(Box::new(At((100 * SECOND + age).cast_signed()))));
    let source = otlp::Source::new(Arc::clone(&board), Arc::default(), None);
    let read = move || source.take();
    let bound = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = bound.address();
    let exposition = Exposition::new(&Resource::builder_empty().build(), 20_000);
    (bound.serve(Site::new(board, clock, exposition, read, |_| {})).unwrap(), address)
}

/// Sends bytes as they are, and reads until the other end closes. It may stop reading before everything is written.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    _ = stream.write_all(request);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
}

#[test]
fn it_lives_while_the_engine_moves_on() {
    let (_server, address) = serve(Status::default(), 14 * SECOND);
    let answer = get(address, "/livez");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");

    let (_server, address) = serve(Status::default(), 16 * SECOND);
    let answer = get(address, "/livez");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("the engine stands still: its last status is 16 s old\n"), "{answer}");
}

#[test]
fn it_is_ready_when_what_is_required_is_attached() {
    let broken = Verdict::Broken { error: "refused".to_owned() };
    for (probes, code, why) in [
        (vec![], 503, "no programs are attached yet"),
        (vec![probe(active())], 200, "ok"),
        (vec![probe(broken.clone())], 503, "a required probe is missing: state is broken: refused"),
        (vec![probe(active()), Probe { required: false, ..probe(broken) }], 200, "ok"),
    ] {
        let (_server, address) = serve(Status { probes, ..Status::default() }, 0);
        let answer = get(address, "/readyz");
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{why}\n")), "{answer}");
    }
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let (_server, address) = serve(Status { probes: vec![probe(active())], ..Status::default() }, 0);
    let text = get(address, "/metrics?name=x");
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
    assert!(text.contains("\r\n\r\n# TYPE target_info gauge\n"), "{text}");
    let accept =
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nAccept: application/openmetrics-text\r\n\r\n";
    let open = exchange(address, accept);
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"), "{open}");
    assert!(open.ends_with("\n# EOF\n"), "{open}");
    let head = exchange(address, b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn what_is_no_good_request_is_refused_and_nothing_dies() {
    let (_server, address) = serve(Status::default(), 0);
    let long = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a/../%00%ff".repeat(100));
    let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let cases: &[(&[u8], &[u16])] = &[
        (b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", &[404]),
        (b"GET //metrics HTTP/1.1\r\nHost: a\r\n\r\n", &[404]),
        (path.as_bytes(), &[400, 404]),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", &[405]),
        (b"DELETE /livez HTTP/1.1\r\nHost: a\r\n\r\n", &[405]),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", &[405]),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", &[400]),
        (b"GET /livez HTTP/9.9\r\nHost: a\r\n\r\n", &[400]),
        (long.as_bytes(), &[431]),
        (many.as_bytes(), &[431]),
        (b"nonsense\r\n\r\n", &[400]),
        (&noise, &[400]),
        // TLS and HTTP/2 are not answered in a language that they understand.
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[]),
    ];
    for (request, codes) in cases {
        let answer = exchange(address, request);
        let code = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
        assert_eq!(code.is_none(), codes.is_empty(), "{:?}: {answer}", String::from_utf8_lossy(request));
        assert!(code.is_none_or(|code| codes.contains(&code)), "{:?}: {answer}", String::from_utf8_lossy(request));
        assert!(
            get(address, "/livez").starts_with("HTTP/1.1 200 "),
            "it died of {:?}",
            String::from_utf8_lossy(request)
        );
    }
}

#[test]
fn who_says_nothing_keeps_nobody_out_for_long() {
    let (_server, address) = serve(Status::default(), 0);
    // More than are answered at once.
    let idle: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(get(address, "/livez").starts_with("HTTP/1.1 200 "));
    drop(idle);
}

#[test]
fn an_address_that_is_taken_is_told() {
    let (_server, address) = serve(Status::default(), 0);
    let error = bind(address).unwrap_err().to_string();
    assert!(error.starts_with(&format!("http.listen = {address}: cannot listen there: ")), "{error}");
    assert!(error.contains("another process has it") && error.contains("--http"), "{error}");
}

#[test]
fn it_ends_when_it_is_dropped() {
    let (server, address) = serve(Status::default(), 0);
    let _waiting = TcpStream::connect(address).unwrap();
    drop(server);
    assert!(bind(address).is_ok(), "nobody listens there any more");
}
