//! Stub: the agent lead's module takes this place.

use crate::config::{Config, RunOptions, WatchOptions};
use crate::health::Probe;

/// The service.
pub fn run(config: &Config, options: &RunOptions) -> anyhow::Result<()> {
    config.filter.resolve_netns()?;
    anyhow::bail!("run is not built yet: {options:?}")
}

/// The stream.
pub fn watch(config: &Config, options: &WatchOptions) -> anyhow::Result<()> {
    config.filter.resolve_netns()?;
    anyhow::bail!("watch is not built yet: {options:?}")
}

/// Loads and attaches every probe, and lets go of it again.
pub fn probe_verdicts() -> anyhow::Result<Vec<Probe>> {
    anyhow::bail!("the loader is not built yet")
}
