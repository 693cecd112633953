//! Which spans are kept: every abnormal one, and a share of the rest by the randomness of the trace id, so that each span says
//! how many it stands for.
//!
//! This is OpenTelemetry's consistent probability sampling: a span that is kept for no reason of its own is kept because the
//! 56 random bits of its trace id are not below a [`Threshold`], which its `tracestate` states. Agents with the same ratio keep
//! both halves of a connection or none. The threshold of a rate limit ([`rate`]) follows the connections of one agent, so that
//! of two agents the one with less to tell keeps more; what both keep is what the busier one does. What is abnormal ([`why`])
//! may be so at one end only: a RST is sent by one and received by the other, but a retransmit is seen by its sender alone.
//!
//! No threshold depends on the randomness of the span that it decides on. So the sum of 1 ÷ probability over the spans that
//! were kept is, on average, the number of all.

mod rate;
mod threshold;
mod why;

use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry::trace::TraceId;

use crate::config::Otlp as Settings;
use crate::ledger::{Connection, End};

use rate::Rate;
use threshold::Threshold;
pub(super) use threshold::TraceState;
use why::Norms;
pub use why::Why;

/// Why a span was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// For what it is, whatever its trace id.
    Abnormal(Why),
    /// By the ratio.
    Ratio,
    /// By the rate limit, when its threshold began with these four hexadecimal digits and was above the ratio's.
    Limited(u16),
}

impl Kept {
    /// Whether it is worth keeping longer than others.
    pub const fn is_abnormal(self) -> bool {
        matches!(self, Self::Abnormal(_))
    }
}

/// Why a span was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// The ratio.
    Ratio,
    /// The rate limit.
    RateLimit,
}

/// Spans that sampling left out, by why. Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampledOut {
    /// By the ratio.
    pub ratio: u64,
    /// By the rate limit, of those that the ratio would have kept.
    pub rate_limit: u64,
}

impl SampledOut {
    /// All of them.
    pub const fn total(self) -> u64 {
        self.ratio + self.rate_limit
    }

    /// One more.
    pub const fn add(&mut self, left_out: LeftOut) {
        match left_out {
            LeftOut::Ratio => self.ratio += 1,
            LeftOut::RateLimit => self.rate_limit += 1,
        }
    }
}

/// Decides which spans are kept.
#[derive(Debug)]
pub struct Sampler {
    norms: Norms,
    ratio: Threshold,
    rate: Option<Mutex<Rate>>,
}

impl Sampler {
    /// Keeps what the settings say.
    pub fn new(settings: &Settings) -> Self {
        Self {
            norms: Norms::of(settings),
            ratio: Threshold::of_ratio(settings.trace_sample_ratio),
            rate: settings.trace_rate_limit.map(|limit| Mutex::new(Rate::new(limit))),
        }
    }

    /// Begins to decide on spans that came together at `now_ns`.
    pub(super) fn begin(&self, now_ns: u64) -> Decisions<'_> {
        let mut rate = self.rate();
        if let Some(rate) = &mut rate {
            rate.pass(now_ns);
        }
        Decisions { sampler: self, rate }
    }

    /// Whether the last [`Sampler::begin`] has kept this span. It may say no of one that was kept, when later ones of them
    /// have moved the rate limit.
    pub(super) fn has_kept(&self, connection: &Connection, end: Option<End>, trace: TraceId) -> bool {
        let limit = || self.rate().map_or(Threshold::NOTHING, |rate| Threshold::of_digits(rate.digits()));
        self.norms.why(connection, end).is_some() || (self.ratio.keeps(trace) && limit().keeps(trace))
    }

    /// How spans say what they stand for.
    pub(super) const fn terms(&self) -> Terms {
        Terms { ratio: self.ratio }
    }

    fn rate(&self) -> Option<MutexGuard<'_, Rate>> {
        // Numbers that are right whoever panicked.
        self.rate.as_ref().map(|rate| rate.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Decisions about spans that came together.
pub(super) struct Decisions<'a> {
    sampler: &'a Sampler,
    rate: Option<MutexGuard<'a, Rate>>,
}

impl Decisions<'_> {
    /// Whether a span in this trace is kept, and why. `end` is none of a connection that lives.
    pub(super) fn decide(
        &mut self,
        connection: &Connection,
        end: Option<End>,
        trace: TraceId,
    ) -> Result<Kept, LeftOut> {
        let Sampler { norms, ratio, .. } = self.sampler;
        if let Some(why) = norms.why(connection, end) {
            return Ok(Kept::Abnormal(why));
        }
        let digits = self.rate.as_mut().map_or(0, |rate| {
            rate.arrived();
            rate.digits()
        });
        let limit = Threshold::of_digits(digits);
        if !ratio.keeps(trace) {
            Err(LeftOut::Ratio)
        } else if !limit.keeps(trace) {
            Err(LeftOut::RateLimit)
        } else if limit > *ratio {
            Ok(Kept::Limited(digits))
        } else {
            Ok(Kept::Ratio)
        }
    }
}

/// How spans say what they stand for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    ratio: Threshold,
}

impl Terms {
    /// `tracestate` of a span.
    pub(super) fn state(self, kept: Kept) -> TraceState {
        match kept {
            Kept::Abnormal(_) => Threshold::NOTHING.state(),
            Kept::Ratio => self.ratio.state(),
            Kept::Limited(digits) => Threshold::of_digits(digits).state(),
        }
    }
}

#[cfg(test)]
mod tests;
