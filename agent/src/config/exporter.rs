//! The section `otlp`: general settings and those of each signal, resolved as the OTLP exporter specification says.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use url::Url;

use super::build::Reader;
use super::otlp::{Compression, Histograms, Otlp, Protocol, Resources, Section, Sections, Signal, Temporality};
use super::setting::{Origin, Setting};
use super::tls::{PemFile, Tls};
use super::value::{Fault, MASK, Parsed, boolean, duration, number, one, table};

impl Section {
    fn read(read: &mut Reader<'_>, section: &str, general: &Self) -> Self {
        let minutes = Duration::from_millis(1)..=Duration::from_mins(10);
        let protocol = read.optional(&format!("{section}.protocol"), |s| one(s, Protocol::from_name));
        let insecure = read.optional(&format!("{section}.insecure"), |s| one(s, boolean));
        // The specification: for gRPC alone, and a scheme that is given wins.
        let scheme = match (protocol.or(general.protocol).unwrap_or_default(), insecure.or(general.insecure)) {
            (Protocol::Grpc, Some(true)) => Some("http"),
            (Protocol::Grpc, Some(false)) => Some("https"),
            (Protocol::Grpc | Protocol::HttpProtobuf | Protocol::HttpJson, _) => None,
        };
        Self {
            enabled: read.field(&format!("{section}.enabled"), true, enabled),
            endpoint: read.optional(&format!("{section}.endpoint"), |s| endpoint(s, scheme)),
            insecure,
            protocol,
            headers: read.optional(&format!("{section}.headers"), headers),
            timeout: read.optional(&format!("{section}.timeout"), |s| duration(s, &minutes)),
            compression: read.optional(&format!("{section}.compression"), |s| one(s, Compression::from_name)),
            tls: Tls::read(read, section),
        }
    }

    /// This signal's own settings before the general ones.
    fn resolve(&self, general: &Self, path: &str, warnings: &mut Vec<String>) -> Option<Signal> {
        if !self.enabled || !general.enabled {
            return None;
        }
        let protocol = self.protocol.or(general.protocol).unwrap_or_default();
        let mut url = match (&self.endpoint, &general.endpoint) {
            (Some(own), _) => own.clone(),
            (None, Some(general)) => {
                let mut url = general.clone();
                if protocol != Protocol::Grpc {
                    // Only the general endpoint gets the path: the specification takes a signal's own as it is.
                    url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
                }
                url
            }
            (None, None) => return None,
        };
        warnings.extend(doubt(&url, protocol));
        if protocol == Protocol::Grpc {
            url.set_path("");
        }
        let mut endpoint = url.to_string();
        if protocol == Protocol::Grpc && url.query().is_none() {
            endpoint.truncate(endpoint.trim_end_matches('/').len());
        }
        Some(Signal {
            endpoint,
            protocol,
            headers: self.headers.as_ref().or(general.headers.as_ref()).cloned().unwrap_or_default(),
            timeout: self.timeout.or(general.timeout).unwrap_or(Signal::TIMEOUT),
            compression: self.compression.or(general.compression).unwrap_or_default(),
            tls: self.tls.or(&general.tls),
        })
    }
}

impl Section {
    /// With what was worked out for its signal, if that is sent.
    fn in_effect(self, sent: Option<&Signal>) -> Self {
        let Some(Signal { endpoint, protocol, headers, timeout, compression, tls }) = sent else { return self };
        Self {
            enabled: self.enabled,
            endpoint: Url::parse(endpoint).ok(), // it was made of one
            insecure: self.insecure,
            protocol: Some(*protocol),
            headers: Some(headers.clone()),
            timeout: Some(*timeout),
            compression: Some(*compression),
            tls: tls.clone(),
        }
    }
}

