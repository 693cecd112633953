//! All reading of kernel structs: typed loads at constant offsets ([`OFFSETS`](crate::maps::OFFSETS)).
//!
//! In a `tp_btf` program the verifier knows the type behind a pointer and accepts `pointer + offset` as a load of the field
//! that lies there, if offset and size match one. Such a load cannot fault: the kernel turns a bad address into 0.

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_socket_cookie,
    bpf_skc_to_tcp_sock,
};
use synfin_common::event::{Endpoints, Measures, flag, state};
use synfin_common::knobs::ABSENT;

use crate::maps::{knob, offset};

const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const ECONNABORTED: u16 = 103;

/// Loads a field of type `T` at `offset` behind a kernel pointer; 0 bits where the kernel has no such field.
///
/// The load is volatile so that LLVM neither merges two fields into one load nor splits one: the verifier compares
/// offset and size with real fields.
#[inline(always)]
fn load<T: Copy + Default>(base: *const u8, offset: u32) -> T {
    if offset == ABSENT {
        return T::default();
    }
    // SAFETY: the verifier has checked that a field of this size lies at this offset of the struct that `base` points to;
    // the kernel catches faults of typed loads.
    unsafe { base.add(offset as usize).cast::<T>().read_volatile() }
}

/// Follows a pointer field.
#[inline(always)]
fn follow(base: *const u8, offset: u32) -> *const u8 {
    // SAFETY: as in `load`; a pointer field is 8 bytes, and what it points to keeps its type for the verifier.
    unsafe { base.add(offset as usize).cast::<*const u8>().read_volatile() }
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
fn in6(base: *const u8, offset: u32) -> [u32; 4] {
    if offset == ABSENT {
        return [0; 4];
    }
    [load(base, offset), load(base, offset + 4), load(base, offset + 8), load(base, offset + 12)]
}

/// An IPv4 address (network order) as v4-mapped IPv6.
#[inline(always)]
fn mapped(base: *const u8, offset: u32) -> [u32; 4] {
    [0, 0, 0x0000_ffff_u32.to_be(), load(base, offset)]
}

/// Any socket that a tracepoint hands over: `struct sock *`, trusted, not NULL. Only the fields of `sock_common` may be
/// read through it, because it may be a minisock.
#[derive(Clone, Copy)]
pub(crate) struct Sock(pub(crate) *const u8);

impl Sock {
    /// Kernel state, [`state::TIME_WAIT`] and [`state::NEW_SYN_RECV`] for minisocks.
    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        load(self.0, offset!(skc_state))
    }

    #[inline(always)]
    pub(crate) fn is_minisock(self) -> bool {
        let state = self.state();
        state == state::TIME_WAIT || state == state::NEW_SYN_RECV
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        load(follow(self.0, offset!(skc_net)), offset!(net_inum))
    }

    /// Local port in host order.
    #[inline(always)]
    pub(crate) fn num(self) -> u16 {
        load(self.0, offset!(skc_num))
    }

    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        load(self.0, offset!(skc_family))
    }

    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        load::<u16>(self.0, offset!(sk_protocol)) == IPPROTO_TCP
    }

    /// The socket as a full TCP socket; none for other protocols (MPTCP's parent socket is 262) and minisocks.
    #[inline(always)]
    pub(crate) fn tcp(self) -> Option<TcpSock> {
        // SAFETY: the helper takes any socket pointer and answers NULL where it is no TCP socket.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) };
        (!tcp.is_null()).then_some(TcpSock { sock: self.0, tcp: tcp.cast() })
    }

    /// Socket cookie, made now if the socket has none yet.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        match load(self.0, offset!(skc_cookie)) {
            // SAFETY: the helper takes any socket pointer.
            0 => unsafe { bpf_get_socket_cookie(self.0.cast_mut().cast()) },
            // Most transitions find it there: a load is cheaper than the helper.
            cookie => cookie,
        }
    }
}

/// A full TCP socket: all of `struct tcp_sock` may be read.
#[derive(Clone, Copy)]
pub(crate) struct TcpSock {
    sock: *const u8,
    tcp: *const u8,
}

