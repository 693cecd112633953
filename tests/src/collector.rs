//! OpenTelemetry's Collector: takes OTLP as any backend's owner takes it, says how much it took, and passes it on to the judge.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;

use crate::{deadline, http, lines::Lines, need};

const PROGRAM: &str = "otelcol";

/// Where `cargo xtask setup --tests` leads to the program that it built.
const BUILT: &str = "../target/tools/otelcol";

/// What it writes when all its parts have started.
const READY: &str = "Everything is ready.";

/// What it writes of what it took and cannot pass on.
const DROPPING: &str = "Dropping data";

/// Where it passes on what it took.
#[derive(Clone, Copy, Debug)]
pub struct Onward<'a> {
    /// The judge, by gRPC.
    pub judge: &'a str,
    /// A backend of metrics beside it, by HTTP: the whole URL.
    pub metrics: Option<&'a str>,
    /// Whether it writes out, field by field, all that it took.
    pub detailed: bool,
}

/// A collector on loopback ports of its own, which it keeps while it is stopped; it ends when it is dropped.
#[derive(Debug)]
pub struct Collector {
    run: Option<Run>,
    folder: TempDir,
    grpc: Port,
    http: Port,
    own: Port,
}

#[derive(Debug)]
struct Run {
    child: Child,
    /// Its log.
    said: Lines,
    /// What it took, if it is to write that.
    told: Lines,
}

/// A port that nobody else gets: bound and not listening, beside which the collector may bind and listen.
#[derive(Debug)]
struct Port {
    address: SocketAddr,
    _reserved: Socket,
}

impl Port {
    fn reserve() -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?; // as Go's listeners have it
        socket.bind(&address.into())?;
        let address = socket.local_addr()?.as_socket().context("an address of IP")?;
        Ok(Self { address, _reserved: socket })
    }
}

impl Collector {
    /// Starts one, once it has found its configuration valid, and waits until it takes what is sent.
    pub fn start(onward: Onward<'_>) -> Result<Self> {
        let (grpc, http, own) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
        let mut collector = Self { run: None, folder: TempDir::new()?, grpc, http, own };
        fs::write(collector.config(), collector.yaml(onward))?;
        need::run(Command::new(program()?).arg("validate").arg("--config").arg(collector.config()))?;
        collector.go_on()?;
        Ok(collector)
    }

    /// Starts it again, as one that knows nothing of before, on the same ports.
    pub fn go_on(&mut self) -> Result<()> {
        ensure!(self.run.is_none(), "it runs already");
        let mut command = Command::new(program()?);
        command.arg("--config").arg(self.config());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let said = Lines::read(child.stderr.take().context("stderr was piped")?);
        let told = Lines::read(child.stdout.take().context("stdout was piped")?);
        let run = self.run.insert(Run { child, said, told });
        deadline::until("the collector to be ready", || {
            if let Some(status) = run.child.try_wait()? {
                bail!("the collector ended with {status}");
            }
            Ok(run.said.find(|line| line.contains(READY)).map(drop))
        })
        .with_context(|| format!("it says:\n{}", run.said.all().join("\n")))
    }

    /// Ends it as a service manager would: it answers what it was asked, and passes on what it has. Gives what it wrote of what it took.
    pub fn stop(&mut self) -> Result<Vec<String>> {
        let mut run = self.run.take().context("it does not run")?;
        run.end().with_context(|| format!("it says:\n{}", run.said.all().join("\n")))
    }

    /// The URL for gRPC.
    pub fn grpc(&self) -> String {
        format!("http://{}", self.grpc.address)
    }

    /// The URL for HTTP.
    pub fn http(&self) -> String {
        format!("http://{}", self.http.address)
    }

    /// What it counts of itself, now and since it started.
    pub fn counts(&self) -> Result<Counts> {
        Counts::parse(&http::get(self.own.address, "/metrics")?)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("otelcol.yaml")
    }

