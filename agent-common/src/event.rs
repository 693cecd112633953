//! Records: facts at the rate of connections (state changes, retransmits, resets, ends of sockets).
//!
//! Each record starts with a [`Header`] whose `kind` says which struct it is. Kinds have different sizes, so that none
//! pays for fields that it does not carry. docs/EVENTS.md describes the fields for readers of the data.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of everything in this crate. The loader hands it to the programs, which put it into every record; a reader
/// refuses a record of another version.
pub const WIRE_VERSION: u8 = 1;

/// Numbers of the record kinds. Never reuse one; leave gaps for relatives.
pub mod kind {
    /// [`super::Transition`].
    pub const TRANSITION: u16 = 10;
    /// [`super::TransitionDetail`]: a transition to ESTABLISHED or CLOSE.
    pub const TRANSITION_DETAIL: u16 = 11;
    /// [`super::Retransmit`].
    pub const RETRANSMIT: u16 = 20;
    /// [`super::Reset`], sent by this host for a known socket.
    pub const RESET_SENT: u16 = 30;
    /// [`super::Reset`], received.
    pub const RESET_RECEIVED: u16 = 31;
    /// [`super::Destroy`].
    pub const DESTROY: u16 = 40;
    /// One more than the largest kind: the length of arrays indexed by kind.
    pub const LIMIT: u16 = 64;
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// The task that was current holds the socket's lock in its own context (`sk_lock.owned`), so it is a user of the
    /// socket: pid and comm may be trusted. Never set for a change that a softirq made, nor for an abort by another
    /// task (`ss -K`).
    pub const OWNER_CONTEXT: u16 = 1 << 0;
    /// `id` is a socket cookie. Without it `id` is 0 and the socket is known by `sock` alone: an embryo at
    /// LISTEN → SYN_RECV, whose cookie the kernel overwrites afterwards (`inet_csk_clone_lock`).
    pub const COOKIE: u16 = 1 << 1;
    /// `SOCK_DONE`: the peer's FIN has been received (`tcp_fin`).
    pub const FIN_RECEIVED: u16 = 1 << 2;
    /// `SOCK_DEAD`: the socket is an orphan, no process holds it (`sock_orphan`).
    pub const ORPHAN: u16 = 1 << 3;
    /// The retransmitted segment carries SYN.
    pub const SYN: u16 = 1 << 4;
    /// Neither `sk_err` nor the flags above could be read, because the kernel's types are not known.
    pub const BLIND: u16 = 1 << 5;
}

/// Kernel states (`include/net/tcp_states.h`), as they appear in `old`, `new` and `state`.
pub mod state {
    /// ESTABLISHED.
    pub const ESTABLISHED: u8 = 1;
    /// SYN-SENT.
    pub const SYN_SENT: u8 = 2;
    /// SYN-RECEIVED of a full socket.
    pub const SYN_RECV: u8 = 3;
    /// FIN-WAIT-1.
    pub const FIN_WAIT1: u8 = 4;
    /// FIN-WAIT-2.
    pub const FIN_WAIT2: u8 = 5;
    /// TIME-WAIT: only minisocks, never seen in a transition.
    pub const TIME_WAIT: u8 = 6;
    /// CLOSED.
    pub const CLOSE: u8 = 7;
    /// CLOSE-WAIT.
    pub const CLOSE_WAIT: u8 = 8;
    /// LAST-ACK.
    pub const LAST_ACK: u8 = 9;
    /// LISTEN.
    pub const LISTEN: u8 = 10;
    /// CLOSING.
    pub const CLOSING: u8 = 11;
    /// SYN-RECEIVED of a request socket: never seen in a transition.
    pub const NEW_SYN_RECV: u8 = 12;
}

/// Start of every record. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// `CLOCK_MONOTONIC`, nanoseconds (`bpf_ktime_get_ns`). First in every record: lanes and ring are merged by it.
    pub time_ns: u64,
    /// See [`kind`].
    pub kind: u16,
    /// See [`flag`].
    pub flags: u16,
    /// [`WIRE_VERSION`] of the writer.
    pub version: u8,
    /// Zero.
    pub pad: u8,
    /// CPU that wrote the record.
    pub cpu: u16,
}

/// Who the two ends are, as far as the kernel knows at that moment. 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Endpoints {
    /// Socket cookie (`sock_gen_cookie`), 0 where [`flag::COOKIE`] is missing.
    pub id: u64,
    /// Address of `struct sock`. Links two neighbouring records of one socket; never an identity.
    pub sock: u64,
    /// Local address, IPv4 as v4-mapped.
    pub local: [u8; 16],
    /// Peer address, IPv4 as v4-mapped.
    pub peer: [u8; 16],
    /// Local port, host order. At SYN_SENT 0 unless bound: the kernel chooses it afterwards.
    pub local_port: u16,
    /// Peer port, host order.
    pub peer_port: u16,
    /// Network namespace: inode number of /proc/PID/ns/net.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6` of the socket.
    pub family: u16,
    /// Zero.
    pub pad: [u8; 6],
}

