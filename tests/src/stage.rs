//! Where a scenario plays: two sides of one address family, on one loopback or with a wire between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};

use crate::{
    netns::Netns,
    wire::{ADDRESSES, Wire},
};

/// The address family of the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
    /// AF_INET6 sockets that talk IPv4 by v4-mapped addresses.
    Mapped,
}

impl Family {
    /// `network.type` that synfin must report.
    pub fn network_type(self) -> &'static str {
        match self {
            Self::V4 | Self::Mapped => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// What lies between the sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Both sides in one namespace.
    Loopback,
    /// Each side in its own namespace, with a [`Wire`].
    Wire,
}

/// One side: a namespace and the address to use there.
#[derive(Clone, Debug)]
pub struct Side {
    /// The namespace.
    pub netns: Netns,
    /// The address of this side.
    pub ip: IpAddr,
}

impl Side {
    /// An address of this side; port 0 lets the kernel choose.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }
}

/// A stage, set up for one scenario.
#[derive(Debug)]
pub struct Stage {
    /// Address family of all sockets.
    pub family: Family,
    /// Where connections are opened.
    pub client: Side,
    /// Where they are accepted.
    pub server: Side,
    wire: Option<Wire>,
}

impl Stage {
    /// Builds namespaces and, if asked, the wire between them.
    pub fn new(family: Family, link: Link) -> Result<Self> {
        let client = Netns::new()?;
        match link {
            Link::Loopback => {
                let ip = match family {
                    Family::V4 => Ipv4Addr::LOCALHOST.into(),
                    Family::V6 => Ipv6Addr::LOCALHOST.into(),
                    Family::Mapped => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
                };
                let side = Side { netns: client, ip };
                Ok(Self { family, client: side.clone(), server: side, wire: None })
            }
            Link::Wire => {
                let server = Netns::new()?;
                let wire = Wire::new(&client, &server)?;
                let ip = |end: usize| -> Result<IpAddr> {
                    Ok(match family {
                        Family::V4 => ADDRESSES[0][end].parse()?,
                        Family::V6 => ADDRESSES[1][end].parse()?,
                        Family::Mapped => ADDRESSES[0][end].parse::<Ipv4Addr>()?.to_ipv6_mapped().into(),
                    })
                };
                let (here, there) = (ip(0)?, ip(1)?);
                Ok(Self {
                    family,
                    client: Side { netns: client, ip: here },
                    server: Side { netns: server, ip: there },
                    wire: Some(wire),
                })
            }
        }
    }

    /// The wire; an error on a loopback stage.
    pub fn wire(&self) -> Result<&Wire> {
        self.wire.as_ref().context("this scenario needs a stage with a wire")
    }

    /// Its namespaces, each once.
    pub fn namespaces(&self) -> Vec<&Netns> {
        let mut all = vec![&self.client.netns, &self.server.netns];
        all.dedup_by_key(|netns| netns.inode());
        all
    }

    /// Waits until no socket of the stage can change its state any more.
    pub fn await_quiet(&self) -> Result<()> {
        self.namespaces().into_iter().try_for_each(Netns::await_quiet)
    }
}
