//! All reading of kernel structs, written once for every rung of the ladder: the [`field`](crate::field)s are those of the
//! running kernel, the way of reading is the rung's.
//!
//! Where the kernel's types are not known, all fields are absent. Then the record of a classic tracepoint answers what it
//! can, and the rest reads as 0: unknown.

mod skb;
mod task;
mod tcp;

use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_skc_to_tcp_request_sock, bpf_skc_to_tcp_sock, bpf_skc_to_tcp_timewait_sock,
};
use synfin_common::event::{Endpoints, flag, state};

pub(crate) use self::skb::Skb;
pub(crate) use self::task::store_task;
pub(crate) use self::tcp::TcpSock;

use crate::field::{Field, Scalar, field};
use crate::maps::knob;
use crate::read::{Probed, Read};
use crate::record::{Record, mapped};
use crate::rung::Rung;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const ECONNABORTED: u16 = 103;

/// Writes a `struct in6_addr`, or an IPv4 address as v4-mapped, without a detour over the stack.
#[inline(always)]
fn store_address(to: *mut [u8; 16], words: [u32; 4]) {
    let to = to.cast::<u32>();
    // SAFETY: `to` points to 16 bytes, aligned to 8, in a ring slot or on the stack.
    unsafe {
        to.write(words[0]);
        to.add(1).write(words[1]);
        to.add(2).write(words[2]);
        to.add(3).write(words[3]);
    }
}

/// Inode number of the network namespace that the pointer in `net` leads to, 0 where unknown.
#[inline(always)]
fn netns<R: Read, const INDEX: usize>(base: *const u8, net: Field<INDEX>) -> u32 {
    if !net.is_present() || !field!(net_inum).is_present() {
        return 0;
    }
    R::load(R::follow(base, net), field!(net_inum))
}

/// Any socket that a tracepoint hands over: `struct sock *`, not NULL. If it may be a minisock, only the fields of
/// `sock_common` may be read through it.
#[derive(Clone, Copy)]
pub(crate) struct Sock<R> {
    pub(crate) at: *const u8,
    pub(crate) rung: R,
}

impl<R: Rung> Sock<R> {
    #[inline(always)]
    fn load<T: Scalar, const INDEX: usize>(self, field: Field<INDEX>) -> T {
        R::Kernel::load(self.at, field)
    }

    /// A field, or what the tracepoint's record says of it where the kernel's types are not known.
    #[inline(always)]
    fn known<T: Scalar, const INDEX: usize>(self, field: Field<INDEX>, recorded: impl FnOnce(Record) -> T) -> T {
        match self.rung.record_for(field) {
            Some(record) => recorded(record),
            None => self.load(field),
        }
    }

