//! What a walk counts.

use std::net::{IpAddr, Ipv6Addr};

use synfin_common::census as wire;

use crate::event::State;

/// Which of the kernel's structs a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// A full socket.
    Full,
    /// A minisock in TIME_WAIT, or in FIN_WAIT_2 without a holder.
    Timewait,
    /// A half-open request.
    Request,
}

impl Form {
    /// From a record.
    pub const fn from_wire(form: u8) -> Option<Self> {
        match form {
            wire::form::FULL => Some(Self::Full),
            wire::form::TIMEWAIT => Some(Self::Timewait),
            wire::form::REQUEST => Some(Self::Request),
            _ => None,
        }
    }
}

/// `network.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Network {
    /// IPv4, v4-mapped IPv6 included.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Network {
    /// The value of `network.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    const fn from_family(family: u16) -> Self {
        if family as i32 == libc::AF_INET6 { Self::Ipv6 } else { Self::Ipv4 }
    }
}

/// Sockets that have these in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Network namespace (inode number).
    pub netns: u32,
    /// State; a half-open request is in SYN_RECEIVED.
    pub state: State,
    /// Which of the kernel's structs they are.
    pub form: Form,
    /// What they speak.
    pub network: Network,
    /// Local port, if something listens on it.
    pub port: Option<u16>,
    /// cgroup v2 id, 0 where unknown: minisocks have none.
    pub cgroup: u64,
    /// How many.
    pub sockets: u64,
    /// Bytes that wait to be read, all together.
    pub receive_queue: u64,
    /// Bytes that wait to be acknowledged, all together.
    pub send_queue: u64,
}

impl Group {
    /// From a row of the walk; None if it makes no sense.
    pub fn from_wire(key: &wire::GroupKey, sums: &wire::Group) -> Option<Self> {
        Some(Self {
            netns: key.netns,
            state: State::try_from(key.state).ok()?,
            form: Form::from_wire(key.form)?,
            network: Network::from_family(key.family),
            port: (key.port != 0).then_some(key.port),
            cgroup: key.cgroup,
            sockets: sums.sockets,
            receive_queue: sums.receive_queue,
            send_queue: sums.send_queue,
        })
    }
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Network namespace (inode number).
    pub netns: u32,
    /// Address that it is bound to, v4-mapped for IPv4.
    pub local: [u8; 16],
    /// Port.
    pub port: u16,
    /// cgroup v2 id, 0 where unknown.
    pub cgroup: u64,
    /// Socket cookie, 0 where unknown.
    pub cookie: u64,
    /// Inode of the socket file, 0 where no process holds it.
    pub inode: u64,
    /// User that made it.
    pub uid: u32,
    /// Connections that wait for accept.
    pub accept_queue: u32,
    /// Most of them.
    pub accept_limit: u32,
    /// Half-open connections, by the listener's own account.
    pub half_open: u32,
    /// When the oldest of them sent its first SYN-ACK, `CLOCK_MONOTONIC` nanoseconds.
    pub oldest_ns: Option<u64>,
}

impl Listener {
    /// From a row of the walk.
    pub fn from_wire(row: &wire::Listener) -> Self {
        Self {
            netns: row.netns,
            local: row.local,
            port: row.port,
            cgroup: row.cgroup,
            cookie: row.cookie,
            inode: row.inode,
            uid: row.uid,
            accept_queue: row.accept_queue,
            accept_limit: row.accept_limit,
            half_open: row.half_open,
            oldest_ns: (row.oldest_us != 0).then(|| row.oldest_us.saturating_mul(1000)),
        }
    }

    /// Address that it is bound to.
    pub fn address(&self) -> IpAddr {
        Ipv6Addr::from(self.local).to_canonical()
    }
}

/// Sockets that a walk met and could not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// Sockets of groups for which there was no room.
    pub groups: u64,
    /// Listeners for which there was no room: their connections count as those of no listener.
    pub listeners: u64,
    /// Sockets of no known struct.
    pub unreadable: u64,
}

/// What walks have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// By namespace, state, kind of socket, network, listener's port and cgroup.
    pub groups: Vec<Group>,
    /// Each listening socket.
    pub listeners: Vec<Listener>,
    /// What is missing.
    pub strays: Strays,
}

impl Sums {
    /// Sockets of all groups that `which` takes.
    pub fn sockets(&self, which: impl Fn(&Group) -> bool) -> u64 {
        self.groups.iter().filter(|group| which(group)).map(|group| group.sockets).sum()
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.groups.extend_from_slice(&other.groups);
        self.listeners.extend_from_slice(&other.listeners);
        self.strays.groups += other.strays.groups;
        self.strays.listeners += other.strays.listeners;
        self.strays.unreadable += other.strays.unreadable;
    }

    /// Puts them in the order in which they are shown: by namespace, port, state.
    pub fn sort(&mut self) {
        let place = |state: State| State::ALL.iter().position(|other| *other == state);
        self.groups.sort_by_key(|group| {
            (group.netns, group.port.is_none(), group.port, place(group.state), group.form, group.network, group.cgroup)
        });
        self.listeners.sort_by_key(|row| (row.netns, row.port, row.local, row.cookie));
    }
}
