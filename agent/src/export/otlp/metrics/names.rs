//! In whose name metrics are told.

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;

use super::super::envelope::{Envelope, encoded};
use super::super::protobuf::{Open, Room, Writer};
use super::super::resources::Resources;
use crate::export::resource::Owners;
use crate::export::subject::Who;

/// The resources, each within the envelope of its metrics.
#[derive(Debug)]
pub(in crate::export::otlp) struct Names {
    envelope: Envelope,
    /// The agent's, which is the host's too.
    host: Vec<u8>,
    owners: Option<Resources>,
}

impl Names {
    /// The agent's `resource`, and those of `owners`.
    pub(in crate::export::otlp) fn new(
        resource: &Resource,
        owners: Option<Owners>,
        scope: &InstrumentationScope,
    ) -> Self {
        Self { envelope: Envelope::new(resource, scope), host: encoded(resource), owners: owners.map(Resources::new) }
    }

    /// Begins the metrics of a subject; [`Envelope::end`] ends them.
    pub(super) fn begin(&mut self, who: &Who, to: &mut Writer) -> [Open; 2] {
        match (who, &mut self.owners) {
            (Who::Owner(identity), Some(owners)) => self.envelope.begin(&owners.of(identity), Room::Middle, to),
            // Without owners nobody can be one.
            (Who::Host | Who::Overflow | Who::Owner(_), _) => self.envelope.begin(&self.host, Room::Large, to),
        }
    }
}