/// A change of state (`sock:inet_sock_set_state`). 112 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Transition {
    /// Kind [`kind::TRANSITION`], or [`kind::TRANSITION_DETAIL`] within [`TransitionDetail`].
    pub header: Header,
    /// The connection.
    pub ends: Endpoints,
    /// cgroup v2 id of the socket (inode of its directory), right in softirq too.
    pub cgroup: u64,
    /// Process (thread group) that was current. Only with [`flag::OWNER_CONTEXT`] does it own the socket.
    pub pid: u32,
    /// State left, see [`state`].
    pub old: u8,
    /// State entered.
    pub new: u8,
    /// `sk_err`: errno that the socket carries, 0 for none.
    pub err: u16,
    /// Command name of that process (its thread group leader), NUL-padded.
    pub comm: [u8; 16],
}

/// What the kernel measured of a connection so far. 72 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Measures {
    /// Bytes acknowledged by the peer (`tcp_sock.bytes_acked`; counts the SYN of the opener, as the kernel does).
    pub bytes_acked: u64,
    /// Bytes received in order (`tcp_sock.bytes_received`).
    pub bytes_received: u64,
    /// Payload bytes sent, retransmissions included (`tcp_sock.bytes_sent`).
    pub bytes_sent: u64,
    /// Payload bytes retransmitted (`tcp_sock.bytes_retrans`).
    pub bytes_retrans: u64,
    /// Segments sent (`tcp_sock.segs_out`).
    pub segs_out: u32,
    /// Segments received (`tcp_sock.segs_in`).
    pub segs_in: u32,
    /// Segments retransmitted (`tcp_sock.total_retrans`).
    pub retrans: u32,
    /// Smoothed round-trip time in microseconds (`tcp_sock.srtt_us` / 8).
    pub srtt_us: u32,
    /// Mean deviation of the round-trip time in microseconds (`tcp_sock.mdev_us` / 4).
    pub mdev_us: u32,
    /// Congestion window in segments (`tcp_sock.snd_cwnd`).
    pub snd_cwnd: u32,
    /// First unacknowledged sequence number sent (`tcp_sock.snd_una`). At ESTABLISHED the peer's `rcv_nxt`.
    pub snd_una: u32,
    /// Next sequence number expected (`tcp_sock.rcv_nxt`). At ESTABLISHED the peer's `snd_una`.
    pub rcv_nxt: u32,
    /// Next sequence number to send (`tcp_sock.snd_nxt`).
    pub snd_nxt: u32,
    /// Segments that arrived out of order (`tcp_sock.rcv_ooopack`).
    pub ooo: u32,
}

/// A transition to ESTABLISHED or CLOSE, with the kernel's measures. 184 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TransitionDetail {
    /// The transition.
    pub transition: Transition,
    /// What the kernel measured until then.
    pub measures: Measures,
}

/// [`Retransmit::ca_state`] where the kernel's types are not known.
pub const UNKNOWN_CA_STATE: u8 = 0xff;

/// A retransmitted skb (`tcp:tcp_retransmit_skb`). 96 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Retransmit {
    /// Kind [`kind::RETRANSMIT`].
    pub header: Header,
    /// The connection.
    pub ends: Endpoints,
    /// Segments in the skb (`tcp_skb_pcount`): what the kernel adds to `RetransSegs`.
    pub segments: u32,
    /// `tcp_sock.total_retrans` after this one: shows retransmits whose record was lost.
    pub total: u32,
    /// State of the socket, see [`state`].
    pub state: u8,
    /// `icsk_ca_state`: 0 open, 1 disorder, 2 CWR, 3 recovery (fast retransmit), 4 loss (timeout); [`UNKNOWN_CA_STATE`].
    pub ca_state: u8,
    /// Zero.
    pub pad: [u8; 6],
}

/// A RST sent for a socket (`tcp:tcp_send_reset`) or received (`tcp:tcp_receive_reset`). 96 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reset {
    /// Kind [`kind::RESET_SENT`] or [`kind::RESET_RECEIVED`].
    pub header: Header,
    /// The connection.
    pub ends: Endpoints,
    /// `enum sk_rst_reason` of this kernel for a sent one; [`NO_REASON`] where the kernel has none.
    pub reason: u32,
    /// State of the socket, see [`state`].
    pub state: u8,
    /// Zero.
    pub pad: [u8; 11],
}

/// [`Reset::reason`] of a kernel that gives no reason, and of a received reset.
pub const NO_REASON: u32 = u32::MAX;

/// End of a socket (`tcp:tcp_destroy_sock`): no record of it follows. 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Destroy {
    /// Kind [`kind::DESTROY`].
    pub header: Header,
    /// Socket cookie.
    pub id: u64,
    /// Address of `struct sock`.
    pub sock: u64,
    /// Network namespace.
    pub netns: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<Endpoints>() == 64);
    assert!(size_of::<Transition>() == 112);
    assert!(size_of::<Measures>() == 72);
    assert!(size_of::<TransitionDetail>() == 184);
    assert!(size_of::<Retransmit>() == 96);
    assert!(size_of::<Reset>() == 96);
    assert!(size_of::<Destroy>() == 40);
    assert!(align_of::<TransitionDetail>() == 8 && align_of::<Retransmit>() == 8 && align_of::<Destroy>() == 8);
    assert!(core::mem::offset_of!(Header, kind) == 8);
};
