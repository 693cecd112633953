//! Whether this process may load tracing programs.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// A capability of linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// CAP_SYS_ADMIN: everything that the two others allow, and much more.
    SysAdmin = 21,
    /// CAP_PERFMON (5.8): tracing programs, kernel addresses.
    Perfmon = 38,
    /// CAP_BPF (5.8): maps and programs.
    Bpf = 39,
}

impl Capability {
    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

/// What this process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// `CapEff` of /proc/self/status; None where it could not be read.
    pub effective: Option<u64>,
    /// Whether it lives in the first user namespace: capabilities of another one do not count for BPF.
    pub initial_user_namespace: bool,
}

impl Privileges {
    /// Those of this process.
    pub fn current() -> Self {
        /// `PROC_USER_INIT_INO` of linux/proc_ns.h.
        const INITIAL: u64 = 0xEFFF_FFFD;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // Unreadable counts as the first one: the kernel has the last word at load.
        let namespace = fs::metadata("/proc/self/ns/user").map_or(INITIAL, |metadata| metadata.ino());
        Self { effective: effective(&status), initial_user_namespace: namespace == INITIAL }
    }

    /// Whether a capability is in effect.
    pub fn has(self, capability: Capability) -> bool {
        self.effective.is_some_and(|set| set & (1 << capability as u32) != 0)
    }

    /// Whether they suffice for synfin: CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// What is missing, with the remedy.
    pub fn suffice(self) -> Result<(), MissingPrivileges> {
        let missing: Vec<Capability> = if self.effective.is_none() || self.has(Capability::SysAdmin) {
            Vec::new() // where /proc does not tell, the kernel will
        } else {
            [Capability::Bpf, Capability::Perfmon].into_iter().filter(|&capability| !self.has(capability)).collect()
        };
        if missing.is_empty() && self.initial_user_namespace {
            return Ok(());
        }
        Err(MissingPrivileges { missing, initial_user_namespace: self.initial_user_namespace })
    }
}

fn effective(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

/// This process may not load tracing programs: exit code 77.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct MissingPrivileges {
    /// Capabilities that are not in effect.
    pub missing: Vec<Capability>,
    /// False in a user namespace of its own, e.g. a rootless container.
    pub initial_user_namespace: bool,
}

impl MissingPrivileges {
    /// What is missing, in one line.
    pub fn what(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        if !self.missing.is_empty() {
            let names: Vec<&str> = self.missing.iter().map(|capability| capability.name()).collect();
            parts.push(format!("{} not in effect", names.join(" and ")));
        }
        if !self.initial_user_namespace {
            parts.push("in a user namespace, whose capabilities do not count for BPF".to_owned());
        }
        parts.join("; ")
    }

    /// What to do, in one line.
    pub fn remedy(&self) -> &'static str {
        if self.initial_user_namespace {
            "run it with sudo, or `setcap cap_bpf,cap_perfmon+ep` the binary, or give the container \
             securityContext.capabilities.add: [BPF, PERFMON] (SYS_ADMIN instead where the runtime does not know them)"
        } else {
            "run it on the host as root, or in a container without a user namespace (rootful, hostUsers: true)"
        }
    }
}

impl fmt::Display for MissingPrivileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing privileges: {}; {}", self.what(), self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BPF: u64 = 1 << 39;
    const PERFMON: u64 = 1 << 38;

    fn suffice(effective: u64) -> Result<(), MissingPrivileges> {
        Privileges { effective: Some(effective), initial_user_namespace: true }.suffice()
    }

    #[test]
    fn bpf_with_perfmon_or_sys_admin() {
        assert_eq!(suffice(BPF | PERFMON), Ok(()));
        assert_eq!(suffice(1 << 21), Ok(()));
        assert_eq!(suffice(u64::MAX), Ok(()));
        assert_eq!(suffice(BPF).unwrap_err().missing, [Capability::Perfmon]);
        let error = suffice(0).unwrap_err();
        assert_eq!(error.missing, [Capability::Bpf, Capability::Perfmon]);
        let text = error.to_string();
        for part in ["CAP_BPF and CAP_PERFMON not in effect", "sudo", "setcap", "securityContext"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn root_of_a_user_namespace_is_not_enough() {
        let error = Privileges { effective: Some(u64::MAX), initial_user_namespace: false }.suffice().unwrap_err();
        assert!(error.to_string().contains("in a user namespace"), "{error}");
    }

    #[test]
    fn reads_the_status_file() {
        assert_eq!(effective("CapPrm:\tffff\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("CapEff:\tnonsense\n"), None);
        assert_eq!(effective(""), None);
        assert!(Privileges::current().effective.is_some());
    }
}
