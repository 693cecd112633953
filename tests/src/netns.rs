//! A network namespace that belongs to one test.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    panic,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use crate::need;

/// A namespace with its loopback up in both families; clones share it, the last one deletes it.
#[derive(Clone, Debug)]
pub struct Netns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    inode: u64,
    handle: File,
}

impl Netns {
    /// Makes a namespace under a name that no other test and no other run of the tests has.
    pub fn new() -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);

        need::root()?;
        need::tool("ip", "iproute2")?;
        let name = format!("synfin-test-{}-{}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        need::run(Command::new("ip").args(["netns", "add", &name]))?;
        let handle = File::open(path_of(&name)).with_context(|| format!("opening namespace {name}"))?;
        let inode = handle.metadata()?.ino();
        // Owned before anything else can fail: from here on the namespace is deleted in every case.
        let namespace = Self(Arc::new(Inner { name, inode, handle }));
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its path under /run/netns.
    pub fn path(&self) -> PathBuf {
        path_of(&self.0.name)
    }

    /// Its inode number: how the kernel, bpftrace and synfin name it.
    pub fn inode(&self) -> u64 {
        self.0.inode
    }

    /// Runs `ip` on this namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        need::run(Command::new("ip").args(["-n", self.name()]).args(arguments))
    }

    /// Runs `work` on a thread of its own inside the namespace, and waits for it.
    ///
    /// Sockets made there belong to the namespace for life, wherever they are used later; so do child processes. The
    /// calling thread never enters, so a panic cannot leave it in the wrong place.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(&self.0.handle, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace that it made");
                work()
            });
            worker.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Sets a sysctl of this namespace, by its path below /proc/sys/net.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| fs::write(&path, value)).with_context(|| format!("writing {value} to {}", path.display()))
    }

    /// Sets a sysctl that only some kernels have; true when this one has it.
    pub fn sysctl_if_known(&self, key: &str, value: &str) -> Result<bool> {
        if !Path::new("/proc/sys/net").join(key).exists() {
            return Ok(false);
        }
        self.sysctl(key, value).map(|()| true)
    }

    /// Takes the name away now; the namespace itself lives on while sockets or handles refer to it.
    pub fn delete(&self) -> Result<()> {
        need::run(Command::new("ip").args(["netns", "del", self.name()])).map(drop)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Already gone when the test deleted it itself; nothing is left to do about any other failure here.
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}
