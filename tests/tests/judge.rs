//! The strict OTLP receiver itself: it takes what is right, by both protocols, and nothing that is wrong.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value as Number,
    },
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use prost::Message as _;
use synfin_tests::otlp::{Mood, Receiver, Signal, Via, judge::Judge};

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

#[expect(clippy::disallowed_methods, reason = "the judge compares with the real clock")]
fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64)
}

fn resource() -> Resource {
    let names = [("service.name", "synfin"), ("service.version", "0.1.0"), ("host.name", "here")];
    Resource { attributes: names.map(|(key, value)| attribute(key, value)).to_vec(), ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "synfin".to_owned(), ..InstrumentationScope::default() }
}

fn span(number: u8) -> Result<Span> {
    let end = now()?;
    let start = end - 1_000_000;
    let event = Event { time_unix_nano: start + 10, name: "network.tcp.state".to_owned(), ..Event::default() };
    Ok(Span {
        trace_id: vec![number; 16],
        span_id: vec![number; 8],
        trace_state: "ot=th:0".to_owned(),
        name: "tcp".to_owned(),
        kind: 3,
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: vec![attribute("network.transport", "tcp"), attribute("network.type", "ipv4")],
        events: vec![event],
        ..Span::default()
    })
}

fn link(trace: u8, span: u8) -> Link {
    Link { trace_id: vec![trace; 16], span_id: vec![span; 8], ..Link::default() }
}

fn traces(resource: Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, schema_url: String::new() }];
    let group = ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![group] }
}

fn counter(value: i64) -> Result<Metric> {
    let point = NumberDataPoint {
        start_time_unix_nano: now()? / 1_000_000_000_000 * 1_000_000_000_000,
        time_unix_nano: now()?,
        value: Some(Number::AsInt(value)),
        ..NumberDataPoint::default()
    };
    let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
    Ok(Metric {
        name: "synfin.events".to_owned(),
        description: "Events seen.".to_owned(),
        unit: "{event}".to_owned(),
        data: Some(Data::Sum(sum)),
        ..Metric::default()
    })
}

fn metrics(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, schema_url: String::new() }];
    let group = ResourceMetrics { resource: Some(resource()), scope_metrics, schema_url: String::new() };
    ExportMetricsServiceRequest { resource_metrics: vec![group] }
}

/// What the judge says of requests, taken one after the other.
fn judged(signal: Signal, requests: &[Vec<u8>]) -> Result<()> {
    let mut judge = Judge::default();
    for request in requests {
        judge.take(signal, Via::Grpc, &Bytes::from(request.clone()));
    }
    judge.verdict()
}

#[track_caller]
fn rejected(signal: Signal, requests: &[Vec<u8>], why: &str) {
    let error = judged(signal, requests).expect_err(why);
    assert!(format!("{error:#}").contains(why), "rejected, but not for {why:?}: {error:#}");
}

#[test]
fn right_spans_pass() -> Result<()> {
    let mut sampled = span(3)?;
    sampled.trace_state = "ot=th:03030303030303".to_owned();
    judged(Signal::Traces, &[traces(resource(), vec![span(1)?, span(2)?, sampled]).encode_to_vec()])
}

