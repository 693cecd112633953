//! Requests as bytes: what is the same in each of them, then as many items as fit.
//!
//! A request for spans and one for log records have the same shape (`ResourceSpans` and `ResourceLogs`, `ScopeSpans` and
//! `ScopeLogs`), with the same numbers of fields, so that one envelope is right for both.

use bytes::{BufMut as _, Bytes, BytesMut};
use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope as ScopeMessage;
use opentelemetry_proto::tonic::resource::v1::Resource as ResourceMessage;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use prost::Message as _;

use super::protobuf::{Room, Writer};

/// A request is no longer than this, unless a single item is. Far below the 4 MiB that gRPC's receivers take by default,
/// and far above where the cost of a request matters.
const LONGEST: usize = 1 << 20;

/// gRPC puts before a message whether it is compressed (one byte) and how long it is (four).
pub(super) const FRAME: usize = 5;

/// Numbers of the fields.
pub(super) mod field {
    pub(in crate::export::otlp) const REQUEST_RESOURCES: u32 = 1;
    pub(in crate::export::otlp) const RESOURCE: u32 = 1;
    pub(in crate::export::otlp) const SCOPES: u32 = 2;
    pub(in crate::export::otlp) const SCOPE: u32 = 1;
    pub(in crate::export::otlp) const ITEMS: u32 = 2;
    /// Of the resource as of the scope.
    pub(in crate::export::otlp) const SCHEMA_URL: u32 = 3;
}

/// A request ready to be sent, with gRPC's frame before it: so one buffer serves both protocols.
#[derive(Clone, Debug)]
pub(super) struct Request(Bytes);

impl Request {
    /// Of a message that is encoded already.
    pub(super) fn of(message: &[u8]) -> Self {
        let mut buffer = BytesMut::with_capacity(FRAME + message.len());
        buffer.put_slice(&frame(false, message.len()));
        buffer.put_slice(message);
        Self(buffer.freeze())
    }

    /// With gRPC's frame.
    pub(super) fn framed(&self) -> Bytes {
        self.0.clone()
    }

    /// The message alone.
    pub(super) fn message(&self) -> Bytes {
        self.0.slice(FRAME..)
    }
}

/// gRPC's frame of a message.
pub(super) fn frame(compressed: bool, length: usize) -> [u8; FRAME] {
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [compressed.into(), a, b, c, d]
}

/// Makes requests of one resource and one scope. The buffer of one request is used again for the next.
#[derive(Debug)]
pub(super) struct Requests {
    resource: Vec<u8>,
    resource_schema: String,
    scope: Vec<u8>,
    scope_schema: String,
    writer: Writer,
    /// Size of the largest request so far.
    largest: usize,
}

impl Requests {
    /// Encodes what is the same in all requests.
    pub(super) fn new(resource: &Resource, scope: &InstrumentationScope) -> Self {
        let ResourceAttributesWithSchema { attributes, schema_url } = resource.into();
        Self {
            resource: ResourceMessage { attributes: attributes.0, ..ResourceMessage::default() }.encode_to_vec(),
            resource_schema: schema_url.unwrap_or_default(),
            scope: ScopeMessage::from((scope, None)).encode_to_vec(),
            scope_schema: scope.schema_url().unwrap_or_default().to_owned(),
            writer: Writer::default(),
            largest: 0,
        }
    }