    /// Kernel state, [`state::TIME_WAIT`] and [`state::NEW_SYN_RECV`] for minisocks.
    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        self.known(field!(skc_state), Record::state)
    }

    #[inline(always)]
    pub(crate) fn is_minisock(self) -> bool {
        let state = self.state();
        state == state::TIME_WAIT || state == state::NEW_SYN_RECV
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        netns::<R::Kernel, _>(self.at, field!(skc_net))
    }

    /// Local port in host order, 0 at close: the kernel gives an ephemeral port back before it reports the state
    /// (`inet_put_port`), see [`TcpSock::local_port`].
    #[inline(always)]
    pub(crate) fn num(self) -> u16 {
        self.known(field!(skc_num), Record::local_port)
    }

    /// The same for a socket that enters SYN_SENT, 0 unless it is bound. A tracepoint's record may name the port of an earlier
    /// connection on this socket.
    #[inline(always)]
    pub(crate) fn bound_port(self) -> u16 {
        self.load(field!(skc_num))
    }

    /// Peer port in host order.
    #[inline(always)]
    pub(crate) fn peer_port(self) -> u16 {
        match self.rung.record_for(field!(skc_dport)) {
            Some(record) => record.peer_port(),
            None => u16::from_be(self.load(field!(skc_dport))),
        }
    }

    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        self.known(field!(skc_family), Record::family)
    }

    /// Peer address, v4-mapped for IPv4.
    #[inline(always)]
    pub(crate) fn peer(self) -> [u8; 16] {
        let mut peer = [0; 16];
        if let Some(record) = self.rung.record_for(field!(skc_daddr)) {
            store_address(&raw mut peer, record.peer());
        } else if self.family() == AF_INET6 {
            store_address(&raw mut peer, R::Kernel::in6(self.at, field!(skc_v6_daddr)));
        } else {
            store_address(&raw mut peer, mapped(self.load(field!(skc_daddr))));
        }
        peer
    }

    /// Writes the connection as the kernel knows it now.
    #[inline(always)]
    pub(crate) fn store_ends(self, to: *mut Endpoints, cookie: u64, local_port: u16) {
        let family = self.family();
        // SAFETY: `to` is a slot for the whole struct; every field of it is written.
        unsafe {
            if let Some(record) = self.rung.record_for(field!(skc_daddr)) {
                store_address(&raw mut (*to).local, record.local());
                store_address(&raw mut (*to).peer, record.peer());
            } else if family == AF_INET6 {
                store_address(&raw mut (*to).local, R::Kernel::in6(self.at, field!(skc_v6_rcv_saddr)));
                store_address(&raw mut (*to).peer, R::Kernel::in6(self.at, field!(skc_v6_daddr)));
            } else {
                store_address(&raw mut (*to).local, mapped(self.load(field!(skc_rcv_saddr))));
                store_address(&raw mut (*to).peer, mapped(self.load(field!(skc_daddr))));
            }
            (&raw mut (*to).id).write(cookie);
            (&raw mut (*to).sock).write(self.at as u64);
            (&raw mut (*to).local_port).write(local_port);
            (&raw mut (*to).peer_port).write(self.peer_port());
            (&raw mut (*to).netns).write(self.netns());
            (&raw mut (*to).family).write(family);
            // In pieces that are aligned: as an array it would become a call of memset.
            let pad = (&raw mut (*to).pad).cast::<u16>();
            pad.write(0);
            pad.add(1).cast::<u32>().write(0);
        }
    }

    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        // The tracepoints of TCP alone have no protocol in their record.
        self.known(field!(sk_protocol), |record| record.protocol().unwrap_or(IPPROTO_TCP)) == IPPROTO_TCP
    }

    /// `sk_err`.
    #[inline(always)]
    pub(crate) fn err(self) -> u16 {
        self.load::<u32, _>(field!(sk_err)) as u16
    }

    /// cgroup v2 id, 0 where unknown.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        let (cgroup, kn, id) = (field!(sk_cgroup), field!(cgroup_kn), field!(kernfs_id));
        if !kn.is_present() || !id.is_present() {
            return 0;
        }
        if cgroup.is_present() {
            return R::Kernel::load(R::Kernel::follow(R::Kernel::follow(self.at, cgroup), kn), id);
        }
        // Until 5.14: the pointer shares its word with the net_cls class, and its low bits say which of the two it is.
        match self.load::<u64, _>(field!(sk_cgroup_val)) {
            0 => 0,
            val if val & 3 != 0 => 0,
            val => Probed::load(Probed::follow(val as *const u8, kn), id),
        }
    }

    /// [`flag`]s of a transition to `new`.
    #[inline(always)]
    pub(crate) fn flags(self, new: u8, err: u16) -> u16 {
        let mut flags = 0;
        // A task in its own context takes the lock with `owned` (lock_sock); a softirq takes the spin lock only. So the
        // current task uses this socket, unless it is one that aborts other people's sockets (tcp_abort, `ss -K`).
        if self.load::<u32, _>(field!(sk_lock_owned)) == 1 && !(new == state::CLOSE && err == ECONNABORTED) {
            flags |= flag::OWNER_CONTEXT;
        }
        if !field!(skc_flags).is_present() {
            return flags | flag::BLIND;
        }
        let sk_flags = self.load::<u64, _>(field!(skc_flags)) as u32;
        if sk_flags & knob!(sock_done) != 0 {
            flags |= flag::FIN_RECEIVED;
        }
        if sk_flags & knob!(sock_dead) != 0 {
            flags |= flag::ORPHAN;
        }
        flags
    }

    /// Socket cookie, made now if the socket has none yet and the kernel lets a program make one; else 0.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        match self.load(field!(skc_cookie)) {
            // SAFETY: the helper takes any socket pointer.
            0 if R::HELPERS => unsafe { bpf_get_socket_cookie(self.at.cast_mut().cast()) },
            // Most transitions find it there: a load is cheaper than the helper.
            cookie => cookie,
        }
    }

    /// Socket cookie, 0 if the socket has none yet.
    #[inline(always)]
    pub(crate) fn known_cookie(self) -> u64 {
        self.load(field!(skc_cookie))
    }

    /// Local address, v4-mapped for IPv4.
    #[inline(always)]
    pub(crate) fn local(self) -> [u8; 16] {
        let mut local = [0; 16];
        if self.family() == AF_INET6 {
            store_address(&raw mut local, R::Kernel::in6(self.at, field!(skc_v6_rcv_saddr)));
        } else {
            store_address(&raw mut local, mapped(self.load(field!(skc_rcv_saddr))));
        }
        local
    }

    /// `AF_INET` or `AF_INET6`, whichever its packets are of: a v4-mapped connection speaks IPv4.
    #[inline(always)]
    pub(crate) fn network(self) -> u16 {
        let family = self.family();
        if family != AF_INET6 {
            return family;
        }
        let is_mapped = |words: [u32; 4]| words[0] == 0 && words[1] == 0 && words[2] == u32::to_be(0xffff);
        if is_mapped(R::Kernel::in6(self.at, field!(skc_v6_daddr)))
            || is_mapped(R::Kernel::in6(self.at, field!(skc_v6_rcv_saddr)))
        {
            AF_INET
        } else {
            AF_INET6
        }
    }

    /// The socket as `struct tcp_timewait_sock *`.
    #[inline(always)]
    pub(crate) fn timewait(self) -> Option<*const u8> {
        // SAFETY: the helper takes any socket pointer and answers NULL where it is another kind of socket.
        let timewait = unsafe { bpf_skc_to_tcp_timewait_sock(self.at.cast_mut().cast()) };
        (!timewait.is_null()).then_some(timewait.cast_const().cast())
    }

    /// The socket as `struct tcp_request_sock *`.
    #[inline(always)]
    pub(crate) fn request(self) -> Option<*const u8> {
        // SAFETY: as in `timewait`.
        let request = unsafe { bpf_skc_to_tcp_request_sock(self.at.cast_mut().cast()) };
        (!request.is_null()).then_some(request.cast_const().cast())
    }

    /// The socket as a full TCP socket; none for other protocols (MPTCP's parent socket is 262) and minisocks.
    #[inline(always)]
    pub(crate) fn tcp(self) -> Option<TcpSock<R>> {
        if !R::TYPED {
            return (self.is_tcp() && !self.is_minisock()).then_some(TcpSock::new(self, self.at));
        }
        // SAFETY: the helper takes any socket pointer and answers NULL where it is no TCP socket.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.at.cast_mut().cast()) };
        (!tcp.is_null()).then_some(TcpSock::new(self, tcp.cast()))
    }
}

/// The flag that says whether a record's id is a cookie.
#[inline(always)]
pub(crate) fn cookie_flag(cookie: u64) -> u16 {
    if cookie == 0 { 0 } else { flag::COOKIE }
}
