//! What the agent knows at one moment, for whoever shows or exports it. The drain thread publishes it, everybody else
//! reads: views and exporters never touch the ledger.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::accounts::Shared;
use crate::census::Census;
use crate::distribution::Times;
use crate::event::{EventKind, State};
use crate::health::Probe;
use crate::ledger::{Counts, Listener, Oldest, Totals};
use crate::peers::Peer;

/// One moment. Everything named a total counts since start.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// `CLOCK_MONOTONIC` nanoseconds of this moment.
    pub time_ns: u64,
    /// Since the programs were attached.
    pub uptime: Duration,
    /// What the ledger counted.
    pub totals: Totals,
    /// Connections that the ledger tracks now, by [`State::index`].
    pub tracked: [u64; State::LIMIT],
    /// Connections that the ledger may hold.
    pub ledger_limit: usize,
    /// The kernel's own tables, as of the last look; None before the first, and where there is none.
    pub census: Option<Arc<Census>>,
    /// How events and tables have agreed.
    pub drift: Drift,
    /// Listeners seen, busiest first, at most [`crate::ledger::LISTENERS`].
    pub listeners: Vec<Listener>,
    /// Events read from the ring, by [`EventKind::index`].
    pub events: [u64; EventKind::ALL.len()],
    /// What was lost, one row for each cause that ever happened.
    pub losses: Vec<Loss>,
    /// Probes with their verdicts and kernel costs.
    pub probes: Vec<Probe>,
    /// Bytes in the ring when it was last read, and its size.
    pub ring_fill: (u64, u64),
    /// Age of the oldest record when the ring was last read.
    pub lag: Duration,
    /// CPU time of this process.
    pub cpu: Duration,
    /// CPU time of the drain thread alone.
    pub drain_cpu: Duration,
    /// Resident memory of this process in bytes.
    pub memory: u64,
    /// Jumps of the wall clock against the monotonic one.
    pub clock_jumps: u64,
    /// Namespaces of the filter that do not exist (any more).
    pub missing_namespaces: u64,
    /// Kernel names of reset reasons by number, from its BTF; empty where it has none.
    pub reset_reasons: Arc<[String]>,
    /// What connections have done, by cgroup.
    pub accounts: Arc<[Shared<Counts>]>,
    /// Since when the oldest CLOSE_WAIT of each cgroup lasts.
    pub close_waits: Oldest,
    /// Their times, by cgroup; empty where nobody reads them.
    pub times: Arc<[Shared<Times>]>,
    /// What connections to each peer have come to; empty where nobody reads that.
    pub peers: Arc<[Peer]>,
    /// How export stands, by signal; empty while nothing is exported.
    pub exports: Vec<Export>,
}

impl Status {
    /// Connections that live: neither listeners nor those that are closed and wait for their last words.
    pub fn connections(&self) -> u64 {
        let none = self.tracked[State::Listen.index()] + self.tracked[State::Closed.index()];
        self.tracked.iter().sum::<u64>() - none
    }

    /// Everything lost, whatever the cause.
    pub fn lost(&self) -> u64 {
        self.losses.iter().map(|loss| loss.count).sum()
    }

    /// Kernel name of a reset reason, in lower case.
    pub fn reset_reason(&self, reason: u32) -> Option<&str> {
        self.reset_reasons.get(reason as usize).map(String::as_str).filter(|name| !name.is_empty())
    }
}

/// How the export of one signal stands. Counts are totals, but for `queued`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// What its items are called: `spans`, `logs`, `metrics`.
    pub items: &'static str,
    /// Where it goes, without user, password, path and query.
    pub endpoint: String,
    /// The value of `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub protocol: &'static str,
    /// Items that the endpoint took; of metrics: exports, each with all totals.
    pub sent: u64,
    /// Items that wait or are being sent.
    pub queued: u64,
    /// Items that will never arrive, by reason, none of them 0. Never of metrics, whose next export has the same totals.
    pub lost: Vec<(&'static str, u64)>,
    /// The last attempt failed, and all since this time.
    pub failing: Option<Duration>,
    /// The last error in plain words, and how long ago it was.
    pub error: Option<(String, Duration)>,
}

/// How the ledger and the kernel's tables have agreed. Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Sockets that were there before the agent.
    pub found_at_start: u64,
    /// Sockets found later that no event had told of.
    pub adopted: u64,
    /// Sockets found in another state than the ledger believed.
    pub stale: u64,
    /// Sockets that were gone although no close had been seen.
    pub missed_closes: u64,
    /// Listings that the ledger was compared with.
    pub listings: u64,
    /// CPU time of all censuses.
    pub census_cpu: Duration,
}

/// Something that could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The value of `synfin.loss.reason`.
    pub reason: LossReason,
    /// What was lost, where that is known.
    pub kind: Option<EventKind>,
    /// How many, a total.
    pub count: u64,
}

/// Why something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The ring had no room.
    RingFull,
    /// The kernel skipped a program that was already running on that CPU.
    Recursion,
    /// A record that is too short or holds an impossible value.
    Decode,
    /// A record of a kind that this agent does not know.
    UnknownKind,
    /// A record of another version of the programs.
    Version,
    /// A socket that was not readable as a TCP socket.
    Unreadable,
    /// A tallied fact that could be counted but not attributed.
    TallyOverflow,
    /// A connection that left a full ledger before its end.
    LedgerFull,
}

impl LossReason {
    /// The value of `synfin.loss.reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::Recursion => "recursion",
            Self::Decode => "decode",
            Self::UnknownKind => "unknown_kind",
            Self::Version => "version",
            Self::Unreadable => "unreadable",
            Self::TallyOverflow => "tally_overflow",
            Self::LedgerFull => "ledger_full",
        }
    }
}

/// Where the latest [`Status`] hangs.
#[derive(Debug, Default)]
pub struct Board(Mutex<Arc<Status>>);

impl Board {
    /// Hangs up a new one.
    pub fn publish(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }

    /// The latest one.
    pub fn latest(&self) -> Arc<Status> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
