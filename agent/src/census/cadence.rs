//! When which namespace is walked. Each walk scans the table of sockets that all namespaces share, so that a hundred quiet ones must not cost a
//! hundred scans each time: those whose counters stand still keep what was counted, and the others share a budget.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a user may decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Share of one CPU that walks may take.
    pub share: f64,
    /// Longest time after which a namespace in which something happens is walked again, whatever the budget.
    pub interval: Duration,
}

/// Shortest time between two censuses.
pub const PERIOD: Duration = Duration::from_secs(5);

/// A namespace in which nothing seems to happen is walked all the same after this many intervals: applications that read or
/// write what is queued move no counter.
const QUIET_INTERVALS: u32 = 10;

/// What is known of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    walked_ns: u64,
    /// Its counters when it was walked; None where they cannot be read, or where a walk shows what no counter does.
    mark: Option<u64>,
}

/// Decides. Times are nanoseconds of any clock that does not jump.
#[derive(Debug)]
pub struct Cadence {
    pace: Pace,
    places: BTreeMap<u32, Place>,
    /// Those that have waited for too long to ask for the budget.
    overdue: BTreeSet<u32>,
    /// Nanoseconds of CPU that may be spent; negative after a walk that took more.
    budget_ns: f64,
    now_ns: u64,
}

impl Cadence {
    /// Nothing has been walked yet.
    pub fn new(pace: Pace, now_ns: u64) -> Self {
        Self { pace, places: BTreeMap::new(), overdue: BTreeSet::new(), budget_ns: 0.0, now_ns }
    }

    /// The namespaces to walk now, most urgent first: of `all`, with their marks, those that are new, changed or long unwalked. Walk them as long as
    /// [`Cadence::may_walk`] says so.
    pub fn due(&mut self, all: &[(u32, Option<u64>)], now_ns: u64) -> Vec<u32> {
        let passed = now_ns.saturating_sub(self.now_ns) as f64;
        let most = self.pace.share * self.pace.interval.as_nanos() as f64;
        self.budget_ns = (self.budget_ns + passed * self.pace.share).min(most);
        self.now_ns = now_ns;
        self.places.retain(|inode, _| all.iter().any(|(other, _)| other == inode));
        self.overdue.clear();
        let quiet = self.pace.interval * QUIET_INTERVALS;
        // What has changed comes first, then what has been still; the longest unwalked before the others.
        let mut due: Vec<(bool, u64, u32)> = Vec::new();
        for &(inode, mark) in all {
            let Some(place) = self.places.get(&inode) else {
                self.overdue.insert(inode);
                due.push((false, 0, inode));
                continue;
            };
            let still = mark.is_some() && mark == place.mark;
            let patience = if still { quiet } else { self.pace.interval };
            let age = Duration::from_nanos(now_ns.saturating_sub(place.walked_ns));
            if age >= patience * if still { 2 } else { 1 } {
                self.overdue.insert(inode);
            }
            if !still || age >= quiet {
                due.push((still, place.walked_ns, inode));
            }
        }
        due.sort_unstable();
        due.into_iter().map(|(_, _, inode)| inode).collect()
    }

    /// Whether this namespace may be walked now: there is budget, or it has waited for too long.
    pub fn may_walk(&self, inode: u32) -> bool {
        self.budget_ns >= 0.0 || self.overdue.contains(&inode)
    }

    /// A namespace was walked. `mark` are its counters from before the walk.
    pub fn walked(&mut self, inode: u32, mark: Option<u64>, cost: Duration) {
        self.spent(cost);
        self.places.insert(inode, Place { walked_ns: self.now_ns, mark });
    }

    /// A namespace could not be walked: nothing is known of it.
    pub fn failed(&mut self, inode: u32) {
        self.places.remove(&inode);
    }

    /// Something else was done for the census.
    pub fn spent(&mut self, cost: Duration) {
        self.budget_ns -= cost.as_nanos() as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const PACE: Pace = Pace { share: 0.01, interval: Duration::from_secs(30) };
    const WALK: Duration = Duration::from_millis(12);

    /// Lets a census come every period; answers how often each namespace was walked.
    fn play(seconds: u64, all: impl Fn(u64) -> Vec<(u32, Option<u64>)>) -> BTreeMap<u32, u64> {
        let mut cadence = Cadence::new(PACE, 0);
        let mut walks = BTreeMap::new();
        for second in (0..seconds).step_by(PERIOD.as_secs() as usize) {
            let all = all(second);
            for inode in cadence.due(&all, second * SECOND) {
                if cadence.may_walk(inode) {
                    let mark = all.iter().find(|(other, _)| *other == inode).and_then(|(_, mark)| *mark);
                    cadence.walked(inode, mark, WALK);
                    *walks.entry(inode).or_default() += 1;
                }
            }
        }
        walks
    }

    #[test]
    fn one_busy_namespace_is_walked_each_time() {
        let walks = play(3000, |second| vec![(1, Some(second))]);
        assert_eq!(walks[&1], 600);
    }

    #[test]
    fn quiet_namespaces_cost_next_to_nothing() {
        let walks =
            play(3000, |second| (1..=100).map(|inode| (inode, Some(if inode == 1 { second } else { 0 }))).collect());
        assert!(walks[&1] > 500, "{walks:?}");
        assert!(
            (2..=100).all(|inode| (9..=10).contains(&walks[&inode])),
            "at the start, and every five minutes: {walks:?}"
        );
    }

    #[test]
    fn many_busy_namespaces_take_turns_within_the_interval() {
        let walks = play(3000, |second| (1..=100).map(|inode| (inode, Some(second))).collect());
        // A hundred of them cost 1.2 s: the interval wins over the share, and nobody is walked more often.
        assert!(walks.values().all(|walks| (100..=102).contains(walks)), "{walks:?}");
        let walks = play(3000, |second| (1..=10).map(|inode| (inode, Some(second))).collect());
        let sum: u64 = walks.values().sum();
        let share = sum as f64 * WALK.as_secs_f64() / 3000.0;
        assert!((0.009..=0.0101).contains(&share), "{share} {walks:?}");
    }

    #[test]
    fn what_has_no_counters_is_walked() {
        assert_eq!(play(300, |_| vec![(1, None)])[&1], 60);
    }

    #[test]
    fn who_comes_back_is_new() {
        let mut cadence = Cadence::new(PACE, 0);
        assert_eq!(cadence.due(&[(1, Some(7)), (2, Some(7))], 0), [1, 2]);
        cadence.walked(1, Some(7), WALK);
        cadence.walked(2, Some(7), WALK);
        assert!(cadence.due(&[(1, Some(7))], SECOND).is_empty());
        assert_eq!(cadence.due(&[(1, Some(7)), (2, Some(7))], 2 * SECOND), [2]);
    }
}
