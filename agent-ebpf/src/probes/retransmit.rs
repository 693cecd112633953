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
    let mut ends = tcp.ends(false);
    if !admit::connection(&ends) {
        return 0;
    }
    ends.id = sock.cookie();
    let syn = if skb.is_syn() { flag::SYN } else { 0 };
    emit::record(
        kind::RETRANSMIT,
        Retransmit {
            header: emit::header(kind::RETRANSMIT, flag::COOKIE | syn),
            ends,
            segments: skb.segments(),
            total: tcp.total_retrans(),
            state: sock.state(),
            ca_state: tcp.ca_state(),
            pad: [0; 6],
        },
    );
    0
}
