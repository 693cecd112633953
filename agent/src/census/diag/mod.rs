//! Walks over the kernel's socket tables by inet_diag, as `ss` does: for kernels without iterators that can be trusted.
//!
//! Every socket is copied here and counted here. What inet_diag does not tell stays unknown: the age of half-open connections, which of
//! the listeners on one address they belong to, sequence numbers.

mod admit;
mod wire;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with};
use rustix::time::{ClockId, clock_gettime};
use synfin_common::event::state;
use zerocopy::IntoBytes as _;

pub use self::admit::{Admitted, Peers};
use self::wire::{Answer, Header, Id, Request};
use super::sums::{Form, Group, Listener, Network, Sums};
use super::{PortSet, Socket, States, Timer, Walk};
use crate::event::{Ends, Measures, State};

/// The kernel sends at most so much at once.
const READ: usize = 32 << 10;

/// States of sockets that hang in the tables: what is bound and idle (bit 13, Linux 6.8 and later) is none of them.
const HASHED: u32 = (1 << (state::NEW_SYN_RECV + 1)) - 2;

/// What sockets are grouped by, within one namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    netns: u32,
    state: State,
    form: Form,
    network: Network,
    port: Option<u16>,
    cgroup: u64,
}

/// A walk by inet_diag.
#[derive(Debug)]
pub struct Diag {
    filter: Admitted,
    sums: Sums,
    buffer: Vec<u8>,
}

impl Diag {
    /// A walk that looks at what `filter` admits.
    pub fn new(filter: Admitted) -> Self {
        Self { filter, sums: Sums::default(), buffer: vec![0; READ] }
    }

    /// Asks for the sockets of both families in these states.
    fn dump(&mut self, states: u32, extensions: u8, each: &mut dyn FnMut(&Found)) -> io::Result<()> {
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let socket = ask(family, states, extensions)?;
            while self.read(&socket, each)? {}
        }
        Ok(())
    }

    /// Reads once. False when the dump is over.
    fn read(&mut self, socket: &OwnedFd, each: &mut dyn FnMut(&Found)) -> io::Result<bool> {
        let (len, whole) = loop {
            match recv(socket, self.buffer.as_mut_slice(), RecvFlags::TRUNC) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result?,
            }
        };
        if whole > self.buffer.len() {
            return Err(io::Error::other(format!("inet_diag sent {whole} bytes at once, {READ} were expected")));
        }
        for (kind, body) in wire::messages(&self.buffer[..len]) {
            match kind {
                wire::SOCK_DIAG_BY_FAMILY => {
                    Answer::read(body).as_ref().and_then(Found::new).iter().for_each(&mut *each);
                }
                wire::DONE | wire::ERROR => return errno(body).map(|()| false),
                _ => {}
            }
        }
        Ok(true)
    }
}

/// Inode number of the calling thread's namespace, which is not always that of its process.
fn here() -> io::Result<u32> {
    u32::try_from(fs::metadata("/proc/thread-self/ns/net")?.ino()).map_err(io::Error::other)
}

