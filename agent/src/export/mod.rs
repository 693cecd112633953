//! Where data leave the agent.

pub mod catalogue;
pub mod census;
pub mod counts;
pub mod jsonl;
pub mod otlp;
pub mod prometheus;
pub mod readings;
pub mod resource;
pub mod sockets;

#[cfg(test)]
mod tests;
