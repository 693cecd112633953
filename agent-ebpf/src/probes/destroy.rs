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
    let cookie = sock.cookie();
    emit::record(kind::DESTROY, flag::COOKIE, |to: *mut Destroy| {
        // SAFETY: a slot for the whole record; every field behind the header is written.
        unsafe {
            (&raw mut (*to).id).write(cookie);
            (&raw mut (*to).sock).write(sock.0 as u64);
            (&raw mut (*to).netns).write(netns);
            (&raw mut (*to).pad).write(0);
        }
    });
    0
}
