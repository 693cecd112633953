//! Whom data points are told of: cgroups named as a container runtime names them, with nobody in them.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::bench::undo::Undo;
use crate::cmd;

/// Owners, as many as find room in the budget of series, and more.
#[derive(Debug)]
pub(super) struct Crowds {
    pub(super) fitting: Owners,
    pub(super) exceeding: Owners,
}

impl Crowds {
    /// Where they are.
    pub(super) fn folders(&self) -> [&str; 2] {
        [&self.fitting, &self.exceeding].map(|owners| &*owners.folder)
    }
}

/// Empty cgroups; deleted when dropped, and when the bench is killed.
#[derive(Debug)]
pub(super) struct Owners {
    folder: String,
    _deleted: Undo,
}

impl Owners {
    /// Makes so many.
    pub(super) fn found(count: u64) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
        let mount = mount(&mounts).context(
            "no cgroup2 is mounted, in which the bench could make owners of connections: \
             mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
        )?;
        cmd::say("bench", format!("{count} cgroups"));
        let folder = format!("{mount}/synfin-bench-{}-{count}", std::process::id());
        let deleted = Undo::at_end(&format!("find '{folder}' -depth -type d -exec rmdir {{}} + 2>/dev/null"))?;
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {folder}"))?;
        for number in 1..=count {
            let cgroup = Path::new(&folder).join(format!("docker-{number:064x}.scope"));
            std::fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        }
        Ok(Self { folder, _deleted: deleted })
    }
}

/// Where the first cgroup2 of /proc/self/mounts is.
fn mount(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\nnone /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount("proc /proc proc rw 0 0\nshort\n"), None);
    }
}
