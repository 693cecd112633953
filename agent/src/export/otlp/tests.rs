//! The whole module against an endpoint in this process.

use std::net::TcpListener;

use opentelemetry::logs::Severity;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::fixtures::{client, refused, server};
use super::receiver::{Receiver, http, signal};
use super::*;
use crate::export::resource::resource;
use crate::health::{Probe, Verdict};
use crate::rung::Rung;
use crate::status::{Board, Status};

fn start(settings: &Settings) -> Otlp {
    telling(settings, Arc::default())
}

/// Of what is published on `board`.
fn telling(settings: &Settings, board: Arc<Board>) -> Otlp {
    let source = Source::new(board, Arc::default(), None);
    Otlp::start(settings, &settings.credentials().unwrap(), resource(settings), source, 20_000).unwrap()
}

#[test]
fn it_can_be_shared_between_threads() {
    const fn shared<T: Send + Sync + 'static>() {}
    shared::<Otlp>();
}

#[test]
fn both_halves_of_a_connection_arrive_as_one_trace() {
    let receiver = Receiver::start();
    let settings = Settings { traces: Some(receiver.signal()), ..Settings::default() };
    let otlp = start(&settings);
    otlp.ended([(&client(), End::TimeWait), (&server(), End::Closed)]);
    let report = otlp.shutdown();
    let counts = report.spans.unwrap();
    assert_eq!((counts.offered, counts.exported, counts.dropped(), counts.waiting), (2, 2, 0, 0));
    let inbox = receiver.inbox.lock().unwrap();
    assert!(inbox.services[0].contains("synfin"), "{:?}", inbox.services);
    let find = |name: &str, kind: i32| -> &Span {
        inbox.spans.iter().find(|span| span.name == name && span.kind == kind).unwrap()
    };
    let (client, server) = (find("tcp connect", 3), find("tcp accept", 2));
    assert_eq!(client.trace_id, server.trace_id);
    assert_eq!(server.parent_span_id, client.span_id);
    assert!(client.parent_span_id.is_empty());
    assert!(inbox.spans.iter().all(|span| span.end_time_unix_nano >= span.start_time_unix_nano));
}

#[test]
fn it_speaks_protobuf_over_http() {
    use prost::Message as _;

    let (address, requests) = http("200 OK");
    let url = format!("http://{address}/v1/traces");
    let settings = Settings { traces: Some(signal(url, Protocol::HttpProtobuf)), ..Settings::default() };
    let otlp = start(&settings);
    otlp.ended([(&client(), End::TimeWait)]);
    assert_eq!(otlp.shutdown().spans.unwrap().exported, 1);
    let requests = requests.lock().unwrap();
    assert!(requests[0].0.contains("content-type: application/x-protobuf"), "{}", requests[0].0);
    let request = ExportTraceServiceRequest::decode(requests[0].1.as_slice()).unwrap();
    assert_eq!(request.resource_spans[0].scope_spans[0].spans[0].name, "tcp connect");
    assert_eq!(request.resource_spans[0].schema_url, SCHEMA_URL);
}

#[test]
fn a_request_holds_no_more_spans_than_is_wanted() {
    use prost::Message as _;

    let (address, requests) = http("200 OK");
    let traces = Some(signal(format!("http://{address}/v1/traces"), Protocol::HttpProtobuf));
    let otlp = start(&Settings { traces, span_batch: 3, ..Settings::default() });
    let client = client();
    otlp.ended((0..10).map(|_| (&client, End::TimeWait)));
    assert_eq!(otlp.shutdown().spans.unwrap().exported, 10);
    let requests = requests.lock().unwrap();
    let spans = |body: &Vec<u8>| {
        let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        request.resource_spans[0].scope_spans[0].spans.len()
    };
    let sizes: Vec<usize> = requests.iter().map(|(_, body)| spans(body)).collect();
    assert_eq!(sizes, [3, 3, 3, 1]);
}

#[test]
fn an_endpoint_that_comes_late_gets_everything() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let traces = Some(signal(format!("http://{address}"), Protocol::Grpc));
    let otlp = start(&Settings { traces, ..Settings::default() });
    let refused = |number: u64| Connection { first_ns: 1_000_000_000 + number, ..refused() };
    let refused: Vec<_> = (0..700).map(refused).collect();
    otlp.ended(refused.iter().map(|connection| (connection, End::Refused)));
    while otlp.stats().failing == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let receiver = Receiver::on(address);
    receiver.wait(|inbox| inbox.spans.len() == 700);
    assert_eq!(otlp.shutdown().spans.unwrap().exported, 700);
    let ids: std::collections::HashSet<_> =
        receiver.inbox.lock().unwrap().spans.iter().map(|span| span.span_id.clone()).collect();
    assert_eq!(ids.len(), 700, "each once, by an id that attempts do not change");
}

