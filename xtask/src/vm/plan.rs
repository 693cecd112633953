//! What a virtual machine is to do: one pass for each rung of the probe ladder.

use serde_json::{Value, json};

use super::features;
use super::programs::TESTS;

/// A rung of the probe ladder, and what a pass on it is held to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) name: &'static str,
    /// Whether synfin chooses it by itself; the others are forced with `--max-rung`.
    top: bool,
    /// What synfin cannot tell from there.
    pub(super) without: &'static str,
}

/// The best first.
pub(crate) const RUNGS: [Rung; 3] = [
    Rung { name: "tp_btf", top: true, without: "nothing: all that synfin can tell" },
    Rung { name: "raw_tracepoint", top: false, without: WITHOUT_COOKIES },
    Rung { name: "tracepoint", top: false, without: WITHOUT_COOKIES },
];

const WITHOUT_COOKIES: &str = "cookies of sockets that nobody else asked for one; on 5.10 `tp_btf` is without them too";

/// An emulated machine is this much slower than a real one; the limits of the tests grow with it.
const SLOWNESS: &str = "5";

/// `/plan.json`, as synfin-vm-init reads it.
pub(super) fn plan() -> Value {
    json!({ "types": features::types(), "runs": RUNGS.iter().map(Rung::plan).collect::<Vec<_>>() })
}

impl Rung {
    fn plan(&self) -> Value {
        let mut environment = json!({
            "PATH": "/bin",
            "SYNFIN_BIN": "/bin/synfin",
            "SYNFIN_TEST_NOTES": "/tmp/notes",
            "SYNFIN_TEST_SLOWNESS": SLOWNESS,
            // bpftrace and its compiler are too heavy for an emulated machine.
            "SYNFIN_TEST_WITNESS": "trace",
        });
        let mut doctor = Vec::new();
        if !self.top {
            environment["SYNFIN_TEST_MAX_RUNG"] = self.name.into();
            doctor = vec!["--max-rung", self.name];
        }
        // One at a time: the witness tells places by address, and each test has the same addresses.
        let words = |name: &&str| json!([test_path(name), "--test-threads=1"]);
        json!({
            "name": self.name,
            "doctor": doctor,
            "programs": TESTS.iter().map(words).collect::<Vec<_>>(),
            "environment": environment,
        })
    }
}

/// Where a test program lies in the machine; its peer program is one folder above, as in a target folder.
pub(super) fn test_path(name: &str) -> String {
    format!("/test/deps/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lower_rung_is_forced() {
        let top = Rung { name: "tp_btf", top: true, without: "" }.plan();
        assert_eq!(top["environment"].get("SYNFIN_TEST_MAX_RUNG"), None);
        assert_eq!(top["doctor"], json!([]));
        let lower = Rung { name: "tracepoint", top: false, without: "" }.plan();
        assert_eq!(lower["environment"]["SYNFIN_TEST_MAX_RUNG"], "tracepoint");
        assert_eq!(lower["doctor"], json!(["--max-rung", "tracepoint"]));
        assert_eq!(lower["programs"][0], json!(["/test/deps/transitions", "--test-threads=1"]));
    }
}
