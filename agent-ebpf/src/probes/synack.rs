//! `tcp:tcp_retransmit_synack`: a listener sent a SYN-ACK again. A packet-rate fact (a flood of SYNs makes a flood of
//! these), so it is tallied for each listener.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use synfin_common::event::NO_REASON;
use synfin_common::tally::{TallyKey, tallied};

use crate::sock::Sock;
use crate::{admit, emit};

#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub(crate) fn synack(ctx: BtfTracePointContext) -> i32 {
    // The listener; of a fast open child the child itself, which has the listener's port.
    let sock = Sock(ctx.arg::<*const u8>(0));
    let (netns, port) = (sock.netns(), sock.num());
    if !admit::netns(netns) || !admit::listener(port) {
        return 0;
    }
    let what = tallied::SYNACK_RETRANSMIT;
    emit::tally(&TallyKey { netns, reason: NO_REASON, what, port, family: sock.family(), pad: 0 });
    0
}
