//! What was there a while ago: a reader of gauges must be told that it has gone to zero, not merely hear no more of it.

use std::collections::BTreeMap;

use super::{Place, Sums};

/// How long it is told, nanoseconds: longer than most backends look back for a last value.
const KEPT_NS: u64 = 600_000_000_000;

/// Entries of each kind at most.
const LIMIT: usize = 4096;

/// Keys with the time at which they were last met.
#[derive(Clone, Debug)]
pub struct Recent<K>(BTreeMap<K, u64>);

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Recent<K> {
    fn meet(&mut self, now_ns: u64, keys: impl Iterator<Item = K>) {
        self.0.retain(|_, met_ns| now_ns.saturating_sub(*met_ns) < KEPT_NS);
        for key in keys {
            if self.0.len() < LIMIT || self.0.contains_key(&key) {
                self.0.insert(key, now_ns);
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = K> {
        self.0.keys().copied()
    }
}

/// What censuses have met of late.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Namespaces with their cgroups that had sockets.
    pub places: Recent<(u32, u64)>,
    /// Ports of namespaces that were listened on, with the cgroup of the listener.
    pub ports: Recent<(u32, u16, u64)>,
    /// Namespaces whose ephemeral ports were counted.
    pub namespaces: Recent<u32>,
}

impl Memory {
    /// Takes in a census.
    pub fn meet(&mut self, now_ns: u64, sums: &Sums, places: &[Place]) {
        self.places.meet(now_ns, sums.groups.iter().map(|group| (group.netns, group.cgroup)));
        self.ports.meet(now_ns, sums.listeners.iter().map(|row| (row.netns, row.port, row.cgroup)));
        let counted = places.iter().filter(|place| place.ephemeral.is_some());
        self.namespaces.meet(now_ns, counted.map(|place| place.inode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gone_is_remembered_for_a_while() {
        let mut recent = Recent::default();
        recent.meet(0, [1, 2].into_iter());
        recent.meet(KEPT_NS - 1, [2].into_iter());
        assert_eq!(recent.iter().collect::<Vec<_>>(), [1, 2]);
        recent.meet(KEPT_NS, std::iter::empty());
        assert_eq!(recent.iter().collect::<Vec<_>>(), [2]);
        recent.meet(KEPT_NS, 0..10_000);
        assert_eq!(recent.iter().count(), LIMIT);
    }
}
