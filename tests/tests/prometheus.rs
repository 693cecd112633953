//! What `synfin run --http` answers, before Prometheus' own readers, the kernel's counters, and what OTLP told of the same run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use synfin_tests::{
    deadline, load, need,
    netns::Netns,
    otlp::{Receiver, judge::Judge},
    prometheus::{OPEN_METRICS, Scrape, TEXT, address, get, promtool, scrape, send},
    scenario::{loss, open, reset},
    stage::{Family, Link, Stage},
    synfin::{Synfin, run},
    witness::nstat::Counters,
};

/// Connections of one burst.
const COUNT: u64 = 30;
/// Longest time until everything that happened is told by both ways.
const TELLING: Duration = Duration::from_secs(30);

/// What the linter would have otherwise; the names are OpenTelemetry's.
const LINT: &[&str] = &["should not have \"_count\" suffix"];

/// Both formats are good, and tell what the kernel and OTLP tell; examples lead to spans.
#[test]
fn one_truth_by_both_ways() -> Result<()> {
    let receiver = Receiver::start()?;
    let (near, far) = (Stage::new(Family::V4, Link::Loopback)?, Stage::new(Family::V6, Link::Wire)?);
    let namespaces: Vec<&Netns> = near.namespaces().into_iter().chain(far.namespaces()).collect();
    let before = namespaces.iter().map(|netns| Counters::of(netns)).collect::<Result<Vec<_>>>()?;
    let endpoint = receiver.endpoint();
    let flags = ["--http", "127.0.0.1:0", "--otlp-endpoint", &endpoint];
    // A census soon, so that what the kernel's tables hold is told too.
    let soon = [("SYNFIN_CENSUS_INTERVAL", "5s".to_owned())];
    let mut synfin = Synfin::serve_with(namespaces.iter().copied(), &flags, &soon)?;
    let address = address(&mut synfin)?;

    load::connections(&near, COUNT)?;
    reset::linger_zero(&near)?;
    open::refused(&near)?;
    loss::data(&far)?;

    let growth = |name: &str| -> Result<f64> {
        let pairs = namespaces.iter().zip(&before);
        pairs.map(|(netns, before)| Ok(Counters::of(netns)?.since(before).get(name) as f64)).sum()
    };
    let catalogue = Catalogue::read()?;
    let mut last = Ok(());
    let (open, text) = deadline::within(TELLING, "the same numbers by both ways", || {
        let (open, text) = (scrape(address, OPEN_METRICS)?, scrape(address, TEXT)?);
        last = census(&open)
            .and_then(|()| counters(&open, growth))
            .and_then(|()| counters(&text, growth))
            .and_then(|()| receiver.look(|judge| catalogue.same(judge, &open)));
        Ok(last.is_ok().then_some((open, text)))
    })
    .with_context(|| format!("{last:?}"))?;
    ensure!(open.sum("system_network_tcp_retransmits_total", &[]) > 0.0, "nothing was lost, so nothing was shown");

    let lint = promtool::check(&text)?;
    let odd: Vec<_> = lint.iter().filter(|line| !LINT.iter().any(|known| line.contains(known))).collect();
    ensure!(odd.is_empty(), "promtool would have otherwise: {odd:?}");
    let stored = promtool::store(&open)?;
    ensure!(stored == open.samples.len() as u64, "{stored} of {} series are in the database", open.samples.len());

    receiver.look(|judge| {
        judge.verdict()?;
        target(judge, &open)?;
        exemplars(judge, &open)
    })?;
    ensure!(text.exemplars().next().is_none(), "examples in a format that has none");
    synfin.terminate()?;
    Ok(())
}

/// Without OTLP there are no spans, so no examples; all else is there.
#[test]
fn without_otlp() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let mut synfin = Synfin::serve(stage.namespaces(), &["--http", "[::1]:0"])?;
    let address = address(&mut synfin)?;
    ensure!(address.is_ipv6() && address.port() != 0, "{address}");
    load::connections(&stage, COUNT)?;
    let ended = "system_network_tcp_connection_ended_total";
    let scrape = deadline::within(TELLING, "all connections", || {
        let scrape = scrape(address, OPEN_METRICS)?;
        Ok((scrape.sum(ended, &[]) > 2.0 * COUNT as f64 - 0.5).then_some(scrape))
    })?;
    let count = |name: &str| scrape.sum(&format!("system_network_tcp_{name}_duration_seconds_count"), &[]);
    ensure!((count("handshake") - COUNT as f64).abs() < 0.5, "{} handshakes", count("handshake"));
    ensure!((count("connection") - 2.0 * COUNT as f64).abs() < 0.5, "{} connections", count("connection"));
    ensure!(scrape.exemplars().next().is_none(), "an example without a span");
    ensure!(scrape.samples.iter().all(|sample| !sample.name.starts_with("otel_")), "queues of an export that is off");
    for path in ["/livez", "/readyz"] {
        let answer = get(address, path, "*/*")?;
        ensure!((answer.code, answer.body.as_str()) == (200, "ok\n"), "{path}: {answer:?}");
    }
    synfin.terminate()?;
    ensure!(get(address, "/livez", "*/*").is_err(), "it answers though it has ended");
    Ok(())
}

