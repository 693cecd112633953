//! Where everything is wired: the one module that knows all others.

mod census;
mod cgroups;
mod engine;
mod reconciler;
mod run;
mod stop;
mod surveyor;
mod usage;
mod watch;
mod writer;

use std::io::Write;
use std::time::Duration;

use crate::config::{CensusOptions, Config, RunOptions, WatchOptions};
use crate::health::Probe;
use crate::logging::Recent;
use crate::source::Chosen;

/// Shortest silence after which an owner of connections is told of no more.
const IDLE: Duration = Duration::from_mins(15);

/// Silence after which an owner is let go: whoever is told metrics has been told all of it by then.
fn idle(config: &Config) -> Duration {
    IDLE.max(config.otlp.metrics_interval * 2)
}

/// `synfin run`: the service, until a signal or the end of its time. Its summary shows the log's `recent` warnings.
pub fn run(config: &Config, options: &RunOptions, recent: &Recent) -> anyhow::Result<()> {
    run::run(config, options, recent)
}

/// `synfin watch`: the stream of events on stdout, until a signal, the end of its time or of its lines.
pub fn watch(config: &Config, options: &WatchOptions) -> anyhow::Result<()> {
    watch::watch(config, options)
}

/// `synfin census`: what the kernel's socket tables hold now, on `out`.
pub fn census(config: &Config, options: CensusOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    census::census(config, options, out)
}

/// Which source a census has on this kernel, for `synfin doctor`.
pub fn census_source(config: &Config) -> anyhow::Result<Chosen> {
    census::source(config)
}

/// Loads and attaches every probe and lets go of it again, for `synfin doctor`.
pub fn probe_verdicts(config: &Config) -> anyhow::Result<Vec<Probe>> {
    engine::probe_verdicts(config)
}
