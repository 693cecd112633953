//! What people see on a terminal: [`columns`] and [`jsonl`] of `synfin watch`, [`summary`] of `synfin run`, [`census`], [`sockets`] and
//! [`counts`] of `synfin census`.

pub mod census;
pub mod columns;
pub mod counts;
pub mod sockets;
pub mod summary;
mod table;
