//! Durations and byte sizes as people write them.

use std::time::Duration;

use jiff::fmt::friendly::{SpanParser, SpanPrinter};

/// Reads `20ms`, `1.5s`, `1m 30s`, `2h`.
///
/// # Errors
/// What is wrong and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    SpanParser::new()
        .parse_unsigned_duration(text.trim())
        .map_err(|_unit_free| "not a duration; write a number with its unit, e.g. 250ms, 10s, 5m or 1h".to_owned())
}

/// The inverse of [`parse_duration`].
pub(super) fn format_duration(duration: Duration) -> String {
    SpanPrinter::new().unsigned_duration_to_string(&duration)
}

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `8MiB`, `64 KiB`, `4096`. Own code: the crates for it take `8MB` and `8M` too and round what they print.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let factor = match unit {
        "" => Some(1),
        unit => SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|&(_, factor)| factor),
    };
    number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "not a size; write a whole number of bytes, KiB, MiB or GiB, e.g. 8MiB".to_owned())
}

/// The inverse of [`parse_size`], with the largest unit that leaves no fraction.
pub(super) fn format_size(bytes: u64) -> String {
    let (unit, factor) =
        SIZES.into_iter().find(|&(_, factor)| bytes >= factor && bytes.is_multiple_of(factor)).unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for text in ["1ms", "20ms", "1s", "10s", "5m", "1h", "1m 30s", "250µs"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(format_duration(duration), text);
            assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
        }
        assert_eq!(parse_duration("1.5s").unwrap(), Duration::from_millis(1500));
        for text in ["", "10", "ten seconds", "-1s", "1s ago", "1 parsec", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_round_trip() {
        for (text, bytes) in [("8MiB", 8 << 20), ("1GiB", 1 << 30), ("64KiB", 65536), ("5000B", 5000), ("0B", 0)] {
            assert_eq!(parse_size(text).unwrap(), bytes);
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(parse_size("4096").unwrap(), 4096);
        assert_eq!(parse_size(" 8 mib ").unwrap(), 8 << 20);
        for text in ["", "MiB", "8MB", "8M", "-1", "1.5MiB", "99999999999GiB", "8 MiB extra"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
