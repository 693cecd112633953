//! Raw values into typed ones: what every setting of a type shares.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_norway::Value;

use super::setting::Setting;
use super::units::{format_duration, parse_duration};

/// Stands for a secret wherever a value is shown.
pub(super) const MASK: &str = "***";

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct Fault {
    /// The value or the part of it that is wrong, as it may be shown.
    pub(super) value: String,
    /// What is wrong and what to do.
    pub(super) message: String,
}

pub(super) type Parsed<T> = Result<T, Vec<Fault>>;

fn fault(value: impl Into<String>, message: impl Into<String>) -> Vec<Fault> {
    vec![Fault { value: value.into(), message: message.into() }]
}

/// A value as one would write it in a line.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Sequence(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Mapping(_) | Value::Tagged(_) => "{…}".to_owned(),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(shown(value).trim().to_owned()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

/// A single value.
pub(super) fn one<T, E: Display>(setting: &Setting, parse: impl FnOnce(&str) -> Result<T, E>) -> Parsed<T> {
    let text = scalar(&setting.value).ok_or_else(|| fault(shown(&setting.value), "takes one value"))?;
    parse(&text).map_err(|error| fault(text, error.to_string()))
}

/// A list, or one text with commas (the form of an environment variable). Repeated values count once.
pub(super) fn list<T: PartialEq, E: Display>(
    setting: &Setting,
    limit: usize,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Parsed<Vec<T>> {
    let texts: Vec<Value> = match &setting.value {
        Value::Sequence(values) => values.clone(),
        Value::String(text) => text.split(',').map(|part| Value::String(part.to_owned())).collect(),
        other => vec![other.clone()],
    };
    let mut values = Vec::with_capacity(texts.len());
    let mut faults = Vec::new();
    for text in &texts {
        match scalar(text).ok_or_else(|| "takes a list of single values".to_owned()) {
            Ok(text) => match parse(&text) {
                Ok(value) if values.contains(&value) => {}
                Ok(value) => values.push(value),
                Err(error) => faults.extend(fault(text, error.to_string())),
            },
            Err(message) => faults.extend(fault(shown(text), message)),
        }
    }
    if values.len() > limit {
        faults.extend(fault(format!("{} values", values.len()), format!("takes at most {limit} values")));
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

/// A table, or one text `key=value,key=value` with percent-encoded values (the form of OpenTelemetry's variables).
/// No value is shown in an error, because it may be a secret.
pub(super) fn table(setting: &Setting) -> Parsed<BTreeMap<String, String>> {
    let mut table = BTreeMap::new();
    let mut faults = Vec::new();
    match &setting.value {
        Value::Mapping(mapping) => {
            for (key, value) in mapping {
                match (scalar(key), scalar(value)) {
                    (Some(key), Some(value)) => drop(table.insert(key, value)),
                    _ => faults.extend(fault(format!("{}: {MASK}", shown(key)), "takes single values")),
                }
            }
        }
        Value::String(text) => {
            for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
                match pair
                    .split_once('=')
                    .map(|(key, value)| (key.trim(), percent_decode_str(value.trim()).decode_utf8()))
                {
                    Some((key, Ok(value))) => drop(table.insert(key.to_owned(), value.into_owned())),
                    Some((key, Err(_))) => faults.extend(fault(
                        format!("{key}={MASK}"),
                        "decodes to something that is not UTF-8; percent-encode UTF-8 only",
                    )),
                    None => faults.extend(fault(MASK, "takes key=value,key=value with percent-encoded values")),
                }
            }
        }
        _ => faults.extend(fault(MASK, "takes a table of names and values, or key=value,key=value")),
    }
    if faults.is_empty() { Ok(table) } else { Err(faults) }
}

/// `true` or `false`; `1` and `0` too, for environment variables.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// A whole number within bounds.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    move |text| {
        let number = text.parse::<u64>().ok().and_then(|number| T::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("not a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A duration within bounds, with its unit; in OpenTelemetry's own variables a number of milliseconds.
pub(super) fn duration(setting: &Setting, range: &RangeInclusive<Duration>) -> Parsed<Duration> {
    one(setting, |text| {
        let duration = if setting.counts_milliseconds() {
            text.parse().map(Duration::from_millis).map_err(|_no_detail| "not a number of milliseconds".to_owned())?
        } else {
            parse_duration(text)?
        };
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(format!("out of range; use {} to {}", format_duration(*range.start()), format_duration(*range.end())))
    })
}
