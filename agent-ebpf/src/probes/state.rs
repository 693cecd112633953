//! `sock:inet_sock_set_state`: every change of a TCP state. Rate: about ten for each connection made here and closed.
//! Sees all but minisocks (TIME_WAIT, request sockets), which have no transitions.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::warn;
use synfin_common::event::{Transition, TransitionDetail, flag, kind, state};
use synfin_common::tally::lost;

use crate::sock::Sock;
use crate::{admit, emit};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn state(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg::<*const u8>(0));
    let old = ctx.arg::<i32>(1) as u8;
    let new = ctx.arg::<i32>(2) as u8;
    let Some(tcp) = sock.tcp() else {
        if sock.is_tcp() {
            emit::count(lost::UNREADABLE);
            warn!(&ctx, "a TCP socket went from state {} to {} but is not readable as one", old, new);
        }
        return 0;
    };
    let mut ends = tcp.ends(new == state::SYN_SENT);
    if !admit::connection(&ends) {
        return 0;
    }
    let err = tcp.err();
    let mut flags = tcp.flags(new, err);
    // The cookie that a child has here is not the one that it keeps, see flag::COOKIE.
    if !(old == state::LISTEN && new == state::SYN_RECV) {
        ends.id = sock.cookie();
        flags |= flag::COOKIE;
    }
    let mut transition = Transition {
        header: emit::header(kind::TRANSITION, flags),
        ends,
        cgroup: tcp.cgroup(),
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        old,
        new,
        err,
        comm: bpf_get_current_comm().unwrap_or_default(),
    };
    if new == state::ESTABLISHED || new == state::CLOSE {
        transition.header.kind = kind::TRANSITION_DETAIL;
        emit::record(kind::TRANSITION_DETAIL, TransitionDetail { transition, measures: tcp.measures() });
    } else {
        emit::record(kind::TRANSITION, transition);
    }
    0
}
