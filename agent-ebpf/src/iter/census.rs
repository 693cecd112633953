//! Counts the sockets of a namespace where they are: nothing is copied to the agent but the sums.

use synfin_common::census::{Group, GroupKey, Listener, PortKey, form, stray};
use synfin_common::event::state;

use super::{Context, Form, substate};
use crate::field::field;
use crate::maps::{GROUPS, LISTENERS, PORTS, STRAY, TAKEN};
use crate::read::{Probed, Read as _, Typed};
use crate::rung::TpBtf;
use crate::sock::{Sock, TcpSock};
use crate::{admit, iter};

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
unsafe extern "C" fn census(context: *const Context) -> i32 {
    // SAFETY: the kernel hands over its context.
    let (at, uid) = unsafe { ((*context).sock, (*context).uid) };
    if !at.is_null() {
        count(Sock { at, rung: TpBtf }, uid);
    }
    0
}

#[inline(always)]
fn count(sock: Sock<TpBtf>, uid: u32) {
    taken(sock.num());
    let Some(found) = iter::form(sock) else {
        stray(stray::UNREADABLE);
        return;
    };
    if !admit::connection(sock, sock.num()) {
        // A connection that is counted may hang on a listener that is not.
        if sock.state() == state::LISTEN {
            listened(sock);
        }
        return;
    }
    let mut group = Group { sockets: 1, ..Group::default() };
    let (form, state, cgroup) = match found {
        Form::Full(tcp) => {
            let state = sock.state();
            if state == state::LISTEN {
                listener(sock, tcp, uid);
            } else {
                group.receive_queue = u64::from(tcp.receive_queue());
                group.send_queue = u64::from(tcp.send_queue());
            }
            (form::FULL, state, tcp.sock().cgroup())
        }
        Form::Timewait(timewait) => (form::TIMEWAIT, substate(timewait), 0),
        Form::Request(request) => (form::REQUEST, state::NEW_SYN_RECV, half_open(request)),
    };
    let (netns, port) = (sock.netns(), sock.num());
    // A walk meets all listeners before any other socket.
    let listened = PORTS.get_ptr(PortKey { netns, port, pad: 0 }).is_some();
    let port = if listened { port } else { 0 };
    let key = GroupKey { cgroup, netns, port, state, form, family: sock.network(), pad: [0; 6] };
    if let Some(sums) = GROUPS.get_ptr_mut(key) {
        // SAFETY: the value of a live map. One task walks, so that nobody else adds.
        unsafe {
            (*sums).sockets += group.sockets;
            (*sums).receive_queue += group.receive_queue;
            (*sums).send_queue += group.send_queue;
        }
    } else if GROUPS.insert(key, group, 0).is_err() {
        stray(stray::GROUPS);
    }
}

/// Notes that a socket has this local port, whatever the filters leave out: nobody else can take it.
#[inline(always)]
fn taken(port: u16) {
    if let Some(bits) = TAKEN.get_ptr_mut(0) {
        // SAFETY: the value of a live map, and the word of no port lies behind its end. One task walks, so that nobody else writes.
        unsafe { *bits.cast::<u64>().add(usize::from(port >> 6)) |= 1 << (port & 63) };
    }
}

#[inline(always)]
fn listener(sock: Sock<TpBtf>, tcp: TcpSock<TpBtf>, uid: u32) {
    let (netns, port) = (sock.netns(), sock.num());
    let row = Listener {
        cookie: sock.known_cookie(),
        cgroup: tcp.sock().cgroup(),
        inode: tcp.inode(),
        oldest_us: 0,
        local: sock.local(),
        netns,
        accept_queue: tcp.accept_queue(),
        accept_limit: tcp.accept_limit(),
        half_open: tcp.half_open(),
        uid,
        port,
        family: sock.family(),
    };
    if LISTENERS.insert(sock.at as u64, row, 0).is_err() {
        stray(stray::LISTENERS);
    } else {
        listened(sock);
    }
}

/// Notes that something listens on this port.
#[inline(always)]
fn listened(sock: Sock<TpBtf>) {
    if PORTS.insert(PortKey { netns: sock.netns(), port: sock.num(), pad: 0 }, 1, 0).is_err() {
        stray(stray::LISTENERS);
    }
}

/// Tells a request to its listener, whose cgroup it answers.
#[inline(always)]
fn half_open(request: *const u8) -> u64 {
    // As a number: older verifiers take the union that it lies in for something else than a pointer.
    let listener: u64 = Probed::load(request, field!(req_listener));
    let since: u64 = Typed::load(request, field!(snt_synack));
    let Some(row) = LISTENERS.get_ptr_mut(listener) else { return 0 };
    // SAFETY: as for the groups.
    unsafe {
        if since != 0 && ((*row).oldest_us == 0 || since < (*row).oldest_us) {
            (*row).oldest_us = since;
        }
        (*row).cgroup
    }
}

#[cold]
#[inline(never)]
fn stray(slot: u32) {
    if let Some(count) = STRAY.get_ptr_mut(slot) {
        // SAFETY: as for the groups.
        unsafe { *count += 1 };
    }
}
