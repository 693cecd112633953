//! Resources of owners as bytes: each is encoded once, and used for every request.

use std::sync::Arc;

use hashbrown::HashMap;

use super::envelope::encoded;
use crate::export::resource::Owners;
use crate::owner::{Directory, Identity};

/// So many are kept: half a KiB each.
const KEPT: usize = 4_096;

/// The resources of owners.
#[derive(Debug)]
pub(super) struct Resources {
    owners: Owners,
    encoded: HashMap<Arc<Identity>, Arc<[u8]>>,
}

impl Resources {
    pub(super) fn new(owners: Owners) -> Self {
        Self { owners, encoded: HashMap::new() }
    }

    /// Which cgroup is whose.
    pub(super) const fn directory(&self) -> &Directory {
        &self.owners.directory
    }

    /// That of one, as [`encoded`] makes it.
    pub(super) fn of(&mut self, identity: &Arc<Identity>) -> Arc<[u8]> {
        if let Some(resource) = self.encoded.get(identity) {
            return Arc::clone(resource);
        }
        if self.encoded.len() >= KEPT {
            self.encoded.clear();
        }
        let resource: Arc<[u8]> = encoded(&self.owners.resource_of(identity)).into();
        self.encoded.insert(Arc::clone(identity), Arc::clone(&resource));
        resource
    }
}
