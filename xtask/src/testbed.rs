//! What the end-to-end tests and the bench need of the machine: independent witnesses, a real service, its load, tracefs.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::apt;
use crate::cmd;

/// A program that tests call, and Debian's package that holds it.
struct Needed {
    program: &'static str,
    package: &'static str,
}

#[rustfmt::skip] // one row, one program, one reason
const NEEDED: [Needed; 9] = [
    Needed { program: "bpftrace",  package: "bpftrace" },     // independent witness of transitions
    Needed { program: "bpftool",   package: "bpftool" },      // run counts and times of the programs
    Needed { program: "ip",        package: "iproute2" },     // namespaces, veth, and with it nstat and ss
    Needed { program: "nft",       package: "nftables" },     // drops, NAT
    Needed { program: "nginx",     package: "nginx-light" },  // a real service
    Needed { program: "wrk",       package: "wrk" },          // load on it
    Needed { program: "promtool",  package: "prometheus" },   // Prometheus' own readers judge /metrics
    Needed { program: "tcpstates", package: "libbpf-tools" }, // compared with in the bench
    Needed { program: "tcplife",   package: "libbpf-tools" }, // the same
];

/// While this file says 101, Debian's packages start no service when they are installed.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Where bpftrace looks for tracepoints.
const TRACEFS: &str = "/sys/kernel/tracing";

/// Installs the packages that are missing and mounts tracefs if nobody did.
pub(crate) fn setup() -> Result<()> {
    let missing = missing_packages(cmd::on_path);
    if missing.is_empty() {
        cmd::say("setup", "packages for the tests: present");
    } else {
        install(&missing)?;
    }
    mount_tracefs()
}

/// Each package once, in the order of the table.
fn missing_packages(present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> = NEEDED.iter().filter(|row| !present(row.program)).map(|row| row.package).collect();
    packages.dedup();
    packages
}

fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if !apt::available() {
        bail!("the tests need programs that are missing here; install what your distribution calls: {names}");
    }
    if !cmd::is_root() {
        bail!("the tests need packages that are missing: sudo apt-get install {names}");
    }
    cmd::say("setup", format!("installing packages for the tests: {names}"));
    let no_services = NoServices::begin()?;
    let apt_get = || {
        let mut apt_get = cmd::command("apt-get");
        apt_get.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "--option", "DPkg::Lock::Timeout=300"]);
        apt_get
    };
    if let Err(error) = cmd::capture(apt_get().arg("update")) {
        // One unreachable third-party source fails the update, yet the packages may be known already.
        cmd::say("setup", format!("{error:#}; going on with the lists at hand"));
    }
    let fix = format!("read apt's words above; the tests need: {names}");
    cmd::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages), &fix)?;
    drop(no_services);
    for (package, service) in [("nginx-light", "nginx.service"), ("prometheus", "prometheus.service")] {
        if packages.contains(&package) && cmd::on_path("systemctl") {
            // Nor shall it start with the machine. Without a running systemd there is nothing to disable.
            drop(cmd::capture(cmd::command("systemctl").args(["disable", service])));
        }
    }
    let still = missing_packages(cmd::on_path);
    if !still.is_empty() {
        bail!("installed, yet their programs are not found: {}", still.join(" "));
    }
    Ok(())
}

/// Keeps services from starting until dropped. An administrator's own policy is left alone.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let ours = !Path::new(POLICY).exists();
        if ours {
            let text = "#!/bin/sh\n# Made by `cargo xtask setup --tests` while it installs; remove it if you read this.\nexit 101\n";
            std::fs::write(POLICY, text)
                .and_then(|()| std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755)))
                .with_context(|| format!("cannot write {POLICY}, which keeps services from starting"))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours && std::fs::remove_file(POLICY).is_err() {
            cmd::say("setup", format!("{POLICY} could not be removed: remove it, it keeps services from starting"));
        }
    }
}

fn mount_tracefs() -> Result<()> {
    if has_tracefs() {
        return Ok(());
    }
    cmd::say("setup", format!("mounting tracefs at {TRACEFS}: bpftrace reads the tracepoints there"));
    let mut mount = cmd::as_root("mounting", "mount".as_ref(), &[])?;
    cmd::run(
        mount.args(["-t", "tracefs", "tracefs", TRACEFS]),
        "mount tracefs there as root; a container needs CAP_SYS_ADMIN",
    )?;
    Ok(())
}

/// The folder is unreadable for anyone but root, so the mount table is asked.
fn has_tracefs() -> bool {
    std::fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounted(&mounts, TRACEFS))
}

fn mounted(mounts: &str, at: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once() {
        assert_eq!(missing_packages(|_| true), Vec::<&str>::new());
        assert_eq!(missing_packages(|program| !program.starts_with("tcp")), ["libbpf-tools"]);
        assert_eq!(missing_packages(|program| program != "nginx"), ["nginx-light"]);
    }

    #[test]
    fn the_mount_table_is_read_by_mount_point() {
        let mounts = "proc /proc proc rw 0 0\ntracefs /sys/kernel/tracing tracefs rw 0 0\n";
        assert!(mounted(mounts, TRACEFS));
        assert!(!mounted(mounts, "/sys/kernel"));
    }
}
