//! Globals of the programs: set by the loader before load, constants to the verifier afterwards, so that a filter that
//! is off costs nothing and a field is one typed load at a constant offset.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// The programs load a field by an instruction whose offset is this, plus the field's index in [`FIELDS`] shifted by
/// [`FIELD_SHIFT`], plus the bytes into the field. The loader puts the real offset there. No other load has an offset
/// this large: contexts, map values and the stack are smaller.
pub const MAGIC_OFFSET: usize = 0x4000;

/// The programs ask for a field by a move of this plus the field's index; the loader puts 1 there, or 0.
pub const MAGIC_PRESENCE: i32 = 0x5359_4e00;

/// See [`MAGIC_OFFSET`].
pub const FIELD_SHIFT: u32 = 4;

/// A kernel field that the programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Struct that the offset counts from.
    pub root: &'static str,
    /// Members from there on, separated by dots.
    pub path: &'static str,
    /// Size in bytes that the programs load; a field of another size is another field.
    pub size: u32,
    /// Without this field the programs cannot say whose connection a socket is; the others read as 0, unknown, where they
    /// are [`ABSENT`]. A classic tracepoint says it in its record.
    pub required: bool,
}

/// Declares [`Offsets`] and, in the same order, [`FIELDS`]: one line for each kernel field, read by both sides.
macro_rules! offsets {
    ($($name:ident: $root:literal . $path:literal, $size:literal, $required:ident;)*) => {
        /// Offsets of kernel fields in bytes; [`ABSENT`] where the kernel has no such field. The loader fills it from the
        /// running kernel's BTF.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Offsets {
            $(#[doc = concat!("`", $root, ".", $path, "`")] pub $name: u32,)*
        }

        /// The fields of [`Offsets`], in its order.
        pub const FIELDS: &[Field] = &[
            $(Field { root: $root, path: $path, size: $size, required: is_required!($required) },)*
        ];

        impl Offsets {
            /// No field known: what the object holds before the loader fills it.
            pub const NONE: Self = Self { $($name: ABSENT,)* };
        }
    };
}

macro_rules! is_required {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}

