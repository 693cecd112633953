//! The ledger.
mod connection;
mod totals;

pub use connection::{Connection, End, Role, Side, seconds};
pub use totals::Totals;