pub(super) fn build(read: &mut Reader<'_>, warnings: &mut Vec<String>) -> Otlp {
    let default = Otlp::default();
    let general = Section::read(read, "otlp", &Section::SILENT).filled();
    let traces = Section::read(read, "otlp.traces", &general);
    let metrics = Section::read(read, "otlp.metrics", &general);
    let logs = Section::read(read, "otlp.logs", &general);
    if !general.enabled && [&general, &traces, &metrics, &logs].iter().any(|section| section.endpoint.is_some()) {
        let by = read.setting("otlp.enabled").map(|setting| setting.origin.to_string()).unwrap_or_default();
        warnings.push(format!("an OTLP endpoint is configured, but OTLP is switched off ({by})"));
    }
    let mut resource_attributes = resource_attributes(read);
    let named = resource_attributes.remove("service.name");
    let millis = Duration::from_millis;
    let delays = millis(1)..=Duration::from_mins(1);
    let [sent_traces, sent_metrics, sent_logs] =
        [(&traces, "/v1/traces"), (&metrics, "/v1/metrics"), (&logs, "/v1/logs")]
            .map(|(section, path)| section.resolve(&general, path, warnings));
    warnings.extend(idle([&general, &traces, &metrics, &logs], [&sent_traces, &sent_metrics, &sent_logs]));
    let sections = Sections {
        traces: traces.in_effect(sent_traces.as_ref()),
        metrics: metrics.in_effect(sent_metrics.as_ref()),
        logs: logs.in_effect(sent_logs.as_ref()),
        general,
    };
    let otlp = Otlp {
        traces: sent_traces,
        metrics: sent_metrics,
        logs: sent_logs,
        sections,
        metrics_interval: read.field("otlp.metrics_interval", default.metrics_interval, |s| {
            duration(s, &(millis(100)..=Duration::from_hours(1)))
        }),
        metrics_temporality: read
            .field("otlp.metrics_temporality", default.metrics_temporality, |s| one(s, Temporality::from_name)),
        metrics_histograms: read
            .field("otlp.metrics_histograms", default.metrics_histograms, |s| one(s, Histograms::from_name)),
        queue: read.field("otlp.queue", default.queue, |s| one(s, number(1..=4 << 20))),
        span_batch: read.field("otlp.span_batch", default.span_batch, |s| one(s, number(1..=1 << 20))),
        span_delay: read.field("otlp.span_delay", default.span_delay, |s| duration(s, &delays)),
        log_queue: read.field("otlp.log_queue", default.log_queue, |s| one(s, number(1..=1 << 20))),
        log_batch: read.field("otlp.log_batch", default.log_batch, |s| one(s, number(1..=1 << 20))),
        log_delay: read.field("otlp.log_delay", default.log_delay, |s| duration(s, &delays)),
        max_age: read.field("otlp.max_age", default.max_age, |s| {
            duration(s, &(Duration::from_secs(1)..=Duration::from_hours(24 * 7)))
        }),
        trace_sample_ratio: read.field("otlp.trace_sample_ratio", default.trace_sample_ratio, |s| one(s, ratio)),
        trace_rate_limit: read.field("otlp.trace_rate_limit", default.trace_rate_limit, |s| {
            one(s, or_none(number(0..=10_000_000))).map(|limit| limit.filter(|limit| *limit > 0))
        }),
        abnormal_retransmit_ratio: read.field(
            "otlp.abnormal_retransmit_ratio",
            default.abnormal_retransmit_ratio,
            |s| one(s, share),
        ),
        abnormal_retransmits: read
            .field("otlp.abnormal_retransmits", default.abnormal_retransmits, |s| one(s, number(1..=u32::MAX))),
        abnormal_handshake: read.field("otlp.abnormal_handshake", default.abnormal_handshake, |s| {
            duration(s, &(millis(1)..=Duration::from_mins(10)))
        }),
        checkpoint_interval: read.field("otlp.checkpoint_interval", default.checkpoint_interval, interval),
        shutdown_timeout: read.field("otlp.shutdown_timeout", default.shutdown_timeout, |s| {
            duration(s, &(millis(1)..=Duration::from_mins(10)))
        }),
        service_name: read.field("otlp.service_name", named.unwrap_or(default.service_name), |s| one(s, not_empty)),
        resource_attributes,
        resources: read.field("otlp.resources", default.resources, |s| one(s, Resources::from_name)),
    };
    // The same doubt about three signals is one doubt.
    warnings.dedup();
    otlp
}

/// The tables of all sources together: a node's attributes from the environment beside a fleet's from the file.
fn resource_attributes(read: &mut Reader<'_>) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for layer in read.layers("otlp.resource_attributes") {
        attributes.extend(read.value(layer, table).unwrap_or_default());
    }
    attributes
}

fn ratio(text: &str) -> Result<f64, &'static str> {
    part(text).ok_or("not a ratio; use a number from 0 (no spans) to 1 (all)")
}

fn share(text: &str) -> Result<f64, &'static str> {
    part(text).ok_or("not a share; use a number from 0 (none) to 1 (all), e.g. 0.05")
}

fn part(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part))
}

/// A time between two checkpoints, or that there are none.
fn interval(setting: &Setting) -> Parsed<Option<Duration>> {
    let off = one(setting, |text| Ok::<_, String>(matches!(text, "none" | "0" | "0s")))?;
    if off {
        return Ok(None);
    }
    let intervals = Duration::from_secs(1)..=Duration::from_hours(24 * 7);
    duration(setting, &intervals).map(Some).map_err(|mut faults| {
        for fault in &mut faults {
            fault.message.push_str(", or none");
        }
        faults
    })
}

/// What is switched off by the word `none`.
fn or_none<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| if text == "none" { Ok(None) } else { parse(text).map(Some).map_err(|why| format!("{why}, nor none")) }
}

fn not_empty(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("empty; remove it or give a name") } else { Ok(text.to_owned()) }
}

