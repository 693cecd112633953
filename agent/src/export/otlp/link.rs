//! How things go with an endpoint, and what the log says about it: one line when it goes away, one when it is back,
//! however often it is tried.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::queue::Counts;
use crate::config::Protocol;
use crate::status::Export;

/// Warnings about one endpoint and signal come no faster than this, even if it comes and goes all the time.
const QUIET: Duration = Duration::from_mins(1);

/// The way to one endpoint for one signal.
#[derive(Debug)]
pub(super) struct Link {
    signal: &'static str,
    endpoint: String,
    protocol: Protocol,
    reach: Mutex<Reach>,
    told: Mutex<Told>,
    /// No attempt comes after those that go on: what becomes of these is told in the account at the end.
    ending: AtomicBool,
}

impl Link {
    /// A link that has not been tried.
    pub(super) fn new(signal: &'static str, endpoint: &str, protocol: Protocol) -> Self {
        Self {
            signal,
            endpoint: redacted(endpoint),
            protocol,
            reach: Mutex::default(),
            told: Mutex::default(),
            ending: AtomicBool::new(false),
        }
    }

    /// The endpoint took a request, but will not keep so many items of it, and says why; or it says something else.
    pub(super) fn answered(&self, rejected: usize, message: &str) {
        let Self { signal, endpoint, .. } = self;
        if (rejected != 0 || !message.is_empty()) && self.told().is_new(message) {
            // In quotes and escaped: the text comes from the network.
            let message = Told::shown(message);
            if rejected == 0 {
                tracing::warn!(signal, endpoint, ?message, "the OTLP endpoint has something to say");
            } else {
                tracing::warn!(signal, endpoint, rejected, ?message, "the OTLP endpoint rejects part of what it gets");
            }
        }
        if let Some(away) = self.reach().answered(Instant::now()) {
            tracing::info!(signal, endpoint, "OTLP export works again after {:.0} s", away.as_secs_f64());
        }
    }

    /// There was no answer, none in this protocol, or one that asks to come later.
    pub(super) fn failed(&self, why: &str) {
        let Self { signal, endpoint, .. } = self;
        if self.is_worth_a_line(why) {
            tracing::warn!(signal, endpoint, why, "OTLP export fails; what waits is kept and tried again");
        }
    }

    /// An export of totals did not arrive, for whatever reason.
    pub(super) fn missed(&self, why: &str) {
        let Self { signal, endpoint, .. } = self;
        if self.is_worth_a_line(why) {
            tracing::warn!(signal, endpoint, why, "OTLP export fails; the next one has the same totals");
        }
    }

    /// The endpoint refused a batch for good.
    pub(super) fn refused(&self, why: &str) {
        let Self { signal, endpoint, .. } = self;
        if self.is_worth_a_line(why) {
            tracing::warn!(
                signal,
                endpoint,
                why,
                "the OTLP endpoint refuses what it gets: check endpoint, protocol and headers"
            );
        }
    }

    /// From now on failures are noted, and told by [`Link::error`] alone.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// The last error, if there was any.
    pub(super) fn error(&self) -> Option<String> {
        self.reach().error.as_ref().map(|(why, _)| why.clone())
    }

    /// Whether the last attempt, if there was any, succeeded.
    pub(super) fn is_up(&self) -> bool {
        self.reach().since.is_none()
    }

    /// How export stands, for the agent's own views. Without `counts` what arrived is counted in requests.
    pub(super) fn export(&self, items: &'static str, counts: Option<Counts>) -> Export {
        let (reach, now) = (self.reach(), Instant::now());
        let Counts { exported, queue_full, rejected, expired, shutdown, waiting, .. } = counts.unwrap_or_default();
        let lost = [("queue_full", queue_full), ("rejected", rejected), ("expired", expired), ("shutdown", shutdown)];
        Export {
            items,
            endpoint: origin(&self.endpoint).to_owned(),
            protocol: self.protocol.name(),
            sent: counts.map_or(reach.arrived, |_| exported),
            queued: waiting,
            lost: lost.into_iter().filter(|&(_, count)| count != 0).collect(),
            failing: reach.since.map(|since| now - since),
            error: reach.error.as_ref().map(|(why, at)| (why.clone(), now - *at)),
        }
    }

