//! Each bad input, and what is said about it.

use super::*;

/// The problems of a YAML file, without its path, one a line.
fn complaints(text: &str) -> String {
    let file = Scratch::new("c.yaml", text);
    let errors = load(Some(&file), &[], Vec::new()).expect_err(text);
    let lines: Vec<String> = errors.problems().iter().map(ToString::to_string).collect();
    lines.join("\n").replace(&file.path.display().to_string(), "F")
}

#[test]
fn every_bad_value_names_field_value_origin_and_fix() {
    for (text, complaint) in [
        (
            "probes: {disable: [synack, state]}",
            "probes.disable = state (file F): synfin cannot work without it; take it out of the list. Use reset_sent, reset_received, synack, retransmit",
        ),
        (
            "probes: {disable: [syn]}",
            "probes.disable = syn (file F): not a probe; use reset_sent, reset_received, synack, retransmit",
        ),
        (
            "probes: {max_rung: kprobe}",
            "probes.max_rung = kprobe (file F): not a rung; use tp_btf, raw_tracepoint, tracepoint",
        ),
        ("probes: {btf: ''}", "probes.btf =  (file F): not a path; leave it out for the kernel's own BTF"),
        ("ring: {size: 5000}", "ring.size = 5000 (file F): not a power of two; use 4KiB or 8KiB"),
        ("ring: {size: 9MiB}", "ring.size = 9MiB (file F): not a power of two; use 8MiB or 16MiB"),
        ("ring: {size: 2KiB}", "ring.size = 2KiB (file F): out of range; use 4KiB to 1GiB"),
        ("ring: {size: 2GiB}", "ring.size = 2GiB (file F): out of range; use 4KiB to 1GiB"),
        (
            "ring: {size: -1}",
            "ring.size = -1 (file F): not a size; write a whole number of bytes, KiB, MiB or GiB, e.g. 8MiB",
        ),
        (
            "ring: {poll: 20}",
            "ring.poll = 20 (file F): not a duration; write a number with its unit, e.g. 250ms, 10s, 5m or 1h",
        ),
        ("ring: {poll: 2s}", "ring.poll = 2s (file F): out of range; use 1ms to 1s"),
        ("ring: {poll: [1s]}", "ring.poll = [1s] (file F): takes one value"),
        (
            "ledger: {max_connections: 15}",
            "ledger.max_connections = 15 (file F): not a whole number from 16 to 16777216",
        ),
        (
            "ledger: {max_connections: many}",
            "ledger.max_connections = many (file F): not a whole number from 16 to 16777216",
        ),
        ("census: {source: proc}", "census.source = proc (file F): not a source; use auto, iterator, inet_diag"),
        ("summary: {interval: 1ms}", "summary.interval = 1ms (file F): out of range; use 100ms to 1h"),
        (
            "http: {listen: localhost}",
            "http.listen = localhost (file F): not an address with a port; write e.g. 127.0.0.1:9464 or [::1]:9464, which only this host reaches",
        ),
        (
            "http: {listen: ':9464'}",
            "http.listen = :9464 (file F): not an address with a port; write e.g. 127.0.0.1:9464 or [::1]:9464, which only this host reaches",
        ),
        ("filter: {ports: [80, 0]}", "filter.ports = 0 (file F): not a whole number from 1 to 65535"),
        ("filter: {ports: {a: 1}}", "filter.ports = {…} (file F): takes a list of single values"),
        (
            "filter: {peers: [10.0.0.0/40]}",
            "filter.peers = 10.0.0.0/40 (file F): not a network; write an address or ADDRESS/PREFIX, e.g. 10.0.0.0/8, fd00::/8 or 192.0.2.7",
        ),
        (
            "filter: {netns: ['']}",
            "filter.netns =  (file F): not a network namespace; give a name of `ip netns`, a path like /proc/PID/ns/net, or an inode number",
        ),
        ("filter: {exclude_loopback: perhaps}", "filter.exclude_loopback = perhaps (file F): neither true nor false"),
        (
            "otlp: {protocol: udp}",
            "otlp.protocol = udp (file F): not a protocol of OTLP; use grpc, http/protobuf or http/json",
        ),
        (
            "otlp: {compression: lz4}",
            "otlp.compression = lz4 (file F): not a compression of synfin; use none, gzip or zstd",
        ),
        ("otlp: {insecure: perhaps}", "otlp.insecure = perhaps (file F): neither true nor false"),
        (
            "otlp: {endpoint: 'localhost:4317'}",
            "otlp.endpoint = localhost:4317 (file F): has no scheme; write http://localhost:4317",
        ),
        (
            "otlp: {endpoint: localhost}",
            "otlp.endpoint = localhost (file F): has no scheme; write http://localhost:4317",
        ),
        ("otlp: {endpoint: '::1'}", "otlp.endpoint = ::1 (file F): has no scheme; write http://[::1]:4317"),
        (
            "otlp: {endpoint: 'ftp://h:4317'}",
            "otlp.endpoint = ftp://h:4317 (file F): begins neither with http:// nor with https://; write scheme, host and port, e.g. http://localhost:4317",
        ),
        (
            "otlp: {endpoint: '/v1'}",
            "otlp.endpoint = /v1 (file F): begins neither with http:// nor with https://; write scheme, host and port, e.g. http://localhost:4317",
        ),
        (
            "otlp: {endpoint: 'http://'}",
            "otlp.endpoint = http:// (file F): not a URL (empty host); write scheme, host and port, e.g. http://localhost:4317",
        ),
        (
            "otlp: {trace_sample_ratio: 1.5}",
            "otlp.trace_sample_ratio = 1.5 (file F): not a ratio; use a number from 0 (no spans) to 1 (all)",
        ),
        (
            "otlp: {trace_sample_ratio: .nan}",
            "otlp.trace_sample_ratio = .nan (file F): not a ratio; use a number from 0 (no spans) to 1 (all)",
        ),
        (
            "otlp: {trace_rate_limit: many}",
            "otlp.trace_rate_limit = many (file F): not a whole number from 0 to 10000000, nor none",
        ),
        (
            "otlp: {abnormal_retransmit_ratio: 5%}",
            "otlp.abnormal_retransmit_ratio = 5% (file F): not a share; use a number from 0 (none) to 1 (all), e.g. 0.05",
        ),
        (
            "otlp: {abnormal_retransmits: 0}",
            "otlp.abnormal_retransmits = 0 (file F): not a whole number from 1 to 4294967295",
        ),
        ("otlp: {abnormal_handshake: 0s}", "otlp.abnormal_handshake = 0s (file F): out of range; use 1ms to 10m"),
        (
            "otlp: {checkpoint_interval: 100ms}",
            "otlp.checkpoint_interval = 100ms (file F): out of range; use 1s to 168h, or none",
        ),
        ("otlp: {max_age: 0s}", "otlp.max_age = 0s (file F): out of range; use 1s to 168h"),
        ("otlp: {timeout: 0s}", "otlp.timeout = 0s (file F): out of range; use 1ms to 10m"),
        ("otlp: {queue: 0}", "otlp.queue = 0 (file F): not a whole number from 1 to 4194304"),
        ("otlp: {resources: pod}", "otlp.resources = pod (file F): neither owner nor host"),
        ("otlp: {service_name: ''}", "otlp.service_name =  (file F): empty; remove it or give a name"),
        (
            "otlp: {resource_attributes: [a]}",
            "otlp.resource_attributes = *** (file F): takes a table of names and values, or key=value,key=value",
        ),
    ] {
        assert_eq!(complaints(text), complaint);
    }
}

