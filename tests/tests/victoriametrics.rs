//! A real backend: VictoriaMetrics takes the metrics and answers in PromQL what the kernel's own tools say.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use synfin_tests::{
    deadline, load,
    netns::Netns,
    scenario::{open, reset},
    sock, ss,
    stage::{Family, Link, Stage},
    synfin::Synfin,
    victoria_metrics::VictoriaMetrics,
    witness::nstat::Counters,
};

/// Connections that come and go, and those that stay.
const ENDED: u64 = 40;
const OPEN: usize = 25;
const HALF_CLOSED: usize = 10;

/// A census, an export, and the seconds after which the server finds a point.
const SOON: Duration = Duration::from_secs(40);

/// The bounds that docs/METRICS.md gives, in seconds, as the labels of buckets.
const HANDSHAKE_BOUNDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];

#[test]
fn promql_says_what_the_kernel_says() -> Result<()> {
    let server = VictoriaMetrics::start()?;
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let netns = &stage.client.netns;
    let before = Counters::by_nstat(netns)?;
    let variables = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", server.metrics_endpoint()),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.node.name=node-7".to_owned()),
        ("SYNFIN_CENSUS_INTERVAL", "5s".to_owned()),
    ];
    let synfin = Synfin::serve_with(stage.namespaces(), &[], &variables)?;

    load::connections(&stage, ENDED)?;
    reset::linger_zero(&stage)?;
    open::refused(&stage)?;
    let (listener, address) = sock::listen(&stage.server, 128)?;
    let pair = || Ok((sock::connect(&stage.client, address)?, sock::accept(&listener)?));
    let open = (0..OPEN).map(|_| pair()).collect::<Result<Vec<_>>>()?;
    // The clients close, the servers do not.
    let half_closed = (0..HALF_CLOSED).map(|_| Ok(pair()?.1)).collect::<Result<Vec<_>>>()?;

    agrees("the states of ss", || {
        let told = by_label(&server, "sum", "system.network.connection.count", "network.connection.state")?;
        Ok((told, states(netns)?))
    })?;
    totals(&server, netns, &before)?;

    drop((open, half_closed, listener));
    stage.await_quiet()?;
    synfin.terminate()?;
    // The last export is made at the end.
    totals(&server, netns, &before)?;
    handshakes(&server, netns, &before)?;
    resource(&server)
}

