//! `synfin run --http`: what the agent tells whoever asks. A room with one door for new paths, [`routes::ROUTES`].
//!
//! Nothing that comes in is trusted: a request has few bytes and little time, its body is not read, and only so many are
//! answered at once. Nothing here waits for the agent, nor the agent for anything here: answers are made of what the drain
//! thread has published.

mod answer;
mod health;
mod routes;
mod server;

use std::sync::Arc;

use crate::clock::Clock;
use crate::export::prometheus::{Exposition, Format};
use crate::export::readings::Snapshot;
use crate::status::{Board, Status};

pub use server::{Bound, HttpError, Server, bind};

/// What answers are made of.
pub struct Site {
    board: Arc<Board>,
    clock: Arc<Clock>,
    exposition: Exposition,
    read: Box<dyn Fn() -> Snapshot + Send + Sync>,
    told: Box<dyn Fn(&Snapshot) + Send + Sync>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").finish_non_exhaustive()
    }
}

impl Site {
    /// Of an agent that publishes on `board`; `read` takes what its exporters read, and `told` hears what has been answered.
    pub fn new(
        board: Arc<Board>,
        clock: Arc<Clock>,
        exposition: Exposition,
        read: impl Fn() -> Snapshot + Send + Sync + 'static,
        told: impl Fn(&Snapshot) + Send + Sync + 'static,
    ) -> Self {
        Self { board, clock, exposition, read: Box::new(read), told: Box::new(told) }
    }

    fn status(&self) -> Arc<Status> {
        self.board.latest()
    }

    /// `CLOCK_MONOTONIC` nanoseconds.
    fn now_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    fn metrics(&self, format: Format) -> String {
        let snapshot = (self.read)();
        let text = self.exposition.render(&snapshot, format);
        (self.told)(&snapshot);
        text
    }
}

#[cfg(test)]
mod tests;
