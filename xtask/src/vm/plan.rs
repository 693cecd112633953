//! What a virtual machine is to do: the passes of its boot.

use serde_json::{Value, json};

use super::boots::{Boot, Pass};
use super::features;

/// A rung of the probe ladder, as the page about kernels tells of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) name: &'static str,
    /// What synfin cannot tell from there.
    pub(super) without: &'static str,
}

/// The best first.
pub(crate) const RUNGS: [Rung; 3] = [
    Rung { name: "tp_btf", without: "nothing: all that synfin can tell" },
    Rung { name: "raw_tracepoint", without: WITHOUT_COOKIES },
    Rung { name: "tracepoint", without: WITHOUT_COOKIES },
];

const WITHOUT_COOKIES: &str = "cookies of sockets that nobody else asked for one; on 5.10 `tp_btf` is without them too";

/// An emulated machine is this much slower than a real one; the limits of the tests grow with it.
const SLOWNESS: &str = "5";

/// `/plan.json`, as synfin-vm-init reads it.
pub(super) fn plan(boot: &Boot) -> Value {
    json!({ "types": features::types(), "runs": boot.passes.iter().map(Pass::plan).collect::<Vec<_>>() })
}

impl Pass {
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
        if let Some(rung) = self.max_rung {
            environment["SYNFIN_TEST_MAX_RUNG"] = rung.into();
            doctor = vec!["--max-rung", rung];
        }
        let words = |words: &&[&str]| {
            let [name, words @ ..] = words else { return Vec::new() };
            let mut line = vec![test_path(name)];
            line.extend(words.iter().map(|word| (*word).to_owned()));
            // One at a time: the witness tells places by address, and each test has the same addresses.
            line.push("--test-threads=1".to_owned());
            line
        };
        json!({
            "name": self.name,
            "doctor": doctor,
            "programs": self.programs.iter().map(words).collect::<Vec<_>>(),
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
        let top =
            Pass { name: "tp_btf", max_rung: None, doctor: &[0], programs: &[&["refusals", "--include-ignored"]] };
        let top = top.plan();
        assert_eq!(top["environment"].get("SYNFIN_TEST_MAX_RUNG"), None);
        assert_eq!(top["doctor"], json!([]));
        assert_eq!(top["programs"], json!([["/test/deps/refusals", "--include-ignored", "--test-threads=1"]]));
        let lower =
            Pass { name: "low", max_rung: Some("tracepoint"), doctor: &[0], programs: &[&["transitions"]] }.plan();
        assert_eq!(lower["environment"]["SYNFIN_TEST_MAX_RUNG"], "tracepoint");
        assert_eq!(lower["doctor"], json!(["--max-rung", "tracepoint"]));
        assert_eq!(lower["programs"][0], json!(["/test/deps/transitions", "--test-threads=1"]));
    }
}