    fn is_worth_a_line(&self, why: &str) -> bool {
        let mut reach = self.reach();
        let now = Instant::now();
        reach.error = Some((why.to_owned(), now));
        reach.failed(now) && !self.ending.load(Ordering::Relaxed)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// The last error, and when it was.
    error: Option<(String, Instant)>,
    /// Requests that were taken.
    arrived: u64,
}

impl Reach {
    /// Answers how long the endpoint was away if that was told and must now be taken back.
    fn answered(&mut self, now: Instant) -> Option<Duration> {
        self.arrived += 1;
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

/// Messages of the endpoint that the log has shown.
#[derive(Debug, Default)]
struct Told(Vec<String>);

impl Told {
    /// Each message is shown once, and no more than so many: what comes from the network must not fill log or memory.
    const MOST: usize = 16;
    /// As much of a message is worth showing, in characters.
    const LONGEST: usize = 200;

    fn is_new(&mut self, message: &str) -> bool {
        let message = Self::shown(message);
        if self.0.len() >= Self::MOST || self.0.contains(&message) {
            return false;
        }
        self.0.push(message);
        true
    }

    fn shown(message: &str) -> String {
        message.chars().take(Self::LONGEST).collect()
    }
}

/// The endpoint without a user name and password in it.
pub(super) fn redacted(endpoint: &str) -> String {
    match (endpoint.find("://"), endpoint.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}{}", &endpoint[..scheme + 3], &endpoint[at + 1..]),
        (_, Some(at)) => endpoint[at + 1..].to_owned(),
        (_, None) => endpoint.to_owned(),
    }
}

/// Scheme, host and port: a path tells nothing new of where things go, and a query may hold a key.
fn origin(endpoint: &str) -> &str {
    let host = endpoint.find("://").map_or(0, |scheme| scheme + 3);
    let end = endpoint[host..].find(['/', '?', '#']).map_or(endpoint.len(), |end| host + end);
    &endpoint[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_export_stands_is_told_with_the_last_error() {
        let link = Link::new("metrics", "https://otlp.example:4318/v1/metrics?key=s3cret", Protocol::HttpProtobuf);
        link.missed("nobody listens there");
        let export = link.export("metrics", None);
        assert_eq!((export.endpoint.as_str(), export.protocol), ("https://otlp.example:4318", "http/protobuf"));
        assert_eq!((export.sent, export.failing.is_some()), (0, true));
        link.answered(0, "");
        let counts = Counts { exported: 5, queue_full: 2, waiting: 3, ..Counts::default() };
        let export = link.export("spans", Some(counts));
        assert_eq!((export.sent, export.queued, export.lost), (5, 3, vec![("queue_full", 2)]));
        assert!(export.failing.is_none());
        assert_eq!(export.error.unwrap().0, "nobody listens there", "it stays, with its age");
        assert_eq!(link.export("metrics", None).sent, 1);
    }

    #[test]
    fn what_fails_at_the_end_is_left_to_the_account() {
        let link = Link::new("metrics", "http://h:4317", Protocol::Grpc);
        link.end();
        assert!(!link.is_worth_a_line("away"));
        assert_eq!(link.error().as_deref(), Some("away"));
    }

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
    fn what_the_endpoint_says_is_told_once_and_does_not_fill_the_log() {
        let mut told = Told::default();
        assert!(told.is_new(""), "it rejects without a word");
        assert!(told.is_new("too old"));
        assert!(!told.is_new("too old"));
        let lines = (0..1_000).filter(|number| told.is_new(&format!("{number}: {}", "x".repeat(10_000)))).count();
        assert_eq!(lines, Told::MOST - 2);
        assert!(told.0.iter().all(|message| message.chars().count() <= Told::LONGEST));
    }

    #[test]
    fn no_password_gets_into_the_log() {
        assert_eq!(redacted("https://me:secret@otlp.example:4318/v1/traces"), "https://otlp.example:4318/v1/traces");
        assert_eq!(redacted("me:secret@otlp.example:4317"), "otlp.example:4317");
        assert_eq!(redacted("http://[::1]:4317"), "http://[::1]:4317");
    }
}
