//! What kernels differ in, as far as it shapes what synfin can tell: each row is looked for on the booted kernel itself.

use std::collections::{BTreeMap, BTreeSet};

/// What a booted kernel says of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Fields of each tracepoint, `tcp/tcp_send_reset` → `reason`, ….
    pub(super) tracepoints: BTreeMap<String, BTreeSet<String>>,
    /// Those of [`types`] that the kernel's BTF has a name for.
    pub(super) types: BTreeSet<String>,
}

/// What shows that a kernel has it.
pub(super) enum Sign {
    /// A field of a tracepoint.
    Field(&'static str, &'static str),
    /// A name in the kernel's BTF.
    Type(&'static str),
}
use Sign::{Field, Type};

/// Something that a user of synfin sees or misses.
pub(super) struct Feature {
    pub(super) what: &'static str,
    /// The first release of Linux that has it; distributions may have it earlier.
    pub(super) since: &'static str,
    sign: Sign,
    /// What a user of a kernel without it must know.
    pub(super) without: &'static str,
}

#[rustfmt::skip] // a table
pub(super) const FEATURES: [Feature; 5] = [
    Feature { what: "transitions, ends and their causes", since: "4.16", sign: Field("sock/inet_sock_set_state", "newstate"),
              without: "synfin does not run" },
    Feature { what: "ring buffer", since: "5.8", sign: Type("bpf_ringbuf"),
              without: "synfin does not run" },
    Feature { what: "RSTs that answer a segment without a socket", since: "6.10", sign: Field("tcp/tcp_send_reset", "reason"),
              without: "the kernel counts them (`TcpOutRsts`) and announces them to nobody: a refused connection shows on the opener's side alone" },
    Feature { what: "the reason of a RST that was sent", since: "6.10", sign: Type("sk_rst_reason"),
              without: "`network.tcp.reset.reason` is absent" },
    Feature { what: "count of skipped programs", since: "5.12", sign: Type("recursion_misses"),
              without: "loss by `recursion` is never reported" },
];

/// The names that a machine is to look for in its kernel's BTF.
pub(super) fn types() -> Vec<&'static str> {
    let name = |feature: &Feature| match feature.sign {
        Type(name) => Some(name),
        Field(..) => None,
    };
    FEATURES.iter().filter_map(name).collect()
}

impl Feature {
    /// Whether a kernel has it.
    pub(super) fn of(&self, facts: &Facts) -> bool {
        match self.sign {
            Field(tracepoint, field) => facts.tracepoints.get(tracepoint).is_some_and(|fields| fields.contains(field)),
            Type(name) => facts.types.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_shows_by_its_sign() {
        let fields = ["skaddr", "state", "reason"].map(str::to_owned).into();
        let facts = Facts {
            tracepoints: [("tcp/tcp_send_reset".to_owned(), fields)].into(),
            types: ["sk_rst_reason".to_owned()].into(),
        };
        let has = |what: &str| FEATURES.iter().find(|feature| feature.what.contains(what)).unwrap().of(&facts);
        assert!(has("without a socket") && has("reason of a RST"));
        assert!(!has("transitions") && !has("skipped programs"));
    }
}
