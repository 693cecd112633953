//! The kernels of the matrix. Adding one is adding a row.

use anyhow::{Result, bail};

/// A kernel that synfin must run on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// How a person names it, and how its release begins; `newest` begins in any way.
    pub(crate) name: &'static str,
    /// Debian's suite whose newest kernel it is.
    pub(crate) suite: &'static str,
}

/// Oldest first: the support table reads "since" from this order.
#[rustfmt::skip] // one row, one kernel
pub(crate) const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10",   suite: "bullseye" },         // the oldest that distributions still ship
    Kernel { name: "6.1",    suite: "bookworm" },
    Kernel { name: "6.12",   suite: "trixie" },
    Kernel { name: NEWEST,   suite: "trixie-backports" }, // moves with Debian
];

const NEWEST: &str = "newest";

/// The package that depends on the suite's newest kernel: Debian's build for clouds, small and with BTF.
pub(crate) const PACKAGE: &str = "linux-image-cloud-amd64";

/// Modules that the scenarios need and Debian does not build in. Each must come after those that it depends on.
pub(crate) const MODULES: [&str; 3] = ["tun", "inet_diag", "tcp_diag"];

impl Kernel {
    /// Whether a release is of this row.
    pub(crate) fn fits(&self, release: &str) -> bool {
        self.name == NEWEST || release.strip_prefix(self.name).is_some_and(|rest| rest.starts_with(['.', '-', '+']))
    }
}

/// The row of this name.
pub(crate) fn named(name: &str) -> Result<&'static Kernel> {
    let Some(kernel) = KERNELS.iter().find(|kernel| kernel.name == name) else {
        let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
        bail!(
            "no kernel {name} in the matrix: choose one of {}, or add a row to xtask/src/vm/kernels.rs",
            names.join(", ")
        );
    };
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_fits_its_row_alone() {
        let fits = |name, release| named(name).unwrap().fits(release);
        assert!(fits("6.1", "6.1.0-50-cloud-amd64") && fits("6.12", "6.12.107+deb13-cloud-amd64"));
        assert!(!fits("6.1", "6.12.107+deb13-cloud-amd64") && !fits("5.10", "6.1.0-50-cloud-amd64"));
        assert!(fits("newest", "7.3.4+deb13-cloud-amd64"));
    }

    #[test]
    fn an_unknown_kernel_is_answered_with_the_known_ones() {
        let error = named("4.19").unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1, 6.12, newest"), "{error}");
    }
}
