//! `tcp:tcp_retransmit_synack`: a listener sent a SYN-ACK again. A packet-rate fact (a flood of SYNs makes a flood of
//! these), so it is tallied for each listener.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use synfin_common::event::NO_REASON;
use synfin_common::tally::{TallyKey, tallied};

use crate::maps::LAYOUTS;
use crate::record::Record;
use crate::rung::{Classic, Raw, Rung, TpBtf};
use crate::sock::Sock;
use crate::{admit, emit};

/// It asks no helper that a kernel may lack, so that there is no lean variant.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub(crate) fn synack(ctx: BtfTracePointContext) -> i32 {
    body(Sock { at: ctx.arg(0), rung: TpBtf })
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
pub(crate) fn synack_raw(ctx: RawTracePointContext) -> i32 {
    body(Sock { at: ctx.arg(0), rung: Raw })
}

#[tracepoint(category = "tcp", name = "tcp_retransmit_synack")]
pub(crate) fn synack_tp(ctx: TracePointContext) -> i32 {
    let record = Record::new(ctx.as_ptr().cast(), &LAYOUTS.tcp_retransmit_synack);
    body(Sock { at: record.sock(), rung: Classic(record) })
}

/// `sock` is the listener; of a fast open child the child itself, which has the listener's port.
#[inline(always)]
fn body<R: Rung>(sock: Sock<R>) -> i32 {
    let (netns, port) = (sock.netns(), sock.num());
    if !admit::netns(netns) || !admit::listener(port) {
        return 0;
    }
    let what = tallied::SYNACK_RETRANSMIT;
    emit::tally(&TallyKey { netns, reason: NO_REASON, what, port, family: sock.family(), pad: 0 });
    0
}
