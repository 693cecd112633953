//! Exponential histograms, as OpenTelemetry's data model has them: each bucket is wider than the one before by the same factor,
//! `2^(2^-scale)`, so that the relative error is the same for microseconds and for days. The scale falls as the range of values grows.

/// Buckets at most, as OpenTelemetry's SDKs have it by default.
const SIZE: usize = 160;

/// The finest scale: the relative width of a bucket is 7·10⁻⁷.
const FINEST: i32 = 20;

/// Values by buckets. Bucket `i` of `counts` holds what is above `base^(offset + i)` up to `base^(offset + i + 1)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exponential {
    /// The base is `2^(2^-scale)`.
    pub scale: i32,
    /// Index of the first bucket.
    pub offset: i32,
    /// Values in the buckets.
    pub counts: Vec<u64>,
    /// Values that are zero (or below, which a time is not).
    pub zero: u64,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { scale: FINEST, offset: 0, counts: Vec::new(), zero: 0 }
    }
}

impl Exponential {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        if value.is_nan() || value <= 0.0 {
            self.zero += 1;
            return;
        }
        let mut index = index(value, self.scale);
        if let Some(coarser) = self.coarser_for(index, index) {
            self.coarsen(coarser);
            index >>= coarser;
        }
        *self.bucket(index) += 1;
    }

    /// Adds all values of another.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        let scale = self.scale.min(other.scale);
        self.coarsen((self.scale - scale).unsigned_abs());
        other.coarsen((other.scale - scale).unsigned_abs());
        self.zero += other.zero;
        if other.counts.is_empty() {
            return;
        }
        if let Some(coarser) = self.coarser_for(other.offset, other.last()) {
            self.coarsen(coarser);
            other.coarsen(coarser);
        }
        // Both ends first, so that the buckets grow once each way.
        self.bucket(other.last());
        for (at, count) in other.counts.iter().enumerate() {
            *self.bucket(other.offset + at as i32) += count;
        }
    }

    /// What has come since it was `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut before = before.clone();
        before.coarsen(before.scale.saturating_sub(self.scale).unsigned_abs());
        let mut new = self.clone();
        new.zero = new.zero.saturating_sub(before.zero);
        for (at, count) in before.counts.iter().enumerate() {
            let at = (before.offset + at as i32).wrapping_sub(new.offset);
            if let Some(own) = usize::try_from(at).ok().and_then(|at| new.counts.get_mut(at)) {
                *own = own.saturating_sub(*count);
            }
        }
        new
    }

    /// Index of the last bucket.
    fn last(&self) -> i32 {
        self.offset + self.counts.len() as i32 - 1
    }

    /// How much coarser it must become to hold these indexes too.
    fn coarser_for(&self, low: i32, high: i32) -> Option<u32> {
        let (mut low, mut high) =
            if self.counts.is_empty() { (low, high) } else { (low.min(self.offset), high.max(self.last())) };
        let mut coarser = 0;
        while i64::from(high) - i64::from(low) >= SIZE as i64 {
            (low, high) = (low >> 1, high >> 1);
            coarser += 1;
        }
        (coarser > 0).then_some(coarser)
    }

    fn coarsen(&mut self, by: u32) {
        if by == 0 {
            return;
        }
        self.scale -= by.cast_signed();
        let offset = self.offset >> by;
        let mut counts = Vec::new();
        for (at, count) in self.counts.iter().enumerate() {
            let at = (((self.offset + at as i32) >> by) - offset).unsigned_abs() as usize;
            if counts.len() <= at {
                counts.resize(at + 1, 0);
            }
            counts[at] += count;
        }
        (self.offset, self.counts) = (offset, counts);
    }

    /// The bucket of an index, for which there is room.
    fn bucket(&mut self, index: i32) -> &mut u64 {
        if self.counts.is_empty() {
            self.offset = index;
        }
        if index < self.offset {
            let missing = self.offset.abs_diff(index) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.offset = index;
        }
        let at = index.abs_diff(self.offset) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        &mut self.counts[at]
    }
}

/// Index of a value above zero: buckets have their upper bound in them.
fn index(value: f64, scale: i32) -> i32 {
    // Saturates at both ends, which no time comes near.
    (value.log2() * f64::from(scale).exp2()).ceil() as i32 - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Exponential {
        let mut histogram = Exponential::default();
        for value in values {
            histogram.add(*value);
        }
        histogram
    }

    /// Bounds of the bucket at this index.
    fn bounds(scale: i32, index: i32) -> (f64, f64) {
        let bound = |index: i32| (f64::from(index) * f64::from(-scale).exp2()).exp2();
        (bound(index), bound(index + 1))
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        for scale in [-1, 0, 3] {
            let step = f64::from(scale).exp2();
            assert_eq!(index(4.0, scale), (2.0 * step).ceil() as i32 - 1, "{scale}");
        }
        assert_eq!((index(1.0, 0), index(1.000_001, 0), index(0.5, 0)), (-1, 0, -2));
    }

    #[test]
    fn one_value_has_the_finest_scale_and_many_ranges_a_coarse_one() {
        assert_eq!((of(&[0.3]).scale, of(&[0.3]).counts), (FINEST, vec![1]));
        let wide = of(&[1e-6, 1e-3, 1.0, 1e3, 1e5]);
        assert!(wide.scale >= 2 && wide.counts.len() <= SIZE, "{wide:?}");
        assert_eq!(wide.counts.iter().sum::<u64>(), 5);
        assert_eq!(of(&[0.0, -1.0, f64::NAN]).zero, 3);
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((-20.0..20.0_f64).prop_map(f64::exp2), 0..60)
    }

    proptest! {
        #[test]
        fn each_value_is_in_its_bucket(values in values()) {
            let histogram = of(&values);
            prop_assert!(histogram.counts.len() <= SIZE);
            for (at, count) in histogram.counts.iter().enumerate() {
                let (low, high) = bounds(histogram.scale, histogram.offset + at as i32);
                // At the edges the last bit may decide.
                let inside = |slack: f64| values.iter().filter(|value| **value > low * (1.0 + slack) && **value <= high * (1.0 - slack)).count() as u64;
                prop_assert!(inside(1e-12) <= *count && *count <= inside(-1e-12), "{low} {high} {count}");
            }
        }

        #[test]
        fn merging_is_adding_and_taking_away_gives_it_back(one in values(), other in values()) {
            let mut merged = of(&one);
            merged.merge(&of(&other));
            let all: Vec<f64> = one.iter().chain(&other).copied().collect();
            let mut whole = of(&all);
            prop_assert!(merged.scale <= whole.scale);
            whole.coarsen((whole.scale - merged.scale).unsigned_abs());
            let trim = |histogram: &Exponential| -> Vec<(i32, u64)> {
                let counts = histogram.counts.iter().enumerate();
                counts.map(|(at, count)| (histogram.offset + at as i32, *count)).filter(|(_, count)| *count > 0).collect()
            };
            prop_assert_eq!(trim(&merged), trim(&whole));

            let mut grown = of(&one);
            for value in &other {
                grown.add(*value);
            }
            let new = grown.since(&of(&one));
            let mut expected = of(&other);
            expected.coarsen((expected.scale - new.scale).max(0).unsigned_abs());
            prop_assert_eq!(trim(&new), trim(&expected));
        }
    }
}
