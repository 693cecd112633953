//! OTLP's JSON: what was encoded as protobuf, told once more by the rules of OTLP/JSON (ids in hex, enums as numbers,
//! 64-bit integers as text), which are those of OpenTelemetry's own messages.

use std::io;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde_json::Value;

use super::method;

/// A request in protobuf as JSON.
pub(super) type Encode = fn(&[u8]) -> io::Result<Vec<u8>>;

/// How requests of the service with this method become JSON.
pub(super) fn encoder(method: &str) -> Encode {
    match method {
        method::TRACES => encode::<ExportTraceServiceRequest>,
        method::METRICS => encode::<ExportMetricsServiceRequest>,
        _ => encode::<ExportLogsServiceRequest>,
    }
}

fn encode<M: prost::Message + Default + serde::Serialize>(message: &[u8]) -> io::Result<Vec<u8>> {
    let mut value = serde_json::to_value(M::decode(message)?)?;
    leave_out_nulls(&mut value);
    Ok(serde_json::to_vec(&value)?)
}

/// What is not set is absent: opentelemetry-proto (0.33) writes `null` for the smallest and largest value of a histogram, which is no number.
fn leave_out_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(leave_out_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(leave_out_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// How many items an answer rejects, and its message. Where they are missing, or no JSON: none, and nothing.
pub(super) fn partial_success(body: &[u8]) -> (i64, String) {
    let told: Value = serde_json::from_slice(body).unwrap_or_default();
    let partial = &told["partialSuccess"];
    let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"].map(|name| &partial[name]);
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let message = partial["errorMessage"].as_str().unwrap_or_default().to_owned();
    (rejected.into_iter().find_map(number).unwrap_or(0), message)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{
        AggregationTemporality, Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics, metric::Data,
    };
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use serde_json::json;

    use super::*;

    fn told(method: &str, message: &impl prost::Message) -> Value {
        serde_json::from_slice(&encoder(method)(&message.encode_to_vec()).unwrap()).unwrap()
    }

    #[test]
    fn ids_are_hex_enums_are_numbers_and_long_integers_are_text() {
        let span = Span {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            name: "tcp connect".to_owned(),
            kind: 3,
            start_time_unix_nano: u64::MAX,
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        let told = told(method::TRACES, &ExportTraceServiceRequest { resource_spans });
        let span = &told["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "ab".repeat(16));
        assert_eq!((&span["spanId"], &span["kind"]), (&json!("0101010101010101"), &json!(3)));
        assert_eq!(span["startTimeUnixNano"], "18446744073709551615");
    }

    #[test]
    fn histograms_keep_their_counts() {
        let point = HistogramDataPoint {
            count: 3,
            sum: Some(0.5),
            bucket_counts: vec![1, 2],
            explicit_bounds: vec![0.25],
            ..HistogramDataPoint::default()
        };
        let temporality = AggregationTemporality::Cumulative as i32;
        let histogram = Histogram { data_points: vec![point], aggregation_temporality: temporality };
        let metric = Metric { name: "m".to_owned(), data: Some(Data::Histogram(histogram)), ..Metric::default() };
        let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
        let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
        let told = told(method::METRICS, &ExportMetricsServiceRequest { resource_metrics });
        let histogram = &told["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["histogram"];
        assert_eq!(histogram["aggregationTemporality"], 2);
        let point = &histogram["dataPoints"][0];
        assert_eq!((&point["count"], &point["bucketCounts"]), (&json!("3"), &json!(["1", "2"])));
        assert_eq!((&point["sum"], &point["explicitBounds"]), (&json!(0.5), &json!([0.25])));
        assert_eq!(point.get("max"), None, "what is not known is absent");
    }

    #[test]
    fn partial_success_is_read_as_far_as_it_makes_sense() {
        for (body, expected) in [
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#, (3, "too old")),
            (r#"{"partialSuccess":{"rejectedLogRecords":2}}"#, (2, "")),
            (r#"{"partialSuccess":{"rejectedDataPoints":"many"}}"#, (0, "")),
            (r#"{"partialSuccess":[]}"#, (0, "")),
            ("{}", (0, "")),
            ("[", (0, "")),
        ] {
            let (rejected, message) = partial_success(body.as_bytes());
            assert_eq!((rejected, message.as_str()), expected, "{body}");
        }
    }
}