offsets! {
    skc_daddr: "sock_common"."skc_daddr", 4, required;
    skc_rcv_saddr: "sock_common"."skc_rcv_saddr", 4, required;
    skc_dport: "sock_common"."skc_dport", 2, required;
    skc_num: "sock_common"."skc_num", 2, required;
    skc_family: "sock_common"."skc_family", 2, required;
    skc_state: "sock_common"."skc_state", 1, required;
    skc_net: "sock_common"."skc_net.net", 8, optional;
    skc_v6_daddr: "sock_common"."skc_v6_daddr", 16, optional;
    skc_v6_rcv_saddr: "sock_common"."skc_v6_rcv_saddr", 16, optional;
    skc_cookie: "sock_common"."skc_cookie", 8, optional;
    skc_flags: "sock_common"."skc_flags", 8, optional;
    sk_err: "sock"."sk_err", 4, optional;
    sk_protocol: "sock"."sk_protocol", 2, required;
    sk_lock_owned: "sock"."sk_lock.owned", 4, optional;
    sk_cgroup: "sock"."sk_cgrp_data.cgroup", 8, optional;
    sk_cgroup_val: "sock"."sk_cgrp_data.val", 8, optional;
    cgroup_kn: "cgroup"."kn", 8, optional;
    kernfs_id: "kernfs_node"."id", 8, optional;
    net_inum: "net"."ns.inum", 4, optional;
    inet_sport: "inet_sock"."inet_sport", 2, required;
    ca_state: "inet_connection_sock"."icsk_ca_state", 1, optional;
    srtt_us: "tcp_sock"."srtt_us", 4, optional;
    mdev_us: "tcp_sock"."mdev_us", 4, optional;
    bytes_acked: "tcp_sock"."bytes_acked", 8, optional;
    bytes_received: "tcp_sock"."bytes_received", 8, optional;
    bytes_sent: "tcp_sock"."bytes_sent", 8, optional;
    bytes_retrans: "tcp_sock"."bytes_retrans", 8, optional;
    segs_out: "tcp_sock"."segs_out", 4, optional;
    segs_in: "tcp_sock"."segs_in", 4, optional;
    total_retrans: "tcp_sock"."total_retrans", 4, optional;
    snd_cwnd: "tcp_sock"."snd_cwnd", 4, optional;
    snd_una: "tcp_sock"."snd_una", 4, optional;
    rcv_nxt: "tcp_sock"."rcv_nxt", 4, optional;
    snd_nxt: "tcp_sock"."snd_nxt", 4, optional;
    rcv_ooopack: "tcp_sock"."rcv_ooopack", 4, optional;
    skb_cb: "sk_buff"."cb", 48, optional;
    skb_dev: "sk_buff"."dev", 8, optional;
    cb_gso_segs: "tcp_skb_cb"."tcp_gso_segs", 2, optional;
    cb_tcp_flags: "tcp_skb_cb"."tcp_flags", 0, optional;
    dev_net: "net_device"."nd_net.net", 8, optional;
    task_tgid: "task_struct"."tgid", 4, optional;
    task_leader: "task_struct"."group_leader", 8, optional;
    task_comm: "task_struct"."comm", 16, optional;
    sk_socket: "sock"."sk_socket", 8, optional;
    socket_sk: "socket"."sk", 8, optional;
    sk_ack_backlog: "sock"."sk_ack_backlog", 4, optional;
    sk_max_ack_backlog: "sock"."sk_max_ack_backlog", 4, optional;
    icsk_qlen: "inet_connection_sock"."icsk_accept_queue.qlen", 4, optional;
    copied_seq: "tcp_sock"."copied_seq", 4, optional;
    write_seq: "tcp_sock"."write_seq", 4, optional;
    lsndtime: "tcp_sock"."lsndtime", 4, optional;
    lrcvtime: "inet_connection_sock"."icsk_ack.lrcvtime", 4, optional;
    icsk_pending: "inet_connection_sock"."icsk_pending", 1, optional;
    icsk_retransmits: "inet_connection_sock"."icsk_retransmits", 1, optional;
    icsk_probes_out: "inet_connection_sock"."icsk_probes_out", 1, optional;
    icsk_timeout: "inet_connection_sock"."icsk_timeout", 8, optional;
    icsk_expires: "inet_connection_sock"."icsk_retransmit_timer.expires", 8, optional;
    rexmit_expires: "sock"."tcp_retransmit_timer.expires", 8, optional;
    sk_expires: "sock"."sk_timer.expires", 8, optional;
    sk_timer_pprev: "sock"."sk_timer.entry.pprev", 8, optional;
    keepalive_expires: "inet_connection_sock"."icsk_keepalive_timer.expires", 8, optional;
    keepalive_pprev: "inet_connection_sock"."icsk_keepalive_timer.entry.pprev", 8, optional;
    inode_ino: "socket_alloc"."vfs_inode.i_ino", 8, optional;
    tw_substate: "inet_timewait_sock"."tw_substate", 1, optional;
    tw_expires: "inet_timewait_sock"."tw_timer.expires", 8, optional;
    req_listener: "request_sock"."__req_common.skc_listener", 8, optional;
    num_retrans: "request_sock"."num_retrans", 1, optional;
    rsk_expires: "request_sock"."rsk_timer.expires", 8, optional;
    snt_synack: "tcp_request_sock"."snt_synack", 8, optional;
}

/// Bits of [`Knobs::filters`]: which filters are on.
pub mod filter {
    /// Only namespaces in the map FILTER_NETNS.
    pub const NETNS: u32 = 1 << 0;
    /// Only sockets whose local or peer port is in the map FILTER_PORTS.
    pub const PORTS: u32 = 1 << 1;
    /// Only peers inside the networks of the map FILTER_PEERS.
    pub const PEERS: u32 = 1 << 2;
    /// No connections whose peer is a loopback address (127.0.0.0/8, ::1).
    pub const NO_LOOPBACK: u32 = 1 << 3;
    /// No connections with peers in the networks of the map FILTER_EXCLUDED.
    pub const EXCLUDED: u32 = 1 << 4;
    /// Only the namespace in the one element of the array FILTER_ONE_NETNS: a tenth of the cost of a look-up in a hash.
    pub const ONE_NETNS: u32 = 1 << 5;
}

/// Switches of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Knobs {
    /// See [`filter`].
    pub filters: u32,
    /// 1 where `tcp_send_reset` has a third argument, the reason. A program that touches an argument that is not there
    /// loads and then cannot be attached.
    pub reset_has_reason: u32,
    /// `1 << SOCK_DEAD` of this kernel's `enum sock_flags`.
    pub sock_dead: u32,
    /// `1 << SOCK_DONE` of this kernel's `enum sock_flags`.
    pub sock_done: u32,
    /// Slots of each lane, a power of two; 0 where there are no lanes, see [`crate::lane`].
    pub lane_slots: u32,
}

impl Knobs {
    /// Everything off.
    pub const NONE: Self = Self { filters: 0, reset_has_reason: 0, sock_dead: 0, sock_done: 0, lane_slots: 0 };
}

const _: () = {
    assert!(size_of::<Offsets>() == 4 * FIELDS.len());
    // The offset of an instruction is a signed 16-bit number.
    assert!(MAGIC_OFFSET + (FIELDS.len() << FIELD_SHIFT) <= 0x7fff);
};
