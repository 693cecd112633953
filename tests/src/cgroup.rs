//! A cgroup v2 that belongs to one test.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::need;

/// A cgroup, removed with its processes' end and the parents that were made for it. Dropped before others below the same parents were,
/// it leaves these to them.
#[derive(Debug)]
pub struct Cgroup {
    mount: PathBuf,
    path: String,
    /// From the innermost on.
    made: Vec<PathBuf>,
    /// Where no hierarchy was mounted before.
    own: Option<TempDir>,
}

impl Cgroup {
    /// Makes the cgroup of this path below the mount, with the parents that are missing.
    pub fn new(path: &str) -> Result<Self> {
        need::root()?;
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let known =
            fields.filter(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| PathBuf::from(fields[1])).next();
        let (mount, own) = if let Some(mount) = known {
            (mount, None)
        } else {
            let folder = TempDir::new()?;
            need::run(Command::new("mount").args(["-t", "cgroup2", "none"]).arg(folder.path()))?;
            (folder.path().to_owned(), Some(folder))
        };
        let mut cgroup = Self { mount: mount.clone(), path: path.to_owned(), made: Vec::new(), own };
        let mut folder = mount;
        for part in Path::new(path).strip_prefix("/")? {
            folder.push(part);
            match fs::create_dir(&folder) {
                Ok(()) => cgroup.made.insert(0, folder.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder != cgroup.folder() => {}
                Err(error) => return Err(error).with_context(|| format!("making the cgroup {}", folder.display())),
            }
        }
        Ok(cgroup)
    }

    /// Its directory.
    pub fn folder(&self) -> PathBuf {
        self.mount.join(self.path.trim_start_matches('/'))
    }

    /// Its path below the mount.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its id: the inode number of its directory.
    pub fn id(&self) -> Result<u64> {
        Ok(fs::metadata(self.folder())?.ino())
    }

    /// Moves a process into it.
    pub fn take_in(&self, pid: u32) -> Result<()> {
        fs::write(self.folder().join("cgroup.procs"), pid.to_string()).context("moving a process into its cgroup")
    }

    /// Removes it, once its processes have ended.
    pub fn remove(&mut self) {
        for folder in self.made.drain(..) {
            // A process that has just ended is still in it for a moment.
            for _ in 0..100 {
                if fs::remove_dir(&folder).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
        if let Some(folder) = &self.own {
            drop(Command::new("umount").arg(folder.path()).output());
        }
    }
}
