//! Settings into the typed configuration: one line for each field, all errors at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::cidr::Cidr;
use super::exporter;
use super::fields;
use super::problem::Problem;
use super::setting::{Provenance, Setting};
use super::units::{format_size, parse_size};
use super::value::{Parsed, boolean, duration, list, number, one};
use super::{Census, Config, Filter, Http, Ledger, Metrics, Owners, Probes, Ring, Summary};
use crate::probes::PROBES;

const HOUR: Duration = Duration::from_hours(1);

/// Builds the configuration. Where a setting is wrong, its default stands in until `problems` ends the attempt.
pub(super) fn build(settings: &[Setting], problems: &mut Vec<Problem>, warnings: &mut Vec<String>) -> Config {
    let mut read = Reader { settings, problems };
    let default = Config::default();
    let netns_from = Provenance(read.setting("filter.netns").map(|setting| setting.origin.clone()));
    Config {
        filter: Filter {
            netns_from,
            netns: read.field("filter.netns", default.filter.netns, |s| list(s, Filter::LIMIT, str::parse)),
            ports: read.field("filter.ports", default.filter.ports, |s| list(s, Filter::LIMIT, number(1..=u16::MAX))),
            peers: read.field("filter.peers", default.filter.peers, |s| list(s, Filter::LIMIT, str::parse::<Cidr>)),
            exclude_peers: read.field("filter.exclude_peers", default.filter.exclude_peers, |s| {
                list(s, Filter::LIMIT, str::parse::<Cidr>)
            }),
            exclude_loopback: read
                .field("filter.exclude_loopback", default.filter.exclude_loopback, |s| one(s, boolean)),
        },
        probes: Probes {
            btf: read.optional("probes.btf", |s| one(s, path)),
            max_rung: read.field("probes.max_rung", default.probes.max_rung, |s| one(s, str::parse)),
            disable: read.field("probes.disable", default.probes.disable, |s| list(s, PROBES.len(), optional_probe)),
        },
        ring: Ring {
            size: read.field("ring.size", default.ring.size, |s| one(s, ring_size)),
            poll: read.field("ring.poll", default.ring.poll, |s| {
                duration(s, &(Duration::from_millis(1)..=Duration::from_secs(1)))
            }),
        },
        ledger: Ledger {
            max_connections: read
                .field("ledger.max_connections", default.ledger.max_connections, |s| one(s, number(16..=16 << 20))),
        },
        census: Census {
            source: read.field("census.source", default.census.source, |s| one(s, str::parse)),
            enabled: read.field("census.enabled", default.census.enabled, |s| one(s, boolean)),
            interval: read
                .field("census.interval", default.census.interval, |s| duration(s, &(Duration::from_secs(5)..=HOUR))),
            cpu_share: read.field("census.cpu_share", default.census.cpu_share, |s| one(s, share)),
        },
        owners: Owners {
            pod_logs: read.field("owners.pod_logs", default.owners.pod_logs, |s| one(s, folder)),
            container_logs: read.field("owners.container_logs", default.owners.container_logs, |s| one(s, folder)),
        },
        summary: Summary {
            interval: read.field("summary.interval", default.summary.interval, |s| {
                duration(s, &(Duration::from_millis(100)..=HOUR))
            }),
        },
        http: Http { listen: read.optional("http.listen", |s| one(s, address)) },
        metrics: Metrics {
            series: read.field("metrics.series", default.metrics.series, |s| one(s, number(100..=10_000_000))),
            peers: read.field("metrics.peers", default.metrics.peers, |s| one(s, number(0..=1_000))),
            peer_groups: read.field("metrics.peer_groups", default.metrics.peer_groups, |s| {
                list(s, Filter::LIMIT, str::parse::<Cidr>)
            }),
        },
        otlp: exporter::build(&mut read, warnings),
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("not a path; leave it out for the kernel's own BTF".to_owned()) } else { Ok(text.into()) }
}

/// Of a service it is not certain where a relative path would begin.
fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("not an absolute path; write e.g. /var/log/pods".to_owned()) }
}

/// An address to listen at. No name: which of its addresses was meant would be a guess.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_no_detail| {
        "not an address with a port; write e.g. 127.0.0.1:9464 or [::1]:9464, which only this host reaches".to_owned()
    })
}

/// A share of one CPU.
fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("not a share of one CPU; use a number above 0, up to 1, e.g. 0.01".to_owned()),
    }
}

/// A probe that synfin can do without.
fn optional_probe(name: &str) -> Result<String, String> {
    let optional: Vec<&str> = PROBES.iter().filter(|probe| !probe.required).map(|probe| probe.name).collect();
    match PROBES.iter().find(|probe| probe.name == name) {
        Some(probe) if probe.required => {
            Err(format!("synfin cannot work without it; take it out of the list. Use {}", optional.join(", ")))
        }
        Some(_) => Ok(name.to_owned()),
        None => Err(format!("not a probe; use {}", optional.join(", "))),
    }
}

/// The kernel takes powers of two only; the error says which are near.
fn ring_size(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    let (min, max) = (u64::from(Ring::MIN_SIZE), u64::from(Ring::MAX_SIZE));
    if !(min..=max).contains(&size) {
        return Err(format!("out of range; use {} to {}", format_size(min), format_size(max)));
    }
    if !size.is_power_of_two() {
        let above = size.next_power_of_two();
        return Err(format!("not a power of two; use {} or {}", format_size(above / 2), format_size(above)));
    }
    u32::try_from(size).map_err(|_in_range| "out of range".to_owned())
}

/// Reads fields one by one and keeps what is wrong with them.
pub(super) struct Reader<'a> {
    /// Lowest precedence first.
    settings: &'a [Setting],
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// The setting in effect for this field.
    pub(super) fn setting(&self, field: &str) -> Option<&'a Setting> {
        debug_assert!(fields::find(field).is_some(), "{field} is missing in FIELDS");
        self.layers(field).last()
    }

    /// All settings of this field, the one in effect last.
    pub(super) fn layers(&self, field: &str) -> impl Iterator<Item = &'a Setting> + use<'a> {
        let field = field.to_owned();
        self.settings.iter().filter(move |setting| setting.field == field)
    }

    /// The value of a field, its default where it is not set.
    pub(super) fn field<T>(&mut self, field: &str, default: T, parse: impl FnOnce(&Setting) -> Parsed<T>) -> T {
        self.setting(field).and_then(|setting| self.value(setting, parse)).unwrap_or(default)
    }

    /// The value of a field that has no default.
    pub(super) fn optional<T>(&mut self, field: &str, parse: impl FnOnce(&Setting) -> Parsed<T>) -> Option<T> {
        self.setting(field).and_then(|setting| self.value(setting, parse))
    }

    /// The value of a setting, or None and problems.
    pub(super) fn value<T>(&mut self, setting: &Setting, parse: impl FnOnce(&Setting) -> Parsed<T>) -> Option<T> {
        match parse(setting) {
            Ok(value) => Some(value),
            Err(faults) => {
                self.problems.extend(faults.into_iter().map(|fault| Problem {
                    field: setting.field.to_owned(),
                    value: Some(fault.value),
                    origin: Some(setting.origin.clone()),
                    message: fault.message,
                }));
                None
            }
        }
    }
}