#[test]
fn an_endpoint_that_never_comes_costs_no_patience_and_every_loss_is_counted() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = || Some(signal(format!("http://{address}"), Protocol::Grpc));
    let settings = Settings {
        traces: away(),
        logs: away(),
        metrics: away(),
        queue: 100,
        shutdown_timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let otlp = start(&settings);
    let (normal, abnormal) = (client(), refused());
    otlp.ended((0..150).map(|_| (&normal, End::Closed)));
    otlp.ended((0..60).map(|_| (&abnormal, End::Refused)));
    otlp.logs().unwrap().event("synfin.test", Severity::Info, "x".to_owned(), Vec::new());
    let begin = Instant::now();
    let report = otlp.shutdown();
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    let spans = report.spans.unwrap();
    assert_eq!((spans.offered, spans.queue_full, spans.shutdown, spans.exported), (210, 110, 100, 0));
    assert_eq!(report.logs.unwrap().shutdown, 1);
    assert!(report.metrics.unwrap().unwrap_err().starts_with("nobody listens there"));
    otlp.ended([(&normal, End::Closed)]);
    assert_eq!(otlp.stats().spans.unwrap().shutdown, 101, "too late is a loss too");
}

#[test]
fn what_the_endpoint_refuses_is_counted_as_refused() {
    let receiver = Receiver::start();
    receiver.inbox.lock().unwrap().refusals.push(tonic::Status::invalid_argument("as told"));
    let otlp = start(&Settings { traces: Some(receiver.signal()), ..Settings::default() });
    otlp.ended([(&client(), End::TimeWait)]);
    while otlp.stats().spans.unwrap().rejected == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    otlp.ended([(&client(), End::TimeWait)]);
    let counts = otlp.shutdown().spans.unwrap();
    assert_eq!((counts.offered, counts.exported, counts.rejected), (2, 1, 1));
}

#[test]
fn what_a_partial_success_rejects_is_counted_as_rejected() {
    let receiver = Receiver::start();
    receiver.inbox.lock().unwrap().partial = Some((1, "too old".to_owned()));
    let otlp = start(&Settings { traces: Some(receiver.signal()), ..Settings::default() });
    otlp.ended([(&client(), End::TimeWait), (&server(), End::Closed)]);
    let counts = otlp.shutdown().spans.unwrap();
    assert_eq!((counts.offered, counts.exported, counts.rejected), (2, 1, 1));
}

#[test]
fn sampling_leaves_out_only_what_is_normal() {
    let receiver = Receiver::start();
    let settings = Settings { traces: Some(receiver.signal()), trace_sample_ratio: 0.0, ..Settings::default() };
    let otlp = start(&settings);
    otlp.ended([(&client(), End::TimeWait), (&refused(), End::Refused)]);
    let report = otlp.shutdown();
    let left_out = SampledOut { ratio: 1, rate_limit: 0 };
    assert_eq!((report.spans.unwrap().exported, report.sampled_out), (1, left_out));
    let inbox = receiver.inbox.lock().unwrap();
    assert_eq!(inbox.spans[0].trace_state, "ot=th:0");
}

#[test]
fn checkpoints_and_the_end_of_a_connection_are_one_trace() {
    let receiver = Receiver::start();
    let otlp = start(&Settings { traces: Some(receiver.signal()), ..Settings::default() });
    // Ids that both ends compute, and ids of the agent's own.
    for mut connection in [client(), Connection { sequence_pair: None, ..server() }] {
        let ended = connection;
        (connection.state, connection.closed_ns) = (crate::event::State::Established, 0);
        let mut checkpoint = |number: u32| {
            connection.checkpoints = number;
            let from_ns = connection.first_ns + u64::from(number) * 1_000;
            Checkpoint { connection, from_ns, to_ns: from_ns + 1_000 }
        };
        otlp.checkpoints(&[checkpoint(1), checkpoint(2)]);
        otlp.ended([(&Connection { checkpoints: 2, ..ended }, End::Closed)]);
    }
    let counts = otlp.shutdown().spans.unwrap();
    assert_eq!((counts.offered, counts.exported), (6, 6));
    let inbox = receiver.inbox.lock().unwrap();
    for name in ["tcp connect", "tcp accept"] {
        let whole = inbox.spans.iter().find(|span| span.name == name).unwrap();
        let of_it = |span: &&Span| span.trace_id == whole.trace_id && span.name == "tcp checkpoint";
        let mut checkpoints: Vec<&Span> = inbox.spans.iter().filter(of_it).collect();
        checkpoints.sort_by_key(|span| span.start_time_unix_nano);
        let [first, second] = checkpoints[..] else { panic!("{checkpoints:?}") };
        assert!(checkpoints.iter().all(|span| span.parent_span_id == whole.span_id));
        assert_eq!(first.links, []);
        assert_eq!(second.links[0].span_id, first.span_id);
        assert_eq!(whole.links[0].span_id, second.span_id);
    }
}

