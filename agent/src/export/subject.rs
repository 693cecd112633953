//! Whom metrics are told of: the host, and each owner of connections that has a resource of its own.
//!
//! A connection is counted for one of them, so that sums over all resources are those of the host. What an owner has counted is the sum
//! over its cgroups, those included that are gone; what belongs to no owner, or to a cgroup that cannot be named, is the host's. A cgroup
//! that has not been looked up yet is told a moment later: what was counted once never moves to another resource.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::accounts::{NOBODY, OVERFLOW, Shared};
use crate::census::{Group, Listener};
use crate::distribution::Times;
use crate::ledger::Counts;
use crate::owner::directory::Known;
use crate::owner::identity::Identity;
use crate::status::Status;

/// Who one is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// The host, in the name of the agent.
    Host,
    /// All owners that found no room, told in the host's name with OpenTelemetry's overflow attribute.
    Overflow,
    /// An owner.
    Owner(Arc<Identity>),
}

/// What is told of one of them.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Who it is.
    pub who: Who,
    /// The same number as long as it is told of, and no other's before or after.
    pub number: u64,
    /// Since when its totals count, nanoseconds since the Unix epoch.
    pub since_unix_ns: u64,
    /// What its connections have done.
    pub counts: Arc<Counts>,
    /// How long they took.
    pub times: Arc<Times>,
    /// Since when its oldest CLOSE_WAIT lasts, `CLOCK_MONOTONIC` nanoseconds.
    pub close_wait_ns: Option<u64>,
    /// Its sockets at the last census.
    pub groups: Vec<Group>,
    /// Its listeners at the last census.
    pub listeners: Vec<Listener>,
    /// Namespaces and cgroups in which it has, or lately had, sockets.
    pub places: Vec<(u32, u64)>,
    /// Namespaces and ports at which it listens, or lately did.
    pub ports: Vec<(u32, u16)>,
}

