//! Wall-clock time for the kernel's monotonic time stamps.
//!
//! Records carry `CLOCK_MONOTONIC`, people and OTLP want wall-clock time. The difference of the two is sampled once a
//! second and applied to whatever is shown: it follows the small corrections that NTP makes, and notices when somebody
//! sets the clock (or when the machine slept, during which `CLOCK_MONOTONIC` stands still).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// A difference between two samples beyond this is a jump. NTP slews by at most 0.5 ms in a second, so that even a tick
/// that comes a minute late stays below; a step is made only beyond 128 ms (ntpd) or on purpose.
pub const JUMP: Duration = Duration::from_millis(100);

/// Readings for one sample: the one with the narrowest bracket wins, so that being preempted between two of the three
/// readings does not look like a change of the clock.
const READINGS: usize = 3;

/// The two clocks. Tests inject their own.
pub trait Source: Send + Sync {
    /// `CLOCK_MONOTONIC` nanoseconds.
    fn monotonic_ns(&self) -> i64;
    /// `CLOCK_REALTIME` nanoseconds since the Unix epoch.
    fn realtime_ns(&self) -> i64;
}

/// The kernel's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Source for System {
    fn monotonic_ns(&self) -> i64 {
        read(ClockId::Monotonic)
    }

    fn realtime_ns(&self) -> i64 {
        read(ClockId::Realtime)
    }
}

/// A clock in nanoseconds; 64 bits last until the year 2262.
fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// Maps monotonic to wall-clock time. One for the agent, shared by everybody who shows a time.
pub struct Clock {
    source: Box<dyn Source>,
    /// Wall clock minus monotonic clock, nanoseconds.
    offset_ns: AtomicI64,
    jumps: AtomicU64,
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock").field("offset_ns", &self.offset_ns).field("jumps", &self.jumps).finish_non_exhaustive()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Box::new(System))
    }
}

impl Clock {
    /// A clock over `source`, sampled once.
    pub fn new(source: Box<dyn Source>) -> Self {
        let offset_ns = AtomicI64::new(sample(source.as_ref()));
        Self { source, offset_ns, jumps: AtomicU64::new(0) }
    }

    /// Samples again; to be called once a second. Answers by how many nanoseconds the wall clock jumped (forward is
    /// positive), if it did. Either way the new difference holds from now on.
    pub fn tick(&self) -> Option<i64> {
        let new = sample(self.source.as_ref());
        let change = new.saturating_sub(self.offset_ns.swap(new, Ordering::Relaxed));
        let jumped = change.unsigned_abs() > JUMP.as_nanos() as u64;
        if jumped {
            self.jumps.fetch_add(1, Ordering::Relaxed);
        }
        jumped.then_some(change)
    }

    /// Jumps so far.
    pub fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Relaxed)
    }

    /// The present difference. Times that belong together (the two ends of a span) take it once.
    pub fn offset(&self) -> Offset {
        Offset(self.offset_ns.load(Ordering::Relaxed))
    }

    /// `CLOCK_MONOTONIC` now, in nanoseconds.
    pub fn monotonic_ns(&self) -> u64 {
        self.source.monotonic_ns().try_into().unwrap_or(0)
    }
}

/// Wall clock minus monotonic clock at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset(i64);

impl Offset {
    /// An offset of so many nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// It in nanoseconds.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Nanoseconds since the Unix epoch; never before it.
    pub const fn unix_ns(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add_signed(self.0)
    }

    /// The same as a [`SystemTime`].
    pub fn system_time(self, monotonic_ns: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.unix_ns(monotonic_ns))
    }

    /// RFC 3339 in UTC with nanoseconds, as docs/EVENTS.md promises.
    pub fn rfc3339(self, monotonic_ns: u64) -> String {
        // Every u64 of nanoseconds lies within jiff's range (the years -9999 to 9999).
        let time = jiff::Timestamp::from_nanosecond(i128::from(self.unix_ns(monotonic_ns))).unwrap_or_default();
        format!("{time:.9}")
    }
}

/// Wall clock minus monotonic clock: the wall clock is read between two readings of the other, whose middle is the
/// moment it belongs to.
fn sample(source: &dyn Source) -> i64 {
    let mut best = (i64::MAX, 0);
    for _ in 0..READINGS {
        let before = source.monotonic_ns();
        let wall = source.realtime_ns();
        let bracket = source.monotonic_ns().saturating_sub(before);
        if bracket < best.0 {
            best = (bracket, wall.saturating_sub(before.saturating_add(bracket / 2)));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Clocks that stand still until moved; each reading of the monotonic one takes 20 ns.
    #[derive(Clone, Default)]
    struct Hands(Arc<(AtomicI64, AtomicI64)>);

    impl Source for Hands {
        fn monotonic_ns(&self) -> i64 {
            self.0.0.fetch_add(20, Ordering::Relaxed)
        }

        fn realtime_ns(&self) -> i64 {
            self.0.1.load(Ordering::Relaxed) + self.0.0.load(Ordering::Relaxed)
        }
    }

    fn at(wall_minus_monotonic: i64) -> (Hands, Clock) {
        let hands = Hands::default();
        hands.0.1.store(wall_minus_monotonic, Ordering::Relaxed);
        let clock = Clock::new(Box::new(hands.clone()));
        (hands, clock)
    }

    #[test]
    fn a_jump_is_counted_and_adopted_and_drift_is_followed() {
        let start = 1_700_000_000_000_000_000;
        let (hands, clock) = at(start);
        assert!((clock.offset().unix_ns(0) as i64 - start).abs() <= 20);

        hands.0.1.fetch_add(400_000, Ordering::Relaxed);
        assert_eq!(clock.tick(), None);
        assert!((clock.offset().unix_ns(0) as i64 - start - 400_000).abs() <= 20, "drift is followed");

        for (jump, jumps) in [(3_600_000_000_000, 1), (-7_200_000_000_000, 2)] {
            hands.0.1.fetch_add(jump, Ordering::Relaxed);
            let seen = clock.tick().unwrap();
            assert!((seen - jump).abs() <= 40, "{seen}");
            assert_eq!(clock.jumps(), jumps);
            assert_eq!(clock.tick(), None, "a jump is told once");
        }
    }

    #[test]
    fn a_clock_before_the_epoch_shows_the_epoch() {
        let offset = Offset::from_nanos(-5_000);
        assert_eq!(offset.system_time(1_000), SystemTime::UNIX_EPOCH);
        assert!(offset.system_time(6_000) > SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn times_are_rfc_3339_with_nanoseconds() {
        let offset = Offset::from_nanos(1_700_000_000_000_000_000);
        assert_eq!(offset.rfc3339(7), "2023-11-14T22:13:20.000000007Z");
        assert_eq!(offset.rfc3339(0), "2023-11-14T22:13:20.000000000Z");
        assert_eq!(Offset::from_nanos(0).rfc3339(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn the_kernels_clocks_agree_with_themselves() {
        let clock = Clock::default();
        assert!(clock.monotonic_ns() > 0);
        assert_eq!(clock.tick(), None);
    }
}
