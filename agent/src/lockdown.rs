//! The kernel's lockdown, as far as securityfs shows it.

use std::fs;

/// What to do where it is in the way.
pub const REMEDY: &str = "boot with lockdown=integrity or without lockdown";

/// Its mode: `none`, `integrity`, `confidentiality`; None where the kernel has no lockdown or securityfs is not mounted.
pub fn mode() -> Option<String> {
    chosen(&fs::read_to_string("/sys/kernel/security/lockdown").ok()?)
}

/// Whether it keeps programs from reading the kernel's memory by helpers, and closes tracefs.
pub fn is_confidential() -> bool {
    mode().is_some_and(|mode| mode == CONFIDENTIALITY)
}

/// The strictest mode.
pub const CONFIDENTIALITY: &str = "confidentiality";

/// The word in brackets of `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_s_forms() {
        assert_eq!(chosen("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(chosen("[none]").as_deref(), Some("none"));
        assert_eq!(chosen("none"), None);
    }
}
