//! Waiting for a condition, never for a length of time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Longest wait for anything that the machine at hand does at once when it is not busy.
///
/// Far beyond what is ever needed, so that a loaded machine does not fail a test; a real hang still ends.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `look` until it answers, at most [`PATIENCE`]; an error of `look` ends the wait.
pub fn until<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, look)
}

/// Asks `look` until it answers, at most `limit`.
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().with_context(|| format!("while waiting for {what}"))? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}
