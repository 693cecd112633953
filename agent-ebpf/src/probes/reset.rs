//! `tcp:tcp_send_reset` and `tcp:tcp_receive_reset`: RST segments. A RST for a full socket is an event; an answer to a
//! segment that has none is a packet-rate fact (port scans, floods) and is tallied.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use synfin_common::event::{NO_REASON, Reset, kind};
use synfin_common::tally::{TallyKey, tallied};

use crate::maps::{LAYOUTS, knob};
use crate::record::Record;
use crate::rung::{Classic, Raw, Rung, TpBtf, TpBtfLean};
use crate::sock::{Skb, Sock, cookie_flag};
use crate::{admit, emit};

#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn reset_sent(ctx: BtfTracePointContext) -> i32 {
    sent_typed(TpBtf, &ctx)
}

#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn reset_sent_lean(ctx: BtfTracePointContext) -> i32 {
    sent_typed(TpBtfLean, &ctx)
}

#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub(crate) fn reset_sent_raw(ctx: RawTracePointContext) -> i32 {
    let reason = if knob!(reset_has_reason) == 1 { ctx.arg(2) } else { NO_REASON };
    let plain: [u64; 2] = [ctx.arg(0), ctx.arg(1)];
    sent(Raw, plain, |n| plain[n] as *const u8, reason)
}

#[tracepoint(category = "tcp", name = "tcp_send_reset")]
pub(crate) fn reset_sent_tp(ctx: TracePointContext) -> i32 {
    let record = Record::new(ctx.as_ptr().cast(), &LAYOUTS.tcp_send_reset);
    let plain = [record.sock() as u64, record.skb() as u64];
    sent(Classic(record), plain, |n| plain[n] as *const u8, record.reason(NO_REASON))
}

#[inline(always)]
fn sent_typed<R: Rung>(rung: R, ctx: &BtfTracePointContext) -> i32 {
    // The kernel passes NULL for a segment without a socket (6.10 and later) and for an skb that was not there, but
    // verifiers before 6.13 believe that an argument is never NULL and remove the test. A copy of the
    // arguments is plain numbers to them.
    // SAFETY: both arguments exist in every kernel that has the tracepoint.
    let Ok(plain) = (unsafe { bpf_probe_read_kernel(ctx.as_ptr().cast::<[u64; 2]>()) }) else { return 0 };
    let reason = if knob!(reset_has_reason) == 1 { ctx.arg(2) } else { NO_REASON };
    sent(rung, plain, |n| ctx.arg(n), reason)
}

/// `plain` are the socket's and the segment's address as numbers, `argument` hands them out as pointers.
#[inline(always)]
fn sent<R: Rung>(rung: R, plain: [u64; 2], argument: impl Fn(usize) -> *const u8, reason: u32) -> i32 {
    let mut row = TallyKey { netns: 0, reason, what: tallied::RESET_WITHOUT_SOCKET, port: 0, family: 0, pad: 0 };
    if plain[0] != 0 {
        let sock = Sock { at: argument(0), rung };
        if sock.at.is_null() {
            return 0; // never: for verifiers that know that it may be NULL
        }
        if !sock.is_minisock() {
            event(sock, kind::RESET_SENT, reason);
            return 0;
        }
        row.netns = sock.netns();
        row.family = sock.family();
    } else if plain[1] != 0 {
        let skb = argument(1);
        if skb.is_null() {
            return 0; // never, as above
        }
        row.netns = Skb::new(skb, rung).netns();
    }
    if admit::netns(row.netns) {
        emit::tally(&row);
    }
    0
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub(crate) fn reset_received(ctx: BtfTracePointContext) -> i32 {
    received(Sock { at: ctx.arg(0), rung: TpBtf })
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub(crate) fn reset_received_lean(ctx: BtfTracePointContext) -> i32 {
    received(Sock { at: ctx.arg(0), rung: TpBtfLean })
}

#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub(crate) fn reset_received_raw(ctx: RawTracePointContext) -> i32 {
    received(Sock { at: ctx.arg(0), rung: Raw })
}

#[tracepoint(category = "tcp", name = "tcp_receive_reset")]
pub(crate) fn reset_received_tp(ctx: TracePointContext) -> i32 {
    let record = Record::new(ctx.as_ptr().cast(), &LAYOUTS.tcp_receive_reset);
    received(Sock { at: record.sock(), rung: Classic(record) })
}

#[inline(always)]
fn received<R: Rung>(sock: Sock<R>) -> i32 {
    event(sock, kind::RESET_RECEIVED, NO_REASON);
    0
}

#[inline(always)]
fn event<R: Rung>(sock: Sock<R>, kind: u16, reason: u32) {
    let Some(tcp) = sock.tcp() else { return };
    let local_port = tcp.local_port();
    if !admit::connection(sock, local_port) {
        return;
    }
    let cookie = sock.cookie();
    emit::record(kind, cookie_flag(cookie), |to: *mut Reset| {
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
