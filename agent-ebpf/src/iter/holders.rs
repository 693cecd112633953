//! Lists who holds TCP sockets: the open files of all processes of the pid namespace (`iter/task_file`), whatever network namespace the
//! sockets are in.

use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sock_from_file};
use synfin_common::census::Holder;

use crate::field::field;
use crate::read::{Probed, Read as _, Typed};
use crate::rung::TpBtf;
use crate::sock::Sock;

/// `struct bpf_iter__task_file`.
#[repr(C)]
struct Context {
    /// `struct bpf_iter_meta *`.
    meta: *const u8,
    /// `struct task_struct *`, NULL when the walk is over. One task stands for all that share a table of files.
    task: *const u8,
    fd: u32,
    pad: u32,
    /// `struct file *`.
    file: *const u8,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
unsafe extern "C" fn holders(context: *const Context) -> i32 {
    // SAFETY: the kernel hands over its context.
    let (meta, task, fd, file) = unsafe { ((*context).meta, (*context).task, (*context).fd, (*context).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: a `struct file *` of the kernel's.
    let socket: *const u8 = unsafe { bpf_sock_from_file(file.cast_mut().cast()) }.cast_const().cast();
    if socket.is_null() {
        return 0;
    }
    let sock = Sock { at: Typed::follow(socket, field!(socket_sk)), rung: TpBtf };
    if sock.at.is_null() || !sock.is_tcp() {
        return 0;
    }
    let [first, second] = Typed::comm(Typed::follow(task, field!(task_leader)), field!(task_comm));
    let row = Holder {
        // The inode lies behind the socket, out of reach of a typed load.
        inode: Probed::load(socket, field!(inode_ino)),
        netns: sock.netns(),
        pid: Typed::load(task, field!(task_tgid)),
        comm: [first, second],
        fd,
        pad: 0,
    };
    // SAFETY: `meta` is the kernel's `struct bpf_iter_meta`, whose first member is the `struct seq_file *`; the row is whole. When
    // the buffer is full, the kernel calls this program again for the same file.
    unsafe {
        let seq = *meta.cast::<*mut u8>();
        bpf_seq_write(seq.cast(), (&raw const row).cast(), size_of::<Holder>() as u32);
    }
    0
}
