//! Networks of the filters, in the form that the programs compare.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A network: an IPv4 one is held v4-mapped (`10.0.0.0/8` as `::ffff:10.0.0.0/104`), as the kernel side sees addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// First address; bits beyond `prefix` are 0.
    pub addr: [u8; 16],
    /// Leading bits that count, 0 to 128.
    pub prefix: u8,
}

impl Cidr {
    /// Bits in front of a v4-mapped address.
    const MAPPED: u8 = 96;

    /// Address and prefix length, as the loader takes them.
    pub fn network(&self) -> (Ipv6Addr, u8) {
        (Ipv6Addr::from(self.addr), self.prefix)
    }

    /// Whether the network holds this v4-mapped address.
    pub fn contains(&self, addr: &[u8; 16]) -> bool {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
        u128::from_be_bytes(*addr) & mask == u128::from_be_bytes(self.addr)
    }
}

impl From<IpNet> for Cidr {
    /// Bits of the host part are cleared: `10.1.2.3/8` means `10.0.0.0/8`.
    fn from(net: IpNet) -> Self {
        match net.trunc() {
            IpNet::V4(net) => {
                Self { addr: net.network().to_ipv6_mapped().octets(), prefix: Self::MAPPED + net.prefix_len() }
            }
            IpNet::V6(net) => Self { addr: net.network().octets(), prefix: net.prefix_len() },
        }
    }
}

/// What is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a network; write an address or ADDRESS/PREFIX, e.g. 10.0.0.0/8, fd00::/8 or 192.0.2.7")]
pub struct NotANetwork;

impl FromStr for Cidr {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let net: IpNet = if text.contains('/') {
            text.parse().map_err(|_no_detail: ipnet::AddrParseError| NotANetwork)?
        } else {
            text.parse::<IpAddr>().map_err(|_no_detail| NotANetwork)?.into()
        };
        Ok(Self::from(net))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = Ipv6Addr::from(self.addr);
        let v4: Option<Ipv4Addr> = addr.to_ipv4_mapped().filter(|_| self.prefix >= Self::MAPPED);
        // The public fields could hold an impossible prefix; it is shown, not hidden.
        match v4.map(|v4| Ipv4Net::new(v4, self.prefix - Self::MAPPED)) {
            Some(Ok(net)) => net.fmt(f),
            _ => match Ipv6Net::new(addr, self.prefix) {
                Ok(net) => net.fmt(f),
                Err(_) => write!(f, "{addr}/{}", self.prefix),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(text: &str) -> [u8; 16] {
        match text.parse::<IpAddr>().unwrap() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }

    #[test]
    fn reads_masks_and_prints_both_families() {
        for (text, shown, prefix) in [
            ("10.0.0.0/8", "10.0.0.0/8", 104),
            ("10.1.2.3/8", "10.0.0.0/8", 104),
            ("192.0.2.7", "192.0.2.7/32", 128),
            ("0.0.0.0/0", "0.0.0.0/0", 96),
            ("fd00::/8", "fd00::/8", 8),
            ("fd12::1/8", "fd00::/8", 8),
            ("::1", "::1/128", 128),
            ("::/0", "::/0", 0),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8", 104),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!((cidr.to_string().as_str(), cidr.prefix), (shown, prefix), "{text}");
            assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr, "{text}");
        }
        for text in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "example.com", "10.0.0.0/", "/8", "fe80::1%lo"] {
            assert_eq!(text.parse::<Cidr>(), Err(NotANetwork), "{text}");
        }
    }

    #[test]
    fn contains_what_it_should() {
        let ten: Cidr = "10.0.0.0/8".parse().unwrap();
        assert!(ten.contains(&mapped("10.255.0.1")) && !ten.contains(&mapped("11.0.0.1")));
        assert!(!ten.contains(&mapped("fd00::1")));
        let all: Cidr = "::/0".parse().unwrap();
        assert!(all.contains(&mapped("10.0.0.1")) && all.contains(&mapped("fd00::1")));
    }
}
