//! synfin: watches every TCP connection of a Linux node from SYN to FIN.
//!
//! The modules in the order of the flow (docs/ARCHITECTURE.md): a module knows the types of those on its left and
//! nothing of those on its right; only `pipeline` knows them all.

pub mod clock;
pub mod event;
pub mod export;
pub mod health;
pub mod ledger;
pub mod status;
