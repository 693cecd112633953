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
use crate::sock::{Sock, cookie_flag, store_task};
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
    if !sock.is_tcp() {
        return 0;
    }
    if new != state::ESTABLISHED && new != state::CLOSE {
        let local_port = if new == state::SYN_SENT { sock.bound_port() } else { sock.num() };
        if let Some(change) = Change::of(sock, local_port, old, new) {
            emit::record(kind::TRANSITION, change.flags, |to| change.store(to));
        }
        return 0;
    }
    let Some(tcp) = sock.tcp() else {
        unreadable(ctx, old, new);
        return 0;
    };
    if let Some(change) = Change::of(sock, tcp.local_port(), old, new) {
        emit::record(kind::TRANSITION_DETAIL, change.flags, |to: *mut TransitionDetail| {
            if new == state::CLOSE {
                emit::note_end(change.cookie);
            }
            // SAFETY: a slot for the whole record.
            unsafe {
                change.store(&raw mut (*to).transition);
                tcp.store_measures(&raw mut (*to).measures);
            }
        });
    }
    0
}

/// Never seen to happen. In a function of its own, because the code of a log message is longer than that of the probe.
#[cold]
#[inline(never)]
fn unreadable(ctx: &impl EbpfContext, old: u8, new: u8) {
    emit::count(lost::UNREADABLE);
    warn!(ctx, "a TCP socket went from state {} to {} but is not readable as one", old, new);
}

struct Change<R> {
    sock: Sock<R>,
    local_port: u16,
    cookie: u64,
    flags: u16,
    old: u8,
    new: u8,
    err: u16,
}

impl<R: Rung> Change<R> {
    /// None if the user does not want to see it.
    #[inline(always)]
    fn of(sock: Sock<R>, local_port: u16, old: u8, new: u8) -> Option<Self> {
        if !admit::connection(sock, local_port) {
            return None;
        }
        let err = sock.err();
        let mut flags = sock.flags(new, err);
        let mut cookie = 0;
        // The cookie that a child has here is not the one that it keeps, see flag::COOKIE.
        if !(old == state::LISTEN && new == state::SYN_RECV) {
            cookie = sock.cookie();
            flags |= cookie_flag(cookie);
        }
        Some(Self { sock, local_port, cookie, flags, old, new, err })
    }

    /// Writes all but the header.
    #[inline(always)]
    fn store(&self, to: *mut Transition) {
        // SAFETY: a slot for the whole record.
        unsafe {
            self.sock.store_ends(&raw mut (*to).ends, self.cookie, self.local_port);
            (&raw mut (*to).cgroup).write(self.sock.cgroup());
            (&raw mut (*to).old).write(self.old);
            (&raw mut (*to).new).write(self.new);
            (&raw mut (*to).err).write(self.err);
            store_task::<R>(&raw mut (*to).pid, &raw mut (*to).comm);
        }
    }
}
