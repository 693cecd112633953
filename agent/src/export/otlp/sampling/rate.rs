//! A limit of spans a second that only chance decides on: by how many come, not by which.
//!
//! A token bucket would keep those that come first, and nobody could say with which probability. Here the probability follows
//! the rate at which spans arrive, as in OpenTelemetry's consistent rate limiting: what arrived lately is counted with a weight
//! that fades ([`MEMORY_NS`]), and the threshold is such that of as many the limit is kept. A rush after a silence is believed only as
//! it goes on: beside the limit it keeps what comes in a second of the limit, and that once more for each factor of 2.7 by which it is
//! above.

/// How long the past counts: its weight falls to a third in this time.
const MEMORY_NS: f64 = 1e9;

/// Probabilities are whole numbers of this part.
const PARTS: u32 = 1 << 16;

/// What arrives, against a limit.
#[derive(Debug)]
pub(super) struct Rate {
    /// Spans a second that are kept.
    limit: f64,
    /// Arrivals, weighted by their age.
    weight: f64,
    last_ns: u64,
}

impl Rate {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit: limit.into(), weight: 0.0, last_ns: 0 }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.last_ns);
        if passed > 0 {
            self.last_ns = now_ns;
            self.weight *= (-(passed as f64) / MEMORY_NS).exp();
        }
    }

    /// A span arrives, kept or not.
    pub(super) fn arrived(&mut self) {
        self.weight += 1.0;
    }

    /// The first four hexadecimal digits of the threshold that keeps to the limit, the others being zeroes: rounded so that less
    /// is kept rather than more, but something.
    pub(super) fn digits(&self) -> u16 {
        let arriving = self.weight * 1e9 / MEMORY_NS;
        if arriving <= self.limit {
            return 0;
        }
        #[expect(clippy::cast_sign_loss, reason = "both are positive")]
        let kept = (self.limit / arriving * f64::from(PARTS)) as u32;
        // From 1 to 65,535: the threshold is from 0xffff to 1.
        (PARTS - kept.clamp(1, PARTS - 1)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans that a limit keeps in each second, on average, of `arriving` a second that come in passes of 20 ms.
    fn kept(limit: u32, arriving: u32, seconds: u32) -> Vec<f64> {
        let mut rate = Rate::new(limit);
        let (mut now_ns, mut due) = (1_000_000_000, 0.0);
        let mut second = || {
            let mut kept = 0.0;
            for _ in 0..50 {
                now_ns += 20_000_000;
                rate.pass(now_ns);
                due += f64::from(arriving) / 50.0;
                while due >= 1.0 {
                    due -= 1.0;
                    rate.arrived();
                    kept += super::super::Threshold::of_digits(rate.digits()).probability();
                }
            }
            kept
        };
        (0..seconds).map(|_| second()).collect()
    }

    #[test]
    fn the_limit_is_kept_to_once_the_rate_is_known() {
        for (limit, arriving) in [(1, 20), (10, 1_000), (1_000, 5_000), (1_000, 100_000), (100, 150)] {
            let seconds = kept(limit, arriving, 20);
            let limit = f64::from(limit);
            for kept in &seconds[10..] {
                assert!((0.9 * limit..1.1 * limit).contains(kept), "{kept} a second, not {limit}, of {arriving}");
            }
            // What passes beyond it at the beginning.
            let burst = seconds.iter().sum::<f64>() - 20.0 * limit;
            let most = 1.1 * limit * (1.0 + (f64::from(arriving) / limit).ln()) + 1.0;
            assert!(burst <= most, "{burst} beyond the limit of {limit}, of {arriving}");
        }
    }

    #[test]
    fn what_is_below_the_limit_is_kept_whole() {
        assert!(kept(1_000, 900, 10).iter().all(|kept| (*kept - 900.0).abs() < 1.0));
    }

    #[test]
    fn a_flood_keeps_something() {
        let mut rate = Rate::new(1);
        for _ in 0..10_000_000 {
            rate.arrived();
        }
        assert_eq!(rate.digits(), 0xffff);
    }
}
