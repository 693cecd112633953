//! What the user leaves out, and the maps that tell the programs.

use std::net::Ipv6Addr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};
use synfin_common::knobs::filter;

use super::{LoadError, map};

/// A network of peers: v4-mapped address and prefix length up to 128.
pub type Network = (Ipv6Addr, u8);

/// What to leave out in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these namespaces (inode numbers). None for all; an empty list is one that has vanished.
    pub netns: Option<Vec<u32>>,
    /// Only these ports, local or peer.
    pub ports: Vec<u16>,
    /// Only peers in these networks.
    pub peers: Vec<Network>,
    /// No peers in these networks.
    pub excluded_peers: Vec<Network>,
    /// No connections to a loopback address.
    pub exclude_loopback: bool,
}

/// Entries that each filter map holds (`agent-ebpf/src/maps.rs`).
const FILTER_ENTRIES: usize = 1024;

impl Filter {
    pub(super) fn bits(&self) -> u32 {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        bit(self.netns.is_some() && !self.has_one_netns(), filter::NETNS)
            | bit(self.has_one_netns(), filter::ONE_NETNS)
            | bit(!self.ports.is_empty(), filter::PORTS)
            | bit(!self.peers.is_empty(), filter::PEERS)
            | bit(!self.excluded_peers.is_empty(), filter::EXCLUDED)
            | bit(self.exclude_loopback, filter::NO_LOOPBACK)
    }

    fn has_one_netns(&self) -> bool {
        self.netns.as_ref().is_some_and(|netns| netns.len() == 1)
    }

    pub(super) fn check(&self) -> Result<(), LoadError> {
        let lens = [
            ("netns", self.netns.as_ref().map_or(0, Vec::len)),
            ("ports", self.ports.len()),
            ("peers", self.peers.len()),
            ("exclude_peers", self.excluded_peers.len()),
        ];
        match lens.into_iter().find(|(_, len)| *len > FILTER_ENTRIES) {
            Some((name, len)) => Err(LoadError::Filter { name, len, limit: FILTER_ENTRIES }),
            None => Ok(()),
        }
    }
}

/// The filters' maps. They are kept open all the time: a program holds its maps only once it is loaded.
pub(super) struct FilterMaps {
    netns: HashMap<MapData, u32, u32>,
    one_netns: Array<MapData, u32>,
    /// The namespaces that are in both now.
    current: Vec<u32>,
    _ports: HashMap<MapData, u16, u32>,
    _peers: Trie,
    _excluded: Trie,
}

type Trie = LpmTrie<MapData, [u8; 16], u32>;

impl FilterMaps {
    /// Takes the maps out of the object and fills them.
    pub(super) fn fill(ebpf: &mut Ebpf, filter: &Filter) -> Result<Self, LoadError> {
        let mut maps = Self {
            netns: map(ebpf, "FILTER_NETNS")?,
            one_netns: map(ebpf, "FILTER_ONE_NETNS")?,
            current: Vec::new(),
            _ports: ports(ebpf, &filter.ports)?,
            _peers: networks(ebpf, "FILTER_PEERS", &filter.peers)?,
            _excluded: networks(ebpf, "FILTER_EXCLUDED", &filter.excluded_peers)?,
        };
        maps.set_netns(filter.netns.clone().unwrap_or_default())
            .map_err(|source| LoadError::Map { name: "FILTER_NETNS", source })?;
        Ok(maps)
    }

    /// Replaces the namespaces.
    pub(super) fn set_netns(&mut self, netns: Vec<u32>) -> Result<(), MapError> {
        if netns == self.current {
            return Ok(());
        }
        // Both maps; the programs look at the one that the filter chose at load. No namespace has the number 0.
        self.one_netns.set(0, netns.first().copied().unwrap_or(0), 0)?;
        for old in self.current.iter().filter(|old| !netns.contains(old)) {
            self.netns.remove(old)?;
        }
        for new in netns.iter().filter(|new| !self.current.contains(new)) {
            self.netns.insert(new, 1, 0)?;
        }
        self.current = netns;
        Ok(())
    }
}

fn ports(ebpf: &mut Ebpf, ports: &[u16]) -> Result<HashMap<MapData, u16, u32>, LoadError> {
    let mut wanted: HashMap<MapData, u16, u32> = map(ebpf, "FILTER_PORTS")?;
    for port in ports {
        wanted.insert(port, 1, 0).map_err(|source| LoadError::Map { name: "FILTER_PORTS", source })?;
    }
    Ok(wanted)
}

fn networks(ebpf: &mut Ebpf, name: &'static str, networks: &[Network]) -> Result<Trie, LoadError> {
    let mut trie: Trie = map(ebpf, name)?;
    for (address, prefix) in networks {
        let key = Key::new(u32::from(*prefix), address.octets());
        trie.insert(&key, 1, 0).map_err(|source| LoadError::Map { name, source })?;
    }
    Ok(trie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_too_long_names_itself() {
        let filter = Filter { ports: (0..2000).collect(), ..Filter::default() };
        let Err(error) = filter.check() else { panic!("2000 ports do not fit") };
        assert_eq!(error.to_string(), "too many entries in filter ports: 2000, at most 1024");
    }
}
