//! The catalogue as docs/METRICS.md.

use super::super::prometheus::names;
use super::{CATALOGUE, Instrument, KEYS, Key, Metric, Most};

/// docs/METRICS.md.
pub fn markdown() -> String {
    use std::fmt::Write as _;

    let mut text = String::from(HEAD);
    for metric in CATALOGUE {
        let attributes: Vec<_> = metric.attributes.iter().map(|key| format!("`{key}`")).collect();
        // Writing to a String cannot fail.
        _ = writeln!(
            text,
            "| `{}` | `{}` | {} | `{}` | {} | {} | {} |",
            metric.name,
            names::series(metric),
            metric.instrument.name(),
            metric.unit,
            metric.scope.name(),
            attributes.join(", "),
            metric.description,
        );
    }
    text.push_str(ATTRIBUTES);
    for Key { name, most, meaning } in KEYS {
        _ = match most {
            Most::Values(values) => writeln!(text, "| `{name}` | {values} | {meaning} |"),
            Most::Settings(values) | Most::Kernel(values) => writeln!(text, "| `{name}` | {values} | {meaning} |"),
        };
    }
    text.push_str(TAIL);
    for Metric { name, instrument, .. } in CATALOGUE {
        if let Instrument::Histogram(bounds, _) = instrument {
            let bounds: Vec<_> = bounds.iter().map(f64::to_string).collect();
            _ = writeln!(text, "* `{name}`: {}", bounds.join(", "));
        }
    }
    text
}

const HEAD: &str = "\
<!-- Written from agent/src/export/catalogue.rs: `UPDATE=1 cargo test -p synfin metrics_md` -->
# Metrics

What synfin sends as OTLP metrics, and answers at `/metrics` (`synfin run --http`). Counters are cumulative from the start of the
agent, or of what they tell of: an export that fails loses resolution and nothing else. `otlp.metrics_temporality` tells differences instead,
which come again until they have arrived. All values of one export come from one moment. An attribute that is unknown is absent.

**Whom they are told of.** Metrics marked *owners* are told of each container, pod and systemd service that owns connections, in its own
resource ([EVENTS.md](EVENTS.md#resources-of-otlp-in-whose-name-things-are-told)), and of what belongs to none of them in the host's (the agent's). A
connection counts for one of them, so that the sum over all resources is that of the host. For Prometheus, which knows one resource, the owner's
attributes are labels: sum over them for the host. Of an owner a series is there from its first count on, and goes when nothing was heard of
the owner for 15 minutes (or two intervals of export) and everybody who reads has been told all of it (an endpoint that is away is waited for for an hour, and so is
whoever has scraped once); should it come back, it counts from zero, with a new start time. An owner that is not looked up yet (some moments, with names of pods two
seconds at most) is told with the first export after that, with what it has counted since it was first heard of.
`otlp.resources: host` tells all of it as the host's.

**Bounds.** A reader is told at most `metrics.series` series (20,000). What finds no room is added up in one series of its metric, with
`otel.metric.overflow` as its only attribute: sums stay exact (gauges do not add up and are left out), and
`synfin.metrics.series.refused` counts them. A quarter is out of the owners' reach: it is for the host and the agent itself. 1,024 cgroups have counts of their own; those of further ones are
told by that series too (with `otlp.resources: host`, as the host's).

**Histograms** have the bounds below, or exponential buckets where `otlp.metrics_histograms` asks for them (at most 160, as OpenTelemetry's SDKs
have them). In both, exemplars lead to spans.

The names for Prometheus are those that OpenTelemetry's rules make of the OTLP ones, so that it does not matter by which way a
series came: dots become underscores in names and attributes, units become words, counters end in `_total`. Each series has the
labels `otel_scope_name`, `otel_scope_version` and `otel_scope_schema_url`, and `target_info` has the attributes of the resource.
OpenMetrics is answered to those who ask for it, with examples for the buckets of histograms: `trace_id` and `span_id` of the slowest
connection of about the last minute, of those whose spans are exported; the text format 0.0.4 to
all others. What is answered is what the agent has published last: it does so once a second. `otel.sdk.*` are there where something is exported by OTLP.

Counters by role, end, direction or cause begin at 0 with the host; those whose attributes have many values that mostly never occur (transitions, failures, reasons of resets,
losses, histograms) begin when the first one is counted, with the start time that OTLP tells and Prometheus does not.

| metric | Prometheus | instrument | unit | of | attributes | meaning |
|---|---|---|---|---|---|---|
";

const ATTRIBUTES: &str = "
## Attributes

How many values each may have at most, in one metric of one resource. An owner's resource has those of this owner alone.

| attribute | values | meaning |
|---|---|---|
";

const TAIL: &str = "
Ids, addresses, processes and owners of single connections are in the spans.

## Bounds of the histograms, in seconds

";
