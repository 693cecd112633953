//! What the kernels that synfin runs on do not all do, found out by looking and never by version.

use anyhow::Result;

use crate::tracefs;

/// Whether `tcp_send_reset` fires for a RST without a socket too (6.10 and later, when it got its reason); before, the
/// kernel counts such a RST and announces it to nobody.
pub fn announces_every_reset() -> Result<bool> {
    tracefs::has_field("tcp/tcp_send_reset", "reason")
}
