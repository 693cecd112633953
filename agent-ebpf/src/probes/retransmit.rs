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
    let local_port = tcp.local_port(sock);
    if !admit::connection(sock, local_port) {
        return 0;
    }
    let syn = if skb.is_syn() { flag::SYN } else { 0 };
    let cookie = sock.cookie();
    emit::record(kind::RETRANSMIT, flag::COOKIE | syn, |to: *mut Retransmit| {
        // SAFETY: a slot for the whole record; every field behind the header is written.
        unsafe {
            sock.store_ends(&raw mut (*to).ends, cookie, local_port);
            (&raw mut (*to).segments).write(skb.segments());
            (&raw mut (*to).total).write(tcp.total_retrans());
            (&raw mut (*to).state).write(sock.state());
            (&raw mut (*to).ca_state).write(tcp.ca_state());
            let pad = (&raw mut (*to).pad).cast::<u16>();
            pad.write(0);
            pad.add(1).cast::<u32>().write(0);
        }
    });
    0
}