#[test]
fn unknown_keys_name_the_known_ones() {
    for (text, complaint) in [
        (
            "rings: {}",
            "rings (file F): is unknown; known here: filter, probes, ring, ledger, census, owners, summary, http, metrics, otlp",
        ),
        ("ring: {siz: 1}", "ring.siz (file F): is unknown; known here: size, poll"),
        (
            "otlp: {logs: {queue: 1}}",
            "otlp.logs.queue (file F): is unknown; known here: enabled, endpoint, insecure, protocol, headers, timeout, compression, certificate, client_certificate, client_key",
        ),
        ("ring: 8MiB", "ring (file F): is a section; put its fields below it: size, poll"),
        (
            "1: 2",
            "1 (file F): is unknown; known here: filter, probes, ring, ledger, census, owners, summary, http, metrics, otlp",
        ),
    ] {
        assert_eq!(complaints(text), complaint);
    }
}

#[test]
fn files_that_cannot_be_read_at_all() {
    assert!(complaints("a: [").starts_with("file F: not valid YAML: "));
    assert!(complaints("ring: {size: 1MiB, size: 2MiB}").contains("duplicate"));
    assert!(complaints("- a\n- b").starts_with("file F: not a table of sections"));
    let text = |name, text| {
        let file = Scratch::new(name, text);
        load(Some(&file), &[], Vec::new()).expect_err(text).to_string()
    };
    let toml = text("c.toml", "[otlp.headers]\na = s3cret");
    assert!(toml.contains("not valid TOML: ") && toml.contains("line 2") && !toml.contains("s3cret"), "{toml}");
    assert!(text("c.json", "{}").contains("must end in .yaml, .yml or .toml"));
    let missing =
        Sources { file: Some("/nowhere/c.yaml".into()), env: &|_| None, names: Vec::new(), flags: Vec::new() };
    let error = Config::load(&missing).unwrap_err().to_string();
    assert!(error.contains("file /nowhere/c.yaml: cannot be read: No such file"), "{error}");
}

