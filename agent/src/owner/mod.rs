//! Whom a socket belongs to: process, cgroup, container, pod, listener, peer. What is not known is said to be unknown, never guessed.
//!
//! A listing is looked up as a whole ([`Owners`]); whose connections come one by one is kept in a [`directory`].

pub mod cgroup;
mod counts;
pub mod directory;
mod find;
mod handle;
pub mod identity;
mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use self::cgroup::Cgroups;
pub use self::counts::{Counts, Row, Sum};
pub use self::directory::{Directory, Known};
pub use self::identity::Identity;
pub use self::names::Logs;
use crate::by::By;
use crate::census::holders::{self, Holder};
use crate::census::{Form, Listing, Socket};
use crate::event::State;

/// What a socket belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The process with the lowest pid of those that hold it.
    Process {
        /// Process id.
        pid: u32,
        /// Command name.
        name: String,
    },
    /// A cgroup v2.
    Cgroup {
        /// Its id.
        id: u64,
        /// Path below its mount, where it is known.
        path: Option<String>,
    },
    /// A container.
    Container {
        /// 64 hexadecimal digits.
        id: String,
        /// UID of its pod, where it is in one.
        pod: Option<String>,
    },
    /// UID of a Kubernetes pod.
    Pod(String),
    /// A port that is listened on.
    Listener {
        /// Network namespace (inode number).
        netns: u32,
        /// Port.
        port: u16,
    },
    /// Address of the other end, a v4-mapped one as IPv4.
    Peer(IpAddr),
    /// Nothing of this kind; of listeners, in this network namespace.
    None(Option<u32>),
    /// It cannot be known.
    Unknown,
}

/// Why a socket belongs to nothing, or nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// What the kernel keeps of a closed connection has neither holder nor cgroup.
    Minisock,
    /// A half-open connection is no file yet.
    HalfOpen,
    /// It waits for accept.
    NotAccepted,
    /// Its process has closed it, and the peer has not answered yet.
    Closed,
    /// It is held, but by no process that can be seen.
    NotSeen,
    /// The kernel tells no cgroup.
    NoCgroup,
    /// The path of its cgroup is unknown.
    NoPath,
    /// The path names none, and that says nothing on this host.
    Inconclusive,
    /// The path names none.
    Outside,
    /// Nothing listens on its port.
    NotListened,
    /// A listener has no peer.
    Listening,
}

impl Why {
    /// In words, behind a number of sockets.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Minisock => "minisocks (TIME_WAIT, or FIN_WAIT_2 after close)",
            Self::HalfOpen => "half open",
            Self::NotAccepted => "not accepted yet",
            Self::Closed => "closed, the peer has not answered yet",
            Self::NotSeen => {
                "held by what cannot be seen here (another pid namespace, other users without CAP_SYS_PTRACE, the kernel, \
                 or ended meanwhile)"
            }
            Self::NoCgroup => "without a cgroup that the kernel tells",
            Self::NoPath => "in cgroups whose path is unknown (removed, or out of sight)",
            Self::Inconclusive => "in cgroups whose path names none, which says nothing here",
            Self::Outside => "in cgroups whose path names none",
            Self::NotListened => "on ports that nothing listens on (opened here, or the listener is gone)",
            Self::Listening => "listening",
        }
    }
}

/// What is looked up once for a whole listing.
#[derive(Debug, Default)]
pub struct Owners {
    /// By inode of the socket file.
    holders: BTreeMap<u64, Vec<Holder>>,
    cgroups: Cgroups,
    /// What cgroups have been found to be, by id.
    known: HashMap<u64, (Key, Option<Why>)>,
}

impl Owners {
    /// Looks up what `by` asks for.
    pub fn of(by: By, listing: &Listing) -> Self {
        match by {
            By::Process => Self { holders: holders_of(listing), ..Self::default() },
            By::Cgroup | By::Container | By::Pod => Self { cgroups: Cgroups::read(), ..Self::default() },
            By::Listener | By::Peer => Self::default(),
        }
    }

    /// How many processes hold a socket, as far as they can be seen.
    fn holders(&self, socket: &Socket) -> usize {
        self.holders.get(&socket.inode).map_or(0, Vec::len)
    }

    /// What a socket belongs to, and why that is nothing or unknown.
    fn key(&mut self, by: By, listing: &Listing, socket: &Socket) -> (Key, Option<Why>) {
        let ends = &socket.ends;
        match by {
            By::Process => self.process(socket),
            By::Cgroup | By::Container | By::Pod => match (socket.cgroup, socket.form) {
                (0, Form::Timewait) if by == By::Cgroup => (Key::None(None), Some(Why::Minisock)),
                (0, Form::Timewait) => (Key::Unknown, Some(Why::Minisock)),
                (0, _) => (Key::Unknown, Some(Why::NoCgroup)),
                (id, _) => {
                    let cgroups = &self.cgroups;
                    self.known.entry(id).or_insert_with(|| named(by, id, cgroups)).clone()
                }
            },
            By::Listener if listing.bound(ends.netns, ends.local_port).is_empty() => {
                (Key::None(Some(ends.netns)), Some(Why::NotListened))
            }
            By::Listener => (Key::Listener { netns: ends.netns, port: ends.local_port }, None),
            By::Peer if socket.state == State::Listen => (Key::None(None), Some(Why::Listening)),
            By::Peer => (Key::Peer(ends.peer_address()), None),
        }
    }

    fn process(&self, socket: &Socket) -> (Key, Option<Why>) {
        if let Some(Holder { pid, name }) = self.holders.get(&socket.inode).and_then(|holders| holders.first()) {
            return (Key::Process { pid: *pid, name: name.clone() }, None);
        }
        if socket.is_held() {
            return (Key::Unknown, Some(Why::NotSeen));
        }
        let why = match (socket.form, socket.state) {
            (Form::Timewait, _) => Why::Minisock,
            (Form::Request, _) => Why::HalfOpen,
            // A process that closes its socket takes it out of these states.
            (Form::Full, State::Established | State::CloseWait | State::SynReceived) => Why::NotAccepted,
            (Form::Full, _) => Why::Closed,
        };
        (Key::None(None), Some(why))
    }
}

/// The processes that hold the sockets of a listing, by inode, lowest pid first.
pub fn holders_of(listing: &Listing) -> BTreeMap<u64, Vec<Holder>> {
    let inodes: BTreeSet<u64> =
        listing.sockets.iter().filter(|socket| socket.is_held()).map(|socket| socket.inode).collect();
    holders::of(&inodes, &listing.held)
}

fn named(by: By, id: u64, cgroups: &Cgroups) -> (Key, Option<Why>) {
    let path = cgroups.path(id);
    if by == By::Cgroup {
        return (Key::Cgroup { id, path: path.map(str::to_owned) }, None);
    }
    let Some(path) = path else { return (Key::Unknown, Some(Why::NoPath)) };
    let pod = cgroup::pod(path);
    let key = match by {
        By::Container => cgroup::container(path).map(|id| Key::Container { id: id.to_owned(), pod }),
        _ => pod.map(Key::Pod),
    };
    match key {
        Some(key) => (key, None),
        None if cgroups.tells_all() => (Key::None(None), Some(Why::Outside)),
        None => (Key::Unknown, Some(Why::Inconclusive)),
    }
}
