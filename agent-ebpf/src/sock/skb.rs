//! A packet of the TCP stack.

use core::marker::PhantomData;

use synfin_common::event::state;

use super::netns;
use crate::field::field;
use crate::read::Read as _;
use crate::rung::Rung;

/// `struct sk_buff *`, not NULL, of the TCP stack.
#[derive(Clone, Copy)]
pub(crate) struct Skb<R> {
    at: *const u8,
    rung: PhantomData<R>,
}

impl<R: Rung> Skb<R> {
    #[inline(always)]
    pub(crate) fn new(at: *const u8, _rung: R) -> Self {
        Self { at, rung: PhantomData }
    }

    /// Segments in this skb (`tcp_skb_pcount`); 1 where unknown.
    #[inline(always)]
    pub(crate) fn segments(self) -> u32 {
        let field = field!(cb_gso_segs);
        if field.is_present() { u32::from(u16::from_ne_bytes(R::Kernel::pair(self.at, field))) } else { 1 }
    }

    /// Whether the segment, sent by a socket in `state`, carries SYN.
    #[inline(always)]
    pub(crate) fn is_syn(self, state: u8) -> bool {
        const TCPHDR_SYN: u8 = 2;
        let field = field!(cb_tcp_flags);
        if field.is_present() {
            R::Kernel::load::<u8, _>(self.at, field) & TCPHDR_SYN != 0
        } else {
            state == state::SYN_SENT
        }
    }

    /// Namespace of the device that the packet came in by, 0 where it has none any more.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        let dev = field!(skb_dev);
        if !dev.is_present() {
            return 0;
        }
        netns::<R::Kernel, _>(R::Kernel::follow(self.at, dev), field!(dev_net))
    }
}
