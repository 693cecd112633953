#![expect(clippy::large_types_passed_by_value, reason = "a test changes its copy and gives it away")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, Status as SpanStatus, TraceId};
use opentelemetry_sdk::trace::SpanData;

use super::super::fixtures::{OFFSET, client, ids, refused, server};
use super::super::sampling::{Sampler, Why};
use super::sdk::span;
use super::*;
use crate::config::Otlp as Settings;

fn ended(connection: Connection, end: End) -> Subject {
    let offset = Offset::from_nanos(OFFSET);
    Subject { ids: ids(&connection), connection, part: Part::Whole(end), offset, kept: Kept::Ratio }
}

fn status() -> Status {
    Status { reset_reasons: Arc::new(["not_specified".into(), "no_socket".into()]), ..Status::default() }
}

fn made(connection: Connection, end: End) -> SpanData {
    span(&ended(connection, end), Terms::default(), &status())
}

fn at(monotonic_ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(OFFSET as u64 + monotonic_ns)
}

fn shown(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let map: BTreeMap<_, _> = attributes.iter().map(|pair| (pair.key.as_str(), pair.value.to_string())).collect();
    assert_eq!(map.len(), attributes.len(), "an attribute twice");
    map
}

fn golden<'a>(rows: &[(&'a str, &str)]) -> BTreeMap<&'a str, String> {
    rows.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

fn event_names(span: &SpanData) -> Vec<(&str, SystemTime)> {
    span.events.iter().map(|event| (event.name.as_ref(), event.timestamp)).collect()
}

const MEASURES: [(&str, &str); 11] = [
    ("network.tcp.rtt.smoothed", "0.0015"),
    ("network.tcp.rtt.deviation", "0.00025"),
    ("network.tcp.bytes_acked", "101"),
    ("network.tcp.bytes_received", "2000"),
    ("network.tcp.bytes_sent", "100"),
    ("network.tcp.bytes_retrans", "0"),
    ("network.tcp.segs_out", "6"),
    ("network.tcp.segs_in", "5"),
    ("network.tcp.total_retrans", "0"),
    ("network.tcp.out_of_order", "0"),
    ("network.tcp.snd_cwnd", "10"),
];

#[test]
fn a_client_that_closed_first() {
    let span = made(client(), End::TimeWait);
    assert_eq!(span.name, "tcp connect");
    assert_eq!(span.span_kind, SpanKind::Client);
    assert_eq!(span.status, SpanStatus::Unset);
    assert_eq!((span.start_time, span.end_time), (at(1_000_000_000), at(2_000_000_000)));
    assert_eq!(span.parent_span_id, SpanId::INVALID);
    assert!(!span.parent_span_is_remote);
    assert!(span.span_context.is_valid() && span.span_context.is_sampled());
    assert_eq!(span.span_context.trace_state().header(), "ot=th:0");
    let mut expected = golden(&[
        ("network.transport", "tcp"),
        ("network.type", "ipv4"),
        ("network.local.address", "10.0.0.1"),
        ("network.local.port", "40000"),
        ("network.peer.address", "10.0.0.2"),
        ("network.peer.port", "443"),
        ("client.address", "10.0.0.1"),
        ("client.port", "40000"),
        ("server.address", "10.0.0.2"),
        ("server.port", "443"),
        ("network.tcp.handshake.role", "client"),
        ("network.tcp.handshake.duration", "0.002"),
        ("network.connection.duration", "1"),
        ("network.connection.end", "time_wait"),
        ("network.tcp.close.first", "local"),
        ("network.tcp.retransmits", "0"),
        ("network.tcp.resets", "0"),
        ("linux.netns.inode", "4026531840"),
        ("linux.socket.cookie", "77"),
        ("linux.cgroup.id", "101"),
        ("process.pid", "4242"),
        ("process.executable.name", "curl"),
    ]);
    expected.extend(golden(&MEASURES));
    assert_eq!(shown(&span.attributes), expected);
    assert_eq!(
        event_names(&span),
        [
            ("tcp.syn_sent", at(1_000_000_000)),
            ("tcp.established", at(1_002_000_000)),
            ("tcp.fin_wait_1", at(1_900_000_000)),
            ("tcp.fin_wait_2", at(1_950_000_000)),
            ("tcp.closed", at(2_000_000_000)),
        ]
    );
    assert_eq!(shown(&span.events[1].attributes), golden(&[("network.connection.state", "established")]));
}

#[test]
fn a_server_that_knows_no_pair_has_no_parent() {
    let span = made(Connection { sequence_pair: None, ..server() }, End::Closed);
    assert_eq!((span.parent_span_id, span.parent_span_is_remote), (SpanId::INVALID, false));
}

