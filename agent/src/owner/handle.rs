//! The directory of a cgroup by the cgroup's id, whatever its path: the kernel takes the id as the handle of a file.
#![expect(unsafe_code, reason = "open_by_handle_at has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// `struct file_handle` with the handle of a kernfs node: its id, in the byte order of this machine.
#[derive(Debug)]
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u8; 8],
}

/// `FILEID_KERNFS` of include/linux/exportfs.h, from Linux 5.5 on.
const KERNFS: i32 = 0xfe;

/// Opens the directory as a path (`O_PATH`). `mount` is anything that is open below the mount of cgroup2. One that is gone is `ESTALE`;
/// who may not is told `EPERM`: it takes `CAP_DAC_READ_SEARCH`.
pub(super) fn open(mount: BorrowedFd<'_>, cgroup: u64) -> io::Result<OwnedFd> {
    let handle = Handle { bytes: size_of::<u64>() as u32, kind: KERNFS, id: cgroup.to_ne_bytes() };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: `handle` is a `struct file_handle` with as many bytes behind its head as it says, and is only read; the other arguments
    // are a descriptor that is open and flags.
    let answer = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const handle, flags) };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

const _: () = assert!(size_of::<Handle>() == 16);
