//! All reading of kernel structs: typed loads of [`field`](crate::field)s.
//!
//! In a `tp_btf` program the verifier knows the type behind a pointer and accepts `pointer + constant` as a load of the field
//! that lies there, if offset and size match one. Such a load cannot fault. Through the pointer that the tracepoint
//! hands over it is a plain load; through any other the kernel guards it by seven instructions more.

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_socket_cookie,
    bpf_skc_to_tcp_sock,
};
use synfin_common::event::{Endpoints, Measures, flag, state};

use crate::field::{Field, Scalar, field};
use crate::maps::knob;

const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const ECONNABORTED: u16 = 103;

/// Loads a field of type `T` behind a kernel pointer; 0 bits where the kernel has no such field.
#[inline(always)]
fn load<T: Scalar, const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> T {
    field.load::<T, 0>(base)
}

/// Follows a pointer field that is present.
#[inline(always)]
fn follow<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> *const u8 {
    field.load::<u64, 0>(base) as *const u8
}

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

/// Loads a `struct in6_addr`.
#[inline(always)]
fn in6<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u32; 4] {
    [field.load::<_, 0>(base), field.load::<_, 4>(base), field.load::<_, 8>(base), field.load::<_, 12>(base)]
}

/// An IPv4 address (network order) as v4-mapped IPv6.
#[inline(always)]
fn mapped<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u32; 4] {
    [0, 0, 0x0000_ffff_u32.to_be(), load(base, field)]
}

/// Any socket that a tracepoint hands over: `struct sock *`, trusted, not NULL. Only the fields of `sock_common` may be
/// read through it, because it may be a minisock.
#[derive(Clone, Copy)]
pub(crate) struct Sock(pub(crate) *const u8);

impl Sock {
    /// Kernel state, [`state::TIME_WAIT`] and [`state::NEW_SYN_RECV`] for minisocks.
    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        load(self.0, field!(skc_state))
    }

    #[inline(always)]
    pub(crate) fn is_minisock(self) -> bool {
        let state = self.state();
        state == state::TIME_WAIT || state == state::NEW_SYN_RECV
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        load(follow(self.0, field!(skc_net)), field!(net_inum))
    }

    /// Local port in host order.
    #[inline(always)]
    pub(crate) fn num(self) -> u16 {
        load(self.0, field!(skc_num))
    }

    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        load(self.0, field!(skc_family))
    }

    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        load::<u16, _>(self.0, field!(sk_protocol)) == IPPROTO_TCP
    }

    /// Writes the connection as the kernel knows it now. `local_port` is [`Sock::num`] or [`TcpSock::local_port`].
    #[inline(always)]
    pub(crate) fn store_ends(self, to: *mut Endpoints, cookie: u64, local_port: u16) {
        let family = self.family();
        // SAFETY: `to` is a slot for the whole struct; every field of it is written.
        unsafe {
            if family == AF_INET6 {
                store_address(&raw mut (*to).local, in6(self.0, field!(skc_v6_rcv_saddr)));
                store_address(&raw mut (*to).peer, in6(self.0, field!(skc_v6_daddr)));
            } else {
                store_address(&raw mut (*to).local, mapped(self.0, field!(skc_rcv_saddr)));
                store_address(&raw mut (*to).peer, mapped(self.0, field!(skc_daddr)));
            }
            (&raw mut (*to).id).write(cookie);
            (&raw mut (*to).sock).write(self.0 as u64);
            (&raw mut (*to).local_port).write(local_port);
            (&raw mut (*to).peer_port).write(self.peer_port());
            (&raw mut (*to).netns).write(self.netns());
            (&raw mut (*to).family).write(family);
            let pad = (&raw mut (*to).pad).cast::<u16>();
            pad.write(0);
            pad.add(1).cast::<u32>().write(0);
        }
    }

    /// Peer address, v4-mapped for IPv4.
    #[inline(always)]
    pub(crate) fn peer(self) -> [u8; 16] {
        let mut peer = [0; 16];
        if self.family() == AF_INET6 {
            store_address(&raw mut peer, in6(self.0, field!(skc_v6_daddr)));
        } else {
            store_address(&raw mut peer, mapped(self.0, field!(skc_daddr)));
        }
        peer
    }

    /// Peer port in host order.
    #[inline(always)]
    pub(crate) fn peer_port(self) -> u16 {
        u16::from_be(load(self.0, field!(skc_dport)))
    }

    /// `sk_err`.
    #[inline(always)]
    pub(crate) fn err(self) -> u16 {
        load::<u32, _>(self.0, field!(sk_err)) as u16
    }

    /// cgroup v2 id, 0 where unknown.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        if !field!(sk_cgroup).is_present() || !field!(cgroup_kn).is_present() || !field!(kernfs_id).is_present() {
            return 0;
        }
        load(follow(follow(self.0, field!(sk_cgroup)), field!(cgroup_kn)), field!(kernfs_id))
    }

    /// [`flag`]s of a transition to `new`.
    #[inline(always)]
    pub(crate) fn flags(self, new: u8, err: u16) -> u16 {
        let mut flags = 0;
        // A task in its own context takes the lock with `owned` (lock_sock); a softirq takes the spin lock only. So the
        // current task uses this socket, unless it is one that aborts other people's sockets (tcp_abort, `ss -K`).
        if load::<u32, _>(self.0, field!(sk_lock_owned)) == 1 && !(new == state::CLOSE && err == ECONNABORTED) {
            flags |= flag::OWNER_CONTEXT;
        }
        let sk_flags = load::<u64, _>(self.0, field!(skc_flags)) as u32;
        if sk_flags & knob!(sock_done) != 0 {
            flags |= flag::FIN_RECEIVED;
        }
        if sk_flags & knob!(sock_dead) != 0 {
            flags |= flag::ORPHAN;
        }
        flags
    }

    /// The socket as a full TCP socket; none for other protocols (MPTCP's parent socket is 262) and minisocks.
    #[inline(always)]
    pub(crate) fn tcp(self) -> Option<TcpSock> {
        // SAFETY: the helper takes any socket pointer and answers NULL where it is no TCP socket.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) };
        (!tcp.is_null()).then_some(TcpSock(tcp.cast()))
    }

    /// Socket cookie, made now if the socket has none yet.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        match load(self.0, field!(skc_cookie)) {
            // SAFETY: the helper takes any socket pointer.
            0 => unsafe { bpf_get_socket_cookie(self.0.cast_mut().cast()) },
            // Most transitions find it there: a load is cheaper than the helper.
            cookie => cookie,
        }
    }
}

