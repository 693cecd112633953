//! The engine: kernel, drain, ledger and tally of one run, moved on by whoever owns the thread.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};

use super::reconciler::Reconciler;
use super::surveyor::Surveyor;
use super::{census, usage};
use crate::census::cadence::Pace;
use crate::clock::Clock;
use crate::config::Config;
use crate::event::Event;
use crate::health::{Health, Probe, Refused, Verdict, roll_up};
use crate::lanes::Lanes;
use crate::ledger::{Applied, Checkpoint, CloseWaits, Ended, Ledger};
use crate::loader::{self, Attachment, Filter, Kernel, Outlets};
use crate::loss;
use crate::merge::Merge;
use crate::netns::NetnsSpec;
use crate::ring::{Drain, Pass};
use crate::status::{Loss, LossReason, Status};
use crate::tally::{Tallied, Tally, What};

/// Records of one pass: about 15 ms of work, so that ticks and stops are never late.
const BUDGET: u64 = 32_768;

/// Records of a pass after which the drain sleeps its full `ring.poll`; after more it sleeps less, so that lanes do not
/// fill up: with this many in each of 2048 slots, a lane alone takes 400,000 records a second.
const EASY: u32 = 512;

/// The shortest sleep is this part of `ring.poll`.
const HASTE: u32 = 16;

/// Time between two ticks.
const TICK_NS: u64 = 1_000_000_000;

/// The whole ledger is walked about so often, or four times in the interval of checkpoints.
const SWEEP_NS: u64 = 10_000_000_000;

/// Ticks between two walks of the ledger's embryos.
const EMBRYO_TICKS: u64 = 30;

/// Whoever looks on: the exporters of `run`, the printer of `watch`.
pub(super) trait Observer {
    /// An event, after the ledger has taken it in.
    fn event(&mut self, event: &Event, applied: &Applied<'_>);
    /// Connections that ended since the last call.
    fn ended(&mut self, ended: &[Ended]);
    /// Checkpoints since the last call, where they were asked for.
    fn checkpoints(&mut self, _checkpoints: &[Checkpoint]) {}
    /// Once a second: what the kernel has summed up, what was lost since, how things stand, and by how many
    /// nanoseconds the wall clock has jumped.
    fn tick(&mut self, tick: &Tick<'_>);
}

/// What has come together in a second.
#[derive(Debug)]
pub(super) struct Tick<'a> {
    pub(super) tallied: &'a [Tallied],
    pub(super) losses: &'a [Loss],
    pub(super) jump_ns: Option<i64>,
    pub(super) status: &'a Status,
    /// What was last heard of before this time everybody has been told, and may be let go.
    pub(super) expire_ns: u64,
}

/// Up to when everybody who reads has been told.
#[derive(Default)]
struct Told(Option<Box<dyn Fn() -> u64 + Send>>);

/// A reader that has not read for so long is waited for no more: what is gone would otherwise take the room of what is there.
const UNREAD_NS: u64 = 3_600_000_000_000;

impl Told {
    fn until_ns(&self, now: u64) -> u64 {
        self.0.as_ref().map_or(u64::MAX, |told| told().max(now.saturating_sub(UNREAD_NS)))
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Told").field(&self.until_ns(0)).finish()
    }
}

/// Everything between the kernel and the observers.
#[derive(Debug)]
pub(super) struct Engine {
    kernel: Kernel,
    drain: Drain<Merge<RingBuf<MapData>>>,
    ledger: Ledger,
    tally: Tally,
    clock: Arc<Clock>,
    netns: Vec<NetnsSpec>,
    missing_namespaces: u64,
    started_ns: u64,
    /// Owners of whom nothing was heard for so long are over.
    idle_ns: u64,
    /// Up to when everybody who reads has been told.
    told: Told,
    next_tick_ns: u64,
    ticks: u64,
    newest_ns: u64,
    last: Pass,
    lag: Duration,
    losses: Vec<Loss>,
    ended: Vec<Ended>,
    /// Time between two checkpoints of a connection.
    checkpoint_ns: Option<u64>,
    checkpoints: Vec<Checkpoint>,
    close_waits: CloseWaits,
    reconciler: Option<Reconciler>,
    /// Namespaces of the filter that the census was told last.
    walked: Vec<u32>,
}

impl Engine {
    /// Loads and attaches. Fails when the kernel refuses a probe that is required.
    pub(super) fn start(config: &Config, clock: Arc<Clock>) -> anyhow::Result<Self> {
        let filter = filter(config)?;
        let (kernel, outlets) =
            loader::load(&attachment(config), config.ring.size, &filter).context("cannot load the eBPF programs")?;
        require(&kernel.probes())?;
        let now = clock.monotonic_ns();
        let Outlets { lanes, shared } = outlets;
        let room = u64::from(config.ring.size) + lanes.as_ref().map_or(0, Lanes::size);
        Ok(Self {
            kernel,
            drain: Drain::new(Merge::new(lanes, shared), room),
            ledger: Ledger::new(config.ledger.max_connections),
            tally: Tally::default(),
            clock,
            netns: config.filter.netns.clone(),
            missing_namespaces: 0,
            started_ns: now,
            idle_ns: super::idle(config).as_nanos() as u64,
            told: Told::default(),
            next_tick_ns: now + TICK_NS,
            ticks: 0,
            newest_ns: 0,
            last: Pass::default(),
            lag: Duration::ZERO,
            losses: Vec::new(),
            ended: Vec::new(),
            checkpoint_ns: None,
            checkpoints: Vec::new(),
            close_waits: CloseWaits::default(),
            reconciler: None,
            walked: Vec::new(),
        })
    }

