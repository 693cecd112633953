//! Facts at the rate of packets: summed up in the kernel, never sent through the ring, so that a flood cannot push out
//! what matters (DESIGN.md §2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::kind;

/// What a [`TallyKey`] counts.
pub mod tallied {
    /// SYN-ACKs retransmitted by a listener (`tcp:tcp_retransmit_synack`); `port` is the listener's.
    pub const SYNACK_RETRANSMIT: u16 = 1;
    /// Resets sent in answer to a segment that has no full socket (`tcp:tcp_send_reset`); `reason` is the kernel's.
    pub const RESET_WITHOUT_SOCKET: u16 = 2;
}

/// Key of the TALLY map. The row whose fields but `what` are all zero takes what found no room in the full map, so that
/// sums stay exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TallyKey {
    /// Network namespace (inode number).
    pub netns: u32,
    /// `enum sk_rst_reason`, or [`crate::event::NO_REASON`].
    pub reason: u32,
    /// See [`tallied`].
    pub what: u16,
    /// Listener's port, host order.
    pub port: u16,
    /// `AF_INET`, `AF_INET6`, 0 where unknown.
    pub family: u16,
    /// Zero.
    pub pad: u16,
}

/// Rows that the TALLY map holds by default.
pub const TALLY_ROWS: u32 = 8192;

/// Slots of the per-CPU LOST array: one for each record kind (reservation in the ring failed), then these.
pub mod lost {
    use super::kind;

    /// A socket whose layout the program could not read as a TCP socket.
    pub const UNREADABLE: u32 = kind::LIMIT as u32;
    /// A tally that went to the overflow row because the map was full.
    pub const TALLY_OVERFLOW: u32 = kind::LIMIT as u32 + 1;
    /// Length of the array.
    pub const SLOTS: u32 = kind::LIMIT as u32 + 8;
}

const _: () = assert!(size_of::<TallyKey>() == 16);
