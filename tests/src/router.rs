//! A client and a server with a router between them that translates the addresses and ports of both.
//!
//! Three namespaces joined by veth pairs; the router's own kernel does the translation, told by nftables. The client knows only a port
//! of the router (DNAT), the server sees only the router (SNAT): it has no route to the client's network, so that a packet which
//! was not translated would never be answered.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    need,
    netns::Netns,
    stage::{Family, Side},
};

/// Where a client connects from whose connections are all to have the same addresses and ports, on both sides of the router.
pub const REUSED_PORT: u16 = 4001;

/// The router's port that stands for the server.
const VIRTUAL_PORT: u16 = 7000;

/// Ports that clients take, and those that the router puts in their place: no port is in both.
const CLIENT_PORTS: &str = "20000 29999";
const ROUTER_PORTS: &str = "40000-49999";
/// What the router makes of [`REUSED_PORT`].
const ROUTER_REUSED_PORT: u16 = 4002;

/// Addresses of one family, in the order of the way.
struct Way {
    client: &'static str,
    /// Towards the client.
    entry: &'static str,
    /// Towards the server.
    exit: &'static str,
    server: &'static str,
    prefix: u8,
}

const WAYS: [Way; 2] = [
    Way { client: "10.8.1.2", entry: "10.8.1.1", exit: "10.8.2.1", server: "10.8.2.2", prefix: 24 },
    Way { client: "fd08:1::2", entry: "fd08:1::1", exit: "fd08:2::1", server: "fd08:2::2", prefix: 64 },
];

/// A running router and what it joins.
#[derive(Debug)]
pub struct Router {
    /// Where connections are opened.
    pub client: Netns,
    /// Where they are accepted.
    pub server: Netns,
    between: Netns,
}

impl Router {
    /// Joins two new namespaces in both families.
    pub fn new() -> Result<Self> {
        need::tool("nft", "nftables")?;
        let all = Self { client: Netns::new()?, server: Netns::new()?, between: Netns::new()? };
        let Self { client, server, between } = &all;
        client.ip(&["link", "add", "way", "type", "veth", "peer", "name", "entry", "netns", between.name()])?;
        server.ip(&["link", "add", "way", "type", "veth", "peer", "name", "exit", "netns", between.name()])?;
        for way in WAYS {
            for (netns, device, address) in [
                (client, "way", way.client),
                (between, "entry", way.entry),
                (between, "exit", way.exit),
                (server, "way", way.server),
            ] {
                let address = format!("{address}/{}", way.prefix);
                let mut add = vec!["addr", "add", &address, "dev", device];
                if way.prefix == 64 {
                    add.push("nodad"); // else the address is not usable for its first second
                }
                netns.ip(&add)?;
            }
        }
        for (netns, device) in [(client, "way"), (between, "entry"), (between, "exit"), (server, "way")] {
            netns.ip(&["link", "set", device, "up"])?;
        }
        between.sysctl("ipv4/ip_forward", "1")?;
        between.sysctl("ipv6/conf/all/forwarding", "1")?;
        client.sysctl("ipv4/ip_local_port_range", CLIENT_PORTS)?;
        all.nft(&format!(
            "add table inet nat; \
             add chain inet nat arriving {{ type nat hook prerouting priority dstnat; }}; \
             add chain inet nat leaving {{ type nat hook postrouting priority srcnat; }}; \
             add rule inet nat leaving oifname exit tcp sport {REUSED_PORT} masquerade to :{ROUTER_REUSED_PORT}; \
             add rule inet nat leaving oifname exit meta l4proto tcp masquerade to :{ROUTER_PORTS}"
        ))?;
        Ok(all)
    }

    /// The client's side.
    pub fn client(&self, family: Family) -> Result<Side> {
        Ok(Side { netns: self.client.clone(), ip: way(family)?.client.parse()? })
    }

    /// The server's side.
    pub fn server(&self, family: Family) -> Result<Side> {
        Ok(Side { netns: self.server.clone(), ip: way(family)?.server.parse()? })
    }

    /// Lets a port of the router stand for a listener, once for each family; gives the address to connect to.
    pub fn publish(&self, family: Family, listener: SocketAddr) -> Result<SocketAddr> {
        let network = if listener.is_ipv4() { "ip" } else { "ip6" };
        self.nft(&format!(
            "add rule inet nat arriving iifname entry meta nfproto {} tcp dport {VIRTUAL_PORT} dnat {network} to {listener}",
            family.network_type()
        ))?;
        let entry: IpAddr = way(family)?.entry.parse()?;
        Ok(SocketAddr::new(entry, VIRTUAL_PORT))
    }

    /// Waits until no socket of either side can change its state any more.
    pub fn await_quiet(&self) -> Result<()> {
        [&self.client, &self.server].into_iter().try_for_each(Netns::await_quiet)
    }

    fn nft(&self, commands: &str) -> Result<()> {
        self.between.run(|| need::run(Command::new("nft").arg(commands))).map(drop)
    }
}

fn way(family: Family) -> Result<&'static Way> {
    match family {
        Family::V4 => Ok(&WAYS[0]),
        Family::V6 => Ok(&WAYS[1]),
        Family::Mapped => bail!("the router has no addresses of its own for v4-mapped sockets"),
    }
}
