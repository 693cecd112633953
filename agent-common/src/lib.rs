//! What crosses the kernel boundary, in one place for both sides.
//!
//! [`event`]: records of connections. [`census`]: what walks over the sockets tell. [`lane`]: where they are written. [`tally`]: keys and values of maps that the kernel
//! side sums up in. [`knobs`]: globals that the loader sets before load (field offsets, filters). [`layout`]: those for the
//! records of classic tracepoints.
//!
//! Rules (DESIGN.md §4): `#[repr(C)]`, fixed-width integers, addresses always 16 bytes, explicit padding, numbers with
//! gaps that are never reused, sizes asserted at compile time. No bool, enum, union or Option. The derives of
//! `zerocopy` refuse implicit padding and let user space decode without `unsafe`.
#![no_std]

pub mod census;
pub mod event;
pub mod knobs;
pub mod lane;
pub mod layout;
pub mod tally;
