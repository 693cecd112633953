//! Median, least and most of a handful of measurements.

/// What a handful of measurements comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// None of nothing.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, min, max })
    }

    /// `median (min–max)`.
    pub(super) fn text(&self, number: impl Fn(f64) -> String) -> String {
        format!("{} ({}–{})", number(self.median), number(self.min), number(self.max))
    }
}

/// With the digits that matter and thousands set apart: `4.7`, `312`, `14,416`.
pub(super) fn short(value: f64) -> String {
    if value.abs() < 9.95 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{sign}{}", groups.join(","))
}

/// A share as a percentage: `97.3 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median), Some(2.5));
    }

    #[test]
    fn numbers_read_well() {
        let shown = [0.0, 4.66, 9.96, 311.7, 1000.0, 14_416.4, 1_234_567.0, -1234.0].map(short);
        assert_eq!(shown, ["0.0", "4.7", "10", "312", "1,000", "14,416", "1,234,567", "-1,234"]);
        assert_eq!(percent(0.9731), "97.3 %");
        assert_eq!(Spread { median: 1.0, min: 0.5, max: 20.0 }.text(short), "1.0 (0.5–20)");
    }
}
