//! What stands around the metrics of a subject in a request: its resource and the scope.

use opentelemetry::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope as ScopeMessage;
use opentelemetry_proto::tonic::resource::v1::Resource as ResourceMessage;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use prost::Message as _;

use super::protobuf::{Open, Room, Writer};
use super::request::field;
use crate::export::subject::Who;

/// Encodes what is the same in all requests once.
#[derive(Debug)]
pub(super) struct Envelope {
    resource: Resource,
    scope: Vec<u8>,
    scope_schema: String,
    /// Whether histograms have exponential buckets.
    pub(super) is_exponential: bool,
}

impl Envelope {
    /// Number of the field in which the items of a scope are.
    pub(super) const ITEMS: u32 = field::ITEMS;

    /// In the name of the host's `resource`.
    pub(super) fn new(resource: Resource, scope: &InstrumentationScope, is_exponential: bool) -> Self {
        Self {
            resource,
            scope: ScopeMessage::from((scope, None)).encode_to_vec(),
            scope_schema: scope.schema_url().unwrap_or_default().to_owned(),
            is_exponential,
        }
    }

    /// Begins the items of a subject; [`Envelope::end`] ends them.
    pub(super) fn begin(&self, to: &mut Writer, who: &Who) -> [Open; 2] {
        let resource = match who {
            Who::Host | Who::Overflow => self.resource.clone(),
            Who::Owner(identity) => crate::export::resource::of_owner(&self.resource, identity),
        };
        let ResourceAttributesWithSchema { attributes, schema_url } = (&resource).into();
        let resource = ResourceMessage { attributes: attributes.0, ..ResourceMessage::default() };
        let outer = to.open(field::REQUEST_RESOURCES, Room::Large);
        to.bytes(field::RESOURCE, &resource.encode_to_vec());
        to.bytes(field::SCHEMA_URL, schema_url.unwrap_or_default().as_bytes());
        let inner = to.open(field::SCOPES, Room::Large);
        to.bytes(field::SCOPE, &self.scope);
        to.bytes(field::SCHEMA_URL, self.scope_schema.as_bytes());
        [outer, inner]
    }

    /// Ends the items of a subject.
    pub(super) fn end(to: &mut Writer, [outer, inner]: [Open; 2]) {
        to.seal(inner);
        to.seal(outer);
    }
}
