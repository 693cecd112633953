//! What endpoints answer, and what OTLP says that it means.

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message as _;

use super::super::worker::{Accepted, Failure};
use super::json;

/// Nothing beyond this is read of an answer. What OTLP has to say is a number and a sentence.
pub(super) const LONGEST: usize = 64 << 10;

/// `ExportTraceServiceResponse`, `ExportMetricsServiceResponse` and `ExportLogsServiceResponse`, which differ in names alone.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// What the body of an answer says. Once the status has said that the request was taken, a body that cannot be
/// understood changes nothing.
pub(super) fn accepted(body: &[u8]) -> Accepted {
    if body.first() == Some(&b'{') {
        // No message of protobuf begins so, and some receivers answer protobuf with JSON.
        let (rejected, message) = json::partial_success(body);
        return Accepted { rejected: rejected.try_into().unwrap_or(0), message };
    }
    let partial = match Response::decode(body) {
        Ok(response) => response.partial_success.unwrap_or_default(),
        Err(error) => {
            tracing::debug!(%error, "an OTLP endpoint took a request with an answer that is not OTLP");
            PartialSuccess::default()
        }
    };
    Accepted { rejected: partial.rejected.try_into().unwrap_or(0), message: partial.error_message }
}

/// A request that was refused by a status of HTTP.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap) -> Failure {
    let why = format!("HTTP status {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Failure::Retry { why, after: retry_after(headers) },
        _ => Failure::Rejected(why),
    }
}

/// How long the endpoint asks to be left alone: in seconds, or until a date. A date is compared with the endpoint's own
/// clock, which every answer tells, so that ours need not agree with it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers.get(RETRY_AFTER)?)?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(text(headers.get(DATE)?)?).ok()?;
    until.duration_since(now).ok()
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(pairs: &[(http::HeaderName, &'static str)]) -> Option<Duration> {
        let headers = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        match refused(StatusCode::SERVICE_UNAVAILABLE, &headers) {
            Failure::Retry { after, .. } => after,
            Failure::Rejected(why) => panic!("{why}"),
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[(RETRY_AFTER, " 120 ")]), Some(Duration::from_mins(2)));
        assert_eq!(
            after(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:50:00 GMT"), now.clone()]),
            Some(Duration::from_secs(23))
        );
        assert_eq!(
            after(&[(RETRY_AFTER, "Sunday, 06-Nov-94 08:50:00 GMT"), now.clone()]),
            Some(Duration::from_secs(23))
        );
        assert_eq!(after(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:00:00 GMT"), now]), None, "that has passed");
        assert_eq!(after(&[(RETRY_AFTER, "Sun, 06 Nov 1994 08:50:00 GMT")]), None, "no clock to compare with");
        for odd in ["", "-1", "soon", "1.5", "99999999999999999999"] {
            assert_eq!(after(&[(RETRY_AFTER, odd)]), None, "{odd}");
        }
    }

    #[test]
    fn partial_success_is_read() {
        use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".to_owned() };
        let bytes = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(accepted(&bytes), Accepted { rejected: 3, message: "too old".to_owned() });
        assert_eq!(accepted(b""), Accepted::default());
        assert_eq!(accepted(b"{\"partialSuccess\":{}}"), Accepted::default());
        let in_json = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#;
        assert_eq!(accepted(in_json), Accepted { rejected: 3, message: "too old".to_owned() });
        let partial = ExportTracePartialSuccess { rejected_spans: -3, error_message: String::new() };
        let bytes = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(accepted(&bytes), Accepted::default());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..100), date in "\\PC{0,40}", after in "\\PC{0,40}") {
            accepted(&body);
            let mut headers = HeaderMap::new();
            for (name, value) in [(DATE, date), (RETRY_AFTER, after)] {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(name, value);
                }
            }
            refused(StatusCode::TOO_MANY_REQUESTS, &headers);
        }
    }
}