/// OpenTelemetry's variables say the same in other words.
fn enabled(setting: &Setting) -> Parsed<bool> {
    match setting.origin {
        Origin::Env("OTEL_SDK_DISABLED") => one(setting, |text| boolean(text).map(|disabled| !disabled)),
        Origin::Env(name) if name.ends_with("_EXPORTER") => one(setting, |text| match text {
            "otlp" => Ok(true),
            "none" => Ok(false),
            _ => Err("synfin exports by OTLP only; use otlp or none"),
        }),
        Origin::Env(_) | Origin::File(_) | Origin::Flag(_) => one(setting, boolean),
    }
}

/// `scheme` is for one that has none.
fn endpoint(setting: &Setting, scheme: Option<&str>) -> Parsed<Url> {
    const FIX: &str = "write scheme, host and port, e.g. http://localhost:4317";
    let url = one(setting, |text| match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        // `localhost:4317` parses, with the scheme `localhost`.
        Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => match (with_scheme(text, scheme), scheme) {
            (Some(url), Some(_)) => Ok(url),
            (Some(url), None) => Err(format!("has no scheme; write {}", url.as_str().trim_end_matches('/'))),
            (None, _) => Err(format!("begins neither with http:// nor with https://; {FIX}")),
        },
        Err(error) => Err(format!("not a URL ({error}); {FIX}")),
    })
    // What cannot be read may still hold a password, and nobody knows where it ends.
    .map_err(|mut faults| {
        for fault in faults.iter_mut().filter(|fault| fault.value.contains('@')) {
            MASK.clone_into(&mut fault.value);
        }
        faults
    })?;
    if url.username().is_empty() && url.password().is_none() {
        return Ok(url);
    }
    let message = "holds a user or password; use the header `authorization` for it".to_owned();
    Err(vec![Fault { value: MASK.to_owned(), message }])
}

/// What somebody meant who wrote a host, with or without a port. Before an `@` may stand a password: nothing is made of
/// that.
fn with_scheme(text: &str, scheme: Option<&str>) -> Option<Url> {
    if text.contains("//") || text.starts_with('/') || text.contains('@') {
        return None;
    }
    let host = if text.parse::<Ipv6Addr>().is_ok() { format!("[{text}]") } else { text.to_owned() };
    let mut url = Url::parse(&format!("{}://{host}", scheme.unwrap_or("http"))).ok()?;
    // Whoever writes the scheme's own port means it, but a URL does not keep it.
    if url.port().is_none() && !host.ends_with(":80") && !host.ends_with(":443") {
        url.set_port(Some(4317)).ok()?;
    }
    Some(url)
}

fn headers(setting: &Setting) -> Parsed<BTreeMap<String, String>> {
    let mut faults = Vec::new();
    let mut headers = BTreeMap::new();
    for (name, value) in table(setting)? {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let message = if name.is_empty() || !name.chars().all(token) {
            Some("not a header's name")
        } else if name.to_ascii_lowercase().ends_with("-bin") {
            Some("binary headers (-bin) are not supported")
        } else if value == MASK {
            Some("the value was masked by --print-config; put the real one in its place")
        } else if !value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
            Some("the value holds characters that a header cannot carry; use printable ASCII")
        } else {
            None
        };
        match message {
            Some(message) => faults.push(Fault { value: format!("{name}: {MASK}"), message: message.to_owned() }),
            None => drop(headers.insert(name.to_ascii_lowercase(), value)),
        }
    }
    if faults.is_empty() { Ok(headers) } else { Err(faults) }
}

/// Files that are named for nothing: somebody believes that a connection is protected by them.
fn idle(sections: [&Section; 4], sent: [&Option<Signal>; 3]) -> Vec<String> {
    let secure = |signal: &&Signal| signal.endpoint.starts_with("https:");
    let used: Vec<&Signal> = sent.into_iter().flatten().filter(secure).collect();
    let is_on = sent.iter().any(|signal| signal.is_some());
    let is_idle = |file: &&PemFile| is_on && !used.iter().any(|signal| signal.tls.files().any(|used| used == *file));
    let files = sections.into_iter().flat_map(|section| section.tls.files()).filter(is_idle);
    files.map(|file| format!("{} has no effect: no endpoint that it is for begins with https://", file.field)).collect()
}

/// The mistakes that cost newcomers an evening: everything starts, and nothing arrives.
fn doubt(url: &Url, protocol: Protocol) -> Option<String> {
    // Host and port only: a query can hold a key.
    let host = url.host_str().unwrap_or_default();
    match (protocol, url.port()) {
        (Protocol::Grpc, Some(4318)) => {
            Some(format!("OTLP to {host}:4318 uses grpc, but 4318 is customarily http/protobuf: see otlp.protocol"))
        }
        (Protocol::HttpProtobuf | Protocol::HttpJson, Some(4317)) => {
            let protocol = protocol.name();
            Some(format!("OTLP to {host}:4317 uses {protocol}, but 4317 is customarily grpc: see otlp.protocol"))
        }
        (Protocol::Grpc, _) if !matches!(url.path(), "" | "/") => {
            Some(format!("OTLP to {host} uses grpc, which ignores the path {}: see otlp.protocol", url.path()))
        }
        _ => None,
    }
}
