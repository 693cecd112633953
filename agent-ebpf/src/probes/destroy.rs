//! `tcp:tcp_destroy_sock`: the last that is heard of a socket. Lets the ledger forget a connection whose close was lost; a
//! socket whose close has just been recorded is only counted.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use synfin_common::event::{Destroy, kind};

use crate::maps::LAYOUTS;
use crate::record::Record;
use crate::rung::{Classic, Raw, Rung, TpBtf, TpBtfLean};
use crate::sock::{Sock, cookie_flag};
use crate::{admit, emit};

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy(ctx: BtfTracePointContext) -> i32 {
    body(Sock { at: ctx.arg(0), rung: TpBtf })
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy_lean(ctx: BtfTracePointContext) -> i32 {
    body(Sock { at: ctx.arg(0), rung: TpBtfLean })
}

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub(crate) fn destroy_raw(ctx: RawTracePointContext) -> i32 {
    body(Sock { at: ctx.arg(0), rung: Raw })
}

#[tracepoint(category = "tcp", name = "tcp_destroy_sock")]
pub(crate) fn destroy_tp(ctx: TracePointContext) -> i32 {
    let record = Record::new(ctx.as_ptr().cast(), &LAYOUTS.tcp_destroy_sock);
    body(Sock { at: record.sock(), rung: Classic(record) })
}

#[inline(always)]
fn body<R: Rung>(sock: Sock<R>) -> i32 {
    let netns = sock.netns();
    // Ports and addresses are gone by now, so that only this filter can be asked. MPTCP's parent never comes here.
    if !admit::netns(netns) {
        return 0;
    }
    let cookie = sock.cookie();
    // Most sockets are destroyed in the same breath as they close. Then the record would say nothing new.
    if emit::is_end_known(cookie) {
        return 0;
    }
    emit::record(kind::DESTROY, cookie_flag(cookie), |to: *mut Destroy| {
        // SAFETY: a slot for the whole record; every field behind the header is written.
        unsafe {
            (&raw mut (*to).id).write(cookie);
            (&raw mut (*to).sock).write(sock.at as u64);
            (&raw mut (*to).netns).write(netns);
            (&raw mut (*to).pad).write(0);
        }
    });
    0
}
