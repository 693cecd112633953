//! Facts about this machine, read and not judged.

use std::fs;
use std::path::{Path, PathBuf};

use crate::btf::VMLINUX;
use crate::lockdown;
use crate::mounts;
use crate::netns;
use crate::privileges::Privileges;

/// What could be learnt about this machine; None is what could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// As `uname -r`.
    pub kernel_release: Option<String>,
    /// The kernel's BTF and its size in bytes.
    pub btf: Option<(PathBuf, u64)>,
    /// What this process may do.
    pub privileges: Privileges,
    /// Lockdown mode: `none`, `integrity`, `confidentiality`; None where the kernel has no lockdown.
    pub lockdown: Option<String>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<u8>,
    /// `kernel.bpf_stats_enabled`.
    pub bpf_stats_enabled: Option<bool>,
    /// Where the cgroup v2 tree is mounted.
    pub cgroup2: Option<PathBuf>,
    /// Where tracefs is mounted.
    pub tracefs: Option<PathBuf>,
    /// Network namespace of this process.
    pub netns: Option<u32>,
}

impl System {
    /// This machine as seen by this process, with the BTF that the user named or the kernel's own.
    pub fn current(btf: Option<&Path>) -> Self {
        let btf = btf.unwrap_or(Path::new(VMLINUX));
        let number = |path| read(path).and_then(|text| text.parse::<u8>().ok());
        Self {
            kernel_release: read("/proc/sys/kernel/osrelease"),
            // The kernel states the size of the file's content only when it is read; sysfs gives it in the metadata.
            btf: fs::metadata(btf).ok().map(|metadata| (btf.to_owned(), metadata.len())),
            privileges: Privileges::current(),
            lockdown: lockdown::mode(),
            unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            bpf_stats_enabled: number("/proc/sys/kernel/bpf_stats_enabled").map(|number| number != 0),
            cgroup2: mounts::of_type("cgroup2").into_iter().next(),
            tracefs: mounts::of_type("tracefs").into_iter().next(),
            netns: netns::own().ok(),
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(path)).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_a_namespace() {
        let system = System::current(None);
        assert!(system.kernel_release.is_some() && system.netns.is_some());
    }
}