impl Subject {
    fn new(who: Who, number: u64, since_unix_ns: u64) -> Self {
        Self {
            who,
            number,
            since_unix_ns,
            counts: Arc::default(),
            times: Arc::default(),
            close_wait_ns: None,
            groups: Vec::new(),
            listeners: Vec::new(),
            places: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// A host of which nothing is known.
    pub fn host(since_unix_ns: u64) -> Self {
        Self::new(Who::Host, 0, since_unix_ns)
    }

    /// Whether it is the host.
    pub fn is_host(&self) -> bool {
        self.who == Who::Host
    }
}

/// What can be added up over cgroups.
trait Sum: Clone {
    fn add_all(&mut self, other: &Self);
}

impl Sum for Counts {
    fn add_all(&mut self, other: &Self) {
        self.add(other);
    }
}

impl Sum for Times {
    fn add_all(&mut self, other: &Self) {
        self.merge(other);
    }
}

/// Sums of one kind, by the number of the subject.
#[derive(Debug)]
struct Sums<T> {
    /// Rows as they were last, with whose they are.
    last: HashMap<u64, (u64, Arc<T>)>,
    /// What rows that are gone have counted.
    gone: HashMap<u64, Arc<T>>,
}

/// Adds a row to the sum of a subject. Most have one row, which is the sum.
fn add_row<T: Sum>(sums: &mut HashMap<u64, Arc<T>>, number: u64, row: &Arc<T>) {
    match sums.entry(number) {
        Entry::Occupied(mut sum) => Arc::make_mut(sum.get_mut()).add_all(row),
        Entry::Vacant(sum) => {
            sum.insert(Arc::clone(row));
        }
    }
}

impl<T> Default for Sums<T> {
    fn default() -> Self {
        Self { last: HashMap::new(), gone: HashMap::new() }
    }
}

impl<T: Sum> Sums<T> {
    fn collect(&mut self, rows: &[Shared<T>], mut whose: impl FnMut(u64) -> Option<u64>) -> HashMap<u64, Arc<T>> {
        let mut now = HashMap::with_capacity(rows.len());
        for Shared { cgroup, row, value } in rows {
            // Whose it was once it is: who is asked may have forgotten.
            let known = self.last.get(row).map(|(number, _)| *number);
            if let Some(number) = known.or_else(|| whose(*cgroup)) {
                now.insert(*row, (number, Arc::clone(value)));
            }
        }
        for (row, (number, value)) in std::mem::take(&mut self.last) {
            if !now.contains_key(&row) {
                add_row(&mut self.gone, number, &value);
            }
        }
        let mut sums = self.gone.clone();
        for (number, value) in now.values() {
            add_row(&mut sums, *number, value);
        }
        self.last = now;
        sums
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.last.values().map(|(number, _)| *number)
    }
}

/// Which cgroup belongs to whom.
#[derive(Debug)]
struct Roster {
    /// With the number of each, and since when it counts.
    known: BTreeMap<Who, (u64, u64)>,
    next: u64,
    /// Cgroups that are not looked up yet, with the moment since which they may have counted.
    pending: HashMap<u64, u64>,
    /// Up to this moment the last collection told.
    told_unix_ns: u64,
    /// Whether owners are told apart at all.
    has_owners: bool,
}

impl Roster {
    /// The number of the subject that a cgroup belongs to; None while that is not known.
    fn whose(&mut self, cgroup: u64, known: &dyn Fn(u64) -> Known) -> Option<u64> {
        let who = match cgroup {
            OVERFLOW if self.has_owners => Who::Overflow,
            NOBODY | OVERFLOW => Who::Host,
            cgroup => match known(cgroup) {
                Known::Pending => {
                    self.pending.entry(cgroup).or_insert(self.told_unix_ns);
                    return None;
                }
                Known::Host => Who::Host,
                Known::Of(identity) => Who::Owner(identity),
            },
        };
        let since = self.pending.remove(&cgroup).unwrap_or(self.told_unix_ns);
        let next = &mut self.next;
        let (number, _) = self.known.entry(who).or_insert_with(|| {
            *next += 1;
            (*next - 1, since)
        });
        Some(*number)
    }
}

/// A clock that goes back by more than this was set.
const STEP_NS: u64 = 5_000_000_000;

/// Keeps subjects apart, from one collection to the next.
#[derive(Debug)]
pub struct Subjects {
    roster: Roster,
    counts: Sums<Counts>,
    times: Sums<Times>,
}

impl Subjects {
    /// None yet but the host; the agent counts since this moment. Without owners there will be no others.
    pub fn new(since_unix_ns: u64, has_owners: bool) -> Self {
        let roster = Roster {
            known: BTreeMap::from([(Who::Host, (0, since_unix_ns))]),
            next: 1,
            pending: HashMap::new(),
            told_unix_ns: since_unix_ns,
            has_owners,
        };
        Self { roster, counts: Sums::default(), times: Sums::default() }
    }

    /// All subjects at the moment of `status`, which is `unix_ns`, the host last. `known` says what a cgroup is. Answers when it was too:
    /// not before the last time, unless the clock was set back.
    pub fn collect(&mut self, status: &Status, unix_ns: u64, known: &dyn Fn(u64) -> Known) -> (u64, Arc<[Subject]>) {
        let Self { roster, counts, times } = self;
        // A clock that was corrected a little waits until it has caught up. One that was set back by much is believed, and what has begun
        // since then begins now.
        let is_set_back = unix_ns.saturating_add(STEP_NS) < roster.told_unix_ns;
        let unix_ns = if is_set_back { unix_ns } else { unix_ns.max(roster.told_unix_ns) };
        let mut cgroups: HashMap<u64, Option<u64>> = HashMap::new();
        let mut whose = |cgroup: u64| *cgroups.entry(cgroup).or_insert_with(|| roster.whose(cgroup, known));
        let mut sums = counts.collect(&status.accounts, &mut whose);
        let mut all_times = times.collect(&status.times, &mut whose);
        let mut told: HashMap<u64, Census<'_>> = HashMap::new();
        if let Some(census) = &status.census {
            // What is not looked up yet is told the next time: a gauge that moves would stay where it was, for whoever reads it.
            for group in &census.sums.groups {
                let Some(number) = whose(group.cgroup) else { continue };
                told.entry(number).or_default().groups.push(group);
            }
            for listener in &census.sums.listeners {
                let Some(number) = whose(listener.cgroup) else { continue };
                told.entry(number).or_default().listeners.push(listener);
            }
            for place @ (_, cgroup) in census.memory.places.iter() {
                let Some(number) = whose(cgroup) else { continue };
                told.entry(number).or_default().places.push(place);
            }
            for (netns, port, cgroup) in census.memory.ports.iter() {
                let Some(number) = whose(cgroup) else { continue };
                told.entry(number).or_default().ports.push((netns, port));
            }
        }
        let mut close_waits: HashMap<u64, u64> = HashMap::new();
        for (cgroup, since_ns) in &*status.close_waits {
            let Some(number) = whose(*cgroup) else { continue };
            let oldest = close_waits.entry(number).or_insert(*since_ns);
            *oldest = (*oldest).min(*since_ns);
        }
        // What nothing tells of any more is over; should it come back, it counts from zero.
        let heard: HashSet<u64> =
            counts.numbers().chain(times.numbers()).chain(told.keys().chain(close_waits.keys()).copied()).collect();
        roster.known.retain(|who, (number, _)| *who == Who::Host || heard.contains(number));
        for number in counts.gone.keys().chain(times.gone.keys()).copied().collect::<Vec<_>>() {
            if number != 0 && !heard.contains(&number) {
                counts.gone.remove(&number);
                times.gone.remove(&number);
            }
        }
        // One that is not met any more will not be asked for.
        roster.pending.retain(|cgroup, _| cgroups.get(cgroup) == Some(&None));
        roster.told_unix_ns = unix_ns;
        // The host's order is the first.
        let subjects = roster
            .known
            .iter_mut()
            .rev()
            .map(|(who, (number, since))| {
                *since = (*since).min(unix_ns);
                let census = told.remove(number).unwrap_or_default();
                Subject {
                    counts: sums.remove(number).unwrap_or_default(),
                    times: all_times.remove(number).unwrap_or_default(),
                    close_wait_ns: close_waits.get(number).copied(),
                    groups: census.groups.into_iter().copied().collect(),
                    listeners: census.listeners.into_iter().copied().collect(),
                    places: census.places,
                    ports: census.ports,
                    ..Subject::new(who.clone(), *number, *since)
                }
            })
            .collect();
        (unix_ns, subjects)
    }
}

/// What a census tells of a subject.
#[derive(Default)]
struct Census<'a> {
    groups: Vec<&'a Group>,
    listeners: Vec<&'a Listener>,
    places: Vec<(u32, u64)>,
    ports: Vec<(u32, u16)>,
}