/// Begins a dump in the namespace of the calling thread.
fn ask(family: u8, states: u32, extensions: u8) -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let id = Id { local_port: [0; 2], peer_port: [0; 2], local: [0; 16], peer: [0; 16], interface: 0, cookie: [0; 2] };
    let request = Request {
        header: Header {
            len: size_of::<Request>() as u32,
            kind: wire::SOCK_DIAG_BY_FAMILY,
            flags: wire::REQUEST_DUMP,
            sequence: 1,
            port: 0,
        },
        family,
        protocol: libc::IPPROTO_TCP as u8,
        extensions,
        pad: 0,
        states,
        id,
    };
    sendto(&socket, request.as_bytes(), SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// The result that ends a dump.
fn errno(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    match -code {
        0 => Ok(()),
        libc::ENOENT => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel has no inet_diag for TCP; load the module tcp_diag (CONFIG_INET_TCP_DIAG)",
        )),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// A socket of a dump.
struct Found {
    answer: Answer,
    state: State,
    form: Form,
    local: [u8; 16],
    peer: [u8; 16],
    local_port: u16,
    peer_port: u16,
}

impl Found {
    fn new(answer: &Answer) -> Option<Self> {
        let message = &answer.message;
        let state = State::try_from(message.state).ok()?;
        let form = if message.timer == wire::TIMER_TIMEWAIT {
            Form::Timewait
        } else if state == State::SynReceived && !answer.is_full {
            Form::Request
        } else {
            Form::Full
        };
        let address = |bytes: [u8; 16]| match bytes {
            [a, b, c, d, ..] if i32::from(message.family) == libc::AF_INET => {
                Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().octets()
            }
            bytes => bytes,
        };
        Some(Self {
            state,
            form,
            local: address(message.id.local),
            peer: address(message.id.peer),
            local_port: u16::from_be_bytes(message.id.local_port),
            peer_port: u16::from_be_bytes(message.id.peer_port),
            answer: *answer,
        })
    }

    fn is_admitted(&self, filter: &Admitted) -> bool {
        admit::connection(filter, self.local_port, self.peer_port, &self.peer)
    }

    /// A bit of [`States`]: minisocks and requests have bits of their own.
    fn bit(&self) -> u32 {
        match self.form {
            Form::Full => 1 << self.answer.message.state,
            Form::Timewait => 1 << state::TIME_WAIT,
            Form::Request => 1 << state::NEW_SYN_RECV,
        }
    }

    /// What its packets are: a v4-mapped connection speaks IPv4.
    fn network(&self) -> Network {
        if is_mapped(&self.peer) || is_mapped(&self.local) { Network::Ipv4 } else { Network::Ipv6 }
    }

    fn cookie(&self) -> u64 {
        let [low, high] = self.answer.message.id.cookie;
        u64::from(high) << 32 | u64::from(low)
    }

    fn listener(&self, netns: u32) -> Listener {
        let message = &self.answer.message;
        Listener {
            netns,
            local: self.local,
            port: self.local_port,
            cgroup: self.answer.cgroup,
            cookie: self.cookie(),
            inode: message.inode.into(),
            uid: message.uid,
            accept_queue: message.receive_queue,
            accept_limit: message.send_queue,
            half_open: 0,
            oldest_ns: None,
        }
    }

    fn socket(&self, netns: u32) -> Socket {
        let Answer { message, info, cgroup, .. } = &self.answer;
        let timer = match message.timer {
            wire::TIMER_TIMEWAIT => Some(Timer::TimeWait),
            timer => Timer::from_wire(timer),
        };
        let info = info.as_ref().filter(|_| self.form == Form::Full && self.state != State::Listen);
        let ago = |ms: u32| u64::from(ms) * 1_000_000;
        let now = clock_gettime(ClockId::Monotonic);
        Socket {
            time_ns: now
                .tv_sec
                .cast_unsigned()
                .saturating_mul(1_000_000_000)
                .saturating_add(now.tv_nsec.cast_unsigned()),
            ends: Ends {
                cookie: self.cookie(),
                sock: 0,
                netns,
                local_port: self.local_port,
                peer_port: self.peer_port,
                local: self.local,
                peer: self.peer,
            },
            state: self.state,
            form: self.form,
            cgroup: *cgroup,
            inode: message.inode.into(),
            uid: message.uid,
            receive_queue: message.receive_queue,
            send_queue: message.send_queue,
            timer: timer.map(|timer| (timer, f64::from(message.expires_ms) / 1e3)),
            // inet_diag's own count is that of keepalive probes while their timer runs.
            unanswered: match (info, timer) {
                (Some(info), Some(Timer::Probe)) => info.probes,
                (Some(info), _) => info.retransmits,
                (None, _) => message.retransmits,
            },
            sent_ago_ns: info.map(|info| ago(info.last_data_sent_ms)),
            received_ago_ns: info.map(|info| ago(info.last_data_received_ms)),
            measures: info.map(measures),
        }
    }
}

fn is_mapped(address: &[u8; 16]) -> bool {
    matches!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
}

/// Sequence numbers are unknown: 0.
fn measures(info: &wire::TcpInfo) -> Measures {
    Measures {
        bytes_acked: info.bytes_acked,
        bytes_received: info.bytes_received,
        bytes_sent: info.bytes_sent,
        bytes_retrans: info.bytes_retrans,
        segs_out: info.segs_out,
        segs_in: info.segs_in,
        retrans: info.total_retrans,
        srtt_us: info.rtt_us,
        mdev_us: info.rttvar_us,
        snd_cwnd: info.snd_cwnd,
        snd_una: 0,
        rcv_nxt: 0,
        snd_nxt: 0,
        ooo: info.out_of_order,
    }
}

/// The listener that a request to this address is for: one bound to it, else one for every address.
fn listener_of(listeners: &[Listener], indices: &[usize], local: [u8; 16]) -> Option<usize> {
    let any = if is_mapped(&local) { Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets() } else { [0; 16] };
    [local, any, [0; 16]].into_iter().find_map(|bound| indices.iter().copied().find(|at| listeners[*at].local == bound))
}

impl Walk for Diag {
    fn count(&mut self) -> io::Result<PortSet> {
        let netns = here()?;
        let filter = self.filter.clone();
        let mut taken = PortSet::default();
        let mut listeners: Vec<Listener> = Vec::new();
        let mut by_port: HashMap<u16, Vec<usize>> = HashMap::new();
        let mut groups: HashMap<Key, Group> = HashMap::new();
        let mut add = |found: &Found, port: Option<u16>, cgroup: u64| {
            let key = Key { netns, state: found.state, form: found.form, network: found.network(), port, cgroup };
            let Key { state, form, network, .. } = key;
            let group = groups.entry(key).or_insert(Group {
                netns,
                state,
                form,
                network,
                port,
                cgroup,
                sockets: 0,
                receive_queue: 0,
                send_queue: 0,
            });
            group.sockets += 1;
            if found.form == Form::Full && found.state != State::Listen {
                group.receive_queue += u64::from(found.answer.message.receive_queue);
                group.send_queue += u64::from(found.answer.message.send_queue);
            }
        };
        self.dump(1 << state::LISTEN, 0, &mut |found| {
            taken.insert(found.local_port);
            // A connection that is counted may hang on a listener that is not.
            let of_port = by_port.entry(found.local_port).or_default();
            if !found.is_admitted(&filter) {
                return;
            }
            of_port.push(listeners.len());
            listeners.push(found.listener(netns));
            add(found, Some(found.local_port), found.answer.cgroup);
        })?;
        self.dump(HASHED & !(1 << state::LISTEN), 0, &mut |found| {
            taken.insert(found.local_port);
            let indices = by_port.get(&found.local_port);
            let mut cgroup = found.answer.cgroup;
            if found.form == Form::Request {
                // The listener counts all of its own, whoever asks.
                let listener = indices.and_then(|indices| listener_of(&listeners, indices, found.local));
                if let Some(listener) = listener.and_then(|at| listeners.get_mut(at)) {
                    listener.half_open += 1;
                    cgroup = listener.cgroup;
                }
            }
            if found.is_admitted(&filter) {
                add(found, indices.map(|_| found.local_port), cgroup);
            }
        })?;
        self.sums.groups.extend(groups.into_values());
        self.sums.listeners.append(&mut listeners);
        Ok(taken)
    }

    fn take(&mut self) -> io::Result<Sums> {
        let mut sums = std::mem::take(&mut self.sums);
        sums.sort();
        Ok(sums)
    }

    fn list(&mut self, states: States, each: &mut dyn FnMut(&Socket)) -> io::Result<()> {
        let netns = here()?;
        let filter = self.filter.clone();
        let bit = |wanted: u8, asked: u8| if states.0 & 1 << wanted == 0 { 0 } else { 1 << asked };
        // inet_diag knows a minisock by the state that it stands for, and a request as SYN_RECV.
        let asked = states.0 | bit(state::TIME_WAIT, state::FIN_WAIT2) | bit(state::NEW_SYN_RECV, state::SYN_RECV);
        self.dump(asked & HASHED, wire::WITH_INFO, &mut |found| {
            if states.0 & found.bit() != 0 && found.is_admitted(&filter) {
                each(&found.socket(netns));
            }
        })
    }
}

#[cfg(test)]
mod tests;
