//! Lists sockets one by one: for start-up, repair and exhibits.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_seq_write};
use synfin_common::census::{Socket, form, timer};
use synfin_common::event::{Measures, state};

use super::{Context, Form, substate};
use crate::field::field;
use crate::maps::WANTED;
use crate::read::{Read as _, Typed};
use crate::rung::TpBtf;
use crate::sock::Sock;
use crate::{admit, iter};

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
unsafe extern "C" fn sockets(context: *const Context) -> i32 {
    list::<true>(context)
}

/// Without the helper that 5.10 does not have.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
unsafe extern "C" fn sockets_lean(context: *const Context) -> i32 {
    list::<false>(context)
}

/// A full socket that has no cookie gets one, if it can: by the time that the agent compares it, an event of it may have been told under a cookie.
#[inline(always)]
fn list<const COOKIES: bool>(context: *const Context) -> i32 {
    // SAFETY: the kernel hands over its context.
    let (meta, at, uid) = unsafe { ((*context).meta, (*context).sock, (*context).uid) };
    if at.is_null() {
        return 0;
    }
    let sock = Sock { at, rung: TpBtf };
    let wanted = WANTED.get(0).copied().unwrap_or(0);
    if wanted & (1 << sock.state()) == 0 || !admit::connection(sock, sock.num()) {
        return 0;
    }
    let Some(found) = iter::form(sock) else { return 0 };
    // SAFETY: every byte may be zero.
    let mut row: Socket = unsafe { core::mem::zeroed() };
    // SAFETY: a helper without arguments.
    row.time_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: as above.
    row.jiffies = unsafe { bpf_jiffies64() };
    row.uid = uid;
    row.state = sock.state();
    let mut local_port = sock.num();
    let mut cookie = sock.known_cookie();
    match found {
        Form::Full(tcp) => {
            if COOKIES {
                cookie = sock.cookie();
            }
            local_port = tcp.local_port();
            row.cgroup = tcp.sock().cgroup();
            row.inode = tcp.inode();
            if row.state == state::LISTEN {
                (row.receive_queue, row.send_queue) = (tcp.accept_queue(), tcp.accept_limit());
            } else {
                (row.receive_queue, row.send_queue) = (tcp.receive_queue(), tcp.send_queue());
                (row.retransmits, row.probes) = (tcp.retransmits(), tcp.probes());
                let now = row.jiffies as u32;
                row.sent_ago = now.wrapping_sub(tcp.sent_at());
                row.received_ago = now.wrapping_sub(tcp.received_at());
                let (timer, expires) = tcp.timer();
                row.timer = timer;
                row.timer_left = left(timer, expires, row.jiffies);
                let measures: *mut Measures = &raw mut row.measures;
                tcp.store_measures(measures);
            }
        }
        Form::Timewait(timewait) => {
            row.form = form::TIMEWAIT;
            row.state = substate(timewait);
            row.timer = timer::TIME_WAIT;
            row.timer_left = left(row.timer, Typed::load(timewait, field!(tw_expires)), row.jiffies);
        }
        Form::Request(request) => {
            row.form = form::REQUEST;
            row.timer = timer::RETRANSMIT;
            row.timer_left = left(row.timer, Typed::load(request, field!(rsk_expires)), row.jiffies);
            row.retransmits = Typed::load(request, field!(num_retrans));
        }
    }
    sock.store_ends(&raw mut row.ends, cookie, local_port);
    // SAFETY: `meta` is the kernel's `struct bpf_iter_meta`, whose first member is the `struct seq_file *`; the row is whole. When
    // the buffer is full, the kernel calls this program again for the same socket.
    unsafe {
        let seq = *meta.cast::<*mut u8>();
        bpf_seq_write(seq.cast(), (&raw const row).cast(), size_of::<Socket>() as u32);
    }
    0
}

/// Jiffies until a timer expires.
#[inline(always)]
fn left(timer: u8, expires: u64, now: u64) -> i32 {
    if timer == timer::NONE { 0 } else { expires.wrapping_sub(now) as i64 as i32 }
}
