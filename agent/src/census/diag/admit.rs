//! The filters, as `agent-ebpf/src/admit.rs` applies them in the kernel.

use std::net::Ipv6Addr;

use crate::event::Ends;

/// A network of peers: v4-mapped address and prefix length up to 128.
pub type Peers = (Ipv6Addr, u8);

/// What a walk looks at, in the namespace where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Only these ports, local or peer; empty for all.
    pub ports: Vec<u16>,
    /// Only peers in these networks; empty for all.
    pub peers: Vec<Peers>,
    /// No peers in these networks.
    pub excluded_peers: Vec<Peers>,
    /// No connections to a loopback address.
    pub exclude_loopback: bool,
}

impl Admitted {
    /// Whether ports and peer of a socket are let through; not its namespace.
    pub fn admits(&self, ends: &Ends) -> bool {
        connection(self, ends.local_port, ends.peer_port, &ends.peer)
    }
}

/// Whether the user wants to see a socket with these ports and this peer (v4-mapped for IPv4).
pub(super) fn connection(filter: &Admitted, local_port: u16, peer_port: u16, peer: &[u8; 16]) -> bool {
    let by_port = filter.ports.is_empty() || filter.ports.contains(&local_port) || filter.ports.contains(&peer_port);
    by_port
        && !(filter.exclude_loopback && is_loopback(peer))
        && (filter.peers.is_empty() || within(&filter.peers, peer))
        && !within(&filter.excluded_peers, peer)
}

fn within(networks: &[Peers], address: &[u8; 16]) -> bool {
    networks.iter().any(|(network, prefix)| {
        let differing = u128::from_be_bytes(network.octets()) ^ u128::from_be_bytes(*address);
        differing.leading_zeros() >= u32::from(*prefix)
    })
}

fn is_loopback(address: &[u8; 16]) -> bool {
    match address {
        [0, 0, 0, 0, 0, 0, 0, 0, _, _, 0xff, 0xff, 127, ..] => true,
        _ => u128::from_be_bytes(*address) == 1,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn octets(text: &str) -> [u8; 16] {
        match text.parse::<IpAddr>().unwrap() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        }
    }

    fn admitted(filter: &Admitted, peer: &str) -> bool {
        connection(filter, 80, 40_000, &octets(peer))
    }

    #[test]
    fn each_filter_leaves_out_its_own() {
        assert!(admitted(&Admitted::default(), "192.0.2.1"));
        for (ports, wanted) in [(vec![80], true), (vec![7, 40_000], true), (vec![81], false)] {
            assert_eq!(admitted(&Admitted { ports: ports.clone(), ..Admitted::default() }, "::1"), wanted, "{ports:?}");
        }
        let no_loopback = Admitted { exclude_loopback: true, ..Admitted::default() };
        for (peer, wanted) in [("127.3.2.1", false), ("::1", false), ("::2", true), ("128.0.0.1", true), ("::", true)] {
            assert_eq!(admitted(&no_loopback, peer), wanted, "{peer}");
        }
        let ten: Peers = (Ipv6Addr::from(octets("10.0.0.0")), 104);
        let all: Peers = (Ipv6Addr::UNSPECIFIED, 0);
        let one: Peers = (Ipv6Addr::from(octets("fd00::7")), 128);
        for (networks, peer, inside) in [
            (ten, "10.9.9.9", true),
            (ten, "11.0.0.1", false),
            (all, "fe80::1", true),
            (one, "fd00::7", true),
            (one, "fd00::6", false),
        ] {
            assert_eq!(admitted(&Admitted { peers: vec![networks], ..Admitted::default() }, peer), inside, "{peer}");
            assert_eq!(
                admitted(&Admitted { excluded_peers: vec![networks], ..Admitted::default() }, peer),
                !inside,
                "{peer}"
            );
        }
    }
}
