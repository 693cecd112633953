//! The rules of the OTLP exporter specification.

use std::collections::BTreeMap;

use super::*;

fn otlp(variables: &[(&str, &str)]) -> Otlp {
    config(env(variables)).otlp
}

fn endpoints(otlp: &Otlp) -> [Option<&str>; 3] {
    [&otlp.traces, &otlp.metrics, &otlp.logs].map(|signal| signal.as_ref().map(|signal| signal.endpoint.as_str()))
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

#[test]
fn off_without_an_endpoint() {
    let otlp = otlp(&[(PROTOCOL, "http/protobuf"), ("OTEL_SERVICE_NAME", "edge")]);
    assert!(!otlp.is_on());
    assert_eq!(otlp.service_name, "edge");
}

#[test]
fn grpc_takes_the_endpoint_as_it_is() {
    for text in ["http://h:4317", "http://h:4317/", "HTTP://h:4317"] {
        let otlp = otlp(&[(ENDPOINT, text)]);
        assert_eq!(endpoints(&otlp), [Some("http://h:4317"); 3]);
        let signal = otlp.logs.unwrap();
        assert_eq!((signal.protocol, signal.timeout), (Protocol::Grpc, Duration::from_secs(10)));
        assert_eq!((signal.compression, signal.headers.len()), (Compression::None, 0));
    }
    assert_eq!(otlp(&[(ENDPOINT, "https://[::1]:4317")]).traces.unwrap().endpoint, "https://[::1]:4317");
}

#[test]
fn http_appends_the_path_to_the_general_endpoint_only() {
    for (text, base) in
        [("http://h:4318", "http://h:4318"), ("http://h:4318/", "http://h:4318"), ("http://h/otlp/", "http://h/otlp")]
    {
        let otlp = otlp(&[(ENDPOINT, text), (PROTOCOL, "http/protobuf")]);
        let expected = ["/v1/traces", "/v1/metrics", "/v1/logs"].map(|path| format!("{base}{path}"));
        assert_eq!(endpoints(&otlp), expected.each_ref().map(|endpoint| Some(endpoint.as_str())));
    }
    let own = otlp(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:9/x"), (PROTOCOL, "http/protobuf")]);
    assert_eq!(endpoints(&own), [None, Some("http://m:9/x"), None]);
    let query = otlp(&[(ENDPOINT, "http://h:4318/a?k=v"), (PROTOCOL, "http/protobuf")]);
    assert_eq!(endpoints(&query)[0], Some("http://h:4318/a/v1/traces?k=v"));
}

#[test]
fn a_signals_own_settings_win_over_the_general_ones() {
    let otlp = otlp(&[
        (ENDPOINT, "http://h:4317"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,B=two%20words"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://l:4318/v1/logs"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "c=3"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "100"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "none"),
    ]);
    let (traces, logs) = (otlp.traces.unwrap(), otlp.logs.unwrap());
    assert_eq!(traces.headers, BTreeMap::from([("a".into(), "1".into()), ("b".into(), "two words".into())]));
    assert_eq!((traces.timeout, traces.compression), (Duration::from_millis(2500), Compression::Gzip));
    let expected = Signal {
        endpoint: "http://l:4318/v1/logs".into(),
        protocol: Protocol::HttpProtobuf,
        headers: BTreeMap::from([("c".into(), "3".into())]),
        timeout: Duration::from_millis(100),
        compression: Compression::None,
        tls: Tls::default(),
    };
    assert_eq!(logs, expected);
}

#[test]
fn switches() {
    let off = env(&[(ENDPOINT, "http://h:4317"), ("OTEL_SDK_DISABLED", "True")]).unwrap();
    assert!(!off.config.otlp.is_on());
    assert_eq!(off.warnings, ["an OTLP endpoint is configured, but OTLP is switched off (env OTEL_SDK_DISABLED)"]);
    assert!(otlp(&[(ENDPOINT, "http://h:4317"), ("OTEL_SDK_DISABLED", "false")]).is_on());
    let some = otlp(&[(ENDPOINT, "http://h:4317"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "otlp")]);
    assert_eq!(endpoints(&some), [None, Some("http://h:4317"), Some("http://h:4317")]);
    assert!(!config(yaml("otlp: {enabled: false, endpoint: 'http://h:4317'}")).otlp.is_on());
}

#[test]
fn samplers() {
    let ratio = |variables: &[(&str, &str)]| otlp(variables).trace_sample_ratio;
    let sampler = |name, argument| ratio(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)]);
    assert!((sampler("traceidratio", "0.25") - 0.25).abs() < f64::EPSILON);
    assert!((sampler("parentbased_traceidratio", "0.5") - 0.5).abs() < f64::EPSILON);
    assert!((sampler("always_on", "0.5") - 1.0).abs() < f64::EPSILON);
    assert!(sampler("parentbased_always_off", "0.5").abs() < f64::EPSILON);
    assert!((ratio(&[("OTEL_TRACES_SAMPLER_ARG", "0.5")]) - 1.0).abs() < f64::EPSILON, "an argument without its verb");
    let ours = [("OTEL_TRACES_SAMPLER", "always_off"), ("SYNFIN_OTLP_TRACE_SAMPLE_RATIO", "0.1")];
    assert!((ratio(&ours) - 0.1).abs() < f64::EPSILON);
}

#[test]
fn a_rate_limit_can_be_switched_off() {
    let limit = |text: &str| config(yaml(&format!("otlp: {{trace_rate_limit: {text}}}"))).otlp.trace_rate_limit;
    assert_eq!((limit("250"), limit("0"), limit("none"), limit("null")), (Some(250), None, None, Some(1_000)));
    let off = config(yaml("otlp: {trace_rate_limit: 0}"));
    assert_eq!(config(yaml(&off.to_yaml())), off);
}

