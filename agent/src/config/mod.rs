//! One validated configuration out of flags, environment, file and defaults, in that order of precedence.
//!
//! Two steps: [`setting`] and [`load`] collect raw settings, each with its origin; [`build`] turns them into the typed
//! [`Config`] and reports every error at once. Knows the command line only as a list of [`Setting`]s, and nothing of
//! what the values are used for.

mod build;
mod cidr;
mod credentials;
mod exporter;
mod fields;
mod file;
mod load;
mod options;
mod otlp;
mod print;
mod problem;
mod setting;
mod tls;
mod units;
mod value;
mod variables;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use cidr::Cidr;
pub use credentials::Credentials;
pub use load::{Loaded, Sources};
pub use options::{CensusOptions, CensusView, RunOptions, WatchOptions};
pub use otlp::{Compression, Histograms, Otlp, Protocol, Resources, Section, Sections, Signal, Temporality};
pub use problem::{ConfigErrors, Problem};
pub use setting::{Origin, Provenance, Setting};
pub use tls::{PemFile, Tls};
pub use units::parse_duration;

use crate::netns::NetnsSpec;
use crate::rung::Rung;
use crate::source::Source;

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "/etc/synfin/config.yaml";

/// Everything that a user may decide. Plain data: the values are checked, nothing is resolved against this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// What is watched.
    pub filter: Filter,
    /// How the kernel is watched.
    pub probes: Probes,
    /// The ring between kernel and agent.
    pub ring: Ring,
    /// What the agent remembers.
    pub ledger: Ledger,
    /// The kernel's own tables, which the ledger is compared with.
    pub census: Census,
    /// Whom connections belong to.
    pub owners: Owners,
    /// The live summary of `synfin run`.
    pub summary: Summary,
    /// What is answered over HTTP.
    pub http: Http,
    /// What metrics are bounded by.
    pub metrics: Metrics,
    /// Export by OTLP.
    pub otlp: Otlp,
}

/// What metrics are bounded by, whoever reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Series that one reader is told at most.
    pub series: usize,
    /// Peers with series of their own; none with [`Metrics::peer_groups`].
    pub peers: usize,
    /// Networks whose peers are told together.
    pub peer_groups: Vec<Cidr>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { series: 20_000, peers: 20, peer_groups: Vec::new() }
    }
}

/// What is watched. An empty list excludes nothing. Applied in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these network namespaces.
    pub netns: Vec<NetnsSpec>,
    /// Where these were set.
    pub netns_from: Provenance,
    /// Only connections whose local or peer port is one of these.
    pub ports: Vec<u16>,
    /// Only peers inside these networks.
    pub peers: Vec<Cidr>,
    /// No peers inside these networks.
    pub exclude_peers: Vec<Cidr>,
    /// No peers with a loopback address.
    pub exclude_loopback: bool,
}

impl Filter {
    /// Entries of one list at most: what the maps of the programs hold.
    pub const LIMIT: usize = 1024;

    /// Inode numbers of [`Filter::netns`] as of now. Namespaces come and go: ask again after a while.
    ///
    /// # Errors
    /// Every namespace that cannot be resolved, at once.
    pub fn resolve_netns(&self) -> Result<Vec<u32>, ConfigErrors> {
        let mut problems = Vec::new();
        let mut inodes = Vec::new();
        for spec in &self.netns {
            match spec.resolve() {
                Ok(inode) => inodes.push(inode),
                Err(error) => problems.push(Problem {
                    field: "filter.netns".to_owned(),
                    value: Some(spec.to_string()),
                    origin: self.netns_from.0.clone(),
                    message: error.to_string(),
                }),
            }
        }
        ConfigErrors::unless_empty(problems)?;
        Ok(inodes)
    }
}

/// How the kernel is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// The kernel's BTF, where it does not show it itself.
    pub btf: Option<PathBuf>,
    /// The best rung that is tried.
    pub max_rung: Rung,
    /// Probes that are left out, none of them required.
    pub disable: Vec<String>,
}

/// The ring between kernel and agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Bytes: a power of two from [`Ring::MIN_SIZE`] to [`Ring::MAX_SIZE`].
    pub size: u32,
    /// Longest pause between two reads.
    pub poll: Duration,
}

impl Ring {
    /// One page.
    pub const MIN_SIZE: u32 = 4096;
    /// 1 GiB.
    pub const MAX_SIZE: u32 = 1 << 30;
}

impl Default for Ring {
    fn default() -> Self {
        Self { size: 8 << 20, poll: Duration::from_millis(20) }
    }
}

/// What the agent remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Connections tracked at once; beyond it the oldest idle ones are folded into counters.
    pub max_connections: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { max_connections: 262_144 }
    }
}

/// The kernel's own tables, which the ledger is compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Census {
    /// Whether `synfin run` looks at them at all.
    pub enabled: bool,
    /// Longest time between two looks at a namespace in which something happens.
    pub interval: Duration,
    /// Share of one CPU that walks may take, above 0 to 1; [`Census::interval`] wins over it.
    pub cpu_share: f64,
    /// How they are read.
    pub source: Source,
}

impl Default for Census {
    fn default() -> Self {
        Self { enabled: true, interval: Duration::from_secs(30), cpu_share: 0.01, source: Source::Auto }
    }
}

/// Whom connections belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    /// The kubelet's folders of logs, by whose names pods are known.
    pub pod_logs: PathBuf,
    /// The kubelet's links to logs, by whose names containers are known.
    pub container_logs: PathBuf,
}

impl Default for Owners {
    fn default() -> Self {
        Self { pod_logs: "/var/log/pods".into(), container_logs: "/var/log/containers".into() }
    }
}

/// The live summary of `synfin run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Time between two refreshes.
    pub interval: Duration,
}

impl Default for Summary {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1) }
    }
}

/// What is answered over HTTP: health, and metrics for Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Where `synfin run` listens; None: nowhere. Port 0 lets the kernel choose one.
    pub listen: Option<SocketAddr>,
}

impl Config {
    /// Reads, merges and validates all sources.
    ///
    /// # Errors
    /// Every error of every source, at once.
    pub fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigErrors> {
        load::load(sources)
    }

    /// This configuration as YAML that reads back to the same one, with the values of headers as `***`.
    pub fn to_yaml(&self) -> String {
        print::to_yaml(self)
    }
}

/// The file to read: the named one, else [`DEFAULT_FILE`] where it exists.
pub fn choose_file(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| {
        let default = PathBuf::from(DEFAULT_FILE);
        // A file that exists and may not be read is an error, not an absent file.
        default.symlink_metadata().is_ok().then_some(default)
    })
}

#[cfg(test)]
mod tests;
