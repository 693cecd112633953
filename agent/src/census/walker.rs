//! Goes through the namespaces, one after the other, on a thread of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::cadence::Cadence;
use super::churn::{self, Churn};
use super::mark::{self, Mark};
use super::namespaces::{Namespace, Namespaces};
use super::{Ephemeral, Form, Held, Memory, Socket, States, Sums, Walk, holders};

/// Which namespaces are walked: all, or those with these inode numbers.
pub type Only = Option<Vec<u32>>;

/// A namespace of a census.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Inode number.
    pub inode: u32,
    /// Where it is mounted, e.g. a name of `ip netns`.
    pub name: Option<String>,
    /// CPU time that the walk took.
    pub took: Duration,
    /// Its ephemeral ports; None where they were not counted, or where it cannot be told which these are.
    pub ephemeral: Option<Ephemeral>,
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
    /// CPU time that it took, the look at counters and for namespaces included.
    pub cost: Duration,
    /// Processes whose namespaces could not be asked for, unless the namespaces to walk were named: see [`Namespaces::hidden`].
    pub hidden: usize,
    /// What has become of minisocks since the first [`Walker::survey`].
    pub churn: churn::Totals,
    /// What this and earlier censuses have met of late, in a [`Walker::survey`].
    pub memory: Memory,
}

/// Walks namespaces. Its methods move the calling thread into them, so that they are for a thread that does nothing else.
pub struct Walker {
    walk: Box<dyn Walk>,
    namespaces: Namespaces,
    only: Only,
    /// The last walk of each namespace, for [`Walker::survey`].
    known: BTreeMap<u32, (Place, Sums)>,
    memory: Memory,
    churn: Churn,
}

impl fmt::Debug for Walker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walker").field("namespaces", &self.namespaces.len()).finish_non_exhaustive()
    }
}

impl Walker {
    /// Walks `only` these namespaces by `walk`.
    pub fn new(walk: Box<dyn Walk>, only: Only) -> Self {
        Self {
            walk,
            namespaces: Namespaces::default(),
            only,
            known: BTreeMap::new(),
            memory: Memory::default(),
            churn: Churn::new(),
        }
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

    /// Processes that may be in namespaces that should be walked and are not known.
    pub fn hidden(&self) -> usize {
        if self.only.is_none() { self.namespaces.hidden() } else { 0 }
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
            let start = cpu_time();
            match namespace.enter().and_then(|()| self.walk.count()) {
                Ok(taken) => {
                    let ephemeral = Ephemeral::of_this_thread(&taken);
                    census.places.push(place(namespace, cpu_time().saturating_sub(start), ephemeral));
                }
                Err(error) => census.failures.push((*inode, error.to_string())),
            }
        }
        census.sums = self.walk.take()?;
        // A walk that failed in its midst has counted a part.
        let failed = |netns| census.failures.iter().any(|(inode, _)| *inode == netns);
        census.sums.groups.retain(|group| !failed(group.netns));
        census.sums.listeners.retain(|row| !failed(row.netns));
        census.ended_ns = now();
        census.hidden = self.hidden();
        census.cost = census.places.iter().map(|place| place.took).sum();
        Ok(census)
    }

    /// Brings what is known of all namespaces up to date, within the budget of `cadence`.
    ///
    /// # Errors
    /// As [`Walker::count`].
    pub fn survey(&mut self, cadence: &mut Cadence, now: &dyn Fn() -> u64) -> io::Result<Census> {
        let (start, began_ns) = (cpu_time(), now());
        self.namespaces.discover();
        let marks: Vec<(u32, Option<Mark>)> =
            self.wanted().into_iter().map(|inode| (inode, self.mark(inode))).collect();
        let counters = marks.iter().map(|(inode, mark)| (*inode, mark.map(|mark| mark.minisocks)));
        self.churn.meet(counters, |inode| self.namespaces.get(inode).is_some());
        let all: Vec<_> = marks.iter().map(|(inode, mark)| (*inode, mark.map(|mark| mark.number))).collect();
        let due = cadence.due(&all, began_ns);
        cadence.spent(cpu_time().saturating_sub(start));
        let mut failures = Vec::new();
        for inode in due {
            if !cadence.may_walk(inode) {
                continue;
            }
            let Census { mut places, sums, failures: failed, .. } = self.count(&[inode], now)?;
            failures.extend(failed);
            let Some(place) = places.pop() else {
                // What it held before is not what it holds now.
                self.known.remove(&inode);
                cadence.failed(inode);
                continue;
            };
            // Half-open sockets go without a counter that tells, and TIME_WAIT in a namespace that hides its counters.
            let counted = all.iter().find(|(other, _)| *other == inode).and_then(|(_, mark)| *mark);
            let quiet = sums.groups.iter().all(|group| group.form != Form::Request);
            cadence.walked(inode, counted.filter(|_| quiet), place.took);
            self.known.insert(inode, (place, sums));
        }
        self.known.retain(|inode, _| all.iter().any(|(other, _)| other == inode));
        let mut census = Census { began_ns, failures, churn: self.churn.totals(), ..Census::default() };
        census.hidden = self.hidden();
        for (place, sums) in self.known.values() {
            census.places.push(place.clone());
            census.sums.add(sums);
        }
        self.memory.meet(began_ns, &census.sums, &census.places);
        census.memory = self.memory.clone();
        census.ended_ns = now();
        census.cost = cpu_time().saturating_sub(start);
        Ok(census)
    }

    fn mark(&self, inode: u32) -> Option<Mark> {
        self.namespaces.get(inode)?.enter().ok()?;
        mark::of_this_thread()
    }

    /// Looks which namespaces there are, those that only an open socket keeps alive included, where the walk can tell them.
    pub fn discover_all(&mut self) {
        let mut held = Vec::new();
        if matches!(self.walk.holders(&mut |file| held.push(file)), Ok(true)) {
            self.namespaces.meet_held(&held);
        }
        self.namespaces.discover();
    }

    /// Every open file that is a TCP socket. Namespaces that only such a file keeps alive are found by the next [`Walker::discover`].
    pub fn holders(&mut self) -> Vec<Held> {
        let mut held = Vec::new();
        let told = self.walk.holders(&mut |file| held.push(file)).unwrap_or_else(|error| {
            tracing::warn!(%error, "who holds sockets is looked up in /proc");
            held.clear();
            false
        });
        if told {
            self.namespaces.meet_held(&held);
        } else {
            holders::in_proc(&mut |file| held.push(file));
        }
        held
    }

    /// A namespace that is to be walked now, as of the last [`Walker::discover`].
    pub fn place(&self, inode: u32) -> Option<Place> {
        self.namespaces.get(inode).map(|namespace| place(namespace, Duration::ZERO, None))
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

fn place(namespace: &Namespace, took: Duration, ephemeral: Option<Ephemeral>) -> Place {
    Place { inode: namespace.inode, name: namespace.name.clone(), took, ephemeral }
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
