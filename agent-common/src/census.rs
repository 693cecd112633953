//! What the iterators tell of sockets: sums for each group, a row for each listener, a record for each socket.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::{Endpoints, Measures};

/// Which of the kernel's structs a socket is.
pub mod form {
    /// `struct tcp_sock`.
    pub const FULL: u8 = 0;
    /// `struct inet_timewait_sock`: in TIME_WAIT, or in FIN_WAIT_2 without a holder.
    pub const TIMEWAIT: u8 = 1;
    /// `struct request_sock`: half open.
    pub const REQUEST: u8 = 2;
}

/// Rows that the maps of one walk hold.
pub mod limit {
    /// Groups; what finds no room is counted in [`super::stray::GROUPS`].
    pub const GROUPS: u32 = 65_536;
    /// Listening sockets, and as many ports.
    pub const LISTENERS: u32 = 16_384;
}

/// A bit for each port: that of port `p` is bit `p % 64` of word `p / 64`.
pub type PortBits = [u64; 1 << 10];

/// Slots of the STRAY array: sockets of a walk that could not be told.
pub mod stray {
    /// No room in GROUPS.
    pub const GROUPS: u32 = 0;
    /// No room for a listener or its port.
    pub const LISTENERS: u32 = 1;
    /// Of no struct that the program knows.
    pub const UNREADABLE: u32 = 2;
    /// Length of the array.
    pub const SLOTS: u32 = 4;
}

/// Sockets that are counted together. 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GroupKey {
    /// cgroup v2 id; of a half-open socket that of its listener, 0 where unknown (minisocks in TIME_WAIT have none).
    pub cgroup: u64,
    /// Network namespace (inode number).
    pub netns: u32,
    /// Local port if something listens on it there, else 0.
    pub port: u16,
    /// State, see [`crate::event::state`]; of a minisock in TIME_WAIT its `tw_substate`.
    pub state: u8,
    /// See [`form`].
    pub form: u8,
    /// `AF_INET` or `AF_INET6`: what it speaks, so that a v4-mapped connection counts as IPv4.
    pub family: u16,
    /// Zero.
    pub pad: [u8; 6],
}

/// Sums of a group. 24 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Group {
    /// Sockets.
    pub sockets: u64,
    /// Bytes received that nobody has read yet (`rcv_nxt - copied_seq`); none for listeners.
    pub receive_queue: u64,
    /// Bytes written that the peer has not acknowledged (`write_seq - snd_una`); none for listeners.
    pub send_queue: u64,
}

/// A port that something listens on. 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortKey {
    /// Network namespace.
    pub netns: u32,
    /// Port, host order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}

/// One listening socket. The map is keyed by the address of its `struct sock`, which does not move during a walk. 72 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// Socket cookie, 0 where nobody has asked for one.
    pub cookie: u64,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// Inode of the socket file, 0 where no process holds it.
    pub inode: u64,
    /// When the oldest of its half-open sockets sent its first SYN-ACK, `CLOCK_MONOTONIC` microseconds; 0 for none.
    pub oldest_us: u64,
    /// Address that it is bound to, IPv4 as v4-mapped.
    pub local: [u8; 16],
    /// Network namespace.
    pub netns: u32,
    /// Connections that wait for accept (`sk_ack_backlog`).
    pub accept_queue: u32,
    /// Most of them (`sk_max_ack_backlog`).
    pub accept_limit: u32,
    /// Half-open sockets by its own account (`icsk_accept_queue.qlen`).
    pub half_open: u32,
    /// Owner of the socket file.
    pub uid: u32,
    /// Port, host order.
    pub port: u16,
    /// `AF_INET` or `AF_INET6` of the socket.
    pub family: u16,
}

/// Which timer of a socket runs: what `ss -o` shows.
pub mod timer {
    /// None.
    pub const NONE: u8 = 0;
    /// Retransmission (`on`), tail loss probe and reordering timer included.
    pub const RETRANSMIT: u8 = 1;
    /// Keepalive, and the end of FIN_WAIT_2.
    pub const KEEPALIVE: u8 = 2;
    /// End of TIME_WAIT.
    pub const TIME_WAIT: u8 = 3;
    /// Zero-window probe (`persist`).
    pub const PROBE: u8 = 4;
}

/// One socket. 200 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Socket {
    /// When it was looked at, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// The kernel's clock of timers at that moment (`bpf_jiffies64`).
    pub jiffies: u64,
    /// The connection. `id` is the cookie, 0 where nobody has asked for one; `family` as in the kernel.
    pub ends: Endpoints,
    /// cgroup v2 id, 0 where unknown.
    pub cgroup: u64,
    /// Inode of the socket file, 0 where no process holds it.
    pub inode: u64,
    /// User that made the socket.
    pub uid: u32,
    /// Bytes (or, of a listener, connections) that wait to be read.
    pub receive_queue: u32,
    /// Bytes that wait to be acknowledged; of a listener the most connections that may wait.
    pub send_queue: u32,
    /// Jiffies until the timer expires; negative if it is late.
    pub timer_left: i32,
    /// Jiffies since data was sent last.
    pub sent_ago: u32,
    /// Jiffies since data was received last.
    pub received_ago: u32,
    /// State, see [`crate::event::state`]; of a minisock in TIME_WAIT its `tw_substate`.
    pub state: u8,
    /// See [`form`].
    pub form: u8,
    /// See [`timer`].
    pub timer: u8,
    /// Retransmissions without an answer (`icsk_retransmits`, `num_timeout` of a request).
    pub retransmits: u8,
    /// Zero-window probes without an answer (`icsk_probes_out`).
    pub probes: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// The kernel's measures, zero for minisocks and listeners.
    pub measures: Measures,
}

/// A process that holds a socket. 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Holder {
    /// Inode of the socket file.
    pub inode: u64,
    /// Network namespace of the socket.
    pub netns: u32,
    /// Process (thread group), as the kernel's first pid namespace knows it.
    pub pid: u32,
    /// Command name of the process: 16 bytes, ended by NUL.
    pub comm: [u64; 2],
    /// Its file descriptor there.
    pub fd: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = {
    assert!(size_of::<Holder>() == 40);
    assert!(size_of::<GroupKey>() == 24);
    assert!(size_of::<Group>() == 24);
    assert!(size_of::<PortKey>() == 8);
    assert!(8 * size_of::<PortBits>() == 1 << 16);
    assert!(size_of::<Listener>() == 72);
    assert!(size_of::<Socket>() == 200);
};
