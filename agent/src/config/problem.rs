//! Errors of the configuration: all of them, each with its place, its value and the fix.

use std::fmt;

use super::setting::Origin;

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `section.field`, or a variable that is no field's; empty where a whole file is wrong.
    pub field: String,
    /// The bad value, where there is one that may be shown.
    pub value: Option<String>,
    /// Where it came from, where that is known.
    pub origin: Option<Origin>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, origin, message } = self;
        f.write_str(field)?;
        if let Some(value) = value {
            write!(f, " = {value}")?;
        }
        match origin {
            Some(origin) if field.is_empty() => write!(f, "{origin}: ")?,
            Some(origin) => write!(f, " ({origin}): ")?,
            None => f.write_str(": ")?,
        }
        f.write_str(message)
    }
}

/// Everything wrong with the configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// An error if there is any problem.
    pub(super) fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    /// Each problem, in the order of the sources and fields.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has an error:")?,
            n => write!(f, "the configuration has {n} errors:")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
