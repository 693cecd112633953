//! Where data leave the agent.

pub mod jsonl;
pub mod otlp;
