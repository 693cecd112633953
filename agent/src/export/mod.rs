//! Where data leave the agent.

pub mod attribute;
pub mod catalogue;
pub mod census;
pub mod counts;
pub mod jsonl;
pub mod otlp;
pub mod prometheus;
pub mod readings;
pub mod resource;
pub mod series;
pub mod sockets;
pub mod subject;

#[cfg(test)]
mod tests;