#[test]
fn both_ends_are_one_trace_with_the_client_as_parent() {
    let (client, server) = (made(client(), End::TimeWait), made(server(), End::Closed));
    assert_eq!(server.span_context.trace_id(), client.span_context.trace_id());
    assert_eq!(server.parent_span_id, client.span_context.span_id());
    assert_ne!(server.span_context.span_id(), client.span_context.span_id());
    assert!(server.parent_span_is_remote);
    assert_eq!((server.name.as_ref(), server.span_kind.clone()), ("tcp accept", SpanKind::Server));
    let attributes = shown(&server.attributes);
    assert_eq!(attributes["client.address"], "10.0.0.1");
    assert_eq!(attributes["client.port"], "61000");
    assert_eq!(attributes["server.port"], "8443");
    assert_eq!(attributes["network.tcp.close.first"], "peer");
    assert!(!attributes.contains_key("network.tcp.handshake.duration"), "no event shows when it began");
    assert!(!attributes.contains_key("process.pid"));
}

#[test]
fn a_refused_connection_is_an_error_of_a_trace_of_its_own() {
    let span = made(refused(), End::Refused);
    assert_eq!(span.status, SpanStatus::error("the peer refused the connection"));
    let mut expected = golden(&[
        ("network.transport", "tcp"),
        ("network.type", "ipv4"),
        ("network.local.address", "10.0.0.1"),
        ("network.local.port", "40000"),
        ("network.peer.address", "10.0.0.2"),
        ("network.peer.port", "443"),
        ("client.address", "10.0.0.1"),
        ("client.port", "40000"),
        ("server.address", "10.0.0.2"),
        ("server.port", "443"),
        ("network.tcp.handshake.role", "client"),
        ("network.connection.duration", "1"),
        ("network.connection.end", "refused"),
        ("error.type", "connection_refused"),
        ("network.tcp.retransmits", "1"),
        ("network.tcp.resets", "1"),
        ("linux.netns.inode", "4026531840"),
        ("linux.socket.cookie", "77"),
        ("linux.cgroup.id", "101"),
        ("process.pid", "4242"),
        ("process.executable.name", "curl"),
    ]);
    expected.insert("linux.errno", libc::ECONNREFUSED.to_string());
    assert_eq!(shown(&span.attributes), expected);
    assert_eq!(
        event_names(&span),
        [
            ("tcp.syn_sent", at(1_000_000_000)),
            ("tcp.retransmit", at(1_990_000_000)),
            ("tcp.reset", at(2_000_000_000)),
            ("tcp.closed", at(2_000_000_000)),
        ]
    );
    assert_eq!(
        shown(&span.events[2].attributes),
        golden(&[("network.io.direction", "receive"), ("network.tcp.resets", "1")])
    );
    let again = made(Connection { first_ns: 1_000_000_001, ..refused() }, End::Refused);
    assert_ne!(again.span_context.trace_id(), span.span_context.trace_id());
}

#[test]
fn a_reset_tells_the_kernels_reason() {
    let mut connection = client();
    connection.resets_sent = 2;
    connection.reset_reason = Some(1);
    let span = made(connection, End::ResetSent);
    assert_eq!(shown(&span.attributes)["error.type"], "connection_reset");
    assert_eq!(span.status, SpanStatus::error("this host reset the connection"));
    let reset = span.events.iter().find(|event| event.name == "tcp.reset").unwrap();
    assert_eq!(
        shown(&reset.attributes),
        golden(&[
            ("network.io.direction", "transmit"),
            ("network.tcp.resets", "2"),
            ("network.tcp.reset.reason", "no_socket"),
        ])
    );
}

#[test]
fn what_is_unknown_is_absent() {
    let mut connection = client();
    connection.role = None;
    connection.birth_seen = false;
    connection.entered_ns[State::SynSent.index()] = 0;
    connection.closed_ns = 0;
    connection.last_ns = 500; // before the first: lost events may leave such a thing
    connection.closed_first = None;
    connection.ends.local_port = 0;
    connection.ends.local = [0; 16];
    connection.ends.cookie = 0;
    connection.cgroup = 0;
    connection.owner = None;
    connection.measures.as_mut().unwrap().srtt_us = 0;
    let span = made(connection, End::Lost);
    assert_eq!((span.name.as_ref(), span.span_kind.clone()), ("tcp connection", SpanKind::Internal));
    assert_eq!(span.status, SpanStatus::Unset);
    assert_eq!(span.start_time, span.end_time);
    assert!(span.events.iter().all(|event| event.timestamp == span.start_time), "events lie within the span");
    let attributes = shown(&span.attributes);
    for key in attributes.keys() {
        assert!(!key.starts_with("client.") && !key.starts_with("server."), "{key}");
        assert!(!key.starts_with("network.local.") && !key.starts_with("network.tcp.rtt."), "{key}");
        assert!(!key.ends_with(".duration") && !key.starts_with("process."), "{key}");
    }
    assert_eq!(attributes["network.connection.end"], "lost");
}

