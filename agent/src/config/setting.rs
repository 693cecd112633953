//! A raw setting: a value that nobody has checked yet, and where it came from.

use std::fmt;
use std::path::PathBuf;

use serde_norway::Value;

use super::fields;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Env(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Where a value of the configuration came from, for what is said about it later. It is no part of the value: two
/// configurations are the same wherever they came from.
#[derive(Clone, Debug, Default)]
pub struct Provenance(pub(super) Option<Origin>);

impl PartialEq for Provenance {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Provenance {}

/// A raw setting.
#[derive(Clone)]
pub struct Setting {
    /// `section.field`, one of [`fields::FIELDS`].
    pub(super) field: &'static str,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

// By hand, because a value may be a secret (headers).
impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("field", &self.field).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Setting {
    /// A flag's value for `section.field`.
    pub fn flag(field: &'static str, flag: &'static str, value: impl Into<String>) -> Self {
        debug_assert!(fields::find(field).is_some(), "{field} is no field of the configuration");
        Self { field, value: Value::String(value.into()), origin: Origin::Flag(flag) }
    }

    /// The values of a flag that may be repeated.
    pub fn flag_list(field: &'static str, flag: &'static str, values: &[String]) -> Self {
        debug_assert!(fields::find(field).is_some(), "{field} is no field of the configuration");
        let values = values.iter().cloned().map(Value::String).collect();
        Self { field, value: Value::Sequence(values), origin: Origin::Flag(flag) }
    }

    /// A variable's value.
    pub(super) fn env(field: &'static str, name: &'static str, value: &str) -> Self {
        Self { field, value: Value::String(value.to_owned()), origin: Origin::Env(name) }
    }

    /// OpenTelemetry's variables give durations as milliseconds without a unit.
    pub(super) fn counts_milliseconds(&self) -> bool {
        matches!(self.origin, Origin::Env(name) if name.starts_with("OTEL_"))
    }
}
