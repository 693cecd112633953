//! Things that happen to TCP connections, each made on purpose, and what the kernel must say of each.
//!
//! A scenario plays on a [`Stage`] and answers with what it expects to be seen. What is expected was measured on kernels
//! 5.10 to 7.3 and follows the kernel's source; a scenario returns only when nothing of it can still change state.

pub mod close;
pub mod loss;
pub mod open;
pub mod process;
pub mod reset;

use std::net::{TcpListener, TcpStream};

use anyhow::Result;

use crate::{
    sock,
    stage::{Link, Side, Stage},
    state::{
        ByNamespace,
        State::{self, CloseWait, Closed, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent},
    },
};

/// One scenario and where it plays.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name, also the name of its tests.
    pub name: &'static str,
    /// What it needs between the sides.
    pub link: Link,
    /// Plays it.
    pub play: fn(&Stage) -> Result<Expected>,
}

/// Every scenario. Each has a test of its own in tests/transitions.rs and tests/connections.rs.
pub const ALL: &[Scenario] = &[
    on(Link::Loopback, "closed_by_client", close::by_client),
    on(Link::Loopback, "closed_by_server", close::by_server),
    on(Link::Wire, "closed_across_a_wire", close::by_client),
    on(Link::Loopback, "half_close", close::half),
    on(Link::Loopback, "half_close_then_close", close::half_then_whole),
    on(Link::Wire, "simultaneous_close", close::simultaneous),
    on(Link::Loopback, "refused", open::refused),
    on(Link::Wire, "timed_out", open::timed_out),
    on(Link::Wire, "abandoned", open::abandoned),
    on(Link::Loopback, "self_connect", open::self_connect),
    on(Link::Wire, "simultaneous_open", open::simultaneous),
    on(Link::Loopback, "syn_cookies", open::syn_cookies),
    on(Link::Loopback, "fast_open", open::fast_open),
    on(Link::Loopback, "reset_by_client", reset::by_client),
    on(Link::Loopback, "reset_by_server", reset::by_server),
    on(Link::Loopback, "linger_zero", reset::linger_zero),
    on(Link::Loopback, "listener_with_pending_children", reset::listener_with_pending),
    on(Link::Loopback, "disconnect_reconnect", reset::disconnect_reconnect),
    on(Link::Wire, "data_lost", loss::data),
    on(Link::Wire, "segment_lost", loss::segment),
    on(Link::Wire, "tail_lost", loss::tail),
    on(Link::Wire, "fin_lost", loss::fin),
    on(Link::Wire, "third_ack_lost", loss::third_ack),
    on(Link::Loopback, "fork_child_closes_last", process::fork),
    on(Link::Loopback, "kill_nine_of_a_client", process::kill_client),
    on(Link::Loopback, "kill_nine_of_a_server", process::kill_server),
];

const fn on(link: Link, name: &'static str, play: fn(&Stage) -> Result<Expected>) -> Scenario {
    Scenario { name, link, play }
}

/// Finds a scenario by name; a name that does not exist is a mistake in a test.
pub fn named(name: &str) -> &'static Scenario {
    ALL.iter().find(|scenario| scenario.name == name).expect("a name out of scenario::ALL")
}

/// What must be seen of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Transitions, by namespace.
    pub transitions: ByNamespace,
    /// Connections that ended.
    pub ended: Vec<Ended>,
    /// Transitions whose process must be named.
    pub owned: Vec<Owned>,
    /// A tail loss probe may send data that waited for its turn, so that the kernel's count of probes is not that of segments sent
    /// again by them.
    pub probes_send_new_data: bool,
}

/// A connection that ended, as one of its two sockets saw it.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Namespace of the socket.
    pub netns: u64,
    /// `network.tcp.handshake.role`.
    pub role: &'static str,
    /// `network.connection.end`.
    pub end: Ends,
    /// `network.tcp.close.first`; a FIN of each side that crossed leaves it open who was first.
    pub first: First,
    /// Whether it must have been retransmitting.
    pub retransmits: bool,
}

