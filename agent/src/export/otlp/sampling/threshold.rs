//! Thresholds of OpenTelemetry's consistent probability sampling, and how `tracestate` states them.

use opentelemetry::trace::TraceId;

/// One more than the largest number of 56 bits.
const RANDOMNESS: u64 = 1 << 56;

/// Bits behind the first four hexadecimal digits of 56 bits.
const BEHIND_DIGITS: u32 = 40;

/// Traces whose 56 random bits are below are left out: so many of 2^56.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Threshold(u64);

impl Threshold {
    /// Leaves nothing out.
    pub(super) const NOTHING: Self = Self(0);

    /// Keeps `ratio` (0 to 1) of the traces.
    pub(super) fn of_ratio(ratio: f64) -> Self {
        #[expect(clippy::cast_sign_loss, reason = "the ratio is at least 0")]
        let kept = (ratio.clamp(0.0, 1.0) * RANDOMNESS as f64).round() as u64;
        Self(RANDOMNESS - kept)
    }

    /// The one that begins with these four hexadecimal digits, and ends in zeroes.
    pub(super) const fn of_digits(digits: u16) -> Self {
        Self((digits as u64) << BEHIND_DIGITS)
    }

    /// Whether the trace is kept.
    pub(super) fn keeps(self, trace: TraceId) -> bool {
        let low = u128::from_be_bytes(trace.to_bytes()) as u64;
        low % RANDOMNESS >= self.0
    }

    /// How probable it is to keep a trace.
    #[cfg(test)]
    pub(super) fn probability(self) -> f64 {
        (RANDOMNESS - self.0) as f64 / RANDOMNESS as f64
    }

    /// As the entry `ot` of `tracestate` has it: up to 14 hexadecimal digits, without the zeroes at their end.
    pub(super) fn state(self) -> TraceState {
        let mut text = TraceState { bytes: *b"ot=th:00000000000000", len: PREFIX + 1 };
        for (at, byte) in text.bytes[PREFIX..].iter_mut().enumerate() {
            let digit = (self.0 >> (4 * (DIGITS - 1 - at)) & 0xf) as u8;
            *byte = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            if digit != 0 {
                text.len = PREFIX + at + 1;
            }
        }
        text
    }
}

/// Length of `ot=th:`.
const PREFIX: usize = 6;
const DIGITS: usize = 14;

/// A `tracestate`, without memory of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceState {
    bytes: [u8; PREFIX + DIGITS],
    len: usize,
}

impl TraceState {
    pub(crate) fn as_str(&self) -> &str {
        // They are letters, digits and punctuation.
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_is_by_the_low_56_bits() {
        let trace = |low: u64| TraceId::from((0xffff_u128 << 112) | u128::from(low));
        let half = Threshold::of_ratio(0.5);
        assert!(half.keeps(trace(RANDOMNESS / 2)));
        assert!(!half.keeps(trace(RANDOMNESS / 2 - 1)));
        assert!(!half.keeps(trace(0xff << 56)), "the bits above do not count");
        assert!(Threshold::of_ratio(1.0).keeps(trace(0)));
        assert!(!Threshold::of_ratio(0.0).keeps(trace(RANDOMNESS - 1)));
        assert!(Threshold::of_digits(0x8000).keeps(trace(RANDOMNESS / 2)));
        assert!(!Threshold::of_digits(0x8001).keeps(trace(RANDOMNESS / 2)));
    }

    #[test]
    fn it_is_stated_as_the_specification_says() {
        for (ratio, state) in
            [(1.0, "ot=th:0"), (0.25, "ot=th:c"), (0.5, "ot=th:8"), (0.01, "ot=th:fd70a3d70a3d71"), (0.875, "ot=th:2")]
        {
            assert_eq!(Threshold::of_ratio(ratio).state().as_str(), state, "{ratio}");
        }
        for (digits, state) in [(0, "ot=th:0"), (1, "ot=th:0001"), (0xffff, "ot=th:ffff"), (0xab00, "ot=th:ab")] {
            assert_eq!(Threshold::of_digits(digits).state().as_str(), state);
        }
    }
}