    /// Compares the ledger with the kernel's own tables from now on. Without that it still tells what events tell.
    pub(super) fn survey(&mut self, config: &Config) {
        let start = || {
            let filter = filter(config)?;
            let (walk, chosen) = census::walk(config, &filter)?;
            if let Some(note) = chosen.note() {
                tracing::info!("census {note}");
            }
            let pace = Pace { share: config.census.cpu_share, interval: config.census.interval };
            Surveyor::start(walk, filter.netns, pace, Arc::clone(&self.clock))
        };
        match start() {
            Ok(surveyor) => self.reconciler = Some(Reconciler::new(surveyor)),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "no census: connections older than the agent, TIME_WAIT and half-open sockets are not told"
            ),
        }
    }

    /// Lets go of nothing that not everybody has been told: `told` says up to when they have.
    pub(super) fn keep_until_told(&mut self, told: impl Fn() -> u64 + Send + 'static) {
        self.told = Told(Some(Box::new(told)));
    }

    /// Tells of connections that live long too, each in this interval, from now on.
    pub(super) fn tell_checkpoints(&mut self, interval: Duration) {
        self.checkpoint_ns = u64::try_from(interval.as_nanos()).ok();
    }

    pub(super) fn probes(&self) -> Vec<Probe> {
        self.kernel.probes()
    }

    pub(super) fn reset_reasons(&self) -> Arc<[String]> {
        self.kernel.reset_reasons()
    }

    /// How things stand before the first step.
    pub(super) fn first_status(&mut self) -> Status {
        let status = self.status(self.clock.monotonic_ns(), self.kernel.probes(), Vec::new());
        // The thread that asks now is not the one that will drain.
        Status { drain_cpu: Duration::ZERO, ..status }
    }

    /// Reads what is in the ring, up to a budget, and ticks when a second has passed. Answers whether there is more to
    /// read right now.
    pub(super) fn step(&mut self, observer: &mut dyn Observer) -> bool {
        let now = self.clock.monotonic_ns();
        let Self { drain, ledger, .. } = self;
        let pass = drain.pass(now, BUDGET, |event| {
            let applied = ledger.apply(event);
            observer.event(event, &applied);
        });
        self.newest_ns = self.newest_ns.max(pass.newest_ns.unwrap_or(0));
        self.lag = pass.oldest_ns.map_or(Duration::ZERO, |oldest| Duration::from_nanos(now.saturating_sub(oldest)));
        self.last = pass;
        // Events are complete up to the start of a pass that emptied the ring; else up to the newest one read.
        let complete_ns = if pass.emptied { now } else { self.newest_ns };
        if let Some(reconciler) = &mut self.reconciler {
            reconciler.step(&mut self.ledger, complete_ns, now);
        }
        self.ledger.tick(complete_ns);
        self.hand_over(observer);
        self.sweep(complete_ns, observer);
        if now >= self.next_tick_ns {
            self.next_tick_ns = now + TICK_NS;
            self.tick(now, observer);
        }
        !pass.emptied
    }

