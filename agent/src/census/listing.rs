//! Every socket of the namespaces, one by one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::diag::Admitted;
use super::{Form, Held, Place, Socket, States, Walker};
use crate::event::State;

/// What a port is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    /// Network namespace (inode number).
    pub netns: u32,
    /// Port.
    pub port: u16,
    /// Address, v4-mapped for IPv4.
    pub local: [u8; 16],
    /// cgroup v2 id of the listener, 0 where unknown.
    pub cgroup: u64,
}

impl Bound {
    /// Address that is listened on.
    pub fn address(&self) -> IpAddr {
        Ipv6Addr::from(self.local).to_canonical()
    }
}

/// What a listing of every namespace found.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub began_ns: u64,
    /// When it ended. Each socket was looked at once in between, at its own time.
    pub ended_ns: u64,
    /// The sockets that the filter admits: by namespace, state in the order of a connection's life, local and peer end.
    pub sockets: Vec<Socket>,
    /// What is listened on, whatever the filter admits, in order.
    pub listeners: Vec<Bound>,
    /// The namespaces that were listed.
    pub places: Vec<Place>,
    /// Namespaces that could not be listed to the end, and why; nothing of them is told.
    pub failures: Vec<(u32, String)>,
    /// Who holds sockets, of all namespaces.
    pub held: Vec<Held>,
    /// See [`super::Census::hidden`].
    pub hidden: usize,
}

impl Listing {
    /// Lists what `admitted` lets through of the namespaces that `walker` wants; `now` is the clock of the kernel's records. The walk itself must
    /// not leave anything out but namespaces: to whom a socket belongs is said by listeners that the filter may not admit.
    pub fn take(walker: &mut Walker, admitted: &Admitted, now: &dyn Fn() -> u64) -> Self {
        let mut listing = Self { began_ns: now(), ..Self::default() };
        walker.discover_all();
        for inode in walker.wanted() {
            let Some(place) = walker.place(inode) else { continue };
            let mark = (listing.sockets.len(), listing.listeners.len());
            let result = walker.list(inode, States::ALL, &mut |socket| listing.add(socket, admitted));
            if let Err(error) = &result {
                listing.sockets.truncate(mark.0);
                listing.listeners.truncate(mark.1);
                listing.failures.push((inode, error.to_string()));
            }
            if matches!(result, Ok(true)) {
                listing.places.push(place);
            }
        }
        listing.ended_ns = now();
        listing.held = walker.holders();
        listing.hidden = walker.hidden();
        listing.settle();
        listing
    }

    fn add(&mut self, socket: &Socket, admitted: &Admitted) {
        if socket.state == State::Listen {
            let ends = &socket.ends;
            let bound = Bound { netns: ends.netns, port: ends.local_port, local: ends.local, cgroup: socket.cgroup };
            self.listeners.push(bound);
        }
        if admitted.admits(&socket.ends) {
            self.sockets.push(*socket);
        }
    }

    /// Puts all in order, and gives half-open sockets, which have no cgroup yet, their listener's.
    fn settle(&mut self) {
        self.listeners.sort_unstable();
        let place = |state: State| State::ALL.iter().position(|other| *other == state);
        self.sockets.sort_by_key(|socket| {
            let ends = &socket.ends;
            (ends.netns, place(socket.state), ends.local_port, ends.local, ends.peer, ends.peer_port)
        });
        for socket in self.sockets.iter_mut().filter(|socket| socket.form == Form::Request && socket.cgroup == 0) {
            let bound = bound_to(&self.listeners, socket.ends.netns, socket.ends.local_port);
            socket.cgroup = cgroup_of_listener(bound, socket.ends.local);
        }
    }

    /// What is listened on at a port of a namespace.
    pub fn bound(&self, netns: u32, port: u16) -> &[Bound] {
        bound_to(&self.listeners, netns, port)
    }

