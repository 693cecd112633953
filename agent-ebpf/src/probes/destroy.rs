//! `tcp:tcp_destroy_sock`: the last that is heard of a socket. Lets the ledger forget a connection whose close was lost.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use synfin_common::event::{Destroy, flag, kind};

use crate::sock::Sock;
use crate::{admit, emit};

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg::<*const u8>(0));
    let netns = sock.netns();
    // Ports and addresses are gone by now, so that only this filter can be asked. MPTCP's parent never comes here.
    if !admit::netns(netns) {
        return 0;
    }
    let header = emit::header(kind::DESTROY, flag::COOKIE);
    emit::record(kind::DESTROY, Destroy { header, id: sock.cookie(), sock: sock.0 as u64, netns, pad: 0 });
    0
}