    /// As people set it up, with batches that no receiver of gRPC finds too large (4 MiB). But for ports, waits that are short where the test
    /// waits and long where the judge is slow, and a queue in the order of arrival: the judge wants points of a metric in the order of time.
    fn yaml(&self, onward: Onward<'_>) -> String {
        let Self { grpc, http, own, .. } = self;
        let (grpc, http, ip, port) = (grpc.address, http.address, own.address.ip(), own.address.port());
        let verbosity = if onward.detailed { "detailed" } else { "basic" };
        let judge = onward.judge.trim_start_matches("http://");
        let (exporter, beside) = match onward.metrics {
            Some(url) => (format!("otlphttp/metrics: {{ metrics_endpoint: \"{url}\" }}"), ", otlphttp/metrics"),
            None => Default::default(),
        };
        format!(
            "receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: \"{grpc}\" }}
      http: {{ endpoint: \"{http}\" }}
processors:
  memory_limiter: {{ check_interval: 1s, limit_mib: 512 }}
  batch: {{ timeout: 100ms, send_batch_size: 512, send_batch_max_size: 1024 }}
exporters:
  debug: {{ verbosity: {verbosity}, use_internal_logger: false }}
  otlp/judge: {{ endpoint: \"{judge}\", tls: {{ insecure: true }}, timeout: 60s, sending_queue: {{ num_consumers: 1 }} }}
  {exporter}
service:
  telemetry:
    metrics:
      readers: [{{ pull: {{ exporter: {{ prometheus: {{ host: \"{ip}\", port: {port} }} }} }} }}]
  pipelines:
    traces: {{ receivers: [otlp], processors: [memory_limiter, batch], exporters: [debug, otlp/judge] }}
    logs: {{ receivers: [otlp], processors: [memory_limiter, batch], exporters: [debug, otlp/judge] }}
    metrics: {{ receivers: [otlp], processors: [memory_limiter, batch], exporters: [debug, otlp/judge{beside}] }}
"
        )
    }
}

impl Run {
    fn end(&mut self) -> Result<Vec<String>> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        let status = deadline::until("the collector to end", || Ok(self.child.try_wait()?))?;
        ensure!(status.success(), "it ended with {status}");
        self.said.finish()?;
        let dropped = self.said.find(|line| line.contains(DROPPING));
        ensure!(dropped.is_none(), "it took what it did not pass on: {dropped:?}");
        self.told.finish()?;
        Ok(self.told.all())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Not after wait(): the pid may be another's by then.
        if let Ok(None) = self.child.try_wait() {
            kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL).ok();
            self.child.wait().ok();
        }
    }
}

/// How its counters of what it did not take begin, or took and did not pass on.
const LOSSES: [&str; 5] = [
    "receiver_refused_",
    "receiver_failed_",
    "processor_refused_",
    "exporter_send_failed_",
    "exporter_enqueue_failed_",
];

/// What the collector counts: items (`spans`, `metric_points`, `log_records`) by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken, by items and transport (`grpc`, `http`).
    pub accepted: BTreeMap<(String, String), u64>,
    /// All that it did not take, or took and could not pass on.
    pub refused: u64,
}

impl Counts {
    /// Reads its metrics: `otelcol_receiver_accepted_spans_total{receiver="otlp",transport="grpc"} 12`.
    fn parse(text: &str) -> Result<Self> {
        let mut counts = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').with_context(|| format!("no value in {line:?}"))?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let Some(name) = name.strip_prefix("otelcol_") else { continue };
            if let Some(items) = name.strip_prefix("receiver_accepted_") {
                let transport = labels.split_once("transport=\"").and_then(|(_, rest)| rest.split('"').next());
                let transport = transport.with_context(|| format!("no transport in {line:?}"))?;
                // Older releases have no `_total`.
                let place = (items.trim_end_matches("_total").to_owned(), transport.to_owned());
                *counts.accepted.entry(place).or_default() += number(value)?;
            } else if LOSSES.iter().any(|loss| name.starts_with(loss)) {
                counts.refused += number(value)?;
            }
        }
        Ok(counts)
    }

    /// Items taken, by whichever transport.
    pub fn accepted(&self, items: &str) -> u64 {
        self.accepted.iter().filter(|((name, _), _)| name == items).map(|(_, count)| count).sum()
    }
}

/// A counter, which large ones write with an exponent.
#[expect(clippy::cast_sign_loss, reason = "counters, far below where a float could not hold them")]
fn number(value: &str) -> Result<u64> {
    Ok(value.parse::<f64>().with_context(|| format!("the value {value:?}"))? as u64)
}

/// The program: on the PATH, else where it was built.
fn program() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(BUILT);
    let all = env::split_paths(&path).map(|folder| folder.join(PROGRAM)).chain([built]);
    all.into_iter().find(|program| program.is_file()).with_context(|| {
        format!(
            "needs the program `{PROGRAM}` (OpenTelemetry's Collector), which is neither on the PATH nor at target/tools: \
             `cargo xtask setup --tests` builds it"
        )
    })
}