#[test]
fn batch_processors_are_set_up_by_the_standard_variables() {
    let set = otlp(&[
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2048"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "256"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5000"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "10"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "250"),
    ]);
    assert_eq!((set.queue, set.span_batch, set.span_delay), (2_048, 256, Duration::from_secs(5)));
    assert_eq!((set.log_queue, set.log_batch, set.log_delay), (100, 10, Duration::from_millis(250)));
    let ours = [("OTEL_BSP_MAX_QUEUE_SIZE", "2048"), ("SYNFIN_OTLP_QUEUE", "7")];
    assert_eq!(otlp(&ours).queue, 7);
    let error = env(&[("OTEL_BSP_MAX_QUEUE_SIZE", "many")]).unwrap_err().to_string();
    assert!(error.contains("otlp.queue = many (env OTEL_BSP_MAX_QUEUE_SIZE): not a whole number"), "{error}");
    for name in ["OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BLRP_EXPORT_TIMEOUT", "OTEL_SPAN_LINK_COUNT_LIMIT"] {
        let warnings = env(&[(name, "128")]).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("{name} has no effect: ")), "{warnings:?}");
    }
}

#[test]
fn metrics_are_told_as_the_standard_variables_say() {
    let temporality =
        |text: &str| otlp(&[("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", text)]).metrics_temporality;
    assert_eq!(
        ["cumulative", "Delta", "LOWMEMORY"].map(temporality),
        [Temporality::Cumulative, Temporality::Delta, Temporality::LowMemory]
    );
    let aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    assert_eq!(
        otlp(&[(aggregation, "base2_exponential_bucket_histogram")]).metrics_histograms,
        Histograms::Exponential
    );
    for (name, value, message) in [
        (
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "both",
            "not a temporality; use cumulative, delta or lowmemory",
        ),
        (
            aggregation,
            "drop",
            "not an aggregation; use explicit_bucket_histogram or base2_exponential_bucket_histogram",
        ),
        ("SYNFIN_METRICS_SERIES", "5", "not a whole number from 100 to 10000000"),
        ("SYNFIN_METRICS_PEERS", "1001", "not a whole number from 0 to 1000"),
        ("SYNFIN_METRICS_PEER_GROUPS", "here", "not a network"),
    ] {
        let error = env(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains(name), "{error}");
    }
    for name in ["OTEL_METRIC_EXPORT_TIMEOUT", "OTEL_METRICS_EXEMPLAR_FILTER"] {
        let warnings = env(&[(name, "always_off")]).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("{name} has no effect: ")), "{warnings:?}");
    }
}

#[test]
fn checkpoints_can_be_switched_off() {
    let interval =
        |text: &str| config(yaml(&format!("otlp: {{checkpoint_interval: {text}}}"))).otlp.checkpoint_interval;
    assert_eq!(["0", "0s", "none"].map(interval), [None; 3]);
    assert_eq!(interval("1m"), Some(Duration::from_mins(1)));
    let off = config(yaml("otlp: {checkpoint_interval: 0}"));
    assert_eq!(config(yaml(&off.to_yaml())), off);
}

#[test]
fn the_resource_of_environment_and_file_is_one() {
    let file = Scratch::new("c.yaml", "otlp: {resource_attributes: {a: file, b: file, service.name: file}}");
    let only_file = config(load(Some(&file), &[], Vec::new())).otlp;
    assert_eq!(only_file.service_name, "file");
    let variables = [("OTEL_RESOURCE_ATTRIBUTES", "b=env,c=%C3%A9,service.name=env")];
    let both = config(load(Some(&file), &variables, Vec::new())).otlp;
    assert_eq!(both.service_name, "env");
    let expected = [("a", "file"), ("b", "env"), ("c", "é")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(both.resource_attributes, BTreeMap::from(expected));
    let name = [variables[0], ("OTEL_SERVICE_NAME", "named")];
    assert_eq!(config(load(Some(&file), &name, Vec::new())).otlp.service_name, "named");
}

#[test]
fn likely_mistakes_are_warned_of() {
    for (variables, part) in [
        (&[(ENDPOINT, "http://h:4318")][..], "4318 is customarily http/protobuf"),
        (&[(ENDPOINT, "http://h:4317"), (PROTOCOL, "http/protobuf")], "4317 is customarily grpc"),
        (&[(ENDPOINT, "http://h:9/v1/traces")], "ignores the path /v1/traces"),
        (&[(ENDPOINT, "http://h:4317"), (PROTOCOL, "http/json")], "uses http/json, but 4317 is customarily grpc"),
        (&[("OTEL_CONFIG_FILE", "otel.yaml")], "OTEL_CONFIG_FILE has no effect"),
    ] {
        let warnings = env(variables).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
    assert!(env(&[(ENDPOINT, "http://h:4317")]).unwrap().warnings.is_empty());
}

#[test]
fn bad_variables_are_named() {
    for (name, value, part) in [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "not a number of milliseconds"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1", "out of range; use 100ms to 1h"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "novalue", "takes key=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=%FF", "percent-encode UTF-8"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "0", "out of range; use 1ms to 1m"),
        ("OTEL_TRACES_EXPORTER", "console", "use otlp or none"),
        ("OTEL_TRACES_SAMPLER", "xray", "not a sampler of synfin"),
        ("OTEL_SDK_DISABLED", "maybe", "neither true nor false"),
    ] {
        let error = env(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(&format!("(env {name})")) && error.contains(part), "{error}");
    }
}
