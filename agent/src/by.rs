//! What sockets can be counted by: the values of `--by`.

use std::fmt;
use std::str::FromStr;

/// A key that sockets have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The process that holds them.
    Process,
    /// Their cgroup.
    Cgroup,
    /// The container that their cgroup is of.
    Container,
    /// The pod that their cgroup is of.
    Pod,
    /// The port that they were accepted from.
    Listener,
    /// The address at the other end.
    Peer,
}

impl By {
    /// All.
    pub const ALL: [Self; 6] = [Self::Process, Self::Cgroup, Self::Container, Self::Pod, Self::Listener, Self::Peer];

    /// Its name on the command line and in data.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Listener => "listener",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|by| by.name() == text)
            .ok_or_else(|| format!("not a key; use {}", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for by in By::ALL {
            assert_eq!(by.name().parse(), Ok(by));
        }
        assert!("user".parse::<By>().unwrap_err().starts_with("not a key; use process, cgroup"));
    }
}
