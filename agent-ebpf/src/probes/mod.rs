//! A file for each tracepoint. The agent's `probes::PROBES` lists them.

mod destroy;
mod reset;
mod retransmit;
mod state;
mod synack;
mod yardstick;
