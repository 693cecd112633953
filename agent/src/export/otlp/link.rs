//! What the log says about an endpoint: one line when it goes away, one when it is back, however often it is tried.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Warnings about one endpoint and signal come no faster than this, even if it comes and goes all the time.
const QUIET: Duration = Duration::from_mins(1);

/// The way to one endpoint for one signal.
#[derive(Debug)]
pub(super) struct Link {
    signal: &'static str,
    endpoint: String,
    reach: Mutex<Reach>,
}

impl Link {
    /// A link that has not been tried.
    pub(super) fn new(signal: &'static str, endpoint: &str) -> Self {
        Self { signal, endpoint: redacted(endpoint), reach: Mutex::default() }
    }

    /// The endpoint took a batch.
    pub(super) fn answered(&self) {
        let Self { signal, endpoint, .. } = self;
        if let Some(away) = self.reach().answered(Instant::now()) {
            tracing::info!(signal, endpoint, "the OTLP endpoint answers again after {:.0} s", away.as_secs_f64());
        }
    }

    /// The endpoint did not answer, or asked to come later.
    pub(super) fn failed(&self, why: &str) {
        let Self { signal, endpoint, .. } = self;
        if self.reach().failed(Instant::now()) {
            tracing::warn!(
                signal,
                endpoint,
                why,
                "the OTLP endpoint does not answer; what waits is kept and tried again"
            );
        }
    }

    /// The endpoint refused a batch for good.
    pub(super) fn refused(&self, why: &str) {
        let Self { signal, endpoint, .. } = self;
        if self.reach().failed(Instant::now()) {
            tracing::warn!(
                signal,
                endpoint,
                why,
                "the OTLP endpoint refuses what it gets: check endpoint, protocol and headers"
            );
        }
    }

    /// Whether the last attempt, if there was any, succeeded.
    pub(super) fn is_up(&self) -> bool {
        self.reach().since.is_none()
    }

    fn reach(&self) -> std::sync::MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decides what is worth a line.
#[derive(Debug, Default)]
struct Reach {
    /// Away since.
    since: Option<Instant>,
    /// Last warning.
    warned: Option<Instant>,
    /// The present absence was warned of.
    told: bool,
}

impl Reach {
    /// Answers how long the endpoint was away if that was told and must now be taken back.
    fn answered(&mut self, now: Instant) -> Option<Duration> {
        let away = now - self.since.take()?;
        std::mem::take(&mut self.told).then_some(away)
    }

    /// Whether to warn.
    fn failed(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let warn = !self.told && self.warned.is_none_or(|warned| now - warned >= QUIET);
        if warn {
            self.warned = Some(now);
            self.told = true;
        }
        warn
    }
}

/// The endpoint without a user name and password in it.
fn redacted(endpoint: &str) -> String {
    match (endpoint.find("://"), endpoint.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}{}", &endpoint[..scheme + 3], &endpoint[at + 1..]),
        _ => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_its_end_once() {
        let (mut reach, start) = (Reach::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(reach.answered(at(0)), None);
        assert!(reach.failed(at(1)));
        assert!(!reach.failed(at(2)));
        assert!(!reach.failed(at(900)));
        assert_eq!(reach.answered(at(1_000)), Some(Duration::from_secs(999)));
        assert_eq!(reach.answered(at(1_001)), None);
    }

    #[test]
    fn an_endpoint_that_flaps_does_not_flood_the_log() {
        let (mut reach, start) = (Reach::default(), Instant::now());
        let mut lines = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            lines += u32::from(reach.failed(now));
            lines += u32::from(reach.answered(now).is_some());
        }
        assert_eq!(lines, 20, "a warning and its end each minute");
    }

    #[test]
    fn an_absence_that_began_quietly_is_told_later() {
        let (mut reach, start) = (Reach::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(reach.failed(at(0)));
        assert!(reach.answered(at(1)).is_some());
        assert!(!reach.failed(at(2)));
        assert!(reach.failed(at(70)));
    }

    #[test]
    fn no_password_gets_into_the_log() {
        assert_eq!(redacted("https://me:secret@otlp.example:4318/v1/traces"), "https://otlp.example:4318/v1/traces");
        assert_eq!(redacted("http://[::1]:4317"), "http://[::1]:4317");
    }
}