#[test]
fn every_end_has_its_status() {
    for end in End::ALL {
        let mut connection = client();
        connection.errno = libc::EHOSTUNREACH as u16;
        let span = made(connection, end);
        let attributes = shown(&span.attributes);
        assert_eq!(attributes["network.connection.end"], end.name());
        match (&span.status, attributes.get("error.type")) {
            (SpanStatus::Unset, None) => {}
            (SpanStatus::Error { description }, Some(_)) => assert!(!description.is_empty(), "{end:?}"),
            other => panic!("{end:?}: {other:?}"),
        }
    }
}

#[test]
fn sampling_is_told_in_the_trace_state() {
    let terms = Sampler::new(&Settings { trace_sample_ratio: 0.25, ..Settings::default() }).terms();
    let made = |kept| {
        let ended = Subject { kept, ..ended(client(), End::TimeWait) };
        let span = span(&ended, terms, &status());
        let reason = shown(&span.attributes).get("synfin.sampling.reason").cloned();
        (span.span_context.trace_state().header(), reason)
    };
    assert_eq!(made(Kept::Ratio), ("ot=th:c".to_owned(), None));
    assert_eq!(made(Kept::Limited(0xfd70)), ("ot=th:fd7".to_owned(), None));
    assert_eq!(made(Kept::Abnormal(Why::Failed)), ("ot=th:0".to_owned(), Some("failed".to_owned())));
}

/// A server's connection that has lived for three intervals of ten seconds, and been told of twice before.
fn third_checkpoint() -> Subject {
    let mut connection = server();
    connection.state = State::CloseWait;
    connection.entered_ns[State::CloseWait.index()] = 25_000_000_000;
    connection.entered_ns[State::LastAck.index()] = 0;
    connection.entered_ns[State::Closed.index()] = 0;
    (connection.closed_ns, connection.last_ns) = (0, 25_000_000_000);
    connection.checkpoints = 3;
    let part = Part::Stretch { from_ns: 21_002_000_000, to_ns: 31_002_000_000 };
    Subject { part, ..ended(connection, End::Closed) }
}

#[test]
fn a_checkpoint_is_a_child_of_its_connection_and_links_to_the_one_before() {
    let subject = third_checkpoint();
    let checkpoint = span(&subject, Terms::default(), &status());
    assert_eq!((checkpoint.name.as_ref(), &checkpoint.span_kind), ("tcp checkpoint", &SpanKind::Internal));
    assert_eq!((checkpoint.start_time, checkpoint.end_time), (at(21_002_000_000), at(31_002_000_000)));
    assert_eq!(checkpoint.span_context.trace_id(), subject.ids.trace);
    assert_eq!((checkpoint.parent_span_id, checkpoint.parent_span_is_remote), (subject.ids.span, false));
    assert_eq!(checkpoint.span_context.span_id(), subject.ids.checkpoint(3));
    assert_eq!(links(&checkpoint), [(subject.ids.trace, subject.ids.checkpoint(2))]);
    assert_eq!(event_names(&checkpoint), [("tcp.close_wait", at(25_000_000_000))], "of that time alone");
    let attributes = shown(&checkpoint.attributes);
    assert_eq!(attributes["network.connection.state"], "close_wait");
    assert_eq!(attributes["synfin.checkpoint.number"], "3");
    assert_eq!(attributes["network.connection.duration"], "30.001");
    assert_eq!(attributes["network.tcp.bytes_acked"], "101");
    assert!(!attributes.contains_key("network.connection.end") && !attributes.contains_key("error.type"));
    assert_eq!(checkpoint.status, SpanStatus::Unset);
}

#[test]
fn the_first_checkpoint_links_to_nothing_and_the_end_to_the_last() {
    let first = Subject { connection: Connection { checkpoints: 1, ..server() }, ..third_checkpoint() };
    assert_eq!(links(&span(&first, Terms::default(), &status())), []);
    let whole = ended(Connection { checkpoints: 3, ..server() }, End::Closed);
    let made_whole = span(&whole, Terms::default(), &status());
    assert_eq!(links(&made_whole), [(whole.ids.trace, third_checkpoint().ids.checkpoint(3))]);
    assert_eq!(links(&made(server(), End::Closed)), [], "one that has had none");
}

fn links(span: &SpanData) -> Vec<(TraceId, SpanId)> {
    span.links.iter().map(|link| (link.span_context.trace_id(), link.span_context.span_id())).collect()
}