#[test]
fn logs_are_events_and_the_last_metrics_tell_of_all_spans() {
    let receiver = Receiver::start();
    let all = Some(receiver.signal());
    let settings = Settings { traces: all.clone(), metrics: all.clone(), logs: all, ..Settings::default() };
    let board = Arc::new(Board::default());
    let probe = Probe {
        name: "state",
        tracepoint: "inet_sock_set_state",
        required: true,
        verdict: Verdict::Active { rung: Rung::TpBtf, partial: false },
        refused: Vec::new(),
        cost: None,
    };
    board.publish(Status { probes: vec![probe], ..Status::default() });
    let otlp = telling(&settings, board);
    otlp.ended([(&client(), End::TimeWait), (&server(), End::Closed)]);
    let attributes = vec![("synfin.test".into(), 7.into())];
    otlp.logs().unwrap().event("synfin.test", Severity::Warn, "a test".to_owned(), attributes);
    receiver.wait(|inbox| inbox.logs.len() == 2);
    let report = otlp.shutdown();
    assert_eq!(report.metrics, Some(Ok(())));

    let inbox = receiver.inbox.lock().unwrap();
    let names: Vec<_> = inbox.logs.iter().map(|record| record.event_name.as_str()).collect();
    assert!(names.contains(&"synfin.test") && names.contains(&"synfin.started"), "{names:?}");
    let test = inbox.logs.iter().find(|record| record.event_name == "synfin.test").unwrap();
    assert_eq!((test.severity_number, test.severity_text.as_str()), (13, "WARN"));
    assert!(test.time_unix_nano > 1_700_000_000_000_000_000 && test.observed_time_unix_nano >= test.time_unix_nano);

    let exported = inbox.metrics.iter().find(|metric| metric.name == "otel.sdk.exporter.span.exported").unwrap();
    let text = format!("{:?}", exported.data);
    assert!(text.contains("otlp_grpc_span_exporter") && text.contains("AsInt(2)"), "{text}");
}

#[test]
fn findings_lead_to_their_exhibits_and_outlast_other_records() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let logs = Some(signal(format!("http://{address}"), Protocol::Grpc));
    let otlp = start(&Settings { logs, log_queue: 20, ..Settings::default() });
    let places: Vec<Place> = (1..4).map(|byte| Place { trace: [byte; 16], span: [byte; 8] }).collect();
    let records = otlp.logs().unwrap();
    for (state, exhibits) in [("opened", places.clone()), ("closed", Vec::new())] {
        records.finding(logs::Finding {
            detector: "syn_flood",
            state,
            severity: Severity::Error,
            body: "a test".to_owned(),
            attributes: vec![("synfin.test".into(), 7.into())],
            exhibits,
        });
    }
    // Nobody takes anything yet, and these are more than the queue holds.
    for _ in 0..100 {
        records.event("synfin.test", Severity::Warn, "x".to_owned(), Vec::new());
    }
    let receiver = Receiver::on(address);
    receiver.wait(|inbox| inbox.logs.len() == 20);
    let counts = otlp.shutdown().logs.unwrap();
    assert_eq!((counts.exported, counts.dropped(), counts.offered), (20, 82, 102));
    let inbox = receiver.inbox.lock().unwrap();
    let findings: Vec<_> = inbox.logs.iter().filter(|record| record.event_name == "synfin.finding").collect();
    let [opened, closed] = findings[..] else { panic!("{findings:?}") };
    assert_eq!((&opened.trace_id, &opened.span_id), (&vec![1; 16], &vec![1; 8]));
    assert_eq!((opened.severity_number, closed.trace_id.len()), (17, 0));
    let text = format!("{:?}", opened.attributes);
    for part in ["syn_flood", "opened", "synfin.finding.exhibits", &format!("{}-{}", "03".repeat(16), "03".repeat(8))] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn totals_that_a_busy_endpoint_sends_away_at_the_end_are_tried_again() {
    let receiver = Receiver::start();
    receiver.inbox.lock().unwrap().refusals.push(tonic::Status::unavailable("busy"));
    let settings = Settings { metrics: Some(receiver.signal()), ..Settings::default() };
    let otlp = start(&settings);
    assert_eq!(otlp.shutdown().metrics, Some(Ok(())));
    let exports = otlp.exports();
    assert_eq!((exports[0].items, exports[0].sent, &exports[0].failing), ("metrics", 1, &None));
    assert!(exports[0].error.as_ref().unwrap().0.contains("busy"), "{exports:?}");
}

