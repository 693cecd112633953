#![expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper in nix")]
//! A TUN device: the kernel's packets as a file, and back.

use std::{
    fs::{File, OpenOptions},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Result};

use crate::netns::Netns;

mod sys {
    nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
}

/// Makes the device `name` in `namespace` and gives the file through which its packets go, one for each read or write.
pub fn open(namespace: &Netns, name: &str) -> Result<File> {
    namespace.run(|| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .context("opening /dev/net/tun: the kernel needs TUN devices")?;
        // SAFETY: ifreq is plain numbers and arrays of them; all zeroes is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request is initialised, ends its name with a zero, and outlives the call, which only reads it.
        unsafe { sys::tunsetiff(file.as_raw_fd(), &raw const request) }
            .with_context(|| format!("making TUN device {name} in {}", namespace.name()))?;
        Ok(file)
    })
}