    /// A request of the first of `items`, and how many these are: as many as fit, at least one. `encode` writes the
    /// fields of one of them.
    pub(super) fn encode<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut encode: impl FnMut(T, &mut Writer),
    ) -> (Request, usize) {
        let Self { resource, resource_schema, scope, scope_schema, writer, largest } = self;
        // Takes back the memory of the last request, which has been sent (or given up) and dropped.
        writer.buffer.reserve(*largest);
        writer.buffer.put_bytes(0, FRAME);
        let mut taken = 0;
        writer.message(field::REQUEST_RESOURCES, Room::Large, |to| {
            to.bytes(field::RESOURCE, resource);
            to.bytes(field::SCHEMA_URL, resource_schema.as_bytes());
            to.message(field::SCOPES, Room::Large, |to| {
                to.bytes(field::SCOPE, scope);
                to.bytes(field::SCHEMA_URL, scope_schema.as_bytes());
                for item in items {
                    let before = to.buffer.len();
                    to.message(field::ITEMS, Room::Middle, |to| encode(item, to));
                    if to.buffer.len() > LONGEST && taken > 0 {
                        to.buffer.truncate(before);
                        break;
                    }
                    taken += 1;
                }
            });
        });
        let length = writer.buffer.len() - FRAME;
        writer.buffer[..FRAME].copy_from_slice(&frame(false, length));
        *largest = (*largest).max(writer.buffer.len());
        (Request(writer.buffer.split().freeze()), taken)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

    use super::*;

    fn requests() -> Requests {
        let resource = Resource::builder_empty()
            .with_schema_url([KeyValue::new("service.name", "synfin")], "https://example.com/resource")
            .build();
        let scope = InstrumentationScope::builder("synfin")
            .with_version("1.2.3")
            .with_schema_url("https://example.com/scope")
            .build();
        Requests::new(&resource, &scope)
    }

    /// A span with a name of so many bytes.
    fn named(length: usize, to: &mut Writer) {
        to.bytes(5, "n".repeat(length).as_bytes());
    }

    fn decoded(request: &Request) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest::decode(request.message()).unwrap()
    }

    #[test]
    fn resource_and_scope_are_in_each() {
        let mut requests = requests();
        for round in 1..4 {
            let (request, taken) = requests.encode(vec![round; round], named);
            assert_eq!(taken, round);
            let mut decoded = decoded(&request);
            let mut group = decoded.resource_spans.pop().unwrap();
            assert!(decoded.resource_spans.is_empty());
            assert_eq!(group.schema_url, "https://example.com/resource");
            assert_eq!(group.resource.unwrap().attributes[0].key, "service.name");
            let scope = group.scope_spans.pop().unwrap();
            assert!(group.scope_spans.is_empty());
            assert_eq!(scope.schema_url, "https://example.com/scope");
            let about = scope.scope.unwrap();
            assert_eq!((about.name.as_str(), about.version.as_str()), ("synfin", "1.2.3"));
            assert!(scope.spans.iter().all(|span| span.name.len() == round));
            assert_eq!(scope.spans.len(), round);
        }
    }

    #[test]
    fn a_request_is_bounded_in_bytes() {
        let mut requests = requests();
        let items = [LONGEST / 3; 10];
        let (mut sent, mut rounds) = (0, 0);
        while sent < items.len() {
            let (request, taken) = requests.encode(items[sent..].iter().copied(), named);
            assert!(request.message().len() <= LONGEST);
            assert_eq!(decoded(&request).resource_spans[0].scope_spans[0].spans.len(), taken);
            sent += taken;
            rounds += 1;
        }
        assert_eq!(rounds, 5);
        let (_, taken) = requests.encode([2 * LONGEST, 1], named);
        assert_eq!(taken, 1, "one that fits in none goes alone");
    }

    #[test]
    fn the_frame_is_grpcs() {
        let (request, _) = requests().encode([70_000], named);
        let framed = request.framed();
        assert_eq!(framed[0], 0);
        assert_eq!(framed[1..FRAME], (request.message().len() as u32).to_be_bytes());
        assert_eq!(framed.slice(FRAME..), request.message());
    }

    #[test]
    fn the_buffer_is_used_again() {
        let mut requests = requests();
        let items = [1_000; 100];
        for _ in 0..3 {
            drop(requests.encode(items, named));
        }
        let places: std::collections::HashSet<_> =
            (0..100).map(|_| requests.encode(items, named).0.framed().as_ptr()).collect();
        assert_eq!(places.len(), 1);
    }
}
