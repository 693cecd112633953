//! `tcp:tcp_retransmit_skb`: an skb was sent again. From 6.17 also when sending it failed, as RetransSegs counts; before,
//! failed ones show in `total` only.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use synfin_common::event::{Retransmit, flag, kind};

use crate::maps::LAYOUTS;
use crate::record::Record;
use crate::rung::{Classic, Raw, Rung, TpBtf, TpBtfLean};
use crate::sock::{Skb, Sock, cookie_flag};
use crate::{admit, emit};

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub(crate) fn retransmit(ctx: BtfTracePointContext) -> i32 {
    body(TpBtf, ctx.arg(0), ctx.arg(1))
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub(crate) fn retransmit_lean(ctx: BtfTracePointContext) -> i32 {
    body(TpBtfLean, ctx.arg(0), ctx.arg(1))
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub(crate) fn retransmit_raw(ctx: RawTracePointContext) -> i32 {
    body(Raw, ctx.arg(0), ctx.arg(1))
}

#[tracepoint(category = "tcp", name = "tcp_retransmit_skb")]
pub(crate) fn retransmit_tp(ctx: TracePointContext) -> i32 {
    let record = Record::new(ctx.as_ptr().cast(), &LAYOUTS.tcp_retransmit_skb);
    body(Classic(record), record.sock(), record.skb())
}

#[inline(always)]
fn body<R: Rung>(rung: R, sock: *const u8, skb: *const u8) -> i32 {
    let (sock, skb) = (Sock { at: sock, rung }, Skb::new(skb, rung));
    let Some(tcp) = sock.tcp() else { return 0 };
    let local_port = tcp.local_port();
    if !admit::connection(sock, local_port) {
        return 0;
    }
    let state = sock.state();
    let syn = if skb.is_syn(state) { flag::SYN } else { 0 };
    let cookie = sock.cookie();
    emit::record(kind::RETRANSMIT, cookie_flag(cookie) | syn, |to: *mut Retransmit| {
        // SAFETY: a slot for the whole record; every field behind the header is written.
        unsafe {
            sock.store_ends(&raw mut (*to).ends, cookie, local_port);
            (&raw mut (*to).segments).write(skb.segments());
            (&raw mut (*to).total).write(tcp.total_retrans());
            (&raw mut (*to).state).write(state);
            (&raw mut (*to).ca_state).write(tcp.ca_state());
            let pad = (&raw mut (*to).pad).cast::<u16>();
            pad.write(0);
            pad.add(1).cast::<u32>().write(0);
        }
    });
    0
}
