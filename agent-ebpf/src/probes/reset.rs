//! `tcp:tcp_send_reset` and `tcp:tcp_receive_reset`: RST segments. A RST for a full socket is an event; an answer to a
//! segment that has none is a packet-rate fact (port scans, floods) and is tallied.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use synfin_common::event::{NO_REASON, Reset, flag, kind};
use synfin_common::tally::{TallyKey, tallied};

use crate::maps::knob;
use crate::sock::{Skb, Sock};
use crate::{admit, emit};

#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn reset_sent(ctx: BtfTracePointContext) -> i32 {
    // The kernel passes NULL for a segment without a socket (6.10 and later) and for an skb that was not there, but
    // verifiers before 6.13 believe that an argument is never NULL and remove the test. A copy of the
    // arguments is plain numbers to them.
    // SAFETY: both arguments exist in every kernel that has the tracepoint.
    let Ok([sock, skb]) = (unsafe { bpf_probe_read_kernel(ctx.as_ptr().cast::<[u64; 2]>()) }) else { return 0 };
    let reason = if knob!(reset_has_reason) == 1 { ctx.arg::<u32>(2) } else { NO_REASON };

    let mut row = TallyKey { netns: 0, reason, what: tallied::RESET_WITHOUT_SOCKET, port: 0, family: 0, pad: 0 };
    if sock != 0 {
        let typed = Sock(ctx.arg::<*const u8>(0));
        if typed.0.is_null() {
            return 0; // never: for verifiers that know that it may be NULL
        }
        if !typed.is_minisock() {
            event(typed, kind::RESET_SENT, reason);
            return 0;
        }
        row.netns = typed.netns();
        row.family = typed.family();
    } else if skb != 0 {
        let typed = Skb(ctx.arg::<*const u8>(1));
        if typed.0.is_null() {
            return 0; // never, as above
        }
        row.netns = typed.netns();
    }
    if admit::netns(row.netns) {
        emit::tally(&row);
    }
    0
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub(crate) fn reset_received(ctx: BtfTracePointContext) -> i32 {
    event(Sock(ctx.arg::<*const u8>(0)), kind::RESET_RECEIVED, NO_REASON);
    0
}

#[inline(always)]
fn event(sock: Sock, kind: u16, reason: u32) {
    let Some(tcp) = sock.tcp() else { return };
    let local_port = tcp.local_port(sock);
    if !admit::connection(sock, local_port) {
        return;
    }
    let cookie = sock.cookie();
    emit::record(kind, flag::COOKIE, |to: *mut Reset| {
        // SAFETY: a slot for the whole record; every field behind the header is written.
        unsafe {
            sock.store_ends(&raw mut (*to).ends, cookie, local_port);
            (&raw mut (*to).reason).write(reason);
            (&raw mut (*to).state).write(sock.state());
            let pad = (&raw mut (*to).pad).cast::<u8>();
            pad.write(0);
            pad.add(1).cast::<u16>().write(0);
            pad.add(3).cast::<u64>().write(0);
        }
    });
}
