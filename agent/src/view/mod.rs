//! What people see on a terminal: [`columns`] and [`jsonl`] of `synfin watch`, [`summary`] of `synfin run`, [`census`] of
//! `synfin census`.

pub mod census;
pub mod columns;
pub mod summary;
