//! What people see on a terminal: [`columns`] and [`jsonl`] of `synfin watch`, [`summary`] of `synfin run`.

pub mod columns;
pub mod summary;
