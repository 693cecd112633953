//! Requests as bytes: what is the same in each of them, then as many items as fit.
//!
//! Requests for spans, metrics and log records have the same shape (`ResourceSpans`, `ResourceMetrics` and `ResourceLogs`; `ScopeSpans`,
//! `ScopeMetrics` and `ScopeLogs`), with the same numbers of fields, so that one envelope is right for all. A request has each
//! resource once.

use bytes::{BufMut as _, Bytes};
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;

use super::envelope::{Envelope, ITEMS, encoded};
use super::groups::Groups;
use super::protobuf::{Room, Writer};

/// A request is no longer than this, unless a single item is. Far below the 4 MiB that gRPC's receivers take by default,
/// and far above where the cost of a request matters.
pub(super) const LONGEST: usize = 1 << 20;

/// gRPC puts before a message whether it is compressed (one byte) and how long it is (four).
pub(super) const FRAME: usize = 5;

/// A request ready to be sent, with gRPC's frame before it: so one buffer serves both protocols.
#[derive(Clone, Debug)]
pub(super) struct Request(Bytes);

impl Request {
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

/// A request that is being written. Its buffer is used again for the next.
#[derive(Debug, Default)]
pub(super) struct Draft {
    writer: Writer,
    /// Size of the largest request so far.
    largest: usize,
}

impl Draft {
    /// Begins a message.
    pub(super) fn begin(&mut self) {
        // Takes back the memory of the last request, which has been sent (or given up) and dropped.
        self.writer.buffer.reserve(self.largest);
        self.writer.buffer.put_bytes(0, FRAME);
    }

    /// Where the message that was begun goes.
    pub(super) const fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Length so far, with the frame; 0 if none is begun.
    pub(super) fn length(&self) -> usize {
        self.writer.buffer.len()
    }

    /// Of the message that was begun.
    pub(super) fn end(&mut self) -> Request {
        let buffer = &mut self.writer.buffer;
        self.largest = self.largest.max(buffer.len());
        let length = buffer.len() - FRAME;
        buffer[..FRAME].copy_from_slice(&frame(false, length));
        Request(buffer.split().freeze())
    }
}

/// Makes requests of one scope.
#[derive(Debug)]
pub(super) struct Requests {
    envelope: Envelope,
    /// The agent's.
    resource: Vec<u8>,
    groups: Groups,
    draft: Draft,
}

impl Requests {
    /// Encodes what is the same in all requests.
    pub(super) fn new(resource: &Resource, scope: &InstrumentationScope) -> Self {
        let envelope = Envelope::new(resource, scope);
        let groups = Groups::new(envelope.length());
        Self { envelope, resource: encoded(resource), groups, draft: Draft::default() }
    }

    /// A request of the first of `items`, and how many these are: as many as fit, at least one. `encode` writes the
    /// fields of one of them. All are the agent's.
    pub(super) fn encode<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        encode: impl FnMut(T, &mut Writer),
    ) -> (Request, usize) {
        self.encode_grouped(items, |_, _| None, encode)
    }

    /// The same with several resources: `group` says in which group an item is, None for the agent's. They are the first of `items`
    /// all the same, whatever their groups are.
    pub(super) fn encode_grouped<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut group: impl FnMut(&T, &mut Groups) -> Option<usize>,
        mut encode: impl FnMut(T, &mut Writer),
    ) -> (Request, usize) {
        let Self { envelope, resource, groups, draft } = self;
        draft.begin();
        let writer = draft.writer();
        groups.clear();
        let (mut taken, mut of_agent) = (0, 0);
        // The agent's go where they belong at once, the others beside, until it is known how many there are of each.
        envelope.write(resource, writer, |to| {
            for item in items {
                let group = group(&item, groups);
                let others = to.buffer.len() + groups.bytes();
                let to = group.map_or(&mut *to, |group| groups.writer(group));
                let before = to.buffer.len();
                to.message(ITEMS, Room::Middle, |to| encode(item, to));
                let length = to.buffer.len() - before;
                if others + length > LONGEST && taken > 0 {
                    to.buffer.truncate(before);
                    break;
                }
                match group {
                    Some(_) => groups.add(length),
                    None => of_agent += 1,
                }
                taken += 1;
            }
        });
        if of_agent == 0 {
            writer.buffer.truncate(FRAME);
        }
        for (resource, items) in groups.filled() {
            envelope.write(resource, writer, |to| to.fields(items));
        }
        (draft.end(), taken)
    }

    #[cfg(test)]
    pub(super) const fn groups(&self) -> &Groups {
        &self.groups
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message as _;

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
