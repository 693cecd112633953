//! The probes: one row for each program of `agent-ebpf/src/probes`.

use crate::event::EventKind;

/// A program and where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSpec {
    /// Name of the program in the object.
    pub name: &'static str,
    /// Kernel tracepoint that it is attached to.
    pub tracepoint: &'static str,
    /// Without it synfin cannot do its main job.
    pub required: bool,
    /// Kind of event that is lost when the kernel skips the program; None for one that tallies.
    pub kind: Option<EventKind>,
}

/// All probes, in the order in which they are attached. `state` comes last, so that a connection whose birth is seen has
/// all of its other events seen too.
pub const PROBES: &[ProbeSpec] = &[
    ProbeSpec { name: "destroy", tracepoint: "tcp_destroy_sock", required: true, kind: Some(EventKind::Destroy) },
    ProbeSpec { name: "reset_sent", tracepoint: "tcp_send_reset", required: false, kind: Some(EventKind::Reset) },
    ProbeSpec {
        name: "reset_received",
        tracepoint: "tcp_receive_reset",
        required: false,
        kind: Some(EventKind::Reset),
    },
    ProbeSpec { name: "synack", tracepoint: "tcp_retransmit_synack", required: false, kind: None },
    ProbeSpec {
        name: "retransmit",
        tracepoint: "tcp_retransmit_skb",
        required: false,
        kind: Some(EventKind::Retransmit),
    },
    ProbeSpec { name: "state", tracepoint: "inet_sock_set_state", required: true, kind: Some(EventKind::Transition) },
];

/// The empty program that `cargo xtask bench` measures ours against. No probe: the agent never loads it.
pub const YARDSTICK: ProbeSpec =
    ProbeSpec { name: "yardstick", tracepoint: "inet_sock_set_state", required: false, kind: None };