/// An engine that hangs is told, by a thread that does not hang with it. A debugger's stop holds one thread alone.
#[test]
fn an_engine_that_hangs_is_told() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let mut synfin = Synfin::serve(stage.namespaces(), &["--http", "127.0.0.1:0"])?;
    let address = address(&mut synfin)?;
    ensure!(get(address, "/livez", "*/*")?.code == 200);
    let drain = thread_of(synfin.pid(), "synfin-drain")?;
    ptrace::seize(drain, ptrace::Options::empty())?;
    ptrace::interrupt(drain)?;
    waitpid(drain, Some(WaitPidFlag::__WALL))?;
    let told = deadline::within(TELLING, "a word about the engine", || {
        let answer = get(address, "/livez", "*/*")?;
        Ok((answer.code != 200).then_some(answer))
    })?;
    ensure!(told.code == 503 && told.body.starts_with("the engine stands still"), "{told:?}");
    scrape(address, OPEN_METRICS)?;
    ptrace::detach(drain, None)?;
    deadline::until("a fresh status", || Ok((get(address, "/livez", "*/*")?.code == 200).then_some(())))?;
    synfin.terminate()?;
    Ok(())
}

/// The thread of this name.
fn thread_of(process: u32, name: &str) -> Result<Pid> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?;
        if fs::read_to_string(task.path().join("comm"))?.trim() == name {
            return Ok(Pid::from_raw(task.file_name().to_string_lossy().parse()?));
        }
    }
    bail!("process {process} has no thread {name}")
}

/// Whatever comes in is answered or cut off, and nothing dies.
#[test]
fn bad_requests() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let mut synfin = Synfin::serve(stage.namespaces(), &["--http", "127.0.0.1:0"])?;
    let address = address(&mut synfin)?;
    let huge = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let garbage: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (request, code) in [
        (&b"GET /no/such/path HTTP/1.1\r\nHost: a\r\n\r\n"[..], 404),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\nabc", 405),
        (b"PUT /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405),
        (huge.as_bytes(), 431),
        (&garbage, 400),
        (b"\0\0\0\0\r\n\r\n", 400),
    ] {
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        let answer = send(address, request)?.with_context(|| format!("no answer to {shown:?}"))?;
        ensure!(answer.code == code, "{shown:?}: {answer:?}");
        ensure!(get(address, "/livez", "*/*")?.code == 200, "after {shown:?}");
    }
    // More than are answered at once, none of which says anything.
    let silent = (0..40).map(|_| TcpStream::connect(address)).collect::<Result<Vec<_>, _>>()?;
    ensure!(get(address, "/readyz", "*/*")?.code == 200);
    drop(silent);
    ensure!(synfin.alive()?, "it died");
    synfin.terminate()?;
    Ok(())
}

/// A wrong address is a wrong configuration; one that is taken is a failure that says so.
#[test]
fn addresses() -> Result<()> {
    need::root()?;
    let ended = run(&["run", "--http", "localhost"])?;
    ended.expect(2)?;
    let said = ended.stderr.join("\n");
    ensure!(said.contains("http.listen = localhost (flag --http)") && said.contains("127.0.0.1:9464"), "{said}");

    let taken = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = taken.local_addr()?.to_string();
    let ended = run(&["run", "--http", &address])?;
    ended.expect(1)?;
    let said = ended.stderr.join("\n");
    ensure!(said.contains(&address) && said.contains("another process has it") && said.contains("--http"), "{said}");
    Ok(())
}

/// The kernel's tables: every connection of the load but one end of each is gone.
fn census(scrape: &Scrape) -> Result<()> {
    let waiting = scrape.sum("system_network_connection_count", &[("network_connection_state", "time_wait")]);
    ensure!(waiting > COUNT as f64 - 0.5, "{waiting} sockets in TIME_WAIT after {COUNT} connections");
    Ok(())
}

/// The kernel's counters.
fn counters(scrape: &Scrape, growth: impl Fn(&str) -> Result<f64>) -> Result<()> {
    let sum = |name: &str, labels: &[(&str, &str)]| scrape.sum(&format!("system_network_tcp_{name}_total"), labels);
    let role = |role: &'static str| [("network_tcp_handshake_role", role)];
    for (metric, told, counter) in [
        ("opened by clients", sum("connection_opened", &role("client")), "TcpActiveOpens"),
        ("opened by peers", sum("connection_opened", &role("server")), "TcpPassiveOpens"),
        ("failures", sum("connection_failures", &[]), "TcpAttemptFails"),
        ("retransmits", sum("retransmits", &[]), "TcpRetransSegs"),
        ("resets sent", sum("resets", &[("network_io_direction", "transmit")]), "TcpOutRsts"),
    ] {
        let counted = growth(counter)?;
        ensure!((told - counted).abs() < 0.5, "{metric}: {told} told, {counter} grew by {counted}");
    }
    Ok(())
}

