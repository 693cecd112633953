//! The ways to read the kernel's socket tables: where a census comes from.

use std::fmt;
use std::str::FromStr;

/// A way to read the kernel's socket tables, as a user asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The best one that this kernel takes.
    #[default]
    Auto,
    /// The kernel's own iterators: sockets are counted where they are.
    Iterator,
    /// inet_diag over netlink, as `ss` uses it: every socket is copied to the agent.
    InetDiag,
}

impl Source {
    /// All.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Iterator, Self::InetDiag];

    /// Its name in the configuration and in data.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Iterator => "iterator",
            Self::InetDiag => "inet_diag",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|source| source.name() == text)
            .ok_or_else(|| format!("not a source; use {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// The source in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The kernel's iterators.
    Iterator,
    /// inet_diag, and why not the iterators.
    InetDiag(String),
}

impl Chosen {
    /// Its name in data.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Iterator => Source::Iterator.name(),
            Self::InetDiag(_) => Source::InetDiag.name(),
        }
    }

    /// What a census of this source cannot tell, and why it is used; None where nothing is missing.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Iterator => None,
            Self::InetDiag(why) => Some(format!(
                "by inet_diag ({why}): every socket is copied, ages of half-open connections are unknown, and those of \
                 listeners that share an address count with one of them; namespaces that only an open socket keeps are not found"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for source in Source::ALL {
            assert_eq!(source.name().parse(), Ok(source));
        }
        assert_eq!("proc".parse::<Source>().unwrap_err(), "not a source; use auto, iterator, inet_diag");
    }

    #[test]
    fn only_the_fallback_says_what_is_missing() {
        assert_eq!(Chosen::Iterator.note(), None);
        assert!(Chosen::InetDiag("asked for".to_owned()).note().unwrap().starts_with("by inet_diag (asked for):"));
    }
}
