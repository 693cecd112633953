//! Environment variables that look like ours and are none: a misspelt one must not be ignored.

use super::fields::{FIELDS, Field};
use super::problem::Problem;

/// What all of ours begin with.
const PREFIX: &str = "SYNFIN_";

/// Variables that are no settings: the file's name, and what the test-suite takes.
const OTHERS: &[&str] = &["SYNFIN_CONFIG", "SYNFIN_BIN"];

/// The test-suite's own.
const OTHER_PREFIX: &str = "SYNFIN_TEST_";

/// What is wrong with a variable of this name, if it seems to be meant for synfin and is not known. An empty one, which
/// `env` does not tell of, is as good as none.
pub(super) fn unknown(name: &str, env: &impl Fn(&str) -> Option<String>) -> Option<Problem> {
    let ours = name.strip_prefix(PREFIX)?;
    let known =
        FIELDS.iter().any(|field| field.env == name) || OTHERS.contains(&name) || name.starts_with(OTHER_PREFIX);
    // The value is not shown: what it is for is not known, so it may be a secret.
    let value = env(name)?;
    if known || is_of_kubernetes(ours, &value) {
        return None;
    }
    let message = nearest(name)
        .map_or_else(String::new, |field| format!("is unknown; the nearest is {} ({})", field.env, field.path));
    Some(Problem { field: name.to_owned(), value: None, origin: None, message })
}

/// Kubernetes and Docker describe each service whose name begins with `synfin` to its neighbours, so:
/// `SYNFIN_SERVICE_HOST`, `SYNFIN_UI_SERVICE_PORT_HTTP`, `SYNFIN_PORT=tcp://…`, `SYNFIN_PORT_80_TCP_ADDR`.
fn is_of_kubernetes(ours: &str, value: &str) -> bool {
    let ours = format!("_{ours}");
    let numbered = ours.split("_PORT_").skip(1).any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    let service = ["_SERVICE_HOST", "_SERVICE_PORT"].into_iter().any(|part| ours.contains(part));
    service || numbered || (ours.ends_with("_PORT") && value.contains("://"))
}

/// The field whose variable, in our form or OpenTelemetry's, differs least.
fn nearest(name: &str) -> Option<&'static Field> {
    let form = |field: &Field| format!("{PREFIX}{}", field.path.replace('.', "_").to_ascii_uppercase());
    FIELDS.iter().min_by_key(|field| distance(name, field.env).min(distance(name, &form(field))))
}

/// Levenshtein's: letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(name: &str, value: &str) -> Option<String> {
        unknown(name, &|_: &str| Some(value.to_owned()).filter(|value| !value.is_empty()))
            .map(|problem| problem.to_string())
    }

    #[test]
    fn a_misspelt_variable_is_told_with_the_nearest_one() {
        for (name, near) in [
            ("SYNFIN_RING_SZIE", "SYNFIN_RING_SIZE (ring.size)"),
            ("SYNFIN_FILTER_PORT", "SYNFIN_FILTER_PORTS (filter.ports)"),
            ("SYNFIN_LEDGER_CONNECTIONS", "SYNFIN_LEDGER_MAX_CONNECTIONS (ledger.max_connections)"),
            ("SYNFIN_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT (otlp.endpoint)"),
            ("SYNFIN_OTLP_LOGS_HEADERS", "OTEL_EXPORTER_OTLP_LOGS_HEADERS (otlp.logs.headers)"),
        ] {
            assert_eq!(complaint(name, "80"), Some(format!("{name}: is unknown; the nearest is {near}")));
        }
    }

    #[test]
    fn what_others_set_is_left_alone() {
        for (name, value) in [
            ("SYNFIN_RING_SIZE", "8MiB"),
            ("SYNFIN_CONFIG", "a.yaml"),
            ("SYNFIN_BIN", "/bin/synfin"),
            ("SYNFIN_TEST_MAX_RUNG", "tracepoint"),
            ("SYNFIN_NOTHING", ""),
            ("OTEL_SOMETHING", "1"),
            ("SYNFIN_SERVICE_HOST", "10.0.0.1"),
            ("SYNFIN_UI_SERVICE_PORT_HTTP", "80"),
            ("SYNFIN_PORT", "tcp://10.0.0.1:80"),
            ("SYNFIN_UI_PORT", "tcp://10.0.0.1:80"),
            ("SYNFIN_UI_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("SYNFIN_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ] {
            assert_eq!(complaint(name, value), None, "{name}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
