//! `synfin run`: the service. One thread drains the ring and keeps the ledger; the main thread shows the summary.

use std::io::{self, IsTerminal as _, Write as _};
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossterm::{cursor, execute, queue, terminal};
use opentelemetry_sdk::Resource;

use super::cgroups::Cgroups;
use super::engine::{Engine, Observer, Tick};
use super::stop::Stop;
use crate::clock::Clock;
use crate::config::{Cidr, Config, Histograms, Metrics, Resources, RunOptions};
use crate::distribution::{Distributions, Shape};
use crate::event::Event;
use crate::export::otlp::queue::Counts;
use crate::export::otlp::{Otlp, Reader, Report, Source};
use crate::export::prometheus::Exposition;
use crate::export::readings::Snapshot;
use crate::export::resource::{Owners, resource};
use crate::http::{self, Site};
use crate::ledger::{Applied, Checkpoint, Ended, seconds};
use crate::logging::{HoldBack, Recent, Warning};
use crate::owner::{Directory, Logs};
use crate::peers::Peers;
use crate::status::{Board, Status};
use crate::view::summary;

/// How long the main thread sleeps between two looks at the clock and the stop flag.
const WATCHFULNESS: Duration = Duration::from_millis(50);

/// Runs until it is time to stop, then sends what still waits.
pub(super) fn run(config: &Config, options: &RunOptions, recent: &Recent) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    // Before anything is loaded into the kernel: what is wrong with a file is wrong with the configuration.
    let credentials = config.otlp.credentials()?;
    let clock = Arc::new(Clock::default());
    let board = Arc::new(Board::default());
    // Before anything is attached, so that an address that is taken costs nothing.
    let listener = config.http.listen.map(http::bind).transpose()?;
    let mut engine = Engine::start(config, Arc::clone(&clock))?;
    if config.census.enabled {
        engine.survey(config);
    }
    if let (Some(_), Some(interval)) = (&config.otlp.traces, config.otlp.checkpoint_interval) {
        engine.tell_checkpoints(interval);
    }
    // A first status before anybody asks: exporters must not tell of an agent without probes.
    let first = engine.first_status();
    board.publish(first.clone());
    let resource = resource(&config.otlp);
    let is_measured = listener.is_some() || config.otlp.metrics.is_some();
    let exposition = Exposition::new(&resource, config.metrics.series);
    let owners = if is_measured || config.otlp.is_on() { owners(config, &resource)? } else { None };
    let directory = owners.as_ref().map(|owners| owners.directory.clone());
    let source = Source::new(Arc::clone(&board), Arc::clone(&clock), owners).with_reader(config.otlp.metrics.is_some());
    let told = source.told();
    let otlp = if config.otlp.is_on() {
        Some(Otlp::start(&config.otlp, &credentials, resource, source.clone(), config.metrics.series)?)
    } else {
        None
    };
    let distributions = is_measured.then(|| Distributions::new(shape(config)));
    let server = match listener {
        Some(listener) => {
            let address = listener.address();
            let source = otlp.as_ref().map_or(source, Otlp::source);
            let (read, mark) = (source.clone(), source);
            let told = move |snapshot: &Snapshot| mark.mark_told(Reader::Prometheus, snapshot);
            let site = Site::new(Arc::clone(&board), Arc::clone(&clock), exposition, move || read.take(), told);
            let server = listener.serve(site)?;
            tracing::info!(%address, "HTTP listens");
            Some(server)
        }
        None => None,
    };
    engine.keep_until_told(told);
    tracing::info!(otlp = otlp.is_some(), "attached");
    let stop = stop.after(options.duration);
    let poll = config.ring.poll;
    let peers = is_measured.then(|| peers(config)).filter(|peers| !peers.is_off());
    let cgroups = directory.map(Cgroups::new);
    let mut exporter = Exporter { otlp, board: Arc::clone(&board), clock, distributions, peers, cgroups, ticks: 0 };
    exporter.publish(first);
    let drain_stop = stop.clone();
    let drain = thread::Builder::new()
        .name("synfin-drain".to_owned())
        .spawn(move || drain(engine, exporter, poll, &drain_stop))
        .context("cannot start the drain thread")?;
    if options.summary && io::stdout().is_terminal() {
        // A terminal that went away stops the picture, not the service.
        let picture = Picture { board: &board, recent, interval: config.summary.interval };
        if let Err(error) = picture.show(&stop, &drain) {
            tracing::warn!(%error, "the summary cannot be shown any more");
        }
    }
    let (exporter, last) = drain.join().map_err(|_panic| anyhow::anyhow!("the drain thread has panicked"))?;
    report(&last);
    // From here on nothing moves that could be asked for.
    drop(server);
    if let Some(otlp) = exporter.otlp {
        report_export(&otlp.shutdown());
    }
    Ok(())
}

