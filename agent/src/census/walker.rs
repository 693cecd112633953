//! Goes through the namespaces, one after the other, on a thread of its own.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::namespaces::{Namespace, Namespaces};
use super::{Socket, States, Sums, Walk};

/// Which namespaces are walked: all, or those with these inode numbers.
pub type Only = Option<Vec<u32>>;

/// A namespace of a census.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Inode number.
    pub inode: u32,
    /// Where it is mounted, e.g. a name of `ip netns`.
    pub name: Option<String>,
    /// A process in it.
    pub pid: Option<u32>,
    /// Time that its walk took.
    pub took: Duration,
}

/// What a walk of every namespace found.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub began_ns: u64,
    /// When it ended. Each namespace was looked at once in between.
    pub ended_ns: u64,
    /// What was counted.
    pub sums: Sums,
    /// The namespaces that were walked.
    pub places: Vec<Place>,
    /// Namespaces that could not be walked, and why.
    pub failures: Vec<(u32, String)>,
}

/// Walks namespaces. Its methods move the calling thread into them, so that they are for a thread that does nothing else.
pub struct Walker {
    walk: Box<dyn Walk>,
    namespaces: Namespaces,
    only: Only,
}

impl fmt::Debug for Walker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walker").field("namespaces", &self.namespaces.len()).finish_non_exhaustive()
    }
}

impl Walker {
    /// Walks `only` these namespaces by `walk`.
    pub fn new(walk: Box<dyn Walk>, only: Only) -> Self {
        Self { walk, namespaces: Namespaces::default(), only }
    }

    /// Replaces the namespaces that are walked.
    pub fn set_only(&mut self, only: Only) {
        self.only = only;
    }

    /// Looks which namespaces there are.
    pub fn discover(&mut self) {
        self.namespaces.discover();
    }

    /// Inode numbers of the namespaces that are to be walked.
    pub fn wanted(&self) -> Vec<u32> {
        self.namespaces.iter().map(|namespace| namespace.inode).filter(|inode| self.wants(*inode)).collect()
    }

    fn wants(&self, inode: u32) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&inode))
    }

    /// Counts the sockets of these namespaces; `now` is the clock of the kernel's records.
    ///
    /// # Errors
    /// When the sums cannot be read: then nothing is known. A namespace that fails is told in the result.
    pub fn count(&mut self, inodes: &[u32], now: &dyn Fn() -> u64) -> io::Result<Census> {
        let mut census = Census { began_ns: now(), ..Census::default() };
        for inode in inodes {
            let Some(namespace) = self.namespaces.get(*inode) else { continue };
            let start = Instant::now();
            match namespace.enter().and_then(|()| self.walk.count()) {
                Ok(()) => census.places.push(place(namespace, start.elapsed())),
                Err(error) => census.failures.push((*inode, error.to_string())),
            }
        }
        census.sums = self.walk.take()?;
        // A walk that failed in its midst has counted a part.
        let failed = |netns| census.failures.iter().any(|(inode, _)| *inode == netns);
        census.sums.groups.retain(|group| !failed(group.netns));
        census.sums.listeners.retain(|row| !failed(row.netns));
        census.ended_ns = now();
        Ok(census)
    }

    /// Lists the sockets of one namespace. False if there is no such namespace any more.
    ///
    /// # Errors
    /// When it cannot be walked to its end.
    pub fn list(&mut self, inode: u32, states: States, each: &mut dyn FnMut(&Socket)) -> io::Result<bool> {
        let Some(namespace) = self.namespaces.get(inode) else { return Ok(false) };
        namespace.enter()?;
        self.walk.list(states, each)?;
        Ok(true)
    }
}

fn place(namespace: &Namespace, took: Duration) -> Place {
    Place { inode: namespace.inode, name: namespace.name.clone(), pid: namespace.pid, took }
}