/// A full TCP socket: all of `struct tcp_sock` may be read.
#[derive(Clone, Copy)]
pub(crate) struct TcpSock(*const u8);

impl TcpSock {
    /// Local port of `sock`, which is this socket, in host order.
    #[inline(always)]
    pub(crate) fn local_port(self, sock: Sock) -> u16 {
        match sock.num() {
            // At close the kernel gives an ephemeral port back before it reports the state (inet_put_port).
            0 => u16::from_be(load(self.0, field!(inet_sport))),
            port => port,
        }
    }

    /// Writes what the kernel measured so far.
    #[inline(always)]
    pub(crate) fn store_measures(self, to: *mut Measures) {
        let tcp = self.0;
        // SAFETY: `to` is a slot for the whole struct; every field of it is written.
        unsafe {
            (&raw mut (*to).bytes_acked).write(load(tcp, field!(bytes_acked)));
            (&raw mut (*to).bytes_received).write(load(tcp, field!(bytes_received)));
            (&raw mut (*to).bytes_sent).write(load(tcp, field!(bytes_sent)));
            (&raw mut (*to).bytes_retrans).write(load(tcp, field!(bytes_retrans)));
            (&raw mut (*to).segs_out).write(load(tcp, field!(segs_out)));
            (&raw mut (*to).segs_in).write(load(tcp, field!(segs_in)));
            (&raw mut (*to).retrans).write(self.total_retrans());
            (&raw mut (*to).srtt_us).write(load::<u32, _>(tcp, field!(srtt_us)) >> 3);
            (&raw mut (*to).mdev_us).write(load::<u32, _>(tcp, field!(mdev_us)) >> 2);
            (&raw mut (*to).snd_cwnd).write(load(tcp, field!(snd_cwnd)));
            (&raw mut (*to).snd_una).write(load(tcp, field!(snd_una)));
            (&raw mut (*to).rcv_nxt).write(load(tcp, field!(rcv_nxt)));
            (&raw mut (*to).snd_nxt).write(load(tcp, field!(snd_nxt)));
            (&raw mut (*to).ooo).write(load(tcp, field!(rcv_ooopack)));
        }
    }

    #[inline(always)]
    pub(crate) fn total_retrans(self) -> u32 {
        load(self.0, field!(total_retrans))
    }

    /// `icsk_ca_state`, the low five bits of its byte in every kernel.
    #[inline(always)]
    pub(crate) fn ca_state(self) -> u8 {
        load::<u8, _>(self.0, field!(ca_state)) & 0x1f
    }
}

/// `struct sk_buff *`, not NULL, of the TCP stack.
#[derive(Clone, Copy)]
pub(crate) struct Skb(pub(crate) *const u8);

impl Skb {
    /// Segments in this skb (`tcp_skb_pcount`).
    #[inline(always)]
    pub(crate) fn segments(self) -> u32 {
        // Byte by byte: the verifier knows `cb` as an array of char.
        let field = field!(cb_gso_segs);
        u32::from(u16::from_ne_bytes([field.load::<_, 0>(self.0), field.load::<_, 1>(self.0)]))
    }

    /// Whether the segment carries SYN.
    #[inline(always)]
    pub(crate) fn is_syn(self) -> bool {
        const TCPHDR_SYN: u8 = 2;
        load::<u8, _>(self.0, field!(cb_tcp_flags)) & TCPHDR_SYN != 0
    }

    /// Namespace of the device that the packet came in by, 0 where it has none any more.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        load(follow(follow(self.0, field!(skb_dev)), field!(dev_net)), field!(net_inum))
    }
}

/// Writes pid (thread group) and command name of the current task.
#[inline(always)]
pub(crate) fn store_task(pid: *mut u32, comm: *mut [u8; 16]) {
    if !field!(task_tgid).is_present() || !field!(task_comm).is_present() {
        // Kernels without `bpf_get_current_task_btf` (5.10); the loader hides the offsets from the program there.
        // SAFETY: both point to their fields in a ring slot.
        unsafe {
            pid.write((bpf_get_current_pid_tgid() >> 32) as u32);
            // Fails never with room for TASK_COMM_LEN bytes, and zeroes the buffer if it did.
            bpf_get_current_comm(comm.cast(), 16);
        }
        return;
    }
    // SAFETY: there always is a current task; as above.
    unsafe {
        let task: *const u8 = bpf_get_current_task_btf().cast_const().cast();
        pid.write(load(task, field!(task_tgid)));
        // The name of the process, like its pid; threads have names of their own.
        let leader = follow(task, field!(task_leader));
        let comm = comm.cast::<u64>();
        comm.write(load(leader, field!(task_comm)));
        comm.add(1).write(field!(task_comm).load::<_, 8>(leader));
    }
}