    /// How long to sleep after a pass that left nothing, when `poll` is the time for a pass of little work.
    pub(super) fn pause(&self, poll: Duration) -> Duration {
        let records = u32::try_from(self.last.records).unwrap_or(u32::MAX);
        if records <= EASY { poll } else { (poll * EASY / records).max(poll / HASTE) }
    }

    /// Detaches the programs, reads what they have left, and ends what has been closed. The last status says it all.
    pub(super) fn finish(mut self, observer: &mut dyn Observer) -> Status {
        self.kernel.detach();
        while self.step(observer) {}
        self.ledger.settle();
        self.hand_over(observer);
        self.tick(self.clock.monotonic_ns(), observer)
    }

    fn hand_over(&mut self, observer: &mut dyn Observer) {
        self.ledger.take_ended(&mut self.ended);
        if !self.ended.is_empty() {
            observer.ended(&self.ended);
            self.ended.clear();
        }
    }

    fn sweep(&mut self, complete_ns: u64, observer: &mut dyn Observer) {
        let Self { ledger, checkpoints, close_waits, checkpoint_ns, .. } = self;
        let period_ns = checkpoint_ns.map_or(SWEEP_NS, |interval_ns| SWEEP_NS.min(interval_ns / 4));
        let ended = ledger.sweep(complete_ns, period_ns, |mut visit| {
            close_waits.meet(visit.connection());
            checkpoints.extend(checkpoint_ns.and_then(|interval_ns| visit.checkpoint(interval_ns)));
        });
        if ended {
            close_waits.end_walk();
        }
        if !checkpoints.is_empty() {
            observer.checkpoints(checkpoints);
            checkpoints.clear();
        }
    }

    fn tick(&mut self, now: u64, observer: &mut dyn Observer) -> Status {
        self.ticks += 1;
        let expire_ns = now.saturating_sub(self.idle_ns).min(self.told.until_ns(now));
        self.kernel.flush_log();
        if self.ticks.is_multiple_of(EMBRYO_TICKS) {
            self.ledger.expire_embryos(now);
            self.ledger.expire_accounts(expire_ns);
        }
        let tallied = self.tally.differences(self.kernel.tallies());
        self.count(&tallied);
        let jump_ns = self.clock.tick();
        self.follow_namespaces();
        let probes = self.kernel.probes();
        let losses =
            loss::gather(|slot| self.kernel.lost(slot), &probes, self.drain.rejected(), self.ledger.totals().folded);
        let grown = loss::growth(&self.losses, &losses);
        self.losses.clone_from(&losses);
        let lost_events = |loss: &Loss| !matches!(loss.reason, LossReason::LedgerFull | LossReason::TallyOverflow);
        if let Some(reconciler) = &mut self.reconciler
            && grown.iter().any(lost_events)
        {
            reconciler.doubt();
        }
        let status = self.status(now, probes, losses);
        observer.tick(&Tick { tallied: &tallied, losses: &grown, jump_ns, status: &status, expire_ns });
        status
    }

    fn count(&mut self, tallied: &[Tallied]) {
        let totals = self.ledger.totals_mut();
        for row in tallied {
            match row.what {
                What::SynAckRetransmit { .. } => totals.retransmits_syn_ack += row.count,
                What::ResetWithoutSocket { reason } => {
                    *totals.resets_without_socket.entry(reason).or_default() += row.count;
                }
            }
        }
    }

    /// A name may come to mean another namespace, or none: the filter follows it, and says so once.
    fn follow_namespaces(&mut self) {
        if self.netns.is_empty() {
            return;
        }
        let mut inodes = Vec::new();
        let mut missing = 0;
        for spec in &self.netns {
            match spec.resolve() {
                Ok(inode) => inodes.push(inode),
                Err(_) => missing += 1,
            }
        }
        if missing != self.missing_namespaces {
            if missing > self.missing_namespaces {
                tracing::warn!(missing, "a network namespace of the filter is gone; its connections end unseen");
            } else {
                tracing::info!(missing, "a network namespace of the filter is back");
            }
            self.missing_namespaces = missing;
        }
        if let Some(reconciler) = &self.reconciler
            && self.walked != inodes
            && reconciler.set_only(Some(inodes.clone()))
        {
            self.walked.clone_from(&inodes);
        }
        // An inode number that is gone stays out of the filter, because the kernel may give it to another namespace.
        if let Err(error) = self.kernel.set_netns(inodes) {
            tracing::warn!(%error, "the filter of network namespaces could not be changed");
        }
    }

