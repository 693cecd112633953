//! A child that may do less than root: fewer capabilities, a lower limit.
#![expect(unsafe_code, reason = "a child is confined between fork and exec, which has no safe wrapper")]

use std::{io, os::unix::process::CommandExt as _, process::Command};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Numbers of linux/capability.h. Reading whatever one can name, by handle too.
pub const CAP_DAC_READ_SEARCH: u32 = 2;
/// Nearly everything.
pub const CAP_SYS_ADMIN: u32 = 21;
/// Raising limits beyond their maximum.
pub const CAP_SYS_RESOURCE: u32 = 24;
/// Tracing programs.
pub const CAP_PERFMON: u32 = 38;
/// Maps and programs.
pub const CAP_BPF: u32 = 39;
/// One more than any capability that a kernel knows so far.
const CAPABILITIES: u32 = 64;

/// Takes capabilities from the child: root gets by exec what is left in its bounding set.
pub fn without(command: &mut Command, capabilities: &[u32]) {
    let taken = capabilities.to_vec();
    take(command, move |capability| taken.contains(&capability));
}

/// Leaves the child these capabilities alone.
pub fn only(command: &mut Command, capabilities: &[u32]) {
    let left = capabilities.to_vec();
    take(command, move |capability| !left.contains(&capability));
}

fn take(command: &mut Command, taken: impl Fn(u32) -> bool + Send + Sync + 'static) {
    let drop_them = move || {
        for capability in (0..CAPABILITIES).filter(|capability| taken(*capability)) {
            // SAFETY: the call takes numbers.
            let failed = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) } != 0;
            let error = io::Error::last_os_error();
            // EINVAL: this kernel does not know it, so nobody has it.
            if failed && error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
        Ok(())
    };
    // SAFETY: `drop_them` makes system calls and allocates nothing.
    unsafe { command.pre_exec(drop_them) };
}

/// Gives the child this RLIMIT_MEMLOCK, in bytes: the limit itself and how high it may be raised without a capability.
pub fn memlock(command: &mut Command, current: u64, maximum: u64) {
    const MEMLOCK: Resource = Resource::RLIMIT_MEMLOCK;
    let limit = move || {
        let (_, highest) = getrlimit(MEMLOCK)?;
        // Some containers' root may not raise its own.
        setrlimit(MEMLOCK, current, maximum)
            .or_else(|_no_right| setrlimit(MEMLOCK, current.min(highest), maximum.min(highest)))
            .map_err(io::Error::from)
    };
    // SAFETY: `limit` makes system calls and allocates nothing.
    unsafe { command.pre_exec(limit) };
}
