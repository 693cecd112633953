//! The effective configuration as a file that reads back to the same one, with every field.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_norway::{Mapping, Value};
use url::Url;

use super::otlp::{Otlp, Section, Sections};
use super::tls::{PemFile, Tls};
use super::units::{format_duration, format_size};
use super::value::MASK;
use super::{Census, Config, Filter, Http, Ledger, Owners, Probes, Ring, Summary};

pub(super) fn to_yaml(config: &Config) -> String {
    // Whole structs are taken apart, so that a new field cannot be forgotten here.
    let Config { filter, probes, ring, ledger, census, owners, summary, http, metrics, otlp } = config;
    let Filter { netns, netns_from: _, ports, peers, exclude_peers, exclude_loopback } = filter;
    let Probes { btf, max_rung, disable } = probes;
    let Ring { size, poll } = ring;
    let Ledger { max_connections } = ledger;
    let Census { enabled, interval: census_interval, cpu_share, source } = census;
    let Owners { pod_logs, container_logs } = owners;
    let Summary { interval } = summary;
    let Http { listen } = http;
    let root = section([
        (
            "filter",
            section([
                ("netns", texts(netns)),
                ("ports", Value::Sequence(ports.iter().map(|&port| port.into()).collect())),
                ("peers", texts(peers)),
                ("exclude_peers", texts(exclude_peers)),
                ("exclude_loopback", (*exclude_loopback).into()),
            ]),
        ),
        (
            "probes",
            section([
                ("btf", btf.as_ref().map_or(Value::Null, |path| path.to_string_lossy().into())),
                ("max_rung", max_rung.name().into()),
                ("disable", texts(disable)),
            ]),
        ),
        ("ring", section([("size", format_size((*size).into()).into()), ("poll", format_duration(*poll).into())])),
        ("ledger", section([("max_connections", (*max_connections).into())])),
        (
            "census",
            section([
                ("enabled", (*enabled).into()),
                ("interval", format_duration(*census_interval).into()),
                ("cpu_share", (*cpu_share).into()),
                ("source", source.name().into()),
            ]),
        ),
        (
            "owners",
            section([
                ("pod_logs", pod_logs.to_string_lossy().into()),
                ("container_logs", container_logs.to_string_lossy().into()),
            ]),
        ),
        ("summary", section([("interval", format_duration(*interval).into())])),
        ("http", section([("listen", listen.map_or(Value::Null, |address| address.to_string().into()))])),
        (
            "metrics",
            section([
                ("series", metrics.series.into()),
                ("peers", metrics.peers.into()),
                ("peer_groups", texts(&metrics.peer_groups)),
            ]),
        ),
        ("otlp", otlp_section(otlp)),
    ]);
    // A tree of texts and numbers always serializes.
    serde_norway::to_string(&root).unwrap_or_default()
}

fn otlp_section(otlp: &Otlp) -> Value {
    let Otlp {
        metrics_interval,
        metrics_temporality,
        metrics_histograms,
        queue,
        span_batch,
        span_delay,
        log_queue,
        log_batch,
        log_delay,
        max_age,
        trace_sample_ratio,
        trace_rate_limit,
        abnormal_retransmit_ratio,
        abnormal_retransmits,
        abnormal_handshake,
        checkpoint_interval,
        shutdown_timeout,
        service_name,
        resource_attributes,
        resources,
        sections,
        traces: _,
        metrics: _,
        logs: _,
    } = otlp;
    let Sections { general, traces, metrics, logs } = sections;
    let mut fields = exporter(general);
    fields.extend([
        ("metrics_interval", format_duration(*metrics_interval).into()),
        ("metrics_temporality", metrics_temporality.name().into()),
        ("metrics_histograms", metrics_histograms.name().into()),
        ("queue", (*queue).into()),
        ("span_batch", (*span_batch).into()),
        ("span_delay", format_duration(*span_delay).into()),
        ("log_queue", (*log_queue).into()),
        ("log_batch", (*log_batch).into()),
        ("log_delay", format_duration(*log_delay).into()),
        ("max_age", format_duration(*max_age).into()),
        ("trace_sample_ratio", (*trace_sample_ratio).into()),
        ("trace_rate_limit", trace_rate_limit.map_or_else(|| "none".into(), Value::from)),
        ("abnormal_retransmit_ratio", (*abnormal_retransmit_ratio).into()),
        ("abnormal_retransmits", (*abnormal_retransmits).into()),
        ("abnormal_handshake", format_duration(*abnormal_handshake).into()),
        ("checkpoint_interval", checkpoint_interval.map_or_else(|| "none".into(), |time| format_duration(time).into())),
        ("shutdown_timeout", format_duration(*shutdown_timeout).into()),
        ("service_name", service_name.as_str().into()),
        ("resource_attributes", table(resource_attributes, String::as_str)),
        ("resources", resources.name().into()),
        ("traces", section(exporter(traces))),
        ("metrics", section(exporter(metrics))),
        ("logs", section(exporter(logs))),
    ]);
    section(fields)
}

/// Without the slash that a URL gets when it is read; any other path is taken as it is.
fn url(url: &Url) -> String {
    let text = url.as_str();
    let bare = url.path() == "/" && url.query().is_none();
    if bare { text.trim_end_matches('/') } else { text }.to_owned()
}

/// What a section says; `null` is what comes from the general one.
fn exporter(of: &Section) -> Vec<(&'static str, Value)> {
    let Section { enabled, endpoint, insecure, protocol, headers, timeout, compression, tls } = of;
    let Tls { certificate, client_certificate, client_key } = tls;
    let or_null = |text: Option<String>| text.map_or(Value::Null, Value::String);
    let file = |file: &Option<PemFile>| file.as_ref().map_or(Value::Null, |file| file.path.to_string_lossy().into());
    vec![
        ("enabled", (*enabled).into()),
        ("endpoint", or_null(endpoint.as_ref().map(url))),
        ("insecure", insecure.map_or(Value::Null, Value::Bool)),
        ("protocol", or_null(protocol.map(|protocol| protocol.name().to_owned()))),
        ("headers", headers.as_ref().map_or(Value::Null, |headers| table(headers, |_secret| MASK))),
        ("timeout", or_null(timeout.map(format_duration))),
        ("compression", or_null(compression.map(|compression| compression.name().to_owned()))),
        ("certificate", file(certificate)),
        ("client_certificate", file(client_certificate)),
        ("client_key", file(client_key)),
    ]
}

fn section(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Mapping(fields.into_iter().map(|(name, value)| (name.into(), value)).collect::<Mapping>())
}

fn table<'a>(table: &'a BTreeMap<String, String>, value: impl Fn(&'a String) -> &'a str) -> Value {
    Value::Mapping(table.iter().map(|(name, text)| (name.as_str().into(), value(text).into())).collect())
}

fn texts(values: &[impl Display]) -> Value {
    Value::Sequence(values.iter().map(|value| value.to_string().into()).collect())
}
