//! The network namespace that traffic stays in: a new one for each turn, so that no turn meets the TIME_WAIT sockets of
//! another.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::panic;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use super::undo::Undo;
use crate::cmd;

/// Segments that [`Arena::lose_segments`] drops, in percent.
pub(super) const LOSS: u32 = 2;

/// The kernel takes a namespace's sockets down after its deletion; the next turn should not pay for that.
const AFTERMATH: Duration = Duration::from_millis(300);

/// A namespace with its loopback up; deleted when dropped, and when the bench is killed.
#[derive(Debug)]
pub(super) struct Arena {
    name: String,
    handle: File,
    deleted: Option<Undo>,
}

impl Arena {
    /// Makes it.
    pub(super) fn new() -> Result<Self> {
        let name = format!("synfin-bench-{}", std::process::id());
        let deleted = Some(Undo::at_end(&format!("ip netns del {name} 2>/dev/null"))?);
        cmd::capture(cmd::command("ip").args(["netns", "add", &name]))?;
        let path = path_of(&name);
        let handle = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let arena = Self { name, handle, deleted };
        arena.ip(&["link", "set", "lo", "up"])?;
        Ok(arena)
    }

    /// Its file, as `ip netns` mounts it.
    pub(super) fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Its inode number, by which programs and `--netns` know it.
    pub(super) fn inode(&self) -> Result<u64> {
        Ok(self.handle.metadata()?.ino())
    }

    /// Moves the calling thread into it, for good.
    pub(super) fn enter(&self) -> Result<()> {
        setns(&self.handle, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter namespace {}", self.name))
    }

    /// Drops some of the segments that carry data, so that they are sent again.
    pub(super) fn lose_segments(&self) -> Result<()> {
        // As on a wire: packets of Ethernet's size, of which one is lost alone.
        self.ip(&["link", "set", "lo", "mtu", "1500", "gso_max_segs", "1"])?;
        let rules = format!(
            "add table inet bench; add chain inet bench input {{ type filter hook input priority 0; }}; \
             add rule inet bench input tcp flags & syn == 0 meta length > 1000 numgen random mod 100 < {LOSS} drop"
        );
        self.inside(|| cmd::capture(cmd::command("nft").arg(&rules)))??;
        Ok(())
    }

    /// Runs `work` on a thread of its own in the namespace; a child that it starts is in there too.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    fn ip(&self, words: &[&str]) -> Result<String> {
        cmd::capture(cmd::command("ip").args(["-n", &self.name]).args(words))
    }
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(format!("/run/netns/{name}"))
}

impl Drop for Arena {
    fn drop(&mut self) {
        drop(self.deleted.take());
        thread::sleep(AFTERMATH);
    }
}
