//! How minisocks come and go, by the kernel's counters of each namespace: no event shows the end of TIME_WAIT.

use std::collections::BTreeMap;

use rustix::system::uname;

/// Counters of a namespace, read in one go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TcpExt TW and TWKilled.
    pub counted: u64,
    /// TcpExt TWRecycled: their place was taken by a new connection from here.
    pub recycled: u64,
    /// Minisocks in the tables (`tw` of /proc/net/sockstat).
    pub present: u64,
}

/// When the kernel counts a minisock in TW or TWKilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// When it is made (seen on Linux 6.1 and later).
    Made,
    /// When its timer ends it (seen on 5.10 and 5.15).
    Expired,
}

impl When {
    /// By the kernel's release; None between those that were looked at.
    fn of(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next()?.ok()?, numbers.next()?.ok()?) {
            version if version >= (6, 1) => Some(Self::Made),
            version if version <= (5, 15) => Some(Self::Expired),
            _ => None,
        }
    }
}

/// A namespace since it was met.
#[derive(Clone, Copy, Debug)]
struct Course {
    first: Counters,
    last: Counters,
    /// The most that has ended, because counters that are read one after the other can seem to go back.
    ended: u64,
}

/// What has become of minisocks since the first look, in all namespaces together.
#[derive(Debug)]
pub(super) struct Churn {
    when: Option<When>,
    courses: BTreeMap<u32, Course>,
    /// Of namespaces that are gone.
    gone: Totals,
}

/// What has become of minisocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// A new connection from here has taken their place (TWRecycled).
    pub reused: u64,
    /// They have gone in another way: their time was over, the peer connected anew, their namespace went. None where this kernel's
    /// counters have a meaning that is not known.
    pub ended: Option<u64>,
}

impl Churn {
    /// Before the first look, on this kernel.
    pub(super) fn new() -> Self {
        Self::of(When::of(&uname().release().to_string_lossy()))
    }

    fn of(when: Option<When>) -> Self {
        Self { when, courses: BTreeMap::new(), gone: Totals { reused: 0, ended: when.map(|_| 0) } }
    }

    /// Takes in the counters of every namespace that is looked at; None where they could not be read. `is_there` tells whether one that is not
    /// among them still is: then nobody looks any more, and nothing more is known.
    pub(super) fn meet(
        &mut self,
        counters: impl IntoIterator<Item = (u32, Option<Counters>)>,
        is_there: impl Fn(u32) -> bool,
    ) {
        let mut before = std::mem::take(&mut self.courses);
        for (netns, counters) in counters {
            let course = before.remove(&netns);
            let course = match (course, counters) {
                // A counter that has fallen is that of another namespace, which has got the number of one that is gone.
                (Some(course), Some(counters)) if counters.counted < course.last.counted => {
                    self.end(&course);
                    Course { first: counters, last: counters, ended: 0 }
                }
                (Some(course), Some(counters)) => course.go_on(counters, self.when),
                (Some(course), None) => course,
                (None, Some(counters)) => Course { first: counters, last: counters, ended: 0 },
                (None, None) => continue,
            };
            self.courses.insert(netns, course);
        }
        for (netns, course) in before {
            if is_there(netns) {
                self.gone.reused += course.reused();
                self.gone.ended = self.gone.ended.map(|ended| ended + course.ended);
            } else {
                self.end(&course);
            }
        }
    }

    /// What was left went with the namespace.
    fn end(&mut self, course: &Course) {
        self.gone.reused += course.reused();
        self.gone.ended = self.gone.ended.map(|ended| ended + course.ended + course.last.present);
    }

    /// Totals since the first look.
    pub(super) fn totals(&self) -> Totals {
        self.courses.values().fold(self.gone, |sum, course| Totals {
            reused: sum.reused + course.reused(),
            ended: sum.ended.map(|ended| ended + course.ended),
        })
    }
}

impl Course {
    fn go_on(self, counters: Counters, when: Option<When>) -> Self {
        let counted = counters.counted.saturating_sub(self.first.counted);
        let recycled = counters.recycled.saturating_sub(self.first.recycled);
        let ended = match when {
            Some(When::Made) => (self.first.present + counted).saturating_sub(recycled + counters.present),
            Some(When::Expired) => counted,
            None => 0,
        };
        Self { last: counters, ended: ended.max(self.ended), ..self }
    }

    const fn reused(&self) -> u64 {
        self.last.recycled.saturating_sub(self.first.recycled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn counters(counted: u64, recycled: u64, present: u64) -> Counters {
        Counters { counted, recycled, present }
    }

    #[test]
    fn kernels_count_at_different_moments() {
        for (release, when) in [
            ("5.10.0-30-amd64", Some(When::Expired)),
            ("5.15.1", Some(When::Expired)),
            ("5.19.0", None),
            ("6.1.0-28-cloud-amd64", Some(When::Made)),
            ("7.3-rc1", Some(When::Made)),
            ("strange", None),
        ] {
            assert_eq!(When::of(release), when, "{release}");
        }
    }

    #[test]
    fn what_was_made_and_is_not_there_has_ended() {
        let mut churn = Churn::of(Some(When::Made));
        churn.meet([(1, Some(counters(100, 10, 50)))], |_| false);
        assert_eq!(churn.totals(), Totals { reused: 0, ended: Some(0) }, "what was before counts nothing");
        // 20 more, 5 of all were reused, 30 have expired.
        churn.meet([(1, Some(counters(120, 15, 35))), (2, Some(counters(7, 0, 7)))], |_| false);
        assert_eq!(churn.totals(), Totals { reused: 5, ended: Some(30) });
        // One was made between two reads.
        churn.meet([(1, Some(counters(120, 15, 36))), (2, None)], |_| false);
        assert_eq!(churn.totals(), Totals { reused: 5, ended: Some(30) }, "a total never falls");
        // A namespace goes, with the minisocks that it had.
        churn.meet([(1, Some(counters(121, 15, 36)))], |_| false);
        assert_eq!(churn.totals(), Totals { reused: 5, ended: Some(37) });
    }

    #[test]
    fn a_namespace_that_is_looked_at_no_more_has_not_ended() {
        let mut churn = Churn::of(Some(When::Made));
        churn.meet([(1, Some(counters(100, 0, 50)))], |_| false);
        churn.meet([], |_| true);
        assert_eq!(churn.totals().ended, Some(0));
        churn.meet([(1, Some(counters(100, 0, 50)))], |_| false);
        churn.meet([(1, Some(counters(100, 0, 0)))], |_| false);
        assert_eq!(churn.totals().ended, Some(50), "each counts once");
        // Another one by the same number.
        churn.meet([(1, Some(counters(3, 0, 3)))], |_| false);
        churn.meet([(1, Some(counters(4, 0, 2)))], |_| false);
        assert_eq!(churn.totals().ended, Some(52));
    }

    #[test]
    fn old_kernels_count_ends_themselves() {
        let mut churn = Churn::of(Some(When::Expired));
        churn.meet([(1, Some(counters(100, 0, 50)))], |_| false);
        churn.meet([(1, Some(counters(130, 2, 90)))], |_| false);
        assert_eq!(churn.totals(), Totals { reused: 2, ended: Some(30) });
        let mut churn = Churn::of(None);
        churn.meet([(1, Some(counters(100, 0, 50)))], |_| false);
        churn.meet([(1, Some(counters(130, 2, 90)))], |_| false);
        assert_eq!(churn.totals(), Totals { reused: 2, ended: None });
    }
}