impl TcpSock {
    /// Writes the connection as the kernel knows it now. `connecting`: the socket enters SYN_SENT, so that `inet_sport` may
    /// be a left-over of an earlier connection on this socket.
    #[inline(always)]
    pub(crate) fn store_ends(self, to: *mut Endpoints, cookie: u64, connecting: bool) {
        let tcp = self.tcp;
        let family: u16 = load(tcp, offset!(skc_family));
        // SAFETY: `to` is a slot for the whole struct; every field of it is written.
        unsafe {
            if family == AF_INET6 {
                store_address(&raw mut (*to).local, in6(tcp, offset!(skc_v6_rcv_saddr)));
                store_address(&raw mut (*to).peer, in6(tcp, offset!(skc_v6_daddr)));
            } else {
                store_address(&raw mut (*to).local, mapped(tcp, offset!(skc_rcv_saddr)));
                store_address(&raw mut (*to).peer, mapped(tcp, offset!(skc_daddr)));
            }
            (&raw mut (*to).id).write(cookie);
            (&raw mut (*to).sock).write(self.sock as u64);
            (&raw mut (*to).local_port).write(self.local_port(connecting));
            (&raw mut (*to).peer_port).write(self.peer_port());
            (&raw mut (*to).netns).write(self.netns());
            (&raw mut (*to).family).write(family);
            (&raw mut (*to).pad).write([0; 6]);
        }
    }

    /// Peer address, v4-mapped for IPv4.
    #[inline(always)]
    pub(crate) fn peer(self) -> [u8; 16] {
        let mut peer = [0; 16];
        if load::<u16>(self.tcp, offset!(skc_family)) == AF_INET6 {
            store_address(&raw mut peer, in6(self.tcp, offset!(skc_v6_daddr)));
        } else {
            store_address(&raw mut peer, mapped(self.tcp, offset!(skc_daddr)));
        }
        peer
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        load(follow(self.tcp, offset!(skc_net)), offset!(net_inum))
    }

    /// Local port in host order, see [`TcpSock::store_ends`].
    #[inline(always)]
    pub(crate) fn local_port(self, connecting: bool) -> u16 {
        let port: u16 = load(self.tcp, offset!(skc_num));
        if port != 0 || connecting {
            return port;
        }
        // At close the kernel gives an ephemeral port back before it reports the state (inet_put_port).
        u16::from_be(load(self.tcp, offset!(inet_sport)))
    }

    /// Peer port in host order.
    #[inline(always)]
    pub(crate) fn peer_port(self) -> u16 {
        u16::from_be(load(self.tcp, offset!(skc_dport)))
    }

    /// `sk_err`.
    #[inline(always)]
    pub(crate) fn err(self) -> u16 {
        load::<u32>(self.tcp, offset!(sk_err)) as u16
    }

