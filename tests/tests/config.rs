//! The configuration: what is wrong is said, what is printed is what holds.

use std::fs;

use anyhow::{Context as _, Result};
use synfin_tests::{
    need,
    synfin::{Synfin, command, run},
};
use tempfile::TempDir;

/// Each line is wrong in its own way.
const BAD_CONFIGURATION: &str = "
filter: {ports: [70000], peers: [nonsense]}
ring: {size: 12345, poll: soon}
ledger: {max_connections: 0}
owners: {pod_logs: var/log/pods}
otlp: {resources: pod, endpoint: not a url, protocol: smoke, metrics_interval: 0s, trace_sample_ratio: 2.0}
no_such_section: 1
";

/// The fields, and a part of what is to be done.
const BAD_FIELDS: &[(&str, &str)] = &[
    ("filter.peers", "10.0.0.0/8"),
    ("filter.ports", "65535"),
    ("ledger.max_connections", "16"),
    ("no_such_section", "ledger"),
    ("otlp.endpoint", "http://localhost:4317"),
    ("otlp.metrics_interval", "100ms"),
    ("otlp.protocol", "http/protobuf"),
    ("otlp.resources", "owner"),
    ("otlp.trace_sample_ratio", "from 0"),
    ("owners.pod_logs", "/var/log/pods"),
    ("ring.poll", "250ms"),
    ("ring.size", "16KiB"),
];

/// All that is wrong with a configuration is said at once: field and fix.
#[test]
fn configuration_errors_come_all_at_once() -> Result<()> {
    need::root()?;
    let scratch = TempDir::new()?;
    let file = scratch.path().join("synfin.yaml");
    fs::write(&file, BAD_CONFIGURATION)?;
    let path = file.display().to_string();
    let ended = run(&["run", "--config", &path])?;
    ended.expect(2)?;
    let message = ended.stderr.join("\n");
    for (field, fix) in BAD_FIELDS {
        let said = ended.stderr.iter().find(|line| line.contains(field));
        let said = said.with_context(|| format!("{field} is wrong and not named in: {message}"))?;
        assert!(said.contains(fix) && said.contains(&path), "no fix ({fix}) or no place ({path}) in: {said}");
    }
    assert!(message.contains(&format!("{} errors", BAD_FIELDS.len())), "{message}");

    let mut by_environment = command(["watch"])?;
    by_environment.env("SYNFIN_RING_SIZE", "banana");
    let ended = Synfin::spawn(by_environment)?.wait()?;
    ended.expect(2)?;
    let message = ended.stderr.join("\n");
    assert!(message.contains("SYNFIN_RING_SIZE") && message.contains("banana"), "{message}");

    let missing = scratch.path().join("missing.yaml").display().to_string();
    let ended = run(&["run", "--config", &missing])?;
    ended.expect(2)?;
    assert!(ended.stderr.join("\n").contains(&missing), "{:?}", ended.stderr);
    Ok(())
}

/// What `--print-config` prints is a configuration, and means the same.
#[test]
fn printed_configuration_round_trips() -> Result<()> {
    need::root()?;
    let first = run(&["run", "--print-config"])?;
    first.expect(0)?;
    let scratch = TempDir::new()?;
    let file = scratch.path().join("synfin.yaml");
    fs::write(&file, first.stdout.join("\n") + "\n")?;
    let again = run(&["run", "--config", &file.display().to_string(), "--print-config"])?;
    again.expect(0)?;
    assert_eq!(first.stdout, again.stdout);

    let flag = run(&["run", "--exclude-loopback", "--print-config"])?;
    assert_ne!(first.stdout, flag.stdout, "a flag must show in what is printed");
    Ok(())
}

/// A variable that is misspelt is not ignored, and told with everything else that is wrong.
#[test]
fn a_misspelt_variable_is_told() -> Result<()> {
    need::root()?;
    let mut run = command(["run", "--print-config", "--otlp-endpoint", "localhost"])?;
    run.env("SYNFIN_RNG_SIZE", "8MiB").env("SYNFIN_PORT", "tcp://10.0.0.1:80");
    let ended = Synfin::spawn(run)?.wait()?;
    ended.expect(2)?;
    let text = ended.stderr.join("\n");
    for part in [
        "has 2 errors",
        "SYNFIN_RNG_SIZE: is unknown; the nearest is SYNFIN_RING_SIZE (ring.size)",
        "otlp.endpoint = localhost (flag --otlp-endpoint): has no scheme; write http://localhost:4317",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    Ok(())
}
