//! What stands around the items of one resource in a request: the resource and the scope.

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope as ScopeMessage;
use opentelemetry_proto::tonic::resource::v1::Resource as ResourceMessage;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use prost::Message as _;

use super::protobuf::{Open, Room, Writer};

/// Numbers of the fields.
mod field {
    pub(super) const REQUEST_RESOURCES: u32 = 1;
    pub(super) const RESOURCE: u32 = 1;
    pub(super) const SCOPES: u32 = 2;
    pub(super) const SCOPE: u32 = 1;
    /// Of the resource as of the scope.
    pub(super) const SCHEMA_URL: u32 = 3;
}

/// Number of the field in which a scope has its spans, metrics or log records.
pub(super) const ITEMS: u32 = 2;

/// A resource as bytes: the fields of a message `Resource`, the same ones for the same resource.
pub(super) fn encoded(resource: &Resource) -> Vec<u8> {
    let ResourceAttributesWithSchema { attributes, .. } = resource.into();
    let mut attributes = attributes.0;
    // The SDK keeps them in a map without an order.
    attributes.sort_by(|one, other| one.key.cmp(&other.key));
    ResourceMessage { attributes, ..ResourceMessage::default() }.encode_to_vec()
}

/// What is the same around all items.
#[derive(Debug)]
pub(super) struct Envelope {
    resource_schema: String,
    scope: Vec<u8>,
    scope_schema: String,
}

impl Envelope {
    /// Encodes it. The schema of `resource` is that of all resources: their names come from the same conventions.
    pub(super) fn new(resource: &Resource, scope: &InstrumentationScope) -> Self {
        Self {
            resource_schema: resource.schema_url().unwrap_or_default().to_owned(),
            scope: ScopeMessage::from((scope, None)).encode_to_vec(),
            scope_schema: scope.schema_url().unwrap_or_default().to_owned(),
        }
    }

    /// Begins the items of a resource, which [`encoded`] made and which will take about so much; [`Envelope::end`] ends them.
    pub(super) fn begin(&self, resource: &[u8], room: Room, to: &mut Writer) -> [Open; 2] {
        let outer = to.open(field::REQUEST_RESOURCES, room);
        to.bytes(field::RESOURCE, resource);
        to.bytes(field::SCHEMA_URL, self.resource_schema.as_bytes());
        let inner = to.open(field::SCOPES, room);
        to.bytes(field::SCOPE, &self.scope);
        to.bytes(field::SCHEMA_URL, self.scope_schema.as_bytes());
        [outer, inner]
    }

    /// Ends the items of a resource.
    pub(super) fn end(to: &mut Writer, [outer, inner]: [Open; 2]) {
        to.seal(inner);
        to.seal(outer);
    }

    /// Writes a resource with what `write` writes into its one scope.
    pub(super) fn write(&self, resource: &[u8], to: &mut Writer, write: impl FnOnce(&mut Writer)) {
        let open = self.begin(resource, Room::Large, to);
        write(to);
        Self::end(to, open);
    }

    /// Bytes that it takes at most, beside the resource: six tags, and lengths of four bytes.
    pub(super) const fn length(&self) -> usize {
        self.resource_schema.len() + self.scope.len() + self.scope_schema.len() + 6 * 5
    }
}