#[test]
fn wrong_spans_are_rejected() -> Result<()> {
    type Spoil = fn(&mut Span);
    let spoilt: [(&str, Spoil); 29] = [
        ("trace id: 8 bytes", |span| span.trace_id.truncate(8)),
        ("trace id: all zeroes", |span| span.trace_id.fill(0)),
        ("span id: 16 bytes", |span| span.span_id = vec![1; 16]),
        ("span id: all zeroes", |span| span.span_id.fill(0)),
        ("own parent", |span| span.parent_span_id.clone_from(&span.span_id)),
        ("parent is remote", |span| (span.parent_span_id, span.flags) = (Vec::new(), 0x303)),
        ("no name", |span| span.name.clear()),
        ("kind Unspecified", |span| span.kind = 0),
        ("kind Producer", |span| span.kind = 4),
        ("ends before", |span| span.end_time_unix_nano = span.start_time_unix_nano - 1),
        ("start: time 5", |span| span.start_time_unix_nano = 5),
        ("not of the last day", |span| span.end_time_unix_nano += 3_600_000_000_000),
        ("earlier than", |span| span.events[0].time_unix_nano = span.start_time_unix_nano - 1),
        ("later than", |span| span.events[0].time_unix_nano = span.end_time_unix_nano + 1),
        ("comes twice", |span| span.attributes.push(attribute("network.type", "ipv6"))),
        ("not on the list", |span| span.attributes.push(attribute("color", "blue"))),
        ("empty string", |span| span.attributes.push(attribute("error.type", ""))),
        ("out of its trace", |span| span.links = vec![link(2, 9)]),
        ("a link to itself", |span| span.links = vec![link(1, 1)]),
        ("without its connection", |span| (span.name, span.kind) = ("tcp checkpoint".to_owned(), 1)),
        ("without a number", |span| {
            (span.name, span.kind, span.parent_span_id) = ("tcp checkpoint".to_owned(), 1, vec![9; 8]);
        }),
        ("no entry `ot`", |span| span.trace_state.clear()),
        ("no entry `ot`", |span| span.trace_state = "th:0".to_owned()),
        ("hexadecimal", |span| span.trace_state = "ot=th:".to_owned()),
        ("hexadecimal", |span| span.trace_state = "ot=th:C".to_owned()),
        ("zeroes at the end", |span| span.trace_state = "ot=th:00".to_owned()),
        ("random bits of its trace id are 01010101010101", |span| span.trace_state = "ot=th:0101011".to_owned()),
        ("yet by chance", |span| {
            span.trace_state = "ot=th:01010101010101".to_owned();
            span.attributes.push(attribute("synfin.sampling.reason", "reset"));
        }),
        ("error.type", |span| span.status = Some(Status { message: String::new(), code: 2 })),
    ];
    for (why, spoil) in spoilt {
        let mut bad = span(1)?;
        spoil(&mut bad);
        rejected(Signal::Traces, &[traces(resource(), vec![bad]).encode_to_vec()], why);
    }
    rejected(Signal::Traces, &[traces(resource(), vec![span(1)?, span(1)?]).encode_to_vec()], "came twice");
    Ok(())
}

#[test]
fn wrong_resources_are_rejected() -> Result<()> {
    for missing in ["service.name", "service.version", "host.name"] {
        let mut bad = resource();
        bad.attributes.retain(|attribute| attribute.key != missing);
        rejected(Signal::Traces, &[traces(bad, vec![span(1)?]).encode_to_vec()], missing);
    }
    Ok(())
}

#[test]
fn resources_of_owners_pass_and_wrong_ones_are_rejected() -> Result<()> {
    let owner = |more: &[(&str, &str)]| {
        let names = [("host.name", "here"), ("service.name", "nginx"), ("service.instance.id", "here:/nginx.service")];
        let attributes = names.iter().chain(more).map(|(key, value)| attribute(key, value)).collect();
        Resource { attributes, ..Resource::default() }
    };
    let request = |resources: Vec<Resource>| -> Result<Vec<u8>> {
        let groups = resources
            .into_iter()
            .zip(1..)
            .map(|(resource, number)| Ok(traces(resource, vec![span(number)?]).resource_spans.remove(0)));
        Ok(ExportTraceServiceRequest { resource_spans: groups.collect::<Result<_>>()? }.encode_to_vec())
    };
    judged(Signal::Traces, &[request(vec![owner(&[]), resource(), owner(&[("container.id", "c")])])?])?;
    let twice = request(vec![owner(&[]), resource(), owner(&[])])?;
    rejected(Signal::Traces, &[twice], "a resource comes twice");
    let of_agent = request(vec![owner(&[("process.pid", "1")])])?;
    rejected(Signal::Traces, &[of_agent], "process.pid is not on the list");
    Ok(())
}

