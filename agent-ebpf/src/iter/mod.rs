//! Programs that walk over the kernel's own tables: of TCP sockets (`iter/tcp`), in the network namespace of the task that opened
//! the walk, listeners first, then all others; and of open files.

mod census;
mod holders;
mod sockets;

use synfin_common::event::state;

use crate::field::field;
use crate::read::{Read as _, Typed};
use crate::rung::TpBtf;
use crate::sock::{Sock, TcpSock};

/// `struct bpf_iter__tcp`.
#[repr(C)]
struct Context {
    /// `struct bpf_iter_meta *`.
    meta: *const u8,
    /// `struct sock_common *`, NULL when the walk is over.
    sock: *const u8,
    uid: u32,
}

/// A socket of the walk, by the struct that it is.
enum Form {
    Full(TcpSock<TpBtf>),
    /// `struct tcp_timewait_sock *`.
    Timewait(*const u8),
    /// `struct tcp_request_sock *`.
    Request(*const u8),
}

/// None for what is no socket of TCP.
#[inline(always)]
fn form(sock: Sock<TpBtf>) -> Option<Form> {
    match sock.state() {
        state::TIME_WAIT => sock.timewait().map(Form::Timewait),
        state::NEW_SYN_RECV => sock.request().map(Form::Request),
        _ => sock.tcp().map(Form::Full),
    }
}

/// TIME_WAIT or FIN_WAIT_2.
#[inline(always)]
fn substate(timewait: *const u8) -> u8 {
    Typed::load(timewait, field!(tw_substate))
}
