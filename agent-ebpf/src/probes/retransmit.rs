//! `tcp:tcp_retransmit_skb`: an skb was sent again. From 6.17 also when sending it failed, as RetransSegs counts; before,
//! failed ones show in `total` only.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use synfin_common::event::{Retransmit, flag, kind};

use crate::sock::{Skb, Sock};
use crate::{admit, emit};

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub(crate) fn retransmit(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg::<*const u8>(0));
    let skb = Skb(ctx.arg::<*const u8>(1));
    let Some(tcp) = sock.tcp() else { return 0 };
    if !admit::connection(tcp, false) {
        return 0;
    }
    let syn = if skb.is_syn() { flag::SYN } else { 0 };
    let cookie = sock.cookie();
    emit::record(kind::RETRANSMIT, flag::COOKIE | syn, |to: *mut Retransmit| {
        // SAFETY: a slot for the whole record; every field behind the header is written.
        unsafe {
            tcp.store_ends(&raw mut (*to).ends, cookie, false);
            (&raw mut (*to).segments).write(skb.segments());
            (&raw mut (*to).total).write(tcp.total_retrans());
            (&raw mut (*to).state).write(sock.state());
            (&raw mut (*to).ca_state).write(tcp.ca_state());
            (&raw mut (*to).pad).write([0; 6]);
        }
    });
    0
}
