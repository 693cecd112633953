//! In which group of a request the spans of a cgroup go.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::groups::Groups;
use super::resources::Resources;
use crate::export::resource::Owners;
use crate::owner::Identity;

/// The owners of spans.
#[derive(Debug)]
pub(super) struct Owned {
    resources: Resources,
    /// Groups of this request, None for the agent's.
    by_cgroup: HashMap<u64, Option<usize>>,
    by_identity: HashMap<Arc<Identity>, usize>,
    /// When this request was begun: all of its cgroups had been heard of by then.
    begun: Instant,
    /// Spans of one cgroup often follow each other.
    last: (u64, Option<usize>),
}

impl Owned {
    pub(super) fn new(owners: Owners) -> Self {
        let (by_cgroup, by_identity) = (HashMap::new(), HashMap::new());
        Self { resources: Resources::new(owners), by_cgroup, by_identity, begun: Instant::now(), last: (0, None) }
    }

    /// Begins another request.
    pub(super) fn begin(&mut self) {
        self.by_cgroup.clear();
        self.by_identity.clear();
        self.begun = Instant::now();
        self.last = (0, None);
    }

    /// The group of a cgroup's owner, None for the agent's. A cgroup that was never looked up is so now.
    pub(super) fn group(&mut self, cgroup: u64, groups: &mut Groups) -> Option<usize> {
        if self.last.0 != cgroup {
            let group = match self.by_cgroup.get(&cgroup) {
                Some(group) => *group,
                None => self.group_of(cgroup, groups),
            };
            self.last = (cgroup, group);
        }
        self.last.1
    }

    fn group_of(&mut self, cgroup: u64, groups: &mut Groups) -> Option<usize> {
        let identity = self.resources.directory().settle(cgroup, self.begun);
        let group = identity.map(|identity| {
            // An owner may have several cgroups.
            let known = self.by_identity.get(&identity).copied();
            known.unwrap_or_else(|| {
                let group = groups.open(self.resources.of(&identity));
                self.by_identity.insert(identity, group);
                group
            })
        });
        self.by_cgroup.insert(cgroup, group);
        group
    }
}
