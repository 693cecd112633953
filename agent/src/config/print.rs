//! The effective configuration as a file that reads back to the same one.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_norway::{Mapping, Value};

use super::otlp::{Otlp, Signal};
use super::units::{format_duration, format_size};
use super::value::MASK;
use super::{Census, Config, Filter, Ledger, Probes, Ring, Summary};

pub(super) fn to_yaml(config: &Config) -> String {
    // Whole structs are taken apart, so that a new field cannot be forgotten here.
    let Config { filter, probes, ring, ledger, census, summary, otlp } = config;
    let Filter { netns, ports, peers, exclude_peers, exclude_loopback } = filter;
    let Probes { btf, max_rung, disable } = probes;
    let Ring { size, poll } = ring;
    let Ledger { max_connections } = ledger;
    let Census { source } = census;
    let Summary { interval } = summary;
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
        ("census", section([("source", source.name().into())])),
        ("summary", section([("interval", format_duration(*interval).into())])),
        ("otlp", otlp_section(otlp)),
    ]);
    // A tree of texts and numbers always serializes.
    serde_norway::to_string(&root).unwrap_or_default()
}

fn otlp_section(otlp: &Otlp) -> Value {
    let Otlp {
        traces,
        metrics,
        logs,
        metrics_interval,
        queue,
        trace_sample_ratio,
        shutdown_timeout,
        service_name,
        resource_attributes,
    } = otlp;
    let mut fields = vec![
        ("metrics_interval", format_duration(*metrics_interval).into()),
        ("queue", (*queue).into()),
        ("trace_sample_ratio", (*trace_sample_ratio).into()),
        ("shutdown_timeout", format_duration(*shutdown_timeout).into()),
        ("service_name", service_name.as_str().into()),
        ("resource_attributes", table(resource_attributes, String::as_str)),
    ];
    if otlp.is_on() {
        fields.push(("traces", signal(traces.as_ref())));
        fields.push(("metrics", signal(metrics.as_ref())));
        fields.push(("logs", signal(logs.as_ref())));
    } else {
        fields.insert(0, ("endpoint", Value::Null));
    }
    section(fields)
}

fn signal(signal: Option<&Signal>) -> Value {
    let Some(Signal { endpoint, protocol, headers, timeout, compression }) = signal else {
        return section([("enabled", false.into())]);
    };
    section([
        ("endpoint", endpoint.as_str().into()),
        ("protocol", protocol.name().into()),
        ("headers", table(headers, |_secret| MASK)),
        ("timeout", format_duration(*timeout).into()),
        ("compression", compression.name().into()),
    ])
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
