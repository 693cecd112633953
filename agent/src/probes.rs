//! The probes: one row for each program of `agent-ebpf/src/probes`.

use synfin_common::layout::TRACEPOINTS;

use crate::event::EventKind;
use crate::rung::Rung;

/// A program and where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSpec {
    /// Name of the program in the object.
    pub name: &'static str,
    /// Kernel tracepoint that it is attached to.
    pub tracepoint: &'static str,
    /// Without it synfin cannot do its main job.
    pub required: bool,
    /// It asks helpers that 5.10 does not have, so that there is a program without them.
    pub helpers: bool,
    /// Kind of event that is lost when the kernel skips the program; None for one that tallies.
    pub kind: Option<EventKind>,
}

impl ProbeSpec {
    /// Names of its programs for a rung, best first.
    pub fn programs(&self, rung: Rung) -> Vec<String> {
        let name = self.name;
        match rung {
            Rung::TpBtf if self.helpers => vec![name.to_owned(), format!("{name}_lean")],
            Rung::TpBtf => vec![name.to_owned()],
            Rung::RawTracepoint => vec![format!("{name}_raw")],
            Rung::Tracepoint => vec![format!("{name}_tp")],
        }
    }

    /// The folder of its tracepoint in tracefs.
    pub fn category(&self) -> &'static str {
        TRACEPOINTS.iter().find(|(_, name)| *name == self.tracepoint).map_or("", |(category, _)| category)
    }
}

/// All probes, in the order in which they are attached. `state` comes last, so that a connection whose birth is seen has
/// all of its other events seen too.
pub const PROBES: &[ProbeSpec] = &[
    probe("destroy", "tcp_destroy_sock", Some(EventKind::Destroy)).required(),
    probe("reset_sent", "tcp_send_reset", Some(EventKind::Reset)),
    probe("reset_received", "tcp_receive_reset", Some(EventKind::Reset)),
    probe("synack", "tcp_retransmit_synack", None).without_helpers(),
    probe("retransmit", "tcp_retransmit_skb", Some(EventKind::Retransmit)),
    probe("state", "inet_sock_set_state", Some(EventKind::Transition)).required(),
];

/// The empty program that `cargo xtask bench` measures ours against. No probe: the agent never loads it.
pub const YARDSTICK: ProbeSpec = probe("yardstick", "inet_sock_set_state", None).without_helpers();

const fn probe(name: &'static str, tracepoint: &'static str, kind: Option<EventKind>) -> ProbeSpec {
    ProbeSpec { name, tracepoint, required: false, helpers: true, kind }
}

impl ProbeSpec {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn without_helpers(self) -> Self {
        Self { helpers: false, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_has_a_layout_and_a_program_for_each_rung() {
        for spec in PROBES {
            assert!(!spec.category().is_empty(), "{} is missing in TRACEPOINTS", spec.tracepoint);
            for rung in Rung::ALL {
                assert!(!spec.programs(rung).is_empty(), "{} has nothing for {rung}", spec.name);
            }
        }
        assert_eq!(PROBES.len(), TRACEPOINTS.len());
    }
}
