//! Harness of synfin's black-box tests.
//!
//! The suite knows three things: the built binary, `docs/EVENTS.md`, and the kernel. It shares no code with synfin, so
//! that a mistake cannot agree with itself. Each test makes traffic in network namespaces of its own ([`netns`],
//! [`wire`], [`scenario`]), lets the binary watch ([`synfin`]), asks witnesses that have nothing to do with synfin what
//! happened ([`witness`]), and compares exactly.
//!
//! What a test needs and does not find (root, a tool, the binary) makes it fail with a sentence that says what to do.
//! Nothing is skipped: a suite that passes has looked.

pub mod census;
pub mod cgroup;
pub mod collector;
pub mod confine;
pub mod course;
pub mod crowd;
pub mod deadline;
pub mod http;
pub mod kernel;
pub mod lines;
pub mod listing;
pub mod load;
pub mod moment;
pub mod need;
pub mod netns;
pub mod note;
pub mod otlp;
pub mod peer;
pub mod procnet;
pub mod prometheus;
pub mod proof;
pub mod puppet;
pub mod recording;
pub mod rewrite;
pub mod router;
pub mod scenario;
pub mod seccomp;
pub mod sock;
pub mod ss;
pub mod stage;
pub mod state;
pub mod synfin;
pub mod tracefs;
pub mod tun;
pub mod twins;
pub mod victoria_metrics;
pub mod wire;
pub mod witness;
