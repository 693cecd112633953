//! Layouts of classic tracepoints: where each field lies in the record that the kernel hands to a program. Set by the
//! loader from the kernel's own format files before load, constants to the verifier afterwards.
//!
//! They differ between kernels (5.10 has no `family` in most of them, `tcp_send_reset` has two shapes), so that each
//! field may be [`ABSENT`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::knobs::ABSENT;

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordField {
    /// Its name in the format file.
    pub name: &'static str,
    /// Its size in bytes: one of this name and another size is another field.
    pub size: u32,
}

/// Declares [`Layout`] and, in the same order, [`RECORD_FIELDS`].
macro_rules! layout {
    ($($(#[$doc:meta])* $slot:ident: $name:literal, $size:literal;)*) => {
        /// Offsets in the record of one tracepoint; [`ABSENT`] where it has no such field.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Layout {
            $($(#[$doc])* pub $slot: u32,)*
        }

        /// The fields of [`Layout`], in its order.
        pub const RECORD_FIELDS: &[RecordField] = &[$(RecordField { name: $name, size: $size },)*];

        impl Layout {
            /// No field known: what the object holds before the loader fills it.
            pub const NONE: Self = Self { $($slot: ABSENT,)* };
        }
    };
}

layout! {
    /// Address of `struct sock`.
    skaddr: "skaddr", 8;
    /// Address of `struct sk_buff`.
    skbaddr: "skbaddr", 8;
    /// State left.
    oldstate: "oldstate", 4;
    /// State entered.
    newstate: "newstate", 4;
    /// State of the socket.
    state: "state", 4;
    /// Reason of a reset.
    reason: "reason", 4;
    /// IP protocol.
    protocol: "protocol", 2;
    /// Address family.
    family: "family", 2;
    /// Local port, host order.
    sport: "sport", 2;
    /// Peer port, host order.
    dport: "dport", 2;
    /// Local address, IPv4 as v4-mapped.
    saddr_v6: "saddr_v6", 16;
    /// Peer address, IPv4 as v4-mapped.
    daddr_v6: "daddr_v6", 16;
    /// Local address and port as a `struct sockaddr_in6`, which may be a `sockaddr_in`.
    saddr: "saddr", 28;
    /// Peer address and port, likewise.
    daddr: "daddr", 28;
}

/// Declares [`Layouts`] and, in the same order, [`TRACEPOINTS`].
macro_rules! layouts {
    ($($name:ident: $category:literal;)*) => {
        /// The layout of each tracepoint.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Layouts {
            $(#[doc = concat!("`", $category, ":", stringify!($name), "`")] pub $name: Layout,)*
        }

        /// Category and name of the tracepoints of [`Layouts`], in its order.
        pub const TRACEPOINTS: &[(&str, &str)] = &[$(($category, stringify!($name)),)*];

        impl Layouts {
            /// No layout known.
            pub const NONE: Self = Self { $($name: Layout::NONE,)* };
        }
    };
}

layouts! {
    inet_sock_set_state: "sock";
    tcp_destroy_sock: "tcp";
    tcp_send_reset: "tcp";
    tcp_receive_reset: "tcp";
    tcp_retransmit_synack: "tcp";
    tcp_retransmit_skb: "tcp";
}

const _: () = assert!(size_of::<Layout>() == 4 * RECORD_FIELDS.len());
const _: () = assert!(size_of::<Layouts>() == size_of::<Layout>() * TRACEPOINTS.len());
