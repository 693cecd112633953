//! The agent's way of data points: each collection reads all that is known of many owners, and every series of it is written and sent.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::time::ClockId;
use serde_json::{Value, json};
use synfin::accounts::Accounts;
use synfin::clock::Clock;
use synfin::config::{Compression, Otlp as Settings, Protocol};
use synfin::distribution::{Distributions, Place, Shape};
use synfin::event::{Cause, State};
use synfin::export::otlp::Otlp;
use synfin::ledger::{Connection, Counts, End, Role};
use synfin::owner::directory::Known;
use synfin::status::{Board, Status};

use crate::connections::Kind;
use crate::{cpu_ns, own};

/// Time between two collections: long enough for each to be over before the next begins.
const INTERVAL: Duration = Duration::from_millis(250);
/// Requests before it counts: series are made in the first collection, which takes a few.
const WARMING_UP: u64 = 10;
/// Collections that count.
const COLLECTIONS: u32 = 20;
const LOOK: Duration = Duration::from_millis(5);
/// How long owners may take to be known, and collections to be made.
const PATIENCE: Duration = Duration::from_mins(1);

/// The owners are the cgroups in `folder`.
pub(crate) fn measure(endpoint: &str, protocol: Protocol, folder: &Path) -> Result<Value> {
    let settings = Settings {
        metrics: Some(own::signal(endpoint, protocol, Compression::None)),
        metrics_interval: INTERVAL,
        ..Settings::default()
    };
    let cgroups = cgroups(folder)?;
    let board = Arc::new(Board::default());
    let (otlp, directory) = own::start(&settings, Arc::clone(&board))?;
    let identities = || cgroups.iter().map(|cgroup| directory.identity(*cgroup));
    await_that("the owners are known", || identities().all(|known| known != Known::Pending))?;
    let owners = identities().filter(|known| matches!(known, Known::Of(_))).count();
    ensure!(owners == cgroups.len(), "{owners} of {} cgroups in {} have an owner", cgroups.len(), folder.display());
    let mut node = Node::new(cgroups);
    board.publish(node.next());
    // Made beforehand and kept: making and dropping them is the drain thread's, and not what is measured.
    let moments: Vec<_> = (0..COLLECTIONS).map(|_| node.next()).collect();

    await_that("the first collections are made", || requests(&otlp) >= WARMING_UP)?;
    // From the middle between two collections to the middle between two others.
    let under_way = requests(&otlp);
    await_that("a collection begins", || requests(&otlp) > under_way)?;
    thread::sleep(INTERVAL / 2);
    let points = || otlp.source().take().points.map(|(points, _)| points).context("metrics are exported");
    let (from, sent) = (points()?, requests(&otlp));
    let before = cpu_ns(ClockId::ProcessCPUTime);
    for moment in &moments {
        // Everybody has done something since the last collection.
        board.publish(moment.clone());
        thread::sleep(INTERVAL);
    }
    let cpu = cpu_ns(ClockId::ProcessCPUTime) - before;
    let (to, sent) = (points()?, requests(&otlp) - sent);
    let told = to.exported - from.exported;
    ensure!(to.rejected + to.missed == 0, "not all points arrived: {to:?}");
    // Each collection has the same points in the same requests.
    let whole = |count: u64| count > 0 && count.is_multiple_of(COLLECTIONS.into());
    ensure!(
        whole(told) && whole(sent),
        "{told} points in {sent} requests are no {COLLECTIONS} collections: the machine was too busy"
    );
    let series = told / u64::from(COLLECTIONS);
    Ok(json!({ "points": told, "cpu_ns": cpu, "series": series, "owners": owners, "requests": sent }))
}

/// Ids of the cgroups in a folder.
fn cgroups(folder: &Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut ids = HashSet::new();
    for entry in entries {
        let metadata = entry?.metadata()?;
        if metadata.is_dir() {
            ids.insert(metadata.ino());
        }
    }
    ensure!(!ids.is_empty(), "there are no cgroups in {}", folder.display());
    Ok(ids.into_iter().collect())
}

/// Requests that were answered.
fn requests(otlp: &Otlp) -> u64 {
    otlp.exports().iter().map(|export| export.sent).sum()
}

fn await_that(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        ensure!(Instant::now() < end, "given up waiting that {what}");
        thread::sleep(LOOK);
    }
    Ok(())
}

/// What each owner's clients and servers have done, counted and timed as the agent counts and times it.
struct Node {
    cgroups: Vec<u64>,
    accounts: Accounts<Counts>,
    times: Distributions,
    moment_ns: u64,
}

impl Node {
    fn new(cgroups: Vec<u64>) -> Self {
        let accounts = Accounts::new(cgroups.len());
        Self { cgroups, accounts, times: Distributions::new(Shape::Explicit), moment_ns: 1 }
    }

    /// The next moment: everybody has done something since the last one.
    fn next(&mut self) -> Status {
        let Self { cgroups, accounts, times, moment_ns } = self;
        let offset = Clock::default().offset();
        for (number, cgroup) in cgroups.iter().enumerate() {
            fill(accounts.of(*cgroup), number as u64 + *moment_ns);
            for role in Role::ALL {
                let connection =
                    Connection { role: Some(role), cgroup: *cgroup, ..Kind::Full.connection(number as u32) };
                let place = || Some(Place { trace: [7; 16], span: [7; 8] });
                times.add(&connection, End::TimeWait, offset, place);
                times.add(&connection, End::Closed, offset, place);
            }
            for state in [State::Established, State::FinWait1, State::FinWait2, State::CloseWait, State::LastAck] {
                times.left(*cgroup, state, 0.004 * number as f64);
            }
        }
        *moment_ns += 1;
        let (time_ns, accounts, times) = (*moment_ns, accounts.share(*moment_ns), times.share(*moment_ns));
        Status { time_ns, accounts, times, ..Status::default() }
    }
}

fn fill(counts: &mut Counts, each: u64) {
    for (old, new) in [
        (State::Closed, State::SynSent),
        (State::SynSent, State::Established),
        (State::Listen, State::SynReceived),
        (State::SynReceived, State::Established),
        (State::Established, State::FinWait1),
        (State::FinWait1, State::FinWait2),
        (State::FinWait2, State::Closed),
        (State::Established, State::CloseWait),
        (State::CloseWait, State::LastAck),
        (State::LastAck, State::Closed),
    ] {
        counts.transitions[old.index()][new.index()] = each;
    }
    for role in Role::ALL {
        counts.opened[role.index()] = each;
        counts.established[role.index()] = each;
    }
    counts.failures[Role::Client.index()].insert("connection_refused", each);
    for end in [End::TimeWait, End::Closed, End::Refused, End::ResetReceived] {
        counts.ended[end.index()] = each;
    }
    counts.time_wait = [each, each, 0];
    counts.retransmits_syn = each;
    counts.retransmits_data[Cause::ALL.len()] = each;
    counts.resets_received = each;
    counts.bytes = [each * 1_234, each * 56_789];
}