/// The resource is the same by both ways.
fn target(judge: &Judge, scrape: &Scrape) -> Result<()> {
    let target = scrape.of("target_info").next().context("no target_info")?;
    let names: BTreeSet<String> = judge.resource.iter().map(|pair| pair.key.replace('.', "_")).collect();
    let labels: BTreeSet<String> = target.labels.keys().cloned().collect();
    ensure!(names == labels, "{labels:?}, by OTLP {names:?}");
    let instance = synfin_tests::otlp::judge::text(&judge.resource, "service.instance.id");
    ensure!(target.labels.get("service_instance_id").map(String::as_str) == instance, "another instance: {target:?}");
    Ok(())
}

/// Each example is a span that has arrived.
fn exemplars(judge: &Judge, scrape: &Scrape) -> Result<()> {
    let mut count = 0;
    for exemplar in scrape.exemplars() {
        let labels: Vec<&str> = exemplar.labels.keys().map(String::as_str).collect();
        ensure!(labels == ["span_id", "trace_id"], "{exemplar:?}");
        let id = u64::from_str_radix(&exemplar.labels["span_id"], 16)?.to_be_bytes();
        let trace = u128::from_str_radix(&exemplar.labels["trace_id"], 16)?.to_be_bytes();
        let span = judge.spans.iter().find(|span| span.span_id == id);
        let span = span.with_context(|| format!("no span arrived for {exemplar:?}"))?;
        ensure!(span.trace_id == trace, "{exemplar:?} in another trace: {span:?}");
        let ended = span.end_time_unix_nano as f64 / 1e9;
        ensure!((ended - exemplar.time).abs() < 0.01, "{exemplar:?} of a span that ended at {ended}");
        count += 1;
    }
    ensure!(count >= 3, "{count} examples: of handshakes, and of both ends of connections");
    Ok(())
}

/// docs/METRICS.md: which name is which.
struct Catalogue(Vec<Row>);

struct Row {
    otlp: String,
    prometheus: String,
    instrument: String,
}

/// Totals that move on without any traffic.
const RESTLESS: &[&str] = &[
    "otel.sdk.exporter.metric_data_point.exported",
    "process.cpu.time",
    "synfin.census.cpu.time",
    "synfin.drain.cpu.time",
];

impl Catalogue {
    fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let rows: Vec<Row> = text.lines().filter(|line| line.starts_with("| `")).filter_map(Row::parse).collect();
        ensure!(rows.len() > 40, "{} rows in {}", rows.len(), path.display());
        Ok(Self(rows))
    }

    /// Every total of one way is one of the other, with the same value.
    fn same(&self, judge: &Judge, scrape: &Scrape) -> Result<()> {
        judge.verdict()?;
        let told: BTreeSet<&str> = judge.series.names().collect();
        for row in self.0.iter().filter(|row| !RESTLESS.contains(&row.otlp.as_str())) {
            let Row { otlp, prometheus, instrument } = row;
            let histogram = instrument == "Histogram";
            let series = if histogram { format!("{prometheus}_count") } else { prometheus.clone() };
            let there = scrape.of(&series).next().is_some();
            ensure!(there == told.contains(otlp.as_str()), "{otlp} is told by one way alone");
            if !histogram && instrument != "Counter" {
                continue;
            }
            let labels = |attributes: &BTreeMap<String, String>| -> BTreeMap<String, String> {
                attributes.iter().map(|(key, value)| (key.replace('.', "_"), value.clone())).collect()
            };
            let by_otlp: BTreeMap<_, _> =
                judge.series.points(otlp).map(|point| (labels(&point.attributes), point)).collect();
            let count = scrape.of(&series).count();
            ensure!(count == by_otlp.len(), "{otlp}: {count} series, {} by OTLP", by_otlp.len());
            for sample in scrape.of(&series) {
                let point = by_otlp.get(&sample.labels).with_context(|| format!("by OTLP there is no {sample:?}"))?;
                ensure!((point.value - sample.value).abs() < 1e-9, "{sample:?}, by OTLP {}", point.value);
                if histogram {
                    let mut sum = 0;
                    let added: Vec<f64> = point
                        .buckets
                        .iter()
                        .map(|count| {
                            sum += count;
                            sum as f64
                        })
                        .collect();
                    let buckets = scrape.buckets(prometheus, &sample.labels)?;
                    let buckets: Vec<f64> = buckets.iter().map(|(_, sample)| sample.value).collect();
                    ensure!(buckets == added, "{otlp}: {buckets:?}, by OTLP {added:?}");
                }
            }
        }
        Ok(())
    }
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned());
        Some(Self { otlp: cells.next()?, prometheus: cells.next()?, instrument: cells.next()? })
    }
}
