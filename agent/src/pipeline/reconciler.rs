//! Joins the two truths: hands listings of the kernel's sockets to the ledger, when everything that happened before has been applied there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;

use super::surveyor::{Ask, Listed, Surveyor, Tell};
use crate::census::{Census, Form, Only};
use crate::event::State;
use crate::ledger::{Ledger, Owners};
use crate::status::Drift;

/// Events up to a moment are complete only some time after it: a program that was interrupted writes its record late.
const SETTLE_NS: u64 = 10_000_000;

/// Listings come at least this often, even if nothing seems to be wrong.
const INTERVAL_NS: u64 = 300_000_000_000;

/// Time between two listings, at least: as many times what the last one took.
const REST: u64 = 20;
const SHORTEST_REST_NS: u64 = 1_000_000_000;

/// Censuses in a row that must differ from the ledger, and in the same direction, before a listing is wanted: in between, events are under way.
const DIFFERENCES: u32 = 3;

#[derive(Debug)]
pub(super) struct Reconciler {
    surveyor: Surveyor,
    /// Told and not compared yet.
    waiting: VecDeque<Tell>,
    owners: Owners,
    /// When the listing under way was asked for.
    listing: Option<u64>,
    wanted: bool,
    not_before_ns: u64,
    last_ns: u64,
    failed: bool,
    latest: Option<Arc<Census>>,
    differs: [i32; State::LIMIT],
    drift: Drift,
}

impl Reconciler {
    /// Wants a first listing at once.
    pub(super) fn new(surveyor: Surveyor) -> Self {
        Self {
            surveyor,
            waiting: VecDeque::new(),
            owners: Owners::new(),
            listing: None,
            wanted: true,
            not_before_ns: 0,
            last_ns: 0,
            failed: false,
            latest: None,
            differs: [0; State::LIMIT],
            drift: Drift::default(),
        }
    }

    /// Something was lost: the ledger may be wrong.
    pub(super) fn doubt(&mut self) {
        self.wanted = true;
    }

    /// The namespaces of the filter have changed. False if the thread is too busy with a listing to be told now.
    pub(super) fn set_only(&self, only: Only) -> bool {
        self.surveyor.asks.try_send(Ask::Only(only)).is_ok()
    }

    /// The latest census.
    pub(super) fn latest(&self) -> Option<Arc<Census>> {
        self.latest.clone()
    }

    pub(super) const fn drift(&self) -> Drift {
        self.drift
    }

    /// Moves on. Every event up to `complete_ns` has been applied.
    pub(super) fn step(&mut self, ledger: &mut Ledger, complete_ns: u64, now_ns: u64) {
        self.wanted |= self.last_ns != 0 && now_ns.saturating_sub(self.last_ns) >= INTERVAL_NS;
        if self.listing.is_none()
            && self.wanted
            && now_ns >= self.not_before_ns
            && self.surveyor.asks.try_send(Ask::List).is_ok()
        {
            ledger.begin_comparison(now_ns);
            // From here on, so that the first listing does not call for a second one on a machine that has been up for long.
            (self.listing, self.wanted, self.last_ns) = (Some(now_ns), false, now_ns);
        }
        loop {
            if self.waiting.is_empty() {
                match self.surveyor.tells.try_recv() {
                    Ok(tell) => self.waiting.push_back(tell),
                    Err(TryRecvError::Empty) => return,
                    Err(TryRecvError::Disconnected) => return self.fail(ledger),
                }
            }
            let Some(tell) = self.waiting.front() else { return };
            if until(tell).saturating_add(SETTLE_NS) > complete_ns {
                return;
            }
            if let Some(tell) = self.waiting.pop_front() {
                self.take(ledger, tell, now_ns);
            }
        }
    }

    /// The thread of the census is gone: nothing will end the listing.
    fn fail(&mut self, ledger: &mut Ledger) {
        ledger.abandon_comparison();
        if !self.failed {
            self.failed = true;
            tracing::error!("the thread of the census has failed; from now on only events are told");
        }
    }

    fn take(&mut self, ledger: &mut Ledger, tell: Tell, now_ns: u64) {
        match tell {
            Tell::Owners(owners) => self.owners = owners,
            Tell::Sockets(sockets) => ledger.compare(&sockets, &self.owners),
            Tell::Listed(listed) => self.end(ledger, &listed, now_ns),
            Tell::Census(census) => {
                self.compare_sums(ledger, &census);
                self.drift.census_cpu += census.cost;
                self.latest = Some(Arc::from(census));
            }
        }
    }

    fn end(&mut self, ledger: &mut Ledger, listed: &Listed, now_ns: u64) {
        self.owners = Owners::new();
        let corrections = ledger.end_comparison(&listed.walked);
        for (netns, error) in &listed.failures {
            tracing::warn!(netns, %error, "the sockets of a network namespace could not be listed");
        }
        let took = listed.ended_ns.saturating_sub(self.listing.take().unwrap_or(listed.ended_ns));
        self.not_before_ns = now_ns + (took * REST).max(SHORTEST_REST_NS);
        let first = self.drift.listings == 0;
        self.drift.listings += 1;
        self.drift.stale += corrections.stale;
        self.drift.missed_closes += corrections.missed_closes;
        if first {
            self.drift.found_at_start = corrections.adopted;
            tracing::info!(
                sockets = corrections.adopted,
                namespaces = listed.walked.len(),
                milliseconds = took / 1_000_000,
                "sockets older than the agent are known"
            );
        } else {
            self.drift.adopted += corrections.adopted;
        }
        let (adopted, stale, missed_closes) = (corrections.adopted, corrections.stale, corrections.missed_closes);
        if (!first && adopted > 0) || stale > 0 || missed_closes > 0 {
            tracing::warn!(adopted, stale, missed_closes, "the ledger was put right by the kernel's tables");
        }
        if corrections.suspects > 0 {
            // The second look decides; it need not wait.
            self.wanted = true;
            self.not_before_ns = now_ns;
        }
    }

    /// A listing is wanted when a census keeps counting others than the ledger does.
    fn compare_sums(&mut self, ledger: &Ledger, census: &Census) {
        for state in State::ALL {
            if matches!(state, State::Closed | State::TimeWait) {
                continue;
            }
            let counted = census.sums.sockets(|group| group.state == state && group.form == Form::Full);
            let differs = &mut self.differs[state.index()];
            *differs = match counted.cmp(&ledger.tracked()[state.index()]) {
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => differs.saturating_add(1).max(1),
                std::cmp::Ordering::Less => differs.saturating_sub(1).min(-1),
            };
            if differs.unsigned_abs() >= DIFFERENCES {
                *differs = 0;
                self.wanted = true;
            }
        }
    }
}

/// The moment up to which events must be complete before this may be compared.
fn until(tell: &Tell) -> u64 {
    match tell {
        Tell::Owners(_) | Tell::Census(_) => 0,
        Tell::Sockets(sockets) => sockets.iter().map(|socket| socket.time_ns).max().unwrap_or(0),
        Tell::Listed(listed) => listed.ended_ns,
    }
}
