//! A model socket: writes the records that the kernel's tracepoints write for it, in their order, with what is known at
//! that moment (measured on kernels 5.10 to 7.3).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::event::{Destroy, Direction, Ends, Event, Measures, Reset, Retransmit, State, Task, Transition};
use crate::ledger::{End, Role, Side};

/// Within one call of the kernel.
pub(super) const AT_ONCE: u64 = 10_000;
/// One round trip.
pub(super) const SOON: u64 = 1_000_000;
/// A second.
pub(super) const SECOND: u64 = 1_000_000_000;

/// Network namespace of every model socket.
pub(super) const NETNS: u32 = 4_026_531_840;
/// Port of every model listener.
pub(super) const PORT: u16 = 80;
/// `SK_RST_REASON_TCP_STATE`.
pub(super) const REASON: u32 = 14;

/// What should be told of a connection in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) role: Role,
    pub(super) end: End,
    pub(super) closed_first: Option<Side>,
    pub(super) simultaneous: bool,
}

/// An event and the time since the one before.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) event: Event,
    pub(super) after_ns: u64,
}

impl Step {
    /// Whether the kernel does it in the same call as the step before: no pause comes between.
    pub(super) const fn is_glued(&self) -> bool {
        self.after_ns <= AT_ONCE
    }

    /// The event, as it comes at this time from a socket at this address.
    pub(super) fn at(&self, time_ns: u64, sock: u64) -> Event {
        let mut event = self.event;
        match &mut event {
            Event::Transition(event) => (event.time_ns, event.ends.sock) = (time_ns, sock),
            Event::Retransmit(event) => (event.time_ns, event.ends.sock) = (time_ns, sock),
            Event::Reset(event) => (event.time_ns, event.ends.sock) = (time_ns, sock),
            Event::Destroy(event) => (event.time_ns, event.sock) = (time_ns, sock),
        }
        event
    }
}

/// All events of one socket, and what should be told of its connections.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) cookie: u64,
    pub(super) steps: VecDeque<Step>,
    pub(super) fates: Vec<Fate>,
    role: Role,
    /// Both ends as they are; the records know less of them in some states.
    ends: Ends,
    state: State,
    errno: u16,
    fin_received: bool,
    orphan: bool,
    /// Bytes of the other end, and own ones acknowledged, before ESTABLISHED.
    early: (u64, u64),
    owner: Task,
    cgroup: u64,
    after_ns: u64,
}

/// A task by number.
pub(super) fn task(pid: u32) -> Task {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"task");
    Task { pid, comm }
}

/// A task that has nothing to do with the socket.
pub(super) fn stranger() -> Task {
    task(7)
}

/// Port that the client of connection `id` is given.
pub(super) const fn client_port(id: u32) -> u16 {
    32768 + (id % 28000) as u16
}

/// The same connections over IPv4 (even ids) and IPv6 (odd ids).
pub(super) fn address(id: u32, host: u8) -> [u8; 16] {
    if id.is_multiple_of(2) {
        Ipv4Addr::new(10, 0, 0, host).to_ipv6_mapped().octets()
    } else {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)).octets()
    }
}

fn any_address(id: u32) -> [u8; 16] {
    if id.is_multiple_of(2) { Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets() } else { [0; 16] }
}

impl Life {
    fn new(id: u32, kind: u64, role: Role, state: State) -> Self {
        let (local, peer) = match role {
            Role::Client => ((address(id, 1), client_port(id)), (address(id, 2), PORT)),
            Role::Server => ((address(id, 2), PORT), (address(id, 1), client_port(id))),
        };
        let cookie = u64::from(id) * 4 + kind;
        Self {
            cookie,
            steps: VecDeque::new(),
            fates: Vec::new(),
            role,
            ends: Ends {
                cookie,
                sock: 0xffff_8880_0000_0000 + cookie * 0x1000,
                netns: NETNS,
                local_port: local.1,
                peer_port: peer.1,
                local: local.0,
                peer: peer.0,
            },
            state,
            errno: 0,
            fin_received: false,
            orphan: false,
            early: (0, 0),
            owner: task(100 + id),
            cgroup: 42,
            after_ns: SOON,
        }
    }

    /// A socket that has done nothing yet and will connect.
    pub(super) fn client(id: u32) -> Self {
        Self::new(id, 1, Role::Client, State::Closed)
    }

    /// A child of a listener, as cloned from it.
    pub(super) fn server(id: u32) -> Self {
        Self::new(id, 2, Role::Server, State::Listen)
    }

    /// A socket that has done nothing yet and will listen.
    pub(super) fn listener(id: u32) -> Self {
        let mut life = Self::new(id, 3, Role::Server, State::Closed);
        (life.ends.local, life.ends.peer, life.ends.peer_port) = (any_address(id), any_address(id), 0);
        life
    }

    /// Its address in the kernel's memory, where nothing else says so.
    pub(super) const fn sock(&self) -> u64 {
        self.ends.sock
    }

    /// Number of the connection that its sockets share.
    const fn number(&self) -> u32 {
        (self.cookie / 4) as u32
    }

    fn push(mut self, event: Event) -> Self {
        self.steps.push_back(Step { event, after_ns: self.after_ns });
        self.after_ns = SOON;
        self
    }

