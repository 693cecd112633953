//! The record of a classic tracepoint, read by the layout that its format file gives.
//!
//! It names the socket, out of which everything else can be read where the kernel's types are known. Where they are not,
//! the record is all there is.

use synfin_common::knobs::ABSENT;
use synfin_common::layout::Layout;

use crate::maps::read;
use crate::read::Probed;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Offsets of `struct sockaddr_in` and `struct sockaddr_in6`.
mod sockaddr {
    pub(super) const PORT: u32 = 2;
    pub(super) const V4: u32 = 4;
    pub(super) const V6: u32 = 8;
}

/// A record with its layout.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    /// The program's context. No direct loads: verifiers before 6.8 refuse a context pointer with an offset in a register,
    /// and some 4-byte addresses are not aligned.
    at: *const u8,
    layout: &'static Layout,
}

/// An offset in a record's layout.
macro_rules! at {
    ($record:ident.$field:ident) => {
        read(&raw const $record.layout.$field)
    };
}

impl Record {
    #[inline(always)]
    pub(crate) fn new(at: *const u8, layout: &'static Layout) -> Self {
        Self { at, layout }
    }

    #[inline(always)]
    pub(crate) fn sock(self) -> *const u8 {
        Probed::pointer_at(self.at, at!(self.skaddr))
    }

    #[inline(always)]
    pub(crate) fn skb(self) -> *const u8 {
        Probed::pointer_at(self.at, at!(self.skbaddr))
    }

    #[inline(always)]
    pub(crate) fn old(self) -> u8 {
        Probed::at::<u32>(self.at, at!(self.oldstate)) as u8
    }

    #[inline(always)]
    pub(crate) fn new_state(self) -> u8 {
        Probed::at::<u32>(self.at, at!(self.newstate)) as u8
    }

    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        Probed::at::<u32>(self.at, at!(self.state)) as u8
    }

    /// Reason of a reset, `none` where the record has none.
    #[inline(always)]
    pub(crate) fn reason(self, none: u32) -> u32 {
        match at!(self.reason) {
            ABSENT => none,
            offset => Probed::at(self.at, offset),
        }
    }

    /// IP protocol; only the tracepoints of all protocols have it.
    #[inline(always)]
    pub(crate) fn protocol(self) -> Option<u16> {
        match at!(self.protocol) {
            ABSENT => None,
            offset => Some(Probed::at(self.at, offset)),
        }
    }

    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        if at!(self.family) != ABSENT {
            return Probed::at(self.at, at!(self.family));
        }
        if at!(self.saddr) != ABSENT {
            return Probed::at(self.at, at!(self.saddr)); // the first field of any sockaddr
        }
        // 5.10 names none, but writes the addresses of an IPv4 socket as v4-mapped ones.
        match self.local() {
            [0, 0, prefix, _] if prefix == MAPPED => AF_INET,
            _ => AF_INET6,
        }
    }

    #[inline(always)]
    pub(crate) fn local(self) -> [u32; 4] {
        self.address(at!(self.saddr_v6), at!(self.saddr))
    }

    #[inline(always)]
    pub(crate) fn peer(self) -> [u32; 4] {
        self.address(at!(self.daddr_v6), at!(self.daddr))
    }

    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        self.port(at!(self.sport), at!(self.saddr))
    }

    #[inline(always)]
    pub(crate) fn peer_port(self) -> u16 {
        self.port(at!(self.dport), at!(self.daddr))
    }

    #[inline(always)]
    fn address(self, v6: u32, sockaddr: u32) -> [u32; 4] {
        if v6 != ABSENT || sockaddr == ABSENT {
            return Probed::at(self.at, v6);
        }
        if Probed::at::<u16>(self.at, sockaddr) == AF_INET6 {
            Probed::at(self.at, sockaddr + sockaddr::V6)
        } else {
            mapped(Probed::at(self.at, sockaddr + sockaddr::V4))
        }
    }

    #[inline(always)]
    fn port(self, port: u32, sockaddr: u32) -> u16 {
        if port != ABSENT || sockaddr == ABSENT {
            return Probed::at(self.at, port);
        }
        u16::from_be(Probed::at(self.at, sockaddr + sockaddr::PORT))
    }
}

/// Third word of a v4-mapped address.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// An IPv4 address (network order) as v4-mapped IPv6.
#[inline(always)]
pub(crate) fn mapped(v4: u32) -> [u32; 4] {
    [0, 0, MAPPED, v4]
}
