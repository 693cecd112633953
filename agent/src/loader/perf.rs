//! Attaches a program to a classic tracepoint by its number: aya finds tracepoints at the usual places of tracefs only.
#![expect(unsafe_code, reason = "perf_event_open has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya::util::online_cpus;
use rustix::ioctl::{IntegerSetter, NoArg, Opcode, ioctl, opcode};

/// `struct perf_event_attr` as of its first version: the kernel takes any version's size.
#[derive(Debug, Default)]
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
const SET_BPF: Opcode = opcode::write::<u32>(b'$', 8);
const ENABLE: Opcode = opcode::none(b'$', 0);

/// Attaches; the program runs on every CPU until the descriptor is closed.
pub(super) fn attach(program: BorrowedFd<'_>, id: u64) -> io::Result<OwnedFd> {
    let event = open(id)?;
    // SAFETY: both requests belong to a perf event and take a file descriptor and nothing.
    unsafe {
        ioctl(&event, IntegerSetter::<SET_BPF>::new_usize(program.as_raw_fd().cast_unsigned() as usize))?;
        ioctl(&event, NoArg::<ENABLE>::new())?;
    }
    Ok(event)
}

fn open(id: u64) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: id,
        ..Attributes::default()
    };
    // The event is one CPU's, the programs on its tracepoint run on all.
    let cpu = online_cpus().ok().and_then(|cpus| cpus.first().copied()).unwrap_or(0);
    // SAFETY: `attributes` is as long as it says; the other arguments are numbers: any process, a CPU, no group.
    let answer =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC) };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

const _: () = assert!(size_of::<Attributes>() == 64); // PERF_ATTR_SIZE_VER0
