//! synfin: watches every TCP connection of a Linux node from SYN to FIN.
//!
//! The modules in the order of the flow (docs/ARCHITECTURE.md): a module knows the types of those on its left and
//! nothing of those on its right; only `pipeline` knows them all.

pub mod accounts;
pub mod arch;
pub mod btf;
pub mod by;
pub mod census;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decode;
pub mod distribution;
pub mod doctor;
pub mod event;
pub mod exit;
pub mod export;
pub mod health;
pub mod http;
pub mod lanes;
pub mod ledger;
pub mod loader;
pub mod lockdown;
pub mod logging;
pub mod loss;
pub mod merge;
pub mod mounts;
pub mod netns;
pub mod owner;
pub mod peers;
pub mod pipeline;
pub mod place;
pub mod priority;
pub mod privileges;
pub mod probes;
pub mod ring;
pub mod rung;
pub mod source;
pub mod status;
pub mod tally;
pub mod tracefs;
pub mod view;
