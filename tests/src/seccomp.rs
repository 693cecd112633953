//! A seccomp filter for a child, as container runtimes and service managers install them.
#![expect(unsafe_code, reason = "a filter is installed between fork and exec, which has no safe wrapper")]

use std::{io, os::unix::process::CommandExt as _, process::Command};

/// Lets every system call of the child pass but this one, which fails with `errno`.
pub fn deny(command: &mut Command, call: libc::c_long, errno: i32) {
    let step = |code: u32, k: u32, jump: u8| libc::sock_filter { code: code as u16, jt: 0, jf: jump, k };
    let mut filter = [
        // The number of the call is the first word of what the filter is shown.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::try_from(call).expect("a number of a call"), 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(), 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let install = move || {
        let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
        // SAFETY: both calls take numbers, and the last one a program that lives until it returns.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: `install` makes two system calls and allocates nothing unless it fails.
    unsafe { command.pre_exec(install) };
}
