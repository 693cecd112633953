//! `sock:inet_sock_set_state`: every change of a TCP state. Rate: about ten for each connection made here and closed.
//! Sees all but minisocks (TIME_WAIT, request sockets), which have no transitions.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use aya_log_ebpf::warn;
use synfin_common::event::{Transition, TransitionDetail, kind, state};
use synfin_common::tally::lost;

use crate::maps::LAYOUTS;
use crate::record::Record;
use crate::rung::{Classic, Raw, Rung, TpBtf, TpBtfLean};
use crate::sock::{Sock, TcpSock, cookie_flag, store_task};
use crate::{admit, emit};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn state(ctx: BtfTracePointContext) -> i32 {
    body(&ctx, Sock { at: ctx.arg(0), rung: TpBtf }, ctx.arg::<u32>(1) as u8, ctx.arg::<u32>(2) as u8)
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn state_lean(ctx: BtfTracePointContext) -> i32 {
    body(&ctx, Sock { at: ctx.arg(0), rung: TpBtfLean }, ctx.arg::<u32>(1) as u8, ctx.arg::<u32>(2) as u8)
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(crate) fn state_raw(ctx: RawTracePointContext) -> i32 {
    body(&ctx, Sock { at: ctx.arg(0), rung: Raw }, ctx.arg::<u32>(1) as u8, ctx.arg::<u32>(2) as u8)
}

#[tracepoint(category = "sock", name = "inet_sock_set_state")]
pub(crate) fn state_tp(ctx: TracePointContext) -> i32 {
    let record = Record::new(ctx.as_ptr().cast(), &LAYOUTS.inet_sock_set_state);
    body(&ctx, Sock { at: record.sock(), rung: Classic(record) }, record.old(), record.new_state())
}

#[inline(always)]
fn body<R: Rung>(ctx: &impl EbpfContext, sock: Sock<R>, old: u8, new: u8) -> i32 {
    let Some(tcp) = sock.tcp() else {
        if sock.is_tcp() {
            emit::count(lost::UNREADABLE);
            warn!(ctx, "a TCP socket went from state {} to {} but is not readable as one", old, new);
        }
        return 0;
    };
    if !admit::connection(tcp, new == state::SYN_SENT) {
        return 0;
    }
    let err = tcp.err();
    let mut flags = tcp.flags(new, err);
    let mut cookie = 0;
    // The cookie that a child has here is not the one that it keeps, see flag::COOKIE.
    if !(old == state::LISTEN && new == state::SYN_RECV) {
        cookie = sock.cookie();
        flags |= cookie_flag(cookie);
    }
    let change = Change { tcp, cookie, old, new, err };
    if new == state::ESTABLISHED || new == state::CLOSE {
        emit::record(kind::TRANSITION_DETAIL, flags, |to: *mut TransitionDetail| {
            // SAFETY: a slot for the whole record.
            unsafe {
                change.store(&raw mut (*to).transition);
                tcp.store_measures(&raw mut (*to).measures);
            }
        });
    } else {
        emit::record(kind::TRANSITION, flags, |to| change.store(to));
    }
    0
}

struct Change<R> {
    tcp: TcpSock<R>,
    cookie: u64,
    old: u8,
    new: u8,
    err: u16,
}

impl<R: Rung> Change<R> {
    /// Writes all but the header.
    #[inline(always)]
    fn store(&self, to: *mut Transition) {
        // SAFETY: a slot for the whole record.
        unsafe {
            self.tcp.store_ends(&raw mut (*to).ends, self.cookie, self.new == state::SYN_SENT);
            (&raw mut (*to).cgroup).write(self.tcp.cgroup());
            (&raw mut (*to).old).write(self.old);
            (&raw mut (*to).new).write(self.new);
            (&raw mut (*to).err).write(self.err);
            store_task::<R>(&raw mut (*to).pid, &raw mut (*to).comm);
        }
    }
}
