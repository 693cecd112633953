//! The command line. Knows the configuration as a list of settings; says nothing about what the commands do.

mod generate;
mod help;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser as _};
use clap::{ArgAction, Args, Parser, Subcommand};

pub use generate::{completions, man};

use crate::by::By;
use crate::config::{
    self, CensusOptions, CensusView, Config, ConfigErrors, Loaded, RunOptions, Setting, Sources, WatchOptions,
    parse_duration,
};
use crate::event::State;
use crate::logging::{LogFormat, LogOptions};

/// Watches every TCP connection of this host, from SYN to FIN.
///
/// synfin attaches to the kernel's own tracepoints, follows each connection through its states, and shows or exports
/// what it saw: transitions, retransmits, resets, how long, who closed first, and why it ended.
#[derive(Debug, Parser)]
#[command(name = "synfin", version, max_term_width = 100, after_long_help = help::TOP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Configuration file, YAML or TOML by its extension [env: SYNFIN_CONFIG] [default: /etc/synfin/config.yaml if it exists]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// More log lines: -v debug, -vv trace (RUST_LOG refines it)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Form of the log on stderr
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

impl GlobalArgs {
    /// The configuration in effect; `env` looks up environment variables, and `names` are those of all. Warnings go to the
    /// log.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn config(
        &self,
        flags: Vec<Setting>,
        env: &dyn Fn(&str) -> Option<String>,
        names: Vec<String>,
    ) -> Result<Config, ConfigErrors> {
        let variable = || env("SYNFIN_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let file = config::choose_file(self.config.clone().or_else(variable));
        let Loaded { config, warnings, file } = Config::load(&Sources { file, env, names, flags })?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        tracing::debug!(?file, ?config, "configuration");
        Ok(config)
    }

    /// What the log shows; `env` looks up environment variables.
    pub fn log(&self, env: &dyn Fn(&str) -> Option<String>) -> LogOptions {
        LogOptions {
            format: self.log_format,
            verbosity: self.verbose,
            directives: env("RUST_LOG"),
            color: LogOptions::color_wanted(env("NO_COLOR").as_deref()),
        }
    }
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: a live summary on a terminal, OTLP and HTTP when they are configured
    #[command(after_long_help = help::RUN)]
    Run(RunArgs),
    /// Print each transition, retransmit and reset as it happens
    #[command(after_long_help = help::WATCH)]
    Watch(WatchArgs),
    /// Count every TCP socket of this host once: states, listeners, who holds them
    #[command(after_long_help = help::CENSUS)]
    Census(CensusArgs),
    /// Check kernel, privileges and each probe, and say what to do about what is missing
    #[command(after_long_help = help::DOCTOR)]
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    #[command(after_long_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_long_help = help::MAN)]
    Man {
        /// Write a page for each command into this directory instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// What is watched: each flag overrides the field of the same name in the file's section `filter`.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Filters, applied in the kernel")]
pub struct FilterArgs {
    /// Only this network namespace: a name of `ip netns`, a path like /proc/PID/ns/net, or an inode number; repeatable
    #[arg(long, value_name = "NAME|PATH|INODE", value_parser = NonEmptyStringValueParser::new())]
    pub netns: Vec<String>,
    /// Only connections with this local or peer port; repeatable, or with commas
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',')]
    pub ports: Vec<String>,
    /// Only peers in this network, e.g. 10.0.0.0/8 or fd00::/8 or a single address; repeatable, or with commas
    #[arg(long = "peer", value_name = "CIDR", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// No connections with loopback peers (127.0.0.0/8, ::1)
    #[arg(long)]
    pub exclude_loopback: bool,
    /// Size of the ring between kernel and agent, a power of two [default: 8MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Tuning")]
    pub ring_size: Option<String>,
}

impl FilterArgs {
    fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        for (field, flag, values) in [
            ("filter.netns", "--netns", &self.netns),
            ("filter.ports", "--port", &self.ports),
            ("filter.peers", "--peer", &self.peers),
        ] {
            if !values.is_empty() {
                settings.push(Setting::flag_list(field, flag, values));
            }
        }
        if self.exclude_loopback {
            settings.push(Setting::flag("filter.exclude_loopback", "--exclude-loopback", "true"));
        }
        settings.extend(self.ring_size.as_ref().map(|size| Setting::flag("ring.size", "--ring-size", size)));
        settings
    }
}

/// How the kernel is watched: each flag overrides the field of the same name in the file's section `probes`.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Probes")]
pub struct ProbeArgs {
    /// The kernel's BTF, where the kernel does not show it at /sys/kernel/btf/vmlinux; it must be this kernel's
    #[arg(long, value_name = "PATH", value_parser = NonEmptyStringValueParser::new())]
    pub btf: Option<String>,
    /// The best way to attach that is tried: tp_btf, raw_tracepoint or tracepoint [default: tp_btf]
    #[arg(long, value_name = "RUNG")]
    pub max_rung: Option<String>,
}

impl ProbeArgs {
    fn settings(&self) -> impl Iterator<Item = Setting> {
        let flags = [("probes.btf", "--btf", &self.btf), ("probes.max_rung", "--max-rung", &self.max_rung)];
        flags.into_iter().filter_map(|(field, flag, value)| Some(Setting::flag(field, flag, value.as_ref()?)))
    }
}