    /// Name of a namespace, where it is mounted.
    pub fn name(&self, netns: u32) -> Option<&str> {
        self.places.iter().find(|place| place.inode == netns)?.name.as_deref()
    }
}

fn bound_to(listeners: &[Bound], netns: u32, port: u16) -> &[Bound] {
    let key = |bound: &Bound| (bound.netns, bound.port);
    let (from, to) = (
        listeners.partition_point(|bound| key(bound) < (netns, port)),
        listeners.partition_point(|bound| key(bound) <= (netns, port)),
    );
    &listeners[from..to]
}

/// The cgroup of the listener that a request to this address is for, as the kernel looks it up: one bound to it, else one for every address.
/// 0 where several listeners of different cgroups may be meant.
fn cgroup_of_listener(bound: &[Bound], local: [u8; 16]) -> u64 {
    let is_ipv4 = Ipv6Addr::from(local).to_ipv4_mapped().is_some();
    let any = if is_ipv4 { Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets() } else { [0; 16] };
    for address in [local, any, [0; 16]] {
        let mut cgroups = bound.iter().filter(|bound| bound.local == address).map(|bound| bound.cgroup);
        if let Some(first) = cgroups.next() {
            return if cgroups.all(|other| other == first) { first } else { 0 };
        }
    }
    0
}

/// A socket for tests: quiet for 1 µs for each number of its inode.
#[cfg(test)]
pub(crate) fn sample(state: State, form: Form, inode: u64, cgroup: u64) -> Socket {
    let is_connection = form == Form::Full && state != State::Listen;
    Socket {
        time_ns: 1,
        ends: crate::event::Ends {
            cookie: 0,
            sock: 0,
            netns: 7,
            local_port: 80,
            peer_port: 4000,
            local: Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(),
            peer: Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets(),
        },
        state,
        form,
        cgroup,
        inode,
        uid: 0,
        receive_queue: 3,
        send_queue: 4,
        timer: (form == Form::Timewait).then_some((super::Timer::TimeWait, 59.0)),
        unanswered: 0,
        sent_ago_ns: is_connection.then_some(inode * 1000),
        received_ago_ns: is_connection.then_some(inode * 2000),
        measures: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(port: u16, address: &str, cgroup: u64) -> Bound {
        let local = match address.parse().unwrap() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Bound { netns: 7, port, local, cgroup }
    }

    #[test]
    fn a_request_is_for_the_listener_that_the_kernel_would_find() {
        let all = [
            bound(80, "::", 1),
            bound(80, "0.0.0.0", 2),
            bound(80, "10.0.0.1", 3),
            bound(81, "::", 4),
            bound(82, "::", 5),
            bound(82, "::", 6),
        ];
        for (port, address, cgroup) in [
            (80, "10.0.0.1", 3),
            (80, "10.0.0.2", 2),
            (80, "fd00::1", 1),
            (81, "10.0.0.1", 4),
            (82, "10.0.0.1", 0),
            (83, "10.0.0.1", 0),
        ] {
            let local = bound(port, address, 0).local;
            assert_eq!(cgroup_of_listener(bound_to(&all, 7, port), local), cgroup, "{port} {address}");
        }
        assert!(bound_to(&all, 8, 80).is_empty());
    }

    #[test]
    fn a_filter_leaves_out_sockets_and_no_listener() {
        let mut request = sample(State::SynReceived, Form::Request, 0, 0);
        request.ends.peer_port = 9;
        let mut listing = Listing::default();
        let admitted = Admitted { ports: vec![9], ..Admitted::default() };
        for socket in [request, sample(State::Established, Form::Full, 2, 5), sample(State::Listen, Form::Full, 1, 5)] {
            listing.add(&socket, &admitted);
        }
        listing.settle();
        let [socket] = listing.sockets.as_slice() else { panic!("{:?}", listing.sockets) };
        assert_eq!((socket.state, socket.cgroup), (State::SynReceived, 5), "with the cgroup of its listener");
        assert_eq!(listing.bound(7, 80).len(), 1);
    }
}
