//! Where values come from, and which wins.

use super::*;
use crate::config::fields::FIELDS;

fn example() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../etc/synfin.example.yaml")).unwrap()
}

#[test]
fn the_shipped_example_is_the_defaults() {
    assert_eq!(config(yaml(&example())), Config::default());
}

#[test]
fn the_shipped_example_names_every_field_and_variable() {
    let text = example();
    let tree: serde_norway::Value = serde_norway::from_str(&text).unwrap();
    for field in FIELDS {
        let value = field.path.split('.').try_fold(&tree, |tree, key| tree.get(key));
        assert!(value.is_some(), "{} is missing", field.path);
        assert!(text.contains(field.env), "{} is missing", field.env);
    }
}

#[test]
fn nothing_and_empty_files_give_the_defaults() {
    assert_eq!(config(env(&[])), Config::default());
    for text in ["", "# nothing\n", "ring:\n", "ring: {size: null}"] {
        assert_eq!(config(yaml(text)), Config::default(), "{text}");
    }
    let toml = Scratch::new("c.toml", "");
    assert_eq!(config(load(Some(&toml), &[], Vec::new())), Config::default());
    // An empty variable is as good as none.
    assert_eq!(config(env(&[("SYNFIN_RING_SIZE", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", " ")])), Config::default());
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = Scratch::new("c.yaml", "ring: {size: 1MiB, poll: 1ms}\nledger: {max_connections: 100}\n");
    let variables = [("SYNFIN_RING_SIZE", "2MiB"), ("SYNFIN_RING_POLL", "2ms")];
    let flags = vec![Setting::flag("ring.size", "--ring-size", "4MiB")];
    let config = config(load(Some(&file), &variables, flags));
    assert_eq!(config.ring, Ring { size: 4 << 20, poll: Duration::from_millis(2) });
    assert_eq!(config.ledger.max_connections, 100);
    assert_eq!(config.summary, Summary::default());
}

#[test]
fn an_overridden_list_is_replaced_as_a_whole() {
    let file = Scratch::new("c.yaml", "filter: {ports: [80, 443, 80], netns: [4026531840, blue]}");
    let in_file = config(load(Some(&file), &[], Vec::new())).filter;
    assert_eq!(in_file.ports, [80, 443]);
    assert_eq!(in_file.netns, [NetnsSpec::Inode(4_026_531_840), NetnsSpec::Name("blue".into())]);
    let flags = vec![Setting::flag_list("filter.ports", "--port", &["22".into(), "23".into()])];
    let config = config(load(Some(&file), &[("SYNFIN_FILTER_PORTS", "1, 2")], flags));
    assert_eq!(config.filter.ports, [22, 23]);
    assert_eq!(config.filter.netns, in_file.netns);
}

#[test]
fn variables_carry_lists_and_booleans() {
    let filter = config(env(&[
        ("SYNFIN_FILTER_PORTS", "80, 443"),
        ("SYNFIN_FILTER_PEERS", "10.1.2.3/8,::1"),
        ("SYNFIN_FILTER_EXCLUDE_LOOPBACK", "1"),
    ]))
    .filter;
    assert_eq!(filter.ports, [80, 443]);
    assert_eq!(filter.peers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);
    assert!(filter.exclude_loopback);
}

const FULL_TOML: &str = r#"
[filter]
netns = ["blue", "/proc/1/ns/net", 7]
ports = [80]
peers = ["10.0.0.0/8"]
exclude_peers = ["fd00::/8"]
exclude_loopback = true
[ring]
size = "64KiB"
poll = "5ms"
[ledger]
max_connections = 1000
[owners]
pod_logs = "/host/pods"
container_logs = "/host/containers"
[summary]
interval = "2s"
[otlp]
endpoint = "http://collector:4317"
timeout = "3s"
metrics_interval = "1m 30s"
queue = 10
trace_sample_ratio = 0.25
shutdown_timeout = "1s"
service_name = "edge"
resources = "host"
resource_attributes = { "deployment.environment.name" = "test", replica = 3 }
[otlp.metrics]
endpoint = "https://metrics:4318/own/path"
protocol = "http/protobuf"
compression = "gzip"
[otlp.logs]
enabled = false
"#;

#[test]
fn toml_says_the_same() {
    let config = config(load(Some(&Scratch::new("c.toml", FULL_TOML)), &[], Vec::new()));
    assert_eq!(config.filter.netns[2], NetnsSpec::Inode(7));
    assert_eq!(config.ring, Ring { size: 65536, poll: Duration::from_millis(5) });
    assert_eq!(config.otlp.resource_attributes["replica"], "3");
    assert_eq!(config.otlp.resources, Resources::Host);
    assert_eq!(config.owners.pod_logs, std::path::Path::new("/host/pods"));
    assert_eq!(config.otlp.metrics_interval, Duration::from_secs(90));
}

#[test]
fn the_printed_configuration_reads_back_to_the_same() {
    let full = config(load(Some(&Scratch::new("c.toml", FULL_TOML)), &[], Vec::new()));
    assert_ne!(full.otlp.traces, None);
    for config in [full, Config::default()] {
        let text = config.to_yaml();
        assert_eq!(super::config(yaml(&text)), config, "{text}");
    }
}

#[test]
fn the_printed_configuration_names_every_field_of_the_file() {
    let tree: serde_norway::Value = serde_norway::from_str(&Config::default().to_yaml()).unwrap();
    for field in FIELDS {
        let shown = field.path.split('.').try_fold(&tree, |tree, key| tree.get(key));
        assert!(shown.is_some(), "{} is missing", field.path);
    }
}

#[test]
fn the_printed_configuration_tells_what_is_in_effect_with_and_without_an_endpoint() {
    let off = config(env(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"), ("OTEL_LOGS_EXPORTER", "none")]));
    let text = off.to_yaml();
    let tree: serde_norway::Value = serde_norway::from_str(&text).unwrap();
    let otlp = &tree["otlp"];
    assert_eq!((otlp["protocol"].as_str(), otlp["timeout"].as_str()), (Some("http/protobuf"), Some("10s")));
    assert_eq!((otlp["compression"].as_str(), otlp["logs"]["enabled"].as_bool()), (Some("none"), Some(false)));
    // What is null goes on following the general one: a flag beside this file still says the protocol of all signals.
    assert!(otlp["traces"]["protocol"].is_null() && otlp["endpoint"].is_null());
    assert_eq!(config(yaml(&text)), off, "{text}");

    let on = config(yaml(&text.replacen("endpoint: null", "endpoint: 'http://h:4318'", 1)));
    let tree: serde_norway::Value = serde_norway::from_str(&on.to_yaml()).unwrap();
    let [general, traces] = [&tree["otlp"], &tree["otlp"]["traces"]].map(|section| section["endpoint"].as_str());
    assert_eq!((general, traces), (Some("http://h:4318"), Some("http://h:4318/v1/traces")));
    assert_eq!(config(yaml(&on.to_yaml())), on);
}

#[test]
fn secrets_are_masked_in_print_and_debug() {
    let file = "otlp: {endpoint: 'http://h:4317', headers: {Authorization: 'Bearer s3cret'}}";
    let config = config(yaml(file));
    assert_eq!(config.otlp.traces.as_ref().unwrap().headers["authorization"], "Bearer s3cret");
    let (printed, debug) = (config.to_yaml(), format!("{config:?}"));
    assert!(printed.contains("authorization: '***'") || printed.contains("authorization: \"***\""), "{printed}");
    assert!(!printed.contains("s3cret") && !debug.contains("s3cret") && debug.contains("authorization"));
}
