//! Where data leave the agent.

pub mod census;
pub mod jsonl;
pub mod otlp;
