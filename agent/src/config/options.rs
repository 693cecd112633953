//! What the commands take beside the configuration: for one call only, never from a file.

use std::time::Duration;

use crate::by::By;
use crate::event::State;

/// Options of `synfin run`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Whether to show the live summary where stdout is a terminal.
    pub summary: bool,
    /// End after this time; None: on a signal.
    pub duration: Option<Duration>,
}

/// Options of `synfin watch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// JSON lines instead of columns.
    pub json: bool,
    /// A line for each ended connection too.
    pub connections: bool,
    /// Only transitions from or to one of these; empty: all.
    pub states: Vec<State>,
    /// End after this time; None: on a signal.
    pub duration: Option<Duration>,
    /// End after this number of lines.
    pub count: Option<u64>,
}

/// Options of `synfin census`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CensusOptions {
    /// JSON lines instead of tables.
    pub json: bool,
    /// What is shown.
    pub view: CensusView,
}

/// What `synfin census` shows of the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CensusView {
    /// How many are in which state, and the listeners.
    #[default]
    Sums,
    /// Each one.
    Sockets,
    /// How many there are by this key.
    By(By),
}
