//! A span in OpenTelemetry's own types: what the tests look at, and what its SDK would send.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status as SpanStatus, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{FLAGS, Head, Subject, Terms, Value, Visit, describe};
use crate::status::Status;

/// The span of a subject.
pub(crate) fn span(subject: &Subject, terms: Terms, status: &Status) -> SpanData {
    let mut made = Made(SpanData {
        span_context: SpanContext::NONE,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "".into(),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: SpanStatus::Unset,
        instrumentation_scope: InstrumentationScope::builder("synfin").build(),
    });
    describe(subject, terms, status, &mut made);
    made.0
}

struct Made(SpanData);

impl Visit for Made {
    fn head(&mut self, head: &Head<'_>) {
        let entries = head.trace_state.split_once('=');
        let trace_state = TraceState::from_key_value(entries).unwrap();
        assert_eq!(trace_state.header(), head.trace_state);
        self.0.span_context = SpanContext::new(head.ids.trace, head.ids.span, head.flags, false, trace_state);
        self.0.parent_span_id = head.ids.parent;
        self.0.parent_span_is_remote = head.remote_parent;
        self.0.span_kind = head.kind.clone();
        self.0.name = head.name.into();
        self.0.start_time = at(head.start_unix_ns);
        self.0.end_time = at(head.end_unix_ns);
        self.0.status = head.error.map_or(SpanStatus::Unset, SpanStatus::error);
    }

    fn attribute(&mut self, key: &'static str, value: Value<'_>) {
        self.0.attributes.push(pair(key, value));
    }

    fn event(&mut self, name: &'static str, unix_ns: u64, attributes: &[(&'static str, Value<'_>)]) {
        let attributes = attributes.iter().map(|(key, value)| pair(key, *value)).collect();
        self.0.events.events.push(Event::new(name, at(unix_ns), attributes, 0));
    }

    fn link(&mut self, trace: TraceId, span: SpanId) {
        let context = SpanContext::new(trace, span, FLAGS, false, TraceState::NONE);
        self.0.links.links.push(Link::new(context, Vec::new(), 0));
    }
}

fn at(unix_ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns)
}

fn pair(key: &'static str, value: Value<'_>) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(key, text.to_owned()),
        Value::Flag(flag) => KeyValue::new(key, flag),
        Value::Integer(integer) => KeyValue::new(key, integer),
        Value::Real(real) => KeyValue::new(key, real),
    }
}
