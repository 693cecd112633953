//! The rungs of the ladder: the ways to attach a probe, best first. Which one a probe stands on is found by loading and
//! attaching, never by the kernel's version.

use std::fmt;
use std::str::FromStr;

/// A way to attach a probe to a tracepoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// `tp_btf`: typed loads, the cheapest, and cookies for sockets that have none.
    #[default]
    TpBtf,
    /// Raw tracepoint: the tracepoint's arguments, read by a helper.
    RawTracepoint,
    /// Classic tracepoint: its record, whose layout the kernel describes in a file. The only one that tells anything
    /// without the kernel's types.
    Tracepoint,
}

impl Rung {
    /// All, best first.
    pub const ALL: [Self; 3] = [Self::TpBtf, Self::RawTracepoint, Self::Tracepoint];

    /// Its name on the command line and in data.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::RawTracepoint => "raw_tracepoint",
            Self::Tracepoint => "tracepoint",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rung {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|rung| rung.name() == text)
            .ok_or_else(|| format!("not a rung; use {}", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_the_order_is_from_best_to_last() {
        for rung in Rung::ALL {
            assert_eq!(rung.name().parse(), Ok(rung));
        }
        assert!(Rung::ALL.is_sorted() && Rung::default() == Rung::ALL[0]);
        let error = "kprobe".parse::<Rung>().unwrap_err();
        assert_eq!(error, "not a rung; use tp_btf, raw_tracepoint, tracepoint");
    }
}