/// What became of data points, when there is something to tell.
fn points(otlp: &Otlp) -> Points {
    otlp.source().take().points.expect("metrics are exported").0
}

#[test]
fn every_data_point_is_accounted_for() {
    let receiver = Receiver::start();
    {
        let mut inbox = receiver.inbox.lock().unwrap();
        // Taken from the end.
        inbox.refusals = vec![tonic::Status::invalid_argument("as told"), tonic::Status::unavailable("busy")];
        inbox.partial = Some((3, "too old".to_owned()));
    }
    let metrics_interval = Duration::from_millis(100);
    let otlp = start(&Settings { metrics: Some(receiver.signal()), metrics_interval, ..Settings::default() });
    while points(&otlp).exported == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(otlp.shutdown().metrics, Some(Ok(())));
    let Points { exported, rejected, missed } = points(&otlp);
    let exports = otlp.exports()[0].sent;
    // One export that came too early, one that was refused, and the others, of each of which three points were.
    let each = missed;
    assert!(each > 20, "{each} points");
    assert_eq!(rejected, each + 3 * exports);
    assert!(exported >= exports * (each - 3), "{exported} points in {exports} exports");
}

#[test]
fn totals_that_never_arrive_are_told_so() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let metrics = Some(signal(format!("http://{address}"), Protocol::Grpc));
    let shutdown_timeout = Duration::from_millis(300);
    let otlp = start(&Settings { metrics, shutdown_timeout, ..Settings::default() });
    let why = otlp.shutdown().metrics.expect("metrics are exported").unwrap_err();
    assert!(why.starts_with("nobody listens there"), "{why}");
    assert!(points(&otlp).missed > 20);
}

#[test]
fn totals_go_over_http_too() {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use prost::Message as _;

    let (address, requests) = http("200 OK");
    let url = format!("http://{address}/v1/metrics");
    let otlp = start(&Settings { metrics: Some(signal(url, Protocol::HttpProtobuf)), ..Settings::default() });
    assert_eq!(otlp.shutdown().metrics, Some(Ok(())));
    let requests = requests.lock().unwrap();
    let request = ExportMetricsServiceRequest::decode(requests[0].1.as_slice()).unwrap();
    assert_eq!(request.resource_metrics[0].schema_url, SCHEMA_URL);
    assert!(request.resource_metrics[0].scope_metrics[0].metrics.len() > 10);
}

#[test]
fn nothing_to_do_is_fine() {
    let otlp = start(&Settings::default());
    otlp.ended([(&client(), End::TimeWait)]);
    assert!(otlp.logs().is_none());
    assert_eq!(otlp.stats(), Stats::default());
    assert_eq!(otlp.shutdown(), Report::default());
}

#[test]
fn a_connection_has_a_place_if_its_span_is_kept_and_can_be_named() {
    let receiver = Receiver::start();
    let keeping = |trace_sample_ratio| {
        start(&Settings { traces: Some(receiver.signal()), trace_sample_ratio, ..Settings::default() })
    };
    let (all, abnormal, none) = (keeping(1.0), keeping(0.0), start(&Settings::default()));
    let ids = fixtures::ids(&client());
    let place = Place { trace: ids.trace.to_bytes(), span: ids.span.to_bytes() };
    assert_eq!(all.place(&client(), End::TimeWait), Some(place));
    assert!(all.place(&refused(), End::Refused).is_some_and(|other| other != place), "by ids of the agent's own");
    assert_eq!(abnormal.place(&client(), End::TimeWait), None);
    assert_eq!(abnormal.place(&client(), End::ResetReceived), Some(place));
    assert_eq!(none.place(&client(), End::TimeWait), None);
}
