//! Sockets by the hundred in states of the test's choice, in a namespace of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    netns::Netns,
    puppet::{LOCAL, Port, Puppet},
    stage::{Family, Side},
};

/// Each takes its turn.
pub const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Mapped];

/// A namespace with a puppet, and the sockets that live in it.
#[derive(Debug)]
pub struct Crowd {
    /// The namespace.
    pub netns: Netns,
    puppet: Puppet,
    held: Vec<Socket>,
}

impl Crowd {
    /// Nobody is there yet.
    pub fn new() -> Result<Self> {
        let netns = Netns::new()?;
        for (key, value) in [
            // Requests and SYNs stay for minutes, and no request is answered by a cookie.
            ("tcp_syncookies", "0"),
            ("tcp_max_syn_backlog", "100000"),
            ("tcp_synack_retries", "12"),
            ("tcp_syn_retries", "12"),
            ("ip_local_port_range", "1100 65000"),
        ] {
            netns.sysctl(&format!("ipv4/{key}"), value)?;
        }
        let puppet = Puppet::new(&netns)?;
        Ok(Self { netns, puppet, held: Vec::new() })
    }

    /// The kernel's side, in this family.
    pub fn side(&self, family: Family) -> Side {
        Side { netns: self.netns.clone(), ip: local(family) }
    }

    /// Many connections to one port of the puppet; `then` gets each, and gives back what is to be held open.
    pub fn connect(
        &mut self,
        port: Port,
        times: usize,
        then: impl Fn(usize, Socket) -> Result<Option<Socket>> + Sync,
    ) -> Result<()> {
        let made: Result<Vec<Option<Socket>>> = self.netns.run(|| {
            (0..times)
                .map(|turn| {
                    let family = FAMILIES[turn % 3];
                    let socket = Socket::new(domain(family), Type::STREAM, Some(Protocol::TCP))?;
                    let to = SocketAddr::new(puppets(family), port as u16).into();
                    socket.connect(&to).with_context(|| format!("connecting to {port:?}"))?;
                    then(turn / 3, socket)
                })
                .collect()
        });
        self.held.extend(made?.into_iter().flatten());
        Ok(())
    }

    /// A listener on any address of a family; [`Family::Mapped`] hears both. Gives the address.
    pub fn listen(&mut self, family: Family, port: u16, backlog: i32) -> Result<SocketAddr> {
        let socket = self.netns.run(|| -> Result<Socket> {
            let socket = Socket::new(domain(family), Type::STREAM, Some(Protocol::TCP))?;
            if family == Family::V6 {
                socket.set_only_v6(true)?;
            }
            let any: IpAddr =
                if family == Family::V4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            socket.bind(&SocketAddr::new(any, port).into())?;
            socket.listen(backlog)?;
            Ok(socket)
        })?;
        let address = socket.local_addr()?.as_socket().context("an address of IP")?;
        self.held.push(socket);
        Ok(address)
    }

    /// Asks the listener of a family for connections, from ports `from` on.
    pub fn knock(&self, family: Family, port: u16, from: u16, times: usize) -> Result<()> {
        let (here, there) = match family {
            Family::V6 => (puppets(Family::V6), local(Family::V6)),
            // To the listener of both families IPv4 comes v4-mapped.
            Family::V4 | Family::Mapped => (puppets(Family::V4), local(Family::V4)),
        };
        (0..times).try_for_each(|turn| {
            self.puppet.knock(SocketAddr::new(here, from + turn as u16), SocketAddr::new(there, port))
        })
    }
}

fn domain(family: Family) -> Domain {
    if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 }
}

/// The kernel's address.
pub fn local(family: Family) -> IpAddr {
    match family {
        Family::V4 => LOCAL.0.into(),
        Family::V6 => LOCAL.1.into(),
        Family::Mapped => LOCAL.0.to_ipv6_mapped().into(),
    }
}

/// An address of the puppet.
pub fn puppets(family: Family) -> IpAddr {
    let (v4, v6) = (Ipv4Addr::new(10, 9, 0, 2), Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2));
    match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.into(),
        Family::Mapped => v4.to_ipv6_mapped().into(),
    }
}
