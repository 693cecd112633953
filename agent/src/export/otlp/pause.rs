//! Pauses between attempts (OTLP: "an exponential back-off with jitter"): each about twice as long as the one before, and no two agents'
//! alike, so that those of a whole fleet do not come back at the same moment.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The first one at most,
const FIRST: Duration = Duration::from_secs(1);
/// and each of the later ones.
const LONGEST: Duration = Duration::from_secs(30);

/// Longest pause that an endpoint may ask for. Whoever asks for more is more likely to be wrong than to mean it.
pub(super) const LONGEST_ASKED: Duration = Duration::from_hours(1);

/// The pauses after attempts that have failed one after the other.
#[derive(Debug)]
pub(super) struct Pauses {
    longest: Duration,
}

impl Pauses {
    /// After something has succeeded, or at the beginning.
    pub(super) const fn new() -> Self {
        Self { longest: FIRST }
    }

    /// The next one, no shorter than the endpoint has asked for.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let asked = asked.unwrap_or_default().min(LONGEST_ASKED);
        let longest = self.longest;
        self.longest = (longest * 2).min(LONGEST);
        // All agents may be asked for the same pause: so it is added to as well.
        asked.max(longest / 2) + (longest / 2).mul_f64(chance())
    }
}

/// A number below 1, another one each time.
fn chance() -> f64 {
    // The standard library's keys of hash tables are random.
    (RandomState::new().hash_one(()) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_differ() {
        let runs: Vec<Vec<Duration>> = (0..50)
            .map(|_| {
                let mut pauses = Pauses::new();
                (0..8).map(|_| pauses.next(None)).collect()
            })
            .collect();
        for run in &runs {
            for (pause, longest) in run.iter().zip([1, 2, 4, 8, 16, 30, 30, 30].map(Duration::from_secs)) {
                assert!((longest / 2..longest).contains(pause), "{pause:?} of {longest:?}");
            }
        }
        assert!(runs.iter().flatten().collect::<HashSet<_>>().len() > 300, "{runs:?}");
    }

    #[test]
    fn an_endpoint_is_given_what_it_asks_for_but_no_more_than_an_hour() {
        let asked = Duration::from_secs(100);
        let pauses: Vec<_> = (0..20).map(|_| Pauses::new().next(Some(asked))).collect();
        assert!(pauses.iter().all(|pause| (asked..asked + FIRST).contains(pause)), "{pauses:?}");
        assert!(Pauses::new().next(Some(Duration::MAX)) < LONGEST_ASKED + FIRST);
    }
}