fn peers(config: &Config) -> Peers {
    let Metrics { peers, peer_groups, .. } = &config.metrics;
    let group = |cidr: &Cidr| {
        let (first, prefix) = cidr.network();
        (cidr.to_string(), first, prefix)
    };
    Peers::new(*peers, peer_groups.iter().map(group).collect(), shape(config))
}

/// Exponential buckets only for those who want them.
fn shape(config: &Config) -> Shape {
    match config.otlp.metrics_histograms {
        Histograms::Exponential if config.otlp.metrics.is_some() => Shape::Exponential,
        Histograms::Exponential | Histograms::Explicit => Shape::Explicit,
    }
}

/// Owners of connections, where things are told in their names.
fn owners(config: &Config, agent: &Resource) -> anyhow::Result<Option<Owners>> {
    if config.otlp.resources == Resources::Host {
        return Ok(None);
    }
    let crate::config::Owners { pod_logs, container_logs } = config.owners.clone();
    let directory = Directory::start(Logs { pods: pod_logs, containers: container_logs }, config.otlp.max_age);
    Ok(Some(Owners::new(directory.context("cannot start the thread that looks owners up")?, agent)))
}

fn drain(mut engine: Engine, mut exporter: Exporter, poll: Duration, stop: &Stop) -> (Exporter, Status) {
    while !stop.is_set() {
        if !engine.step(&mut exporter) {
            stop.pause(engine.pause(poll));
        }
    }
    let last = engine.finish(&mut exporter);
    (exporter, last)
}

/// Ticks between two looks for owners that are gone.
const EXPIRY_TICKS: u64 = 30;

/// What the drain thread tells the rest of the agent.
struct Exporter {
    otlp: Option<Otlp>,
    board: Arc<Board>,
    clock: Arc<Clock>,
    /// Where somebody reads metrics; kept here so that nobody who reads them can hold up the drain.
    distributions: Option<Distributions>,
    /// Likewise.
    peers: Option<Peers>,
    /// Of events, so that they are looked up while they are there.
    cgroups: Option<Cgroups>,
    ticks: u64,
}

impl Observer for Exporter {
    fn event(&mut self, event: &Event, applied: &Applied<'_>) {
        let Event::Transition(transition) = event else { return };
        if let Some(cgroups) = &mut self.cgroups {
            cgroups.note(transition.cgroup);
        }
        if let Some(distributions) = &mut self.distributions
            && let Some(in_state_ns) = applied.in_state_ns
        {
            distributions.left(transition.cgroup, transition.old, seconds(in_state_ns));
        }
    }

    fn ended(&mut self, ended: &[Ended]) {
        if let Some(cgroups) = &mut self.cgroups {
            // Of some no event told the cgroup, and the census did.
            for Ended { connection, .. } in ended {
                cgroups.note(connection.cgroup);
            }
        }
        if let Some(otlp) = &self.otlp {
            otlp.ended(ended.iter().map(|ended| (&ended.connection, ended.end)));
        }
        if let Some(distributions) = &mut self.distributions {
            let offset = self.clock.offset();
            for Ended { connection, end } in ended {
                let place = || self.otlp.as_ref()?.place(connection, *end);
                distributions.add(connection, *end, offset, place);
            }
        }
        if let Some(peers) = &mut self.peers {
            for Ended { connection, end } in ended {
                peers.add(connection, *end);
            }
        }
    }

    fn checkpoints(&mut self, checkpoints: &[Checkpoint]) {
        if let Some(otlp) = &self.otlp {
            otlp.checkpoints(checkpoints);
        }
    }

