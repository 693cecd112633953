//! A span as bytes: a message `Span` of opentelemetry/proto/trace/v1/trace.proto.

use opentelemetry::trace::{SpanId, SpanKind, TraceId};

use super::super::protobuf::{Room, Writer};
use super::{FLAGS, Head, Value, Visit};

/// Writes the fields of a message `Span`, in the order in which they come.
pub(crate) struct SpanFields<'a>(pub(crate) &'a mut Writer);

/// Numbers of the fields.
mod field {
    /// `Span`
    pub(super) mod span {
        pub(crate) const TRACE_ID: u32 = 1;
        pub(crate) const SPAN_ID: u32 = 2;
        pub(crate) const TRACE_STATE: u32 = 3;
        pub(crate) const PARENT_SPAN_ID: u32 = 4;
        pub(crate) const NAME: u32 = 5;
        pub(crate) const KIND: u32 = 6;
        pub(crate) const START_TIME_UNIX_NANO: u32 = 7;
        pub(crate) const END_TIME_UNIX_NANO: u32 = 8;
        pub(crate) const ATTRIBUTES: u32 = 9;
        pub(crate) const EVENTS: u32 = 11;
        pub(crate) const LINKS: u32 = 13;
        pub(crate) const STATUS: u32 = 15;
        pub(crate) const FLAGS: u32 = 16;
    }
    /// `Span.Event`
    pub(super) mod event {
        pub(crate) const TIME_UNIX_NANO: u32 = 1;
        pub(crate) const NAME: u32 = 2;
        pub(crate) const ATTRIBUTES: u32 = 3;
    }
    /// `Span.Link`
    pub(super) mod link {
        pub(crate) const TRACE_ID: u32 = 1;
        pub(crate) const SPAN_ID: u32 = 2;
        pub(crate) const FLAGS: u32 = 6;
    }
    /// `Status`
    pub(super) mod status {
        pub(crate) const MESSAGE: u32 = 2;
        pub(crate) const CODE: u32 = 3;
    }
    /// `KeyValue` of opentelemetry/proto/common/v1/common.proto
    pub(super) mod key_value {
        pub(crate) const KEY: u32 = 1;
        pub(crate) const VALUE: u32 = 2;
    }
    /// `AnyValue`
    pub(super) mod any_value {
        pub(crate) const STRING: u32 = 1;
        pub(crate) const BOOL: u32 = 2;
        pub(crate) const INT: u32 = 3;
        pub(crate) const DOUBLE: u32 = 4;
    }
}

/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;

/// The low byte of `flags` is that of W3C Trace Context; these say whether the parent is in another process, and that
/// this is known.
const CONTEXT_HAS_IS_REMOTE: u32 = 0x100;
const CONTEXT_IS_REMOTE: u32 = 0x200;

impl Visit for SpanFields<'_> {
    fn head(&mut self, head: &Head<'_>) {
        use field::{span, status};
        let to = &mut *self.0;
        to.bytes(span::TRACE_ID, &head.ids.trace.to_bytes());
        to.bytes(span::SPAN_ID, &head.ids.span.to_bytes());
        to.bytes(span::TRACE_STATE, head.trace_state.as_bytes());
        if head.ids.parent != SpanId::INVALID {
            to.bytes(span::PARENT_SPAN_ID, &head.ids.parent.to_bytes());
        }
        to.bytes(span::NAME, head.name.as_bytes());
        to.varint(span::KIND, kind(&head.kind));
        to.fixed64(span::START_TIME_UNIX_NANO, head.start_unix_ns);
        to.fixed64(span::END_TIME_UNIX_NANO, head.end_unix_ns);
        let remote = if head.remote_parent { CONTEXT_IS_REMOTE } else { 0 };
        to.fixed32(span::FLAGS, u32::from(head.flags.to_u8()) | CONTEXT_HAS_IS_REMOTE | remote);
        // One that is empty is Unset: by the conventions a clean end stays so; Ok is for users.
        to.message(span::STATUS, Room::Small, |to| {
            if let Some(message) = head.error {
                to.bytes(status::MESSAGE, message.as_bytes());
                to.varint(status::CODE, ERROR);
            }
        });
    }

    #[inline]
    fn attribute(&mut self, key: &'static str, value: Value<'_>) {
        attribute(self.0, field::span::ATTRIBUTES, key, value);
    }

    fn event(&mut self, name: &'static str, unix_ns: u64, attributes: &[(&'static str, Value<'_>)]) {
        use field::event;
        self.0.message(field::span::EVENTS, Room::Small, |to| {
            to.fixed64(event::TIME_UNIX_NANO, unix_ns);
            to.bytes(event::NAME, name.as_bytes());
            for (key, value) in attributes {
                attribute(to, event::ATTRIBUTES, key, *value);
            }
        });
    }

    fn link(&mut self, trace: TraceId, span: SpanId) {
        use field::link;
        self.0.message(field::span::LINKS, Room::Small, |to| {
            to.bytes(link::TRACE_ID, &trace.to_bytes());
            to.bytes(link::SPAN_ID, &span.to_bytes());
            to.fixed32(link::FLAGS, u32::from(FLAGS.to_u8()) | CONTEXT_HAS_IS_REMOTE);
        });
    }
}

/// The value of `SpanKind`.
const fn kind(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

pub(in crate::export::otlp) fn attribute(to: &mut Writer, field: u32, key: &'static str, value: Value<'_>) {
    use field::{any_value, key_value};
    to.message(field, Room::Small, |to| {
        to.bytes(key_value::KEY, key.as_bytes());
        to.message(key_value::VALUE, Room::Small, |to| match value {
            Value::Text(text) => to.bytes(any_value::STRING, text.as_bytes()),
            Value::Flag(flag) => to.varint(any_value::BOOL, flag.into()),
            Value::Integer(integer) => to.varint(any_value::INT, integer.cast_unsigned()),
            Value::Real(real) => to.double(any_value::DOUBLE, real),
        });
    });
}
