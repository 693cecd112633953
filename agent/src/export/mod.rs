//! Where data leave the agent.

pub mod census;
pub mod counts;
pub mod jsonl;
pub mod otlp;
pub mod sockets;