    fn status(&mut self, now: u64, probes: Vec<Probe>, losses: Vec<Loss>) -> Status {
        let usage = usage::read();
        Status {
            time_ns: now,
            uptime: Duration::from_nanos(now.saturating_sub(self.started_ns)),
            totals: self.ledger.totals().clone(),
            accounts: self.ledger.accounts(now),
            close_waits: self.close_waits.oldest(),
            tracked: *self.ledger.tracked(),
            ledger_limit: self.ledger.limit(),
            listeners: self.ledger.listeners(),
            census: self.reconciler.as_ref().and_then(Reconciler::latest),
            drift: self.reconciler.as_ref().map_or_else(Default::default, Reconciler::drift),
            events: self.drain.seen(),
            losses,
            probes,
            ring_fill: (self.last.bytes, self.drain.size()),
            lag: self.lag,
            cpu: usage.process_cpu,
            drain_cpu: usage.thread_cpu,
            memory: usage.memory,
            clock_jumps: self.clock.jumps(),
            missing_namespaces: self.missing_namespaces,
            reset_reasons: self.kernel.reset_reasons(),
            // The engine exports nothing: whoever does adds these.
            times: Arc::default(),
            peers: Arc::default(),
            exports: Vec::new(),
        }
    }
}

/// The filter of the configuration with namespaces as inode numbers.
pub(super) fn filter(config: &Config) -> anyhow::Result<Filter> {
    let filter = &config.filter;
    let network = |cidr: &crate::config::Cidr| cidr.network();
    Ok(Filter {
        netns: if filter.netns.is_empty() { None } else { Some(filter.resolve_netns()?) },
        ports: filter.ports.clone(),
        peers: filter.peers.iter().map(network).collect(),
        excluded_peers: filter.exclude_peers.iter().map(network).collect(),
        exclude_loopback: filter.exclude_loopback,
    })
}

pub(super) fn attachment(config: &Config) -> Attachment {
    let crate::config::Probes { btf, max_rung, disable } = &config.probes;
    Attachment { btf: btf.clone(), max_rung: *max_rung, disabled: disable.clone() }
}

/// Tells the verdicts once, and whether they suffice.
fn require(probes: &[Probe]) -> anyhow::Result<()> {
    for Probe { name, tracepoint, required, verdict, refused, cost: _ } in probes {
        match verdict {
            Verdict::Active { partial: false, .. } | Verdict::Disabled => {}
            Verdict::Active { partial: true, .. } => tracing::warn!(probe = name, tracepoint, "{verdict}"),
            Verdict::Unsupported { .. } | Verdict::Broken { .. } if *required => {
                tracing::error!(probe = name, tracepoint, "{verdict}");
            }
            Verdict::Unsupported { .. } | Verdict::Broken { .. } => {
                tracing::warn!(probe = name, tracepoint, "{verdict}");
            }
        }
        if verdict.is_active() {
            for Refused { rung, why } in refused {
                tracing::info!(probe = name, tracepoint, %verdict, "not on rung {rung}: {why}");
            }
        }
    }
    anyhow::ensure!(
        roll_up(probes) != Health::Failed,
        "a required probe is not active; `synfin doctor` says what this kernel lacks"
    );
    Ok(())
}

/// Loads and attaches every probe, and lets go of it again: for `synfin doctor`.
pub(super) fn probe_verdicts(config: &Config) -> anyhow::Result<Vec<Probe>> {
    // One page: nobody reads it.
    let nothing = Filter { netns: Some(Vec::new()), ..Filter::default() };
    let (kernel, _ring) = loader::load(&attachment(config), 4096, &nothing)?;
    Ok(kernel.probes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_never_reads_holds_up_nothing_for_longer_than_an_hour() {
        let never = Told(Some(Box::new(|| 0)));
        assert_eq!([1, UNREAD_NS, UNREAD_NS + 5].map(|now| never.until_ns(now)), [0, 0, 5]);
        let reads = Told(Some(Box::new(|| UNREAD_NS)));
        assert_eq!(reads.until_ns(UNREAD_NS + 5), UNREAD_NS);
        assert_eq!(Told::default().until_ns(7), u64::MAX, "nobody reads");
    }
}
