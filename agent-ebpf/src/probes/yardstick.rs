//! An empty program on the state tracepoint: the yardstick that `cargo xtask bench` holds against ours. The agent never
//! loads it.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn yardstick(_ctx: BtfTracePointContext) -> i32 {
    0
}