    fn transition(mut self, new: State, task: Task, owner_context: bool) -> Self {
        let old = self.state;
        if old == State::Closed {
            (self.errno, self.fin_received) = (0, false);
        }
        let mut ends = self.ends;
        if new == State::SynSent {
            ends.local_port = 0; // chosen after the state has changed
        }
        let embryo = old == State::Listen && new == State::SynReceived;
        if embryo {
            ends.cookie = 0; // overwritten by inet_csk_clone_lock right afterwards
            if self.number() & 2 == 0 {
                (ends.peer, ends.peer_port) = (any_address(self.number()), 0); // before 6.17
            }
        }
        let client = self.role == Role::Client;
        let number = |of_client: bool| if of_client { 1000 } else { 2000 } + self.number();
        let measures = matches!(new, State::Established | State::Closed).then(|| Measures {
            snd_una: number(client).wrapping_add(self.early.1 as u32),
            rcv_nxt: number(!client).wrapping_add(self.early.0 as u32),
            bytes_received: self.early.0,
            bytes_acked: self.early.1 + u64::from(client), // the SYN counts
            ..Measures::default()
        });
        self.state = new;
        let event = Transition {
            time_ns: 0,
            ends,
            old,
            new,
            errno: self.errno,
            fin_received: self.fin_received,
            orphan: self.orphan,
            blind: false,
            owner_context,
            task,
            cgroup: if embryo { 0 } else { self.cgroup },
            measures,
        };
        self.push(Event::Transition(event))
    }

    /// A change of state in a call of its owner.
    pub(super) fn call(self, new: State) -> Self {
        let owner = self.owner;
        self.transition(new, owner, true)
    }

    /// A change of state by a segment or a timer: any task may be current.
    pub(super) fn softirq(self, new: State) -> Self {
        self.transition(new, stranger(), false)
    }

    /// Data came before the handshake was done: so much from the other end, so much of its own was acknowledged.
    pub(super) const fn early(mut self, received: u64, acknowledged: u64) -> Self {
        self.early = (received, acknowledged);
        self
    }

    /// The socket is in other hands (fork).
    pub(super) const fn owned_by(mut self, owner: Task) -> Self {
        self.owner = owner;
        self
    }

    /// No process holds it any more: close() has returned.
    pub(super) const fn orphan(mut self) -> Self {
        self.orphan = true;
        self
    }

    /// The peer's FIN comes with the next change of state.
    pub(super) const fn fin(mut self) -> Self {
        self.fin_received = true;
        self
    }

    /// `sk_err` from now on.
    pub(super) fn error(mut self, errno: i32) -> Self {
        self.errno = u16::try_from(errno).expect("an errno");
        self
    }

    /// The next step follows within the same call.
    pub(super) const fn at_once(self) -> Self {
        self.after(AT_ONCE)
    }

    /// Time until the next step.
    pub(super) const fn after(mut self, ns: u64) -> Self {
        self.after_ns = ns;
        self
    }

    /// The kernel forgets what it can: port and cgroup.
    pub(super) const fn forgotten(mut self) -> Self {
        (self.ends.local_port, self.cgroup) = (0, 0);
        self
    }

    fn reset(self, direction: Direction, reason: Option<u32>) -> Self {
        let event = Reset { time_ns: 0, ends: self.ends, direction, reason, state: self.state };
        self.push(Event::Reset(event))
    }

    /// A RST comes.
    pub(super) fn reset_received(self) -> Self {
        self.reset(Direction::Receive, None)
    }

    /// A RST goes out.
    pub(super) fn reset_sent(self) -> Self {
        self.reset(Direction::Transmit, Some(REASON))
    }

    /// A segment is sent again.
    pub(super) fn retransmit(self) -> Self {
        let (ends, state) = (self.ends, self.state);
        let syn = state == State::SynSent;
        self.push(Event::Retransmit(Retransmit { time_ns: 0, ends, segments: 1, total: 0, state, syn, ca_state: 4 }))
    }

    /// The socket is no more.
    pub(super) fn destroy(self) -> Self {
        let Ends { cookie, sock, netns, .. } = self.ends;
        self.push(Event::Destroy(Destroy { time_ns: 0, cookie, sock, netns }))
    }

    /// What should be told of the connection that has just ended.
    pub(super) fn fate(mut self, end: End, closed_first: Option<Side>) -> Self {
        self.fates.push(Fate { role: self.role, end, closed_first, simultaneous: false });
        self
    }

    /// As [`Life::fate`], of a connection whose FINs crossed.
    pub(super) fn crossed(mut self, end: End) -> Self {
        self.fates.push(Fate { role: self.role, end, closed_first: Some(Side::Local), simultaneous: true });
        self
    }

    /// The same socket, without a cookie in its first `events` events.
    pub(super) fn without_cookie(mut self, events: usize) -> Self {
        for step in self.steps.iter_mut().take(events) {
            match &mut step.event {
                Event::Transition(event) => event.ends.cookie = 0,
                Event::Retransmit(event) => event.ends.cookie = 0,
                Event::Reset(event) => event.ends.cookie = 0,
                Event::Destroy(event) => event.cookie = 0,
            }
        }
        self
    }

    /// The same socket, as a program sees it that does not know the kernel's types.
    pub(super) fn blind(mut self) -> Self {
        for step in &mut self.steps {
            if let Event::Transition(event) = &mut step.event {
                (event.errno, event.fin_received, event.orphan, event.blind) = (0, false, false, true);
            }
        }
        self.without_cookie(usize::MAX)
    }

    /// Address and port of its peer.
    pub(super) fn peer(&self) -> (IpAddr, u16) {
        (self.ends.peer_address(), self.ends.peer_port)
    }

    /// Moves it to another address in the kernel's memory.
    pub(super) const fn at_address(mut self, sock: u64) -> Self {
        self.ends.sock = sock;
        self
    }
}
