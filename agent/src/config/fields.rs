//! The list of all settings. A new one needs a line here, a line in `build` (or `exporter`) and in `print`, and its place in
//! etc/synfin.example.yaml; tests compare the four.

/// One setting.
#[derive(Debug)]
pub(super) struct Field {
    /// `section.field`.
    pub(super) path: &'static str,
    /// Its environment variable: OpenTelemetry's own where there is one.
    pub(super) env: &'static str,
}

const fn field(path: &'static str, env: &'static str) -> Field {
    Field { path, env }
}

/// Every setting.
pub(super) const FIELDS: &[Field] = &[
    field("filter.netns", "SYNFIN_FILTER_NETNS"),
    field("filter.ports", "SYNFIN_FILTER_PORTS"),
    field("filter.peers", "SYNFIN_FILTER_PEERS"),
    field("filter.exclude_peers", "SYNFIN_FILTER_EXCLUDE_PEERS"),
    field("filter.exclude_loopback", "SYNFIN_FILTER_EXCLUDE_LOOPBACK"),
    field("probes.btf", "SYNFIN_PROBES_BTF"),
    field("probes.max_rung", "SYNFIN_PROBES_MAX_RUNG"),
    field("probes.disable", "SYNFIN_PROBES_DISABLE"),
    field("ring.size", "SYNFIN_RING_SIZE"),
    field("ring.poll", "SYNFIN_RING_POLL"),
    field("ledger.max_connections", "SYNFIN_LEDGER_MAX_CONNECTIONS"),
    field("census.enabled", "SYNFIN_CENSUS_ENABLED"),
    field("census.interval", "SYNFIN_CENSUS_INTERVAL"),
    field("census.cpu_share", "SYNFIN_CENSUS_CPU_SHARE"),
    field("census.source", "SYNFIN_CENSUS_SOURCE"),
    field("owners.pod_logs", "SYNFIN_OWNERS_POD_LOGS"),
    field("owners.container_logs", "SYNFIN_OWNERS_CONTAINER_LOGS"),
    field("summary.interval", "SYNFIN_SUMMARY_INTERVAL"),
    field("http.listen", "SYNFIN_HTTP_LISTEN"),
    field("metrics.series", "SYNFIN_METRICS_SERIES"),
    field("metrics.peers", "SYNFIN_METRICS_PEERS"),
    field("metrics.peer_groups", "SYNFIN_METRICS_PEER_GROUPS"),
    field("otlp.enabled", "OTEL_SDK_DISABLED"),
    field("otlp.endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    field("otlp.insecure", "OTEL_EXPORTER_OTLP_INSECURE"),
    field("otlp.protocol", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    field("otlp.headers", "OTEL_EXPORTER_OTLP_HEADERS"),
    field("otlp.timeout", "OTEL_EXPORTER_OTLP_TIMEOUT"),
    field("otlp.compression", "OTEL_EXPORTER_OTLP_COMPRESSION"),
    field("otlp.certificate", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    field("otlp.client_certificate", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
    field("otlp.client_key", "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
    field("otlp.metrics_interval", "OTEL_METRIC_EXPORT_INTERVAL"),
    field("otlp.metrics_temporality", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"),
    field("otlp.metrics_histograms", "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"),
    field("otlp.queue", "SYNFIN_OTLP_QUEUE"),
    field("otlp.span_batch", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
    field("otlp.span_delay", "OTEL_BSP_SCHEDULE_DELAY"),
    field("otlp.log_queue", "OTEL_BLRP_MAX_QUEUE_SIZE"),
    field("otlp.log_batch", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"),
    field("otlp.log_delay", "OTEL_BLRP_SCHEDULE_DELAY"),
    field("otlp.max_age", "SYNFIN_OTLP_MAX_AGE"),
    field("otlp.trace_sample_ratio", "SYNFIN_OTLP_TRACE_SAMPLE_RATIO"),
    field("otlp.trace_rate_limit", "SYNFIN_OTLP_TRACE_RATE_LIMIT"),
    field("otlp.abnormal_retransmit_ratio", "SYNFIN_OTLP_ABNORMAL_RETRANSMIT_RATIO"),
    field("otlp.abnormal_retransmits", "SYNFIN_OTLP_ABNORMAL_RETRANSMITS"),
    field("otlp.abnormal_handshake", "SYNFIN_OTLP_ABNORMAL_HANDSHAKE"),
    field("otlp.checkpoint_interval", "SYNFIN_OTLP_CHECKPOINT_INTERVAL"),
    field("otlp.shutdown_timeout", "SYNFIN_OTLP_SHUTDOWN_TIMEOUT"),
    field("otlp.service_name", "OTEL_SERVICE_NAME"),
    field("otlp.resource_attributes", "OTEL_RESOURCE_ATTRIBUTES"),
    field("otlp.resources", "SYNFIN_OTLP_RESOURCES"),
    field("otlp.traces.enabled", "OTEL_TRACES_EXPORTER"),
    field("otlp.traces.endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    field("otlp.traces.insecure", "OTEL_EXPORTER_OTLP_TRACES_INSECURE"),
    field("otlp.traces.protocol", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
    field("otlp.traces.headers", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
    field("otlp.traces.timeout", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"),
    field("otlp.traces.compression", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"),
    field("otlp.traces.certificate", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"),
    field("otlp.traces.client_certificate", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE"),
    field("otlp.traces.client_key", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY"),
    field("otlp.metrics.enabled", "OTEL_METRICS_EXPORTER"),
    field("otlp.metrics.endpoint", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
    field("otlp.metrics.insecure", "OTEL_EXPORTER_OTLP_METRICS_INSECURE"),
    field("otlp.metrics.protocol", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"),
    field("otlp.metrics.headers", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"),
    field("otlp.metrics.timeout", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"),
    field("otlp.metrics.compression", "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION"),
    field("otlp.metrics.certificate", "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE"),
    field("otlp.metrics.client_certificate", "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE"),
    field("otlp.metrics.client_key", "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY"),
    field("otlp.logs.enabled", "OTEL_LOGS_EXPORTER"),
    field("otlp.logs.endpoint", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
    field("otlp.logs.insecure", "OTEL_EXPORTER_OTLP_LOGS_INSECURE"),
    field("otlp.logs.protocol", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL"),
    field("otlp.logs.headers", "OTEL_EXPORTER_OTLP_LOGS_HEADERS"),
    field("otlp.logs.timeout", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT"),
    field("otlp.logs.compression", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION"),
    field("otlp.logs.certificate", "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE"),
    field("otlp.logs.client_certificate", "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE"),
    field("otlp.logs.client_key", "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY"),
];

/// The field of this path.
pub(super) fn find(path: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.path == path)
}

/// Names directly below a section (`""`: the sections), in the order of [`FIELDS`]; empty for what is no section.
pub(super) fn children(section: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for field in FIELDS {
        let below = if section.is_empty() {
            Some(field.path)
        } else {
            field.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
        };
        let name = below.and_then(|below| below.split('.').next());
        if let Some(name) = name.filter(|name| !names.contains(name)) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_their_fields_come_out_of_the_list() {
        assert_eq!(
            children(""),
            ["filter", "probes", "ring", "ledger", "census", "owners", "summary", "http", "metrics", "otlp"]
        );
        assert_eq!(children("ring"), ["size", "poll"]);
        let exporter = ["enabled", "endpoint", "insecure", "protocol", "headers", "timeout", "compression"];
        let files = ["certificate", "client_certificate", "client_key"];
        assert_eq!(children("otlp.logs"), [&exporter[..], &files[..]].concat());
        assert!(children("otlp").contains(&"traces"));
        assert!(children("rin").is_empty() && children("ring.size").is_empty());
    }

    #[test]
    fn no_path_and_no_variable_is_there_twice() {
        for (i, field) in FIELDS.iter().enumerate() {
            assert!(FIELDS[..i].iter().all(|other| other.path != field.path && other.env != field.env), "{field:?}");
            // Kubernetes sets SYNFIN_SERVICE_* and SYNFIN_PORT* in every pod beside a Service of the name `synfin`.
            assert!(!field.env.starts_with("SYNFIN_SERVICE_") && !field.env.starts_with("SYNFIN_PORT"), "{field:?}");
        }
    }
}