/// Counters by role and in all, against nstat.
fn totals(server: &VictoriaMetrics, netns: &Netns, before: &Counters) -> Result<()> {
    let growth = Counters::by_nstat(netns)?.since(before);
    let counter = |name: &str| growth.get(name) as f64;
    let made = (1 + ENDED + 1 + (OPEN + HALF_CLOSED) as u64) as f64;
    ensure!(same(counter("TcpActiveOpens"), made), "nstat counts {}, {made} were made", counter("TcpActiveOpens"));
    agrees("connections opened, by role", || {
        let told = by_label(server, "sum", "system.network.tcp.connection.opened", "network.tcp.handshake.role")?;
        let kernel = [("client", "TcpActiveOpens"), ("server", "TcpPassiveOpens")];
        Ok((told, kernel.map(|(role, name)| (role.to_owned(), counter(name))).into()))
    })?;
    let cut = r#"{__name__="system.network.tcp.connection.transitions","network.tcp.state.previous"=~"established|close_wait","network.connection.state"="closed"}"#;
    for (query, name) in [
        (r#"{__name__="system.network.tcp.connection.failures"}"#, "TcpAttemptFails"),
        (r#"{__name__="system.network.tcp.resets","network.io.direction"="transmit"}"#, "TcpOutRsts"),
        (cut, "TcpEstabResets"),
    ] {
        agrees(name, || {
            let told = server.value(&format!("sum({query})"))?;
            let one = |value: Option<f64>| value.map(|value| (name.to_owned(), value)).into_iter().collect();
            Ok((one(told), one(Some(counter(name)))))
        })?;
    }
    Ok(())
}

/// The histogram of handshakes: each bound has a bucket, they add up to the connections that ended, and a quantile can be had.
fn handshakes(server: &VictoriaMetrics, netns: &Netns, before: &Counters) -> Result<()> {
    let growth = Counters::by_nstat(netns)?.since(before);
    let shaken = (growth.get("TcpActiveOpens") - growth.get("TcpAttemptFails")) as f64;
    let metric = "system.network.tcp.handshake.duration";
    let buckets = || by_label(server, "sum", &format!("{metric}_bucket"), "le");
    agrees("all handshakes in the buckets", || {
        let all = buckets()?.remove_entry("+Inf").into_iter().collect();
        Ok((all, [("+Inf".to_owned(), shaken)].into()))
    })?;
    let buckets = buckets()?;
    let mut bounds: Vec<(f64, f64)> =
        buckets.iter().map(|(le, count)| Ok((le.replace('+', "").parse()?, *count))).collect::<Result<_>>()?;
    bounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    ensure!(bounds.is_sorted_by_key(|(_, count)| *count), "buckets are cumulative: {bounds:?}");
    let (found, wanted) = (bounds.iter().map(|(le, _)| *le), HANDSHAKE_BOUNDS.into_iter().chain([f64::INFINITY]));
    ensure!(found.eq(wanted), "{bounds:?}");

    let value = |query: &str| server.value(query)?.with_context(|| format!("{query} has no answer"));
    let count = value(&format!(r#"sum({{__name__="{metric}_count"}})"#))?;
    ensure!(same(count, shaken), "{count} handshakes, {shaken} by nstat");
    let sum = value(&format!(r#"sum({{__name__="{metric}_sum"}})"#))?;
    ensure!(sum > 0.0 && sum < count, "{count} handshakes on loopback took {sum} s");
    let quantile = value(&format!(r#"histogram_quantile(0.5, sum({{__name__="{metric}_bucket"}}) by (le))"#))?;
    ensure!(quantile > 0.0 && quantile < 1.0, "half of the handshakes took at most {quantile} s");
    Ok(())
}

/// What describes the agent is on every series.
fn resource(server: &VictoriaMetrics) -> Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let series = server.query(r#"{__name__=~"(system|synfin|process|otel)\\..*"}"#)?;
    ensure!(series.len() > 20, "{} series", series.len());
    for (labels, _) in series {
        for (name, value) in [("service.name", "synfin"), ("k8s.node.name", "node-7"), ("host.name", host.trim())] {
            ensure!(labels.get(name).is_some_and(|label| label == value), "{name} is not {value}: {labels:?}");
        }
    }
    Ok(())
}

/// Sockets by state, without those that are none.
fn states(netns: &Netns) -> Result<BTreeMap<String, f64>> {
    let mut states = BTreeMap::new();
    for row in ss::all(netns)? {
        *states.entry(row.state.name().to_owned()).or_default() += 1.0;
    }
    Ok(states)
}

/// An aggregate of a metric by one of its labels; what is zero is left out.
fn by_label(server: &VictoriaMetrics, aggregate: &str, metric: &str, label: &str) -> Result<BTreeMap<String, f64>> {
    // MetricsQL wants dots in names escaped outside of quotes.
    let by = label.replace('.', r"\.");
    let series = server.query(&format!(r#"{aggregate}({{__name__="{metric}"}}) by ({by})"#))?;
    let values = series.into_iter().map(|(labels, value)| {
        let label = labels.get(label).with_context(|| format!("no {label}: {labels:?}"))?;
        Ok((label.clone(), value))
    });
    let values: BTreeMap<_, _> = values.collect::<Result<_>>()?;
    Ok(values.into_iter().filter(|(label, value)| *value > 0.0 || label == "+Inf").collect())
}

/// Waits until both sides say the same.
fn agrees(what: &str, mut sides: impl FnMut() -> Result<(BTreeMap<String, f64>, BTreeMap<String, f64>)>) -> Result<()> {
    let mut last = None;
    deadline::within(SOON, what, || {
        let (told, kernel) = sides()?;
        let agree = told.len() == kernel.len()
            && told.iter().zip(&kernel).all(|(told, kernel)| told.0 == kernel.0 && same(*told.1, *kernel.1));
        last = Some((told, kernel));
        Ok(agree.then_some(()))
    })
    .with_context(|| format!("the backend tells the left, the kernel the right: {last:?}"))
}

/// Both are whole numbers, far below where a float could not hold them.
fn same(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.5
}