    /// cgroup v2 id, 0 where unknown.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        if offset!(sk_cgroup) == ABSENT || offset!(cgroup_kn) == ABSENT || offset!(kernfs_id) == ABSENT {
            return 0;
        }
        load(follow(follow(self.tcp, offset!(sk_cgroup)), offset!(cgroup_kn)), offset!(kernfs_id))
    }

    /// [`flag`]s of a transition to `new`.
    #[inline(always)]
    pub(crate) fn flags(self, new: u8, err: u16) -> u16 {
        let mut flags = 0;
        // A task in its own context takes the lock with `owned` (lock_sock); a softirq takes the spin lock only. So the
        // current task uses this socket, unless it is one that aborts other people's sockets (tcp_abort, `ss -K`).
        if load::<u32>(self.tcp, offset!(sk_lock_owned)) == 1 && !(new == state::CLOSE && err == ECONNABORTED) {
            flags |= flag::OWNER_CONTEXT;
        }
        let sk_flags = load::<u64>(self.tcp, offset!(skc_flags)) as u32;
        if sk_flags & knob!(sock_done) != 0 {
            flags |= flag::FIN_RECEIVED;
        }
        if sk_flags & knob!(sock_dead) != 0 {
            flags |= flag::ORPHAN;
        }
        flags
    }

    /// Writes what the kernel measured so far.
    #[inline(always)]
    pub(crate) fn store_measures(self, to: *mut Measures) {
        let tcp = self.tcp;
        // SAFETY: `to` is a slot for the whole struct; every field of it is written.
        unsafe {
            (&raw mut (*to).bytes_acked).write(load(tcp, offset!(bytes_acked)));
            (&raw mut (*to).bytes_received).write(load(tcp, offset!(bytes_received)));
            (&raw mut (*to).bytes_sent).write(load(tcp, offset!(bytes_sent)));
            (&raw mut (*to).bytes_retrans).write(load(tcp, offset!(bytes_retrans)));
            (&raw mut (*to).segs_out).write(load(tcp, offset!(segs_out)));
            (&raw mut (*to).segs_in).write(load(tcp, offset!(segs_in)));
            (&raw mut (*to).retrans).write(self.total_retrans());
            (&raw mut (*to).srtt_us).write(load::<u32>(tcp, offset!(srtt_us)) >> 3);
            (&raw mut (*to).mdev_us).write(load::<u32>(tcp, offset!(mdev_us)) >> 2);
            (&raw mut (*to).snd_cwnd).write(load(tcp, offset!(snd_cwnd)));
            (&raw mut (*to).snd_una).write(load(tcp, offset!(snd_una)));
            (&raw mut (*to).rcv_nxt).write(load(tcp, offset!(rcv_nxt)));
            (&raw mut (*to).snd_nxt).write(load(tcp, offset!(snd_nxt)));
            (&raw mut (*to).ooo).write(load(tcp, offset!(rcv_ooopack)));
        }
    }

    #[inline(always)]
    pub(crate) fn total_retrans(self) -> u32 {
        load(self.tcp, offset!(total_retrans))
    }

    /// `icsk_ca_state`, the low five bits of its byte in every kernel.
    #[inline(always)]
    pub(crate) fn ca_state(self) -> u8 {
        load::<u8>(self.tcp, offset!(ca_state)) & 0x1f
    }
}

/// `struct sk_buff *`, not NULL, of the TCP stack.
#[derive(Clone, Copy)]
pub(crate) struct Skb(pub(crate) *const u8);

impl Skb {
    /// A byte of the control buffer, which TCP uses as `struct tcp_skb_cb`.
    #[inline(always)]
    fn cb(self, at: u32) -> u8 {
        load(self.0, offset!(skb_cb) + at)
    }

    /// Segments in this skb (`tcp_skb_pcount`).
    #[inline(always)]
    pub(crate) fn segments(self) -> u32 {
        // Byte by byte: the verifier knows `cb` as an array of char.
        let at = offset!(cb_gso_segs);
        u32::from(u16::from_ne_bytes([self.cb(at), self.cb(at + 1)]))
    }

    /// Whether the segment carries SYN.
    #[inline(always)]
    pub(crate) fn is_syn(self) -> bool {
        const TCPHDR_SYN: u8 = 2;
        self.cb(offset!(cb_tcp_flags)) & TCPHDR_SYN != 0
    }

    /// Namespace of the device that the packet came in by, 0 where it has none any more.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        load(follow(follow(self.0, offset!(skb_dev)), offset!(dev_net)), offset!(net_inum))
    }
}

/// Writes pid (thread group) and command name of the current task.
#[inline(always)]
pub(crate) fn store_task(pid: *mut u32, comm: *mut [u8; 16]) {
    if offset!(task_tgid) == ABSENT || offset!(task_comm) == ABSENT {
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
        pid.write(load(task, offset!(task_tgid)));
        // The name of the process, like its pid; threads have names of their own.
        let leader = follow(task, offset!(task_leader));
        let comm = comm.cast::<u64>();
        comm.write(load(leader, offset!(task_comm)));
        comm.add(1).write(load(leader, offset!(task_comm) + 8));
    }
}
