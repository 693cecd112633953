//! Whether a message in JSON keeps the rules of OTLP/JSON, and what it is in protobuf.
//!
//! As for protobuf, the rules are checked by the descriptors of the published protocol: libraries forgive what other
//! receivers do not.

use anyhow::{Context as _, Result, bail, ensure};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;
use prost_types::{FieldDescriptorProto, field_descriptor_proto::Type};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Signal, schema};

/// The same request in protobuf.
pub fn to_protobuf(signal: Signal, body: &[u8]) -> Result<Vec<u8>> {
    match signal {
        Signal::Traces => convert::<ExportTraceServiceRequest>("trace.v1.ExportTraceServiceRequest", body),
        Signal::Metrics => convert::<ExportMetricsServiceRequest>("metrics.v1.ExportMetricsServiceRequest", body),
        Signal::Logs => convert::<ExportLogsServiceRequest>("logs.v1.ExportLogsServiceRequest", body),
    }
}

fn convert<M: Message + DeserializeOwned>(name: &str, body: &[u8]) -> Result<Vec<u8>> {
    let value: Value = serde_json::from_slice(body)?;
    check(&format!(".opentelemetry.proto.collector.{name}"), &value)?;
    Ok(serde_json::from_value::<M>(value)?.encode_to_vec())
}

fn check(message: &str, value: &Value) -> Result<()> {
    let fields = value.as_object().with_context(|| format!("{message} is no object: {value}"))?;
    for (name, value) in fields {
        let field = schema::by_json_name(message, name).with_context(|| format!("{message} has no field {name}"))?;
        let place = || format!("{message}.{name}");
        if field.label() == prost_types::field_descriptor_proto::Label::Repeated {
            for value in value.as_array().with_context(|| format!("{} is no list", place()))? {
                one(field, value).with_context(place)?;
            }
        } else {
            one(field, value).with_context(place)?;
        }
    }
    Ok(())
}

fn one(field: &FieldDescriptorProto, value: &Value) -> Result<()> {
    let good = match field.r#type() {
        Type::Message => return check(field.type_name(), value),
        Type::Fixed64 | Type::Uint64 => value.as_str().is_some_and(|text| text.parse::<u64>().is_ok()),
        Type::Int64 | Type::Sfixed64 | Type::Sint64 => value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()),
        Type::Fixed32 | Type::Uint32 => value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
        Type::Int32 | Type::Sint32 | Type::Sfixed32 | Type::Enum => {
            value.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
        }
        Type::Double | Type::Float => value.is_number(),
        Type::Bool => value.is_boolean(),
        Type::String => value.is_string(),
        // Ids. No other bytes are sent: they would be base64.
        Type::Bytes => value
            .as_str()
            .is_some_and(|text| [0, 16, 32].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())),
        Type::Group => bail!("a group"),
    };
    ensure!(good, "{value} is no {:?} of OTLP/JSON", field.r#type());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_receivers_would_not_take_is_not_taken() {
        let span = |fields: &str| {
            let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#);
            to_protobuf(Signal::Traces, body.as_bytes())
        };
        let good = span(r#""traceId":"0af7651916cd43dd8448eb211c80319c","kind":2,"startTimeUnixNano":"7""#).unwrap();
        let request = ExportTraceServiceRequest::decode(good.as_slice()).unwrap();
        assert_eq!(request.resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano, 7);
        for bad in [
            r#""traceId":"CvdlGRbNQ92ESOshHIAxnA==""#,
            r#""trace_id":"0af7651916cd43dd8448eb211c80319c""#,
            r#""kind":"SPAN_KIND_CLIENT""#,
            r#""startTimeUnixNano":7"#,
            r#""name":null"#,
            r#""colour":"red""#,
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
