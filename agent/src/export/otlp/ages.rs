//! How long the things of a line have waited, without a time for each of them: only the places of a few moments are kept.
//!
//! Things enter a line at its end and leave at its head, so that those which are there are always the last that entered. To
//! know that everything before some place has been there for an hour, it suffices to have noted the place an hour ago.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The age is exact to this part of the longest that is allowed.
const PARTS: u32 = 64;

/// Ages in one line.
#[derive(Debug)]
pub(super) struct Ages {
    most: Duration,
    /// Things that ever entered.
    entered: u64,
    /// Moments, oldest first, with how many had entered by then. At most about [`PARTS`] of them.
    moments: VecDeque<(Instant, u64)>,
}

impl Ages {
    /// Of a line in which nothing may be for longer than `most`.
    pub(super) const fn new(most: Duration) -> Self {
        Self { most, entered: 0, moments: VecDeque::new() }
    }

    /// One thing enters.
    pub(super) const fn entered(&mut self) {
        self.entered += 1;
    }

    /// How many of the `waiting` things in the line have been there for too long at `now`: they are its first.
    pub(super) fn expired(&mut self, waiting: usize, now: Instant) -> usize {
        let step = self.most / PARTS;
        if self.moments.back().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= step) {
            self.moments.push_back((now, self.entered));
        }
        let mut too_old = 0;
        while let Some((moment, entered)) = self.moments.front()
            && now.saturating_duration_since(*moment) >= self.most
        {
            too_old = *entered;
            self.moments.pop_front();
        }
        let gone = self.entered - waiting as u64;
        too_old.saturating_sub(gone) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    proptest! {
        /// Beside the times of all things: what is dropped was too old, and what is not is at most two steps beyond.
        #[test]
        fn as_if_each_had_its_time(steps in prop::collection::vec((0..5_usize, 0..5_usize, 0..600_u64), 1..300)) {
            let mut now = Instant::now();
            let (mut ages, mut line) = (Ages::new(HOUR), VecDeque::new());
            for (come, go, seconds) in steps {
                for _ in 0..come {
                    ages.entered();
                    line.push_back(now);
                }
                line.drain(..go.min(line.len()));
                now += Duration::from_secs(seconds);
                let expired = ages.expired(line.len(), now);
                prop_assert!(line.drain(..expired).all(|since| now - since >= HOUR));
                // They were noted at the next look after they came, which was up to ten minutes later here.
                let late = HOUR + Duration::from_mins(10) + HOUR / PARTS;
                prop_assert!(line.iter().all(|since| now - *since <= late));
                prop_assert!(ages.moments.len() <= PARTS as usize + 1);
            }
        }
    }

    #[test]
    fn a_quiet_line_expires_too() {
        let start = Instant::now();
        let mut ages = Ages::new(HOUR);
        ages.entered();
        ages.entered();
        assert_eq!(ages.expired(2, start), 0);
        assert_eq!(ages.expired(2, start + HOUR / 2), 0);
        assert_eq!(ages.expired(1, start + HOUR), 1, "one has been sent meanwhile");
        assert_eq!(ages.expired(0, start + 2 * HOUR), 0);
    }
}
