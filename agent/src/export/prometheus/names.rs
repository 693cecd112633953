//! OTLP names as Prometheus knows them, by OpenTelemetry's specification "Prometheus and OpenMetrics Compatibility"
//! with its default, underscores and suffixes.

use crate::export::catalogue::{Instrument, Metric};

/// What Prometheus calls the units of UCUM, for the whole of a unit and for what stands before its slash.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tebibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

/// The same behind a slash.
const PER: &[(&str, &str)] =
    &[("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// What kind of family a metric becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Any value.
    Gauge,
    /// Buckets.
    Histogram,
}

impl Kind {
    /// Of the metric of an instrument.
    pub const fn of(instrument: Instrument) -> Self {
        match instrument {
            Instrument::Counter(_) | Instrument::CounterFloat(_) => Self::Counter,
            Instrument::UpDownCounter(_) | Instrument::Gauge(_) => Self::Gauge,
            Instrument::Histogram(..) => Self::Histogram,
        }
    }

    /// The word after `# TYPE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What counters end in.
const TOTAL: &str = "_total";

/// A unit in words; None for a number of things, which has none.
pub fn unit(ucum: &str, kind: Kind) -> Option<String> {
    // Only a share of one is a ratio; a sum of ones counts things.
    if ucum == "1" {
        return (kind == Kind::Gauge).then(|| "ratio".to_owned());
    }
    let bare = without_annotations(ucum);
    let (of, per) = bare.split_once('/').map_or((bare.as_str(), ""), |(of, per)| (of, per));
    let words = [word(UNITS, of), word(PER, per).map(|word| format!("per_{word}"))];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join("_"))
}

/// What is not in the table stays as it is, as far as a name may hold it.
fn word(table: &[(&str, &str)], unit: &str) -> Option<String> {
    let known = table.iter().find(|(ucum, _)| *ucum == unit.trim());
    let word = known.map_or_else(|| clean(unit).trim_matches('_').to_owned(), |(_, word)| (*word).to_owned());
    (!word.is_empty()).then_some(word)
}

/// `{packet}` says what is counted, for people.
fn without_annotations(unit: &str) -> String {
    let mut depth = 0_usize;
    let mut bare = String::new();
    for letter in unit.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ if depth == 0 => bare.push(letter),
            _ => {}
        }
    }
    bare
}

/// The name of the family, which for a counter is that of its series without `_total`.
pub fn family(name: &str, ucum: &str, kind: Kind) -> String {
    let mut family = clean(name);
    if family.starts_with(|first: char| first.is_ascii_digit()) {
        family.insert(0, '_');
    }
    if kind == Kind::Counter
        && let Some(bare) = family.strip_suffix(TOTAL)
    {
        family.truncate(bare.len());
    }
    if let Some(unit) = unit(ucum, kind) {
        let ends_so = family.strip_suffix(&unit).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'));
        if !ends_so {
            family = format!("{family}_{unit}");
        }
    }
    family
}

/// The name to ask Prometheus for: of a histogram without `_bucket`, `_sum` and `_count`.
pub fn series(metric: &Metric) -> String {
    let kind = Kind::of(metric.instrument);
    let family = family(metric.name, metric.unit, kind);
    if kind == Kind::Counter { family + TOTAL } else { family }
}

/// The name of a label.
pub fn label(key: &str) -> String {
    let label = clean(key);
    if label.starts_with(|first: char| first.is_ascii_digit()) { format!("key_{label}") } else { label }
}

/// Each run of letters that a name may not have, underscores included, becomes one underscore.
fn clean(name: &str) -> String {
    let mut clean = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() || letter == ':' {
            clean.push(letter);
        } else if !clean.ends_with('_') {
            clean.push('_');
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::export::catalogue::CATALOGUE;

    #[test]
    fn names_by_the_rules_of_the_specification() {
        use Kind::{Counter, Gauge, Histogram};
        for (name, ucum, kind, expected) in [
            ("http.server.request.duration", "s", Histogram, "http_server_request_duration_seconds"),
            ("http.server.duration", "ms", Histogram, "http_server_duration_milliseconds"),
            ("system.cpu.utilization", "1", Gauge, "system_cpu_utilization_ratio"),
            ("requests", "1", Counter, "requests"),
            ("active.requests", "{request}", Gauge, "active_requests"),
            ("system.io", "By{transmitted}", Counter, "system_io_bytes"),
            ("disk.speed", "By/s", Gauge, "disk_speed_bytes_per_second"),
            ("packets", "{packet}/s", Gauge, "packets_per_second"),
            ("fuel", "foo/bar", Gauge, "fuel_foo_per_bar"),
            ("mem.free_bytes", "By", Gauge, "mem_free_bytes"),
            ("kilobytes", "By", Gauge, "kilobytes_bytes"),
            ("requests_total", "{request}", Counter, "requests"),
            ("time.total", "s", Counter, "time_seconds"),
            ("temperature", "Cel", Gauge, "temperature_celsius"),
            ("a.b--c__d", "", Gauge, "a_b_c_d"),
            ("1st", "", Gauge, "_1st"),
            ("näme", "%", Gauge, "n_me_percent"),
        ] {
            assert_eq!(family(name, ucum, kind), expected, "{name} in {ucum}");
        }
    }

    #[test]
    fn labels_by_the_rules_of_the_specification() {
        for (key, expected) in [
            ("http.status_code", "http_status_code"),
            ("a..b", "a_b"),
            ("2xx", "key_2xx"),
            ("_private", "_private"),
            ("k8s.pod.name", "k8s_pod_name"),
        ] {
            assert_eq!(label(key), expected);
        }
    }

    #[test]
    fn no_two_of_the_catalogue_share_a_name() {
        let mut seen = HashSet::new();
        for metric in CATALOGUE {
            let kind = Kind::of(metric.instrument);
            let family = family(metric.name, metric.unit, kind);
            let suffixes: &[&str] = match kind {
                Kind::Counter => &["", "_total", "_created"],
                Kind::Gauge => &[""],
                Kind::Histogram => &["", "_bucket", "_count", "_sum", "_created"],
            };
            for suffix in suffixes {
                assert!(seen.insert(format!("{family}{suffix}")), "{}: {family}{suffix} is another's too", metric.name);
            }
            let mut labels = HashSet::new();
            assert!(metric.attributes.iter().all(|key| labels.insert(label(key))), "{}", metric.name);
        }
        assert!(!seen.contains("target_info"));
    }
}
