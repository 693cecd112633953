//! Exit codes: a contract with scripts and service managers.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use crate::config::ConfigErrors;
use crate::privileges::MissingPrivileges;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked for.
    Done = 0,
    /// It failed, or works below what is required.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The kernel does not let it.
    Privileges = 77,
}

impl Exit {
    /// What an error means, by the first cause in its chain that says so.
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(Self::Failed)
    }

    fn of_cause(cause: &(dyn Error + 'static)) -> Option<Self> {
        if cause.is::<ConfigErrors>() {
            Some(Self::Usage)
        } else if cause.is::<MissingPrivileges>() {
            Some(Self::Privileges)
        } else if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            // Whoever reads our output has enough, like `head`: that is no failure. Only views and printing commands
            // let an I/O error of this kind through; what breaks on the network ends as a counter.
            Some(Self::Done)
        } else {
            None
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::privileges::Privileges;

    #[test]
    fn the_cause_decides_through_any_context() {
        let privileges = Privileges { effective: Some(0), initial_user_namespace: true }.suffice();
        let error = privileges.context("loading").context("starting").unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Privileges);
        let pipe: Result<(), _> = Err(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(Exit::of(&pipe.context("writing").unwrap_err()), Exit::Done);
        let other: Result<(), _> = Err(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(Exit::of(&other.context("opening").unwrap_err()), Exit::Failed);
        assert_eq!(Exit::of(&anyhow::anyhow!("anything")), Exit::Failed);
    }

    #[test]
    fn the_numbers_are_a_contract() {
        let numbers = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Privileges].map(|exit| exit as u8);
        assert_eq!(numbers, [0, 1, 2, 77]);
    }
}
