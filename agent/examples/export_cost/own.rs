//! The agent's export, set up as the service does it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use synfin::clock::Clock;
use synfin::config::{Compression, Otlp as Settings, Owners as Places, Protocol, Signal, Tls};
use synfin::export::otlp::{Otlp, Source};
use synfin::export::resource::{Owners, resource};
use synfin::owner::{Directory, Logs};
use synfin::status::Board;

/// Series of metrics at most, as the service has it.
pub(crate) const BUDGET: usize = 20_000;

/// Where one signal goes.
pub(crate) fn signal(endpoint: &str, protocol: Protocol, compression: Compression) -> Signal {
    let (headers, timeout, tls) = (BTreeMap::new(), Signal::TIMEOUT, Tls::default());
    Signal { endpoint: endpoint.to_owned(), protocol, headers, timeout, compression, tls }
}

/// Starts it, with what is on `board`; also the directory of owners, to be asked whom cgroups belong to.
pub(crate) fn start(settings: &Settings, board: Arc<Board>) -> Result<(Otlp, Directory)> {
    let credentials = settings.credentials()?;
    let Places { pod_logs, container_logs } = Places::default();
    let resource = resource(settings);
    let directory = Directory::start(Logs { pods: pod_logs, containers: container_logs }, settings.max_age)?;
    let owners = Owners::new(directory.clone(), &resource);
    let source = Source::new(board, Arc::new(Clock::default()), Some(owners));
    Ok((Otlp::start(settings, &credentials, resource, source, BUDGET)?, directory))
}