#[test]
fn all_errors_of_all_sources_come_at_once() {
    let file = Scratch::new("c.toml", "[ring]\nsize = 5000\ntypo = 1\n[filter]\nports = [0, 80, 70000]\n");
    let variables =
        [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/xml"), ("SYNFIN_RING_POLL", "20"), ("SYNFIN_RING_SZIE", "1")];
    let flags = vec![Setting::flag("otlp.endpoint", "--otlp-endpoint", "nowhere")];
    let errors = load(Some(&file), &variables, flags).unwrap_err();
    let text = errors.to_string();
    assert!(text.starts_with("the configuration has 8 errors:\n"), "{text}");
    for part in [
        "ring.typo (file",
        "ring.size = 5000 (file",
        "filter.ports = 0 (file",
        "filter.ports = 70000 (file",
        "otlp.protocol = http/xml (env OTEL_EXPORTER_OTLP_PROTOCOL)",
        "ring.poll = 20 (env SYNFIN_RING_POLL)",
        "SYNFIN_RING_SZIE: is unknown; the nearest is SYNFIN_RING_SIZE (ring.size)",
        "otlp.endpoint = nowhere (flag --otlp-endpoint)",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn secrets_do_not_get_into_errors() {
    for text in [
        "otlp: {headers: {a b: s3cret}}",
        "otlp: {headers: {a: \"s3cret\\nx\"}}",
        "otlp: {headers: {a-bin: s3cret}}",
        "otlp: {headers: {a: [s3cret]}}",
        "otlp: {headers: s3cret}",
        "otlp: {headers: [s3cret]}",
        "otlp: {endpoint: 'http://me:s3cret@host:4317'}",
        "otlp: {endpoint: 'http://me:s3cret@host:99999'}",
        "otlp: {endpoint: 'me:s3cret@host:4317'}",
        "otlp: {endpoint: 's3cret@host'}",
        "otlp: {endpoint: 'me:12/s3cret@host:4317'}",
        "otlp: {endpoint: ['http://me:s3cret@host:4317']}",
    ] {
        let complaint = complaints(text);
        assert!(complaint.contains("***") && !complaint.contains("s3cret"), "{complaint}");
    }
    assert!(complaints("otlp: {headers: {a: '***'}}").contains("masked by --print-config"));
}

#[test]
fn too_long_lists_are_refused_before_the_kernel_does() {
    let ports: Vec<String> = (1..=1025).map(|port| port.to_string()).collect();
    let complaint = complaints(&format!("filter: {{ports: [{}]}}", ports.join(",")));
    assert_eq!(complaint, "filter.ports = 1025 values (file F): takes at most 1024 values");
}

#[test]
fn namespaces_that_do_not_exist_are_errors_of_the_start_only() {
    let names = ["synfin-no-such-name", "7", "/nowhere/net"].map(str::to_owned);
    let file = Scratch::new("c.yaml", &format!("filter: {{netns: [{}]}}", names.join(", ")));
    let in_file = format!("file {}", file.path.display());
    for (loaded, origin) in [
        (load(Some(&file), &[], Vec::new()), in_file.as_str()),
        (env(&[("SYNFIN_FILTER_NETNS", &names.join(","))]), "env SYNFIN_FILTER_NETNS"),
        (load(None, &[], vec![Setting::flag_list("filter.netns", "--netns", &names)]), "flag --netns"),
    ] {
        let errors = config(loaded).filter.resolve_netns().unwrap_err();
        assert_eq!(errors.problems().len(), 2);
        let complaint = format!("filter.netns = /nowhere/net ({origin}): cannot open /nowhere/net");
        assert!(errors.to_string().contains(&complaint), "{errors}");
    }
    let errors = config(yaml("filter: {netns: [/nowhere/net]}")).filter.resolve_netns().unwrap_err();
    assert_eq!(crate::exit::Exit::of(&errors.into()), crate::exit::Exit::Usage);
}