#[test]
fn unknown_fields_are_rejected() -> Result<()> {
    let mut bytes = traces(resource(), vec![span(1)?]).encode_to_vec();
    bytes.extend([0x98, 0x06, 0x01]); // field 99, varint 1
    rejected(Signal::Traces, &[bytes], "has no field 99");
    let text_in_kind = [0x0a, 0x08, 0x12, 0x06, 0x12, 0x04, 0x32, 0x02, b'h', b'i']; // Span.kind, an enum, as a string
    rejected(Signal::Traces, &[text_in_kind.to_vec()], "kind comes as LengthDelimited");
    Ok(())
}

#[test]
fn right_metrics_pass() -> Result<()> {
    judged(Signal::Metrics, &[metrics(vec![counter(1)?]).encode_to_vec(), metrics(vec![counter(2)?]).encode_to_vec()])
}

#[test]
fn wrong_metrics_are_rejected() -> Result<()> {
    type Spoil = fn(&mut Metric);
    fn sum(metric: &mut Metric) -> &mut Sum {
        match metric.data.as_mut() {
            Some(Data::Sum(sum)) => sum,
            _ => unreachable!("a sum was built"),
        }
    }
    let spoilt: [(&str, Spoil); 10] = [
        ("lower case", |metric| metric.name = "Synfin.Events".to_owned()),
        ("no description", |metric| metric.description.clear()),
        ("not UCUM", |metric| metric.unit = "events".to_owned()),
        ("not cumulative", |metric| sum(metric).aggregation_temporality = 1),
        ("fell from 5 to 4", |metric| sum(metric).data_points[0].value = Some(Number::AsInt(4))),
        ("it was", |metric| sum(metric).is_monotonic = false),
        ("it was", |metric| metric.unit = "{thing}".to_owned()),
        ("starts after its time", |metric| sum(metric).data_points[0].start_time_unix_nano = u64::MAX),
        ("starts anew", |metric| sum(metric).data_points[0].start_time_unix_nano += 1),
        ("comes twice in one export", |metric| {
            let again = sum(metric).data_points[0].clone();
            sum(metric).data_points.push(again);
        }),
    ];
    for (why, spoil) in spoilt {
        let good = counter(5)?;
        let mut bad = counter(6)?;
        spoil(&mut bad);
        let requests = [metrics(vec![good]).encode_to_vec(), metrics(vec![bad]).encode_to_vec()];
        rejected(Signal::Metrics, &requests, why);
    }
    Ok(())
}

/// One port, both protocols, and every mood.
#[test]
fn the_receiver_takes_grpc_and_http() -> Result<()> {
    let mut receiver = Receiver::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let grpc = |receiver: &Receiver, number: u8| -> Result<()> {
        runtime.block_on(async {
            let mut client = TraceServiceClient::connect(receiver.endpoint()).await?;
            client.export(traces(resource(), vec![span(number)?])).await?;
            Ok(())
        })
    };
    grpc(&receiver, 1)?;
    assert_eq!(http(&receiver, &traces(resource(), vec![span(2)?]).encode_to_vec())?, "HTTP/1.1 200 OK");
    let wanted = [((Signal::Traces, Via::Grpc), 1), ((Signal::Traces, Via::Http), 1)];
    receiver.await_received(Duration::ZERO, "one by each protocol", |judge| judge.requests == wanted.into())?;

    receiver.mood(Mood::Refuse);
    assert!(grpc(&receiver, 3).is_err_and(|error| error.to_string().contains("unavailable")));
    assert_eq!(http(&receiver, &[])?, "HTTP/1.1 503 Service Unavailable");
    receiver.go_away()?;
    assert!(grpc(&receiver, 3).is_err());
    receiver.come_back()?;
    receiver.mood(Mood::Accept);
    grpc(&receiver, 3)?;
    assert_eq!(receiver.look(|judge| (judge.spans.len(), judge.refused)), (3, 2));

    http(&receiver, b"\xff\xff")?;
    assert!(receiver.look(Judge::verdict).is_err(), "bytes that are no protobuf were taken");
    Ok(())
}

/// Posts spans by hand; answers with the status line.
fn http(receiver: &Receiver, body: &[u8]) -> Result<String> {
    let endpoint = receiver.endpoint();
    let address = endpoint.strip_prefix("http://").context("a plain endpoint")?;
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "POST /v1/traces HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-protobuf\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
