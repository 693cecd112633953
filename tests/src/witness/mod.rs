//! Others who saw the same: bpftrace on the kernel's tracepoints, and the kernel's own counters.
//!
//! Neither knows synfin. A test that compares with both tells a missed event from a wrong expectation.

pub mod bpftrace;
pub mod nstat;
