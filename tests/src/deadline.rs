//! Waiting for a condition, never for a length of time.

use std::{
    env,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How many times slower than a real machine this one is; an emulated one sets it, and every limit grows with it.
pub const SLOWNESS_VARIABLE: &str = "SYNFIN_TEST_SLOWNESS";

static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let Ok(text) = env::var(SLOWNESS_VARIABLE) else { return 1 };
    text.parse().expect("SYNFIN_TEST_SLOWNESS is a whole number")
});

/// Longest wait for anything that a real machine does at once when it is not busy; see [`scaled`] for other machines.
///
/// Far beyond what is ever needed, so that a loaded machine does not fail a test; a real hang still ends.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A limit made for a real machine, stretched for the one at hand.
pub fn scaled(limit: Duration) -> Duration {
    limit * *SLOWNESS
}

/// Asks `look` until it answers, at most [`PATIENCE`]; an error of `look` ends the wait.
pub fn until<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, look)
}

/// Asks `look` until it answers, at most `limit` as a real machine counts it.
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let limit = scaled(limit);
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
