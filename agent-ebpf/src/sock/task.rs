//! The task that is running: the owner of a socket only where it closes or connects.

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf,
};

use crate::field::field;
use crate::read::Read as _;
use crate::rung::Rung;

/// Writes pid (thread group) and command name of the current task.
#[inline(always)]
pub(crate) fn store_task<R: Rung>(pid: *mut u32, comm: *mut [u8; 16]) {
    let (tgid, leader, name) = (field!(task_tgid), field!(task_leader), field!(task_comm));
    if !tgid.is_present() || !leader.is_present() || !name.is_present() {
        // SAFETY: both point to their fields in a ring slot.
        unsafe {
            pid.write((bpf_get_current_pid_tgid() >> 32) as u32);
            // Fails never with room for TASK_COMM_LEN bytes, and zeroes the buffer if it did. The thread's own name.
            bpf_get_current_comm(comm.cast(), 16);
        }
        return;
    }
    // SAFETY: there always is a current task; the pointers are as above.
    unsafe {
        let task: *const u8 = if R::HELPERS {
            bpf_get_current_task_btf().cast_const().cast()
        } else {
            bpf_get_current_task() as *const u8
        };
        pid.write(R::Task::load(task, tgid));
        // The name of the process, like its pid; threads have names of their own.
        let [first, second] = R::Task::comm(R::Task::follow(task, leader), name);
        let comm = comm.cast::<u64>();
        comm.write(first);
        comm.add(1).write(second);
    }
}