/// Flags of `synfin run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Where to send metrics, traces and logs, e.g. http://localhost:4317; a signal's own endpoint wins over it
    #[arg(long, value_name = "URL", help_heading = "OTLP")]
    pub otlp_endpoint: Option<String>,
    /// grpc, http/protobuf or http/json [default: grpc]
    #[arg(long, value_name = "PROTOCOL", help_heading = "OTLP")]
    pub otlp_protocol: Option<String>,
    /// Share of ended connections that become spans, 0 to 1 [default: 1]
    #[arg(long, value_name = "RATIO", help_heading = "OTLP")]
    pub trace_sample_ratio: Option<String>,
    /// Answer /livez, /readyz and /metrics (Prometheus) at this address, e.g. 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", help_heading = "HTTP")]
    pub http: Option<String>,
    /// End after this time, e.g. 10s or 5m [default: on SIGINT or SIGTERM]
    #[arg(long, value_name = "TIME", value_parser = limit)]
    pub duration: Option<Duration>,
    /// No live summary, even on a terminal
    #[arg(long)]
    pub no_summary: bool,
    /// Print the configuration in effect as YAML and end; secrets are masked
    #[arg(long)]
    pub print_config: bool,
    // Last, because a heading goes on for what follows.
    /// How the kernel is watched.
    #[command(flatten)]
    pub probes: ProbeArgs,
    /// What is watched.
    #[command(flatten)]
    pub filter: FilterArgs,
}

impl RunArgs {
    /// What overrides the configuration.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = self.filter.settings();
        settings.extend(self.probes.settings());
        for (field, flag, value) in [
            ("otlp.endpoint", "--otlp-endpoint", &self.otlp_endpoint),
            ("otlp.protocol", "--otlp-protocol", &self.otlp_protocol),
            ("otlp.trace_sample_ratio", "--trace-sample-ratio", &self.trace_sample_ratio),
            ("http.listen", "--http", &self.http),
        ] {
            settings.extend(value.as_ref().map(|value| Setting::flag(field, flag, value)));
        }
        settings
    }

    /// What is said beside the configuration.
    pub fn options(&self) -> RunOptions {
        RunOptions { summary: !self.no_summary, duration: self.duration }
    }
}

/// Flags of `synfin watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// JSON lines instead of columns (docs/EVENTS.md)
    #[arg(long)]
    pub json: bool,
    /// A line for each ended connection too: duration, who closed first, how it ended
    #[arg(long)]
    pub connections: bool,
    /// Only transitions from or to this state, e.g. established or CLOSE-WAIT; repeatable, or with commas
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = state)]
    pub states: Vec<State>,
    /// End after this time, e.g. 10s or 5m [default: on SIGINT or SIGTERM]
    #[arg(long, value_name = "TIME", value_parser = limit)]
    pub duration: Option<Duration>,
    /// End after this number of lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    // Last, because a heading goes on for what follows.
    /// How the kernel is watched.
    #[command(flatten)]
    pub probes: ProbeArgs,
    /// What is watched.
    #[command(flatten)]
    pub filter: FilterArgs,
}

impl WatchArgs {
    /// What overrides the configuration.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = self.filter.settings();
        settings.extend(self.probes.settings());
        settings
    }

    /// What is said beside the configuration.
    pub fn options(&self) -> WatchOptions {
        WatchOptions {
            json: self.json,
            connections: self.connections,
            states: self.states.clone(),
            duration: self.duration,
            count: self.count,
        }
    }
}

/// Flags of `synfin census`.
#[derive(Args, Debug)]
pub struct CensusArgs {
    /// JSON lines instead of tables (docs/EVENTS.md)
    #[arg(long)]
    pub json: bool,
    /// A line for each socket instead of sums
    #[arg(long, conflicts_with = "by")]
    pub sockets: bool,
    /// How many sockets belong to each process, cgroup, container, pod, listening port or peer address
    #[arg(long, value_name = "KEY", value_parser = PossibleValuesParser::new(By::ALL.map(By::name)).try_map(|name| name.parse::<By>()))]
    pub by: Option<By>,
    /// How the kernel's tables are read: auto, iterator or inet_diag [default: auto]
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<String>,
    // Last, because a heading goes on for what follows.
    /// The kernel's types.
    #[command(flatten)]
    pub probes: ProbeArgs,
    /// What is counted.
    #[command(flatten)]
    pub filter: FilterArgs,
}

impl CensusArgs {
    /// What overrides the configuration.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = self.filter.settings();
        settings.extend(self.probes.settings());
        settings.extend(self.source.as_ref().map(|source| Setting::flag("census.source", "--source", source)));
        settings
    }

    /// What is said beside the configuration.
    pub fn options(&self) -> CensusOptions {
        let view = match self.by {
            Some(by) => CensusView::By(by),
            None if self.sockets => CensusView::Sockets,
            None => CensusView::Sums,
        };
        CensusOptions { json: self.json, view }
    }
}

/// Flags of `synfin doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
    // Last, because a heading goes on for what follows.
    /// How the kernel is watched.
    #[command(flatten)]
    pub probes: ProbeArgs,
}

impl DoctorArgs {
    /// What overrides the configuration.
    pub fn settings(&self) -> Vec<Setting> {
        self.probes.settings().collect()
    }
}

fn state(text: &str) -> Result<State, String> {
    match State::from_name(text.trim()) {
        Some(State::TimeWait) => Err("no kernel reports a transition to TIME_WAIT: such a socket goes to closed, and \
             `--connections` tells which ones ended in time_wait"
            .to_owned()),
        Some(state) => Ok(state),
        None => {
            let names = State::ALL.map(State::name).into_iter().filter(|&name| name != State::TimeWait.name());
            Err(format!("not a TCP state; known: {}", names.collect::<Vec<_>>().join(", ")))
        }
    }
}

fn limit(text: &str) -> Result<Duration, String> {
    parse_duration(text).and_then(|time| {
        if time.is_zero() { Err("nothing happens in no time; leave it out for no limit".to_owned()) } else { Ok(time) }
    })
}

#[cfg(test)]
mod tests;