/// How a connection must end: in one of these ways.
pub type Ends = &'static [&'static str];

/// Who sent the first FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Nobody: reset, refused, timed out.
    Nobody,
    /// This end.
    Local,
    /// The other end.
    Peer,
    /// Both, and their FINs crossed.
    Both,
}

/// A transition that its owner made, and so must be reported with the owner.
///
/// Of the tests' own process only what connect() does: another test may be starting a child at the moment of a close(),
/// and then that child has the socket too, and closes it last.
#[derive(Clone, Debug)]
pub struct Owned {
    /// Namespace of the socket.
    pub netns: u64,
    /// State left.
    pub old: State,
    /// State entered.
    pub new: State,
    /// The process.
    pub pid: u32,
    /// Its command name; `None` where the test's own threads acted, whose names are the test runner's.
    pub name: Option<&'static str>,
}

/// Steps of a listener.
const LISTENER: &[State] = &[Closed, Listen, Closed];
/// Steps of a socket that connects.
const OPEN: &[State] = &[Closed, SynSent, Established];
/// Steps of a socket that is accepted.
const ACCEPT: &[State] = &[Listen, SynReceived, Established];
/// Steps of the end that closes first.
const CLOSE_FIRST: &[State] = &[Established, FinWait1, FinWait2, Closed];
/// Steps of the end that closes second.
const CLOSE_SECOND: &[State] = &[Established, CloseWait, LastAck, Closed];
/// The step of an end that resets or is reset.
const RESET: &[State] = &[Established, Closed];

impl Expected {
    /// One socket on `side` goes through these steps.
    fn life(&mut self, side: &Side, parts: &[&[State]]) {
        let counts = self.transitions.entry(side.netns.inode()).or_default();
        for part in parts {
            counts.walk(part);
        }
    }

    /// A connection of `side` ends.
    fn end(&mut self, side: &Side, role: &'static str, end: Ends, first: First) -> &mut Ended {
        self.ended.push(Ended { netns: side.netns.inode(), role, end, first, retransmits: false });
        self.ended.last_mut().expect("pushed above")
    }

    /// A transition on `side` is made by the process `pid`.
    fn owner(&mut self, side: &Side, (old, new): (State, State), pid: u32, name: Option<&'static str>) {
        self.owned.push(Owned { netns: side.netns.inode(), old, new, pid, name });
    }

    /// One ordinary connection with its listener, closed by the client first.
    fn ordinary(&mut self, stage: &Stage, end_of_client: Ends) {
        self.life(&stage.server, &[LISTENER]);
        self.exchange(stage, end_of_client);
    }

    /// The same without the listener.
    fn exchange(&mut self, stage: &Stage, end_of_client: Ends) {
        let (client, server) = (&stage.client, &stage.server);
        self.life(client, &[OPEN, CLOSE_FIRST]);
        self.life(server, &[ACCEPT, CLOSE_SECOND]);
        self.end(client, "client", end_of_client, First::Local);
        self.end(server, "server", &["closed"], First::Peer);
        self.owner(client, (Closed, SynSent), std::process::id(), None);
    }

    /// `count` connections of one listener, closed by the server first.
    pub fn many(stage: &Stage, count: u64) -> Self {
        let mut expected = Self::default();
        expected.life(&stage.server, &[LISTENER]);
        for _ in 0..count {
            expected.life(&stage.client, &[OPEN, CLOSE_SECOND]);
            expected.life(&stage.server, &[ACCEPT, CLOSE_FIRST]);
        }
        expected
    }
}

/// A connection from the client side to the server side.
struct Pair {
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

fn pair(stage: &Stage) -> Result<Pair> {
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let client = sock::connect(&stage.client, address)?;
    let server = sock::accept(&listener)?;
    Ok(Pair { listener, client, server })
}
