//! When to end: a signal, or a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Asked between two steps of whatever goes on.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Stop {
    /// Ends on SIGINT or SIGTERM. A second signal ends the process at once, so that a flush that
    /// hangs can be cut short.
    pub(super) fn on_signals() -> anyhow::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset.
            flag::register_conditional_default(signal, Arc::clone(&stopping))
                .and_then(|_| flag::register(signal, Arc::clone(&stopping)))
                .context("cannot handle signals")?;
        }
        Ok(Self { flag: stopping, deadline: None })
    }

    /// Ends `duration` from now, too.
    pub(super) fn after(self, duration: Option<Duration>) -> Self {
        Self { deadline: duration.map(|duration| Instant::now() + duration), ..self }
    }

    /// Whether it is time.
    pub(super) fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Sleeps for `pause`, less if it is time before.
    pub(super) fn pause(&self, pause: Duration) {
        let left = self.deadline.map_or(pause, |deadline| deadline.saturating_duration_since(Instant::now()));
        std::thread::sleep(pause.min(left));
    }
}
