//! What a virtual machine is to do: one pass for each rung of the probe ladder.

use serde_json::{Value, json};

use super::features;
use super::programs::TESTS;

/// One pass over test programs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pass {
    /// The best rung that synfin may stand on.
    pub(super) rung: &'static str,
    /// Whether that is what synfin chooses by itself.
    top: bool,
}

/// The rungs that each kernel is run on, the best first. A lower one is forced with `--max-rung`.
pub(super) const PASSES: [Pass; 1] = [Pass { rung: "tp_btf", top: true }];

/// An emulated machine is this much slower than a real one; the limits of the tests grow with it.
const SLOWNESS: &str = "5";

/// `/plan.json`, as synfin-vm-init reads it.
pub(super) fn plan() -> Value {
    json!({ "types": features::types(), "runs": PASSES.iter().map(Pass::plan).collect::<Vec<_>>() })
}

impl Pass {
    fn plan(&self) -> Value {
        let mut environment = json!({
            "PATH": "/bin",
            "SYNFIN_BIN": "/bin/synfin",
            "SYNFIN_TEST_SLOWNESS": SLOWNESS,
            // bpftrace and its compiler are too heavy for an emulated machine.
            "SYNFIN_TEST_WITNESS": "trace",
        });
        let mut doctor = Vec::new();
        if !self.top {
            environment["SYNFIN_TEST_MAX_RUNG"] = self.rung.into();
            doctor = vec!["--max-rung", self.rung];
        }
        // One at a time: the witness tells places by address, and each test has the same addresses.
        let words = |name: &&str| json!([test_path(name), "--test-threads=1"]);
        json!({
            "name": self.rung,
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
        let top = Pass { rung: "tp_btf", top: true }.plan();
        assert_eq!(top["environment"].get("SYNFIN_TEST_MAX_RUNG"), None);
        assert_eq!(top["doctor"], json!([]));
        let lower = Pass { rung: "tracepoint", top: false }.plan();
        assert_eq!(lower["environment"]["SYNFIN_TEST_MAX_RUNG"], "tracepoint");
        assert_eq!(lower["doctor"], json!(["--max-rung", "tracepoint"]));
        assert_eq!(lower["programs"][0], json!(["/test/deps/transitions", "--test-threads=1"]));
    }
}