    fn tick(&mut self, tick: &Tick<'_>) {
        if let Some(cgroups) = &mut self.cgroups {
            cgroups.forget();
        }
        if let Some(jump_ns) = tick.jump_ns {
            tracing::warn!(seconds = jump_ns as f64 / 1e9, "the wall clock jumped");
        }
        for loss in tick.losses {
            let kind = loss.kind.map_or("record", |kind| kind.name());
            tracing::error!(count = loss.count, kind, reason = loss.reason.name(), "events were lost");
        }
        if let Some(peers) = &mut self.peers {
            peers.look(tick.status.time_ns, tick.expire_ns);
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(EXPIRY_TICKS)
            && let Some(distributions) = &mut self.distributions
        {
            distributions.expire(tick.expire_ns);
        }
        self.publish(tick.status.clone());
    }
}

impl Exporter {
    fn publish(&mut self, status: Status) {
        let exports = self.otlp.as_ref().map(Otlp::exports).unwrap_or_default();
        let times = self.distributions.as_mut().map(|all| all.share(status.time_ns)).unwrap_or_default();
        let peers = self.peers.as_mut().map(Peers::share).unwrap_or_default();
        self.board.publish(Status { times, peers, exports, ..status });
    }
}

/// Warnings that the summary shows.
const WARNINGS: usize = 3;

/// The summary on a terminal.
struct Picture<'a> {
    board: &'a Board,
    recent: &'a Recent,
    interval: Duration,
}

impl Picture<'_> {
    /// Repaints until it is time to stop or the drain thread is gone.
    fn show<T>(&self, stop: &Stop, drain: &thread::JoinHandle<T>) -> io::Result<()> {
        // Dropped last: the log goes on where the terminal is as it was.
        let _hold_back = HoldBack::start();
        let mut out = io::stdout();
        execute!(out, terminal::EnterAlternateScreen, cursor::Hide)?;
        let painted = self.paint(&mut out, stop, drain);
        execute!(out, cursor::Show, terminal::LeaveAlternateScreen)?;
        painted
    }

    fn paint<T>(&self, out: &mut io::Stdout, stop: &Stop, drain: &thread::JoinHandle<T>) -> io::Result<()> {
        let mut before = self.board.latest();
        let mut now = Arc::clone(&before);
        let mut due = Instant::now();
        while !stop.is_set() && !drain.is_finished() {
            if Instant::now() >= due {
                due += self.interval;
                let latest = self.board.latest();
                if latest.time_ns != now.time_ns {
                    before = mem::replace(&mut now, latest);
                }
                self.frame(out, &before, &now)?;
            }
            stop.pause(WATCHFULNESS);
        }
        Ok(())
    }

    fn frame(&self, out: &mut io::Stdout, before: &Status, now: &Status) -> io::Result<()> {
        let (width, height) = terminal::size().unwrap_or_default();
        let warnings = self.recent.last(WARNINGS).into_iter();
        let warnings: Vec<String> =
            warnings.map(|Warning { time, text }| format!("{} {text}", time.strftime("%H:%M:%SZ"))).collect();
        let text = summary::Screen { before, now, warnings: &warnings }.render(width.into(), height.into());
        queue!(out, cursor::MoveTo(0, 0), terminal::Clear(terminal::ClearType::All))?;
        for (row, line) in text.lines().enumerate() {
            queue!(out, cursor::MoveTo(0, row as u16))?;
            out.write_all(line.as_bytes())?;
        }
        out.flush()
    }
}

/// What became of what was to be exported.
fn report_export(report: &Report) {
    for (what, counts) in [("spans", report.spans), ("log records", report.logs)] {
        let Some(counts) = counts else { continue };
        let (exported, dropped) = (counts.exported, counts.dropped());
        if dropped == 0 {
            tracing::info!(exported, "export of {what} ended");
        } else {
            let Counts { queue_full, rejected, expired, shutdown, .. } = counts;
            tracing::warn!(exported, dropped, queue_full, rejected, expired, shutdown, "not all {what} arrived");
        }
    }
    if let Some(Err(why)) = &report.metrics {
        tracing::warn!(why, "the last totals of the metrics did not arrive");
    }
}

/// The account at the end.
fn report(last: &Status) {
    let seen: u64 = last.events.iter().sum();
    let totals = &last.totals;
    tracing::info!(
        events = seen,
        lost = last.lost(),
        transitions = totals.counts.transitions_sum(),
        opened_client = totals.counts.opened[0],
        opened_server = totals.counts.opened[1],
        folded = totals.folded,
        missed_closes = totals.missed_closes,
        "ended"
    );
}
