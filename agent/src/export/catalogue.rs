//! Every metric of synfin, as a plain table: OTLP's instruments and Prometheus' families are made from it, and
//! docs/METRICS.md is written from it.
//!
//! Names are standard ones where there are any, then those of the open proposal for `system.network.tcp.*`
//! (open-telemetry/semantic-conventions#3682), then ours in the same style. Units are UCUM. A name contains neither its
//! unit nor `total`: Prometheus adds them. No attribute has values without a bound ([`KEYS`]): peers, ports and owners are the busiest ones,
//! and what exceeds the budget of series is added up.

mod markdown;

pub use markdown::markdown;

use super::readings as read;
use super::readings::{Histograms, Points, View, census};
use crate::distribution::{CONNECTION_BOUNDS, HANDSHAKE_BOUNDS, RTT_BOUNDS, STATE_BOUNDS};
use crate::event::{Cause, EventKind, State};
use crate::ledger::{End, Role};

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name.
    pub name: &'static str,
    /// Unit (UCUM).
    pub unit: &'static str,
    /// What it counts, for people.
    pub description: &'static str,
    /// Keys of its attributes.
    pub attributes: &'static [&'static str],
    /// Kind of instrument, with where its values come from.
    pub instrument: Instrument,
    /// Whom it is told of.
    pub scope: Scope,
}

/// Whom a metric is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The host, or the agent itself.
    Host,
    /// Each owner of connections in its own resource, and the host for what belongs to none: the sum over them is the host's.
    Owners,
}

impl Scope {
    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Owners => "owners",
        }
    }
}

impl Metric {
    /// This one, of each owner.
    const fn of_owners(self) -> Self {
        Self { scope: Scope::Owners, ..self }
    }
}

/// Kinds of instruments. They read the latest status when asked; totals are exact whatever happened to the exports before.
#[derive(Clone, Copy, Debug)]
pub enum Instrument {
    /// A total of things.
    Counter(fn(&View<'_>, &mut Points<'_, u64>)),
    /// A total of time or other fractions.
    CounterFloat(fn(&View<'_>, &mut Points<'_, f64>)),
    /// An amount that adds up over attributes and agents.
    UpDownCounter(fn(&View<'_>, &mut Points<'_, i64>)),
    /// A value that does not add up.
    Gauge(fn(&View<'_>, &mut Points<'_, f64>)),
    /// A distribution with these bounds, one value for each ended connection.
    Histogram(&'static [f64], fn(&View<'_>, &mut Histograms<'_>)),
}

impl Instrument {
    /// Name of the kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter(_) | Self::CounterFloat(_) => "Counter",
            Self::UpDownCounter(_) => "UpDownCounter",
            Self::Gauge(_) => "Gauge",
            Self::Histogram(..) => "Histogram",
        }
    }
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    attributes: &'static [&'static str],
    read: fn(&View<'_>, &mut Points<'_, u64>),
    description: &'static str,
) -> Metric {
    Metric { name, unit, description, attributes, instrument: Instrument::Counter(read), scope: Scope::Host }
}

const fn counter_float(
    name: &'static str,
    unit: &'static str,
    attributes: &'static [&'static str],
    read: fn(&View<'_>, &mut Points<'_, f64>),
    description: &'static str,
) -> Metric {
    Metric { name, unit, description, attributes, instrument: Instrument::CounterFloat(read), scope: Scope::Host }
}

const fn up_down(
    name: &'static str,
    unit: &'static str,
    attributes: &'static [&'static str],
    read: fn(&View<'_>, &mut Points<'_, i64>),
    description: &'static str,
) -> Metric {
    Metric { name, unit, description, attributes, instrument: Instrument::UpDownCounter(read), scope: Scope::Host }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    attributes: &'static [&'static str],
    read: fn(&View<'_>, &mut Points<'_, f64>),
    description: &'static str,
) -> Metric {
    Metric { name, unit, description, attributes, instrument: Instrument::Gauge(read), scope: Scope::Host }
}

const fn histogram(
    name: &'static str,
    attributes: &'static [&'static str],
    bounds: &'static [f64],
    read: fn(&View<'_>, &mut Histograms<'_>),
    description: &'static str,
) -> Metric {
    Metric {
        name,
        unit: "s",
        description,
        attributes,
        instrument: Instrument::Histogram(bounds, read),
        scope: Scope::Host,
    }
}

/// The catalogue, in the order of the document.
#[rustfmt::skip] // a table: one metric, its row
pub const CATALOGUE: &[Metric] = &[
    // Connections of the host.
    counter("system.network.tcp.connection.transitions", "{transition}",
        &["network.tcp.state.previous", "network.connection.state"], read::transitions,
        "Changes of state of TCP sockets, as the kernel reported them.").of_owners(),
    counter("system.network.tcp.connection.opened", "{connection}",
        &["network.tcp.handshake.role"], read::opened,
        "Connections begun: SYN sent (client), or handshake completed by a peer (server).").of_owners(),
    counter("system.network.tcp.connection.successes", "{connection}",
        &["network.tcp.handshake.role"], read::successes,
        "Handshakes completed.").of_owners(),
    counter("system.network.tcp.connection.failures", "{connection}",
        &["network.tcp.handshake.role", "error.type"], read::failures,
        "Handshakes that failed.").of_owners(),
    counter("system.network.tcp.connection.ended", "{connection}",
        &["network.connection.end"], read::ended,
        "Connections that ended, by how.").of_owners(),
    histogram("system.network.tcp.handshake.duration", &["network.tcp.handshake.role"], HANDSHAKE_BOUNDS, read::handshakes,
        "Time from SYN sent to established, of connections that ended. Clients only: no event shows when a server's began.").of_owners(),
    histogram("system.network.tcp.connection.duration", &["network.tcp.handshake.role", "network.connection.end"], CONNECTION_BOUNDS, read::connections,
        "Time from the first event of a connection to its end, where both were seen.").of_owners(),
    histogram("system.network.tcp.state.duration", &["network.connection.state"], STATE_BOUNDS, read::states,
        "Time that sockets spent in a state, when they left it, where both moments were seen. In TIME_WAIT, and in FIN_WAIT_2 without \
         a holder, they are minisocks, of which no event tells.").of_owners(),
    histogram("system.network.tcp.rtt.duration", &["network.tcp.handshake.role"], RTT_BOUNDS, read::round_trips,
        "Smoothed round-trip time (RFC 6298) at the end of a connection, where the kernel had a sample.").of_owners(),
    gauge("system.network.tcp.close_wait.age", "s", &[], read::close_wait_age,
        "How long the oldest connection has been in CLOSE_WAIT, 0 for none: its peer has closed, and the application has not. As of the last \
         twenty seconds; of one that is older than the agent, since when it has been quiet.").of_owners(),
    counter("system.network.tcp.io", "By", &["network.io.direction"], read::io,
        "Bytes that connections carried, each once however often it was sent, as of the last event of a socket or the last listing \
         (five minutes at most).").of_owners(),
    counter("system.network.tcp.retransmits", "{segment}",
        &["network.tcp.segment.type", "network.tcp.retransmit.type"], read::retransmits,
        "Segments sent again, counted as the kernel's RetransSegs, by what and why: `timeout` (congestion control in the state Loss: \
         the timer ran out, or the path's MTU was too large, and all that was declared lost then), `fast` (TCPFastRetrans), `tail_loss_probe`; \
         absent where the kernel's types are not known. That one was spurious the kernel learns later, of the peer, and tells of no segment.").of_owners(),
    counter("system.network.tcp.resets", "{reset}",
        &["network.io.direction", "network.tcp.reset.reason", "synfin.reset.socket"], read::resets,
        "RSTs. Those sent include answers to segments that belong to no socket (`synfin.reset.socket` false), so that \
         their sum is the kernel's OutRsts. The reason is the kernel's, for sent ones, where it gives one.").of_owners(),
    counter("system.network.tcp.time_wait.entered", "{connection}",
        &["network.tcp.close.first"], read::time_wait,
        "Connections that went into TIME_WAIT on this host, by who closed first; without the attribute where that was not seen.").of_owners(),
    counter("system.network.tcp.time_wait.reused", "{connection}", &[], census::time_wait_reused,
        "TIME_WAIT sockets whose place a new connection from this host has taken, by the kernel's TWRecycled of each namespace."),
    counter("system.network.tcp.time_wait.ended", "{connection}", &[], census::time_wait_ended,
        "Minisocks (TIME_WAIT, and FIN_WAIT_2 without a holder) that went in another way: their time was over, the peer connected anew, \
         their namespace went. By the kernel's TW and TWKilled and what is still there; the kernel does not keep who closed first. \
         Up to Linux 5.15 only those whose time was over or whose namespace went; absent on 5.16 to 6.0, whose counters were not looked at."),
    // Peers of connections that ended.
    counter("system.network.tcp.peer.connection.ended", "{connection}", &["network.peer.group", "network.connection.end"], read::peer_ended,
        "Connections that ended, by peer: the busiest ones by address (`metrics.peers`), or networks (`metrics.peer_groups`), and `other` \
         for the rest. The sum over all is `system.network.tcp.connection.ended`."),
    counter("system.network.tcp.peer.retransmits", "{segment}", &["network.peer.group"], read::peer_retransmits,
        "Segments that connections had sent again when they ended."),
    counter("system.network.tcp.peer.io", "By", &["network.peer.group", "network.io.direction"], read::peer_io,
        "Bytes that connections had carried when they ended, each once however often it was sent; of one that is older than the agent all of its \
         life's, which `system.network.tcp.io` leaves out."),
    histogram("system.network.tcp.peer.rtt.duration", &["network.peer.group"], RTT_BOUNDS, read::peer_round_trips,
        "Smoothed round-trip time (RFC 6298) of connections at their end."),
    // The kernel's own tables (census).
    up_down("system.network.connection.count", "{connection}",
        &["network.transport", "network.connection.state", "network.type", "linux.netns.inode", "linux.cgroup.id"],
        census::connections,
        "TCP sockets by state, as the kernel's tables had them at the last census, TIME_WAIT, half-open ones and listeners included. \
         The 80 largest pairs of namespace and cgroup have rows of their own, the others are added up without them. Minisocks \
         have no cgroup.").of_owners(),
    up_down("system.network.tcp.queue.usage", "By",
        &["network.io.direction", "linux.netns.inode", "linux.cgroup.id"], census::queues,
        "Bytes in the queues of sockets: received and not read, or written and not acknowledged.").of_owners(),
    up_down("system.network.tcp.accept_queue.usage", "{connection}",
        &["linux.netns.inode", "network.local.port"], census::accept_queue,
        "Connections that wait for accept(). The 500 busiest listeners have rows of their own, the others are added up.").of_owners(),
    up_down("system.network.tcp.accept_queue.limit", "{connection}",
        &["linux.netns.inode", "network.local.port"], census::accept_limit,
        "Connections that may wait for accept().").of_owners(),
    up_down("system.network.tcp.half_open.count", "{connection}",
        &["linux.netns.inode", "network.local.port"], census::half_open,
        "Half-open connections of a listener, by its own account.").of_owners(),
    gauge("system.network.tcp.half_open.age", "s",
        &["linux.netns.inode", "network.local.port"], census::oldest,
        "Age of the oldest half-open connection of a listener; none without any.").of_owners(),
    up_down("system.network.tcp.ephemeral_port.usage", "{port}", &["linux.netns.inode"], census::ephemeral_usage,
        "Ports of the kernel's choice (`net.ipv4.ip_local_port_range` without `ip_local_reserved_ports`) that TCP sockets have in any state, \
         TIME_WAIT and listeners included, whatever filters leave out; one that several connections share counts once. The 500 \
         fullest namespaces have rows of their own, the others are added up."),
    up_down("system.network.tcp.ephemeral_port.limit", "{port}", &["linux.netns.inode"], census::ephemeral_limit,
        "How many such ports a namespace has. Of namespaces whose settings cannot be read there is neither."),
    gauge("system.network.tcp.ephemeral_port.utilization", "1", &["linux.netns.inode"], census::ephemeral_utilization,
        "What part of them is taken, in the 500 fullest namespaces. At 1 a new connection can at best share the port of those \
         that go to other destinations."),
    // synfin itself.
    gauge("synfin.census.age", "s", &[], census::age,
        "Time since the last census began. Quiet namespaces in it may have been walked before."),
    counter_float("synfin.census.cpu.time", "s", &[], census::cpu,
        "CPU time of the walks, part of `process.cpu.time`."),
    up_down("synfin.census.namespaces", "{namespace}", &[], census::namespaces,
        "Network namespaces in the last census."),
    up_down("synfin.census.uncounted", "{item}", &["synfin.uncounted.reason"], census::uncounted,
        "What the last census could not tell: sockets beyond the room for groups (`group`), listeners beyond theirs \
         (`listener`), sockets of an unknown kind (`unreadable`), namespaces that could not be walked (`namespace`), \
         processes whose namespace the agent may not ask for (`process`)."),
    counter("synfin.ledger.found_at_start", "{socket}", &[], census::found_at_start,
        "Sockets that were there before the agent: their age is not known."),
    counter("synfin.events", "{event}", &["synfin.event.kind"], read::events,
        "Events read from the kernel."),
    counter("synfin.events.lost", "{event}", &["synfin.loss.reason", "synfin.event.kind"], read::losses,
        "Events that could not be told, by cause. The kind is absent where it is unknown."),
    up_down("synfin.ledger.connections", "{connection}", &["network.connection.state"], read::tracked,
        "Sockets in the ledger, by state: those of which an event was seen. Not the kernel's own count."),
    up_down("synfin.ledger.limit", "{connection}", &[], read::ledger_limit,
        "Sockets that the ledger may hold."),
    counter("synfin.ledger.corrections", "{correction}", &["synfin.correction.kind"], read::corrections,
        "Where the ledger had to be corrected: `unknown` (a connection whose beginning was not seen), `adopted` (found by a census, its events were lost), \
         `stale_state` (found by a census in another state), `missed_close` (gone without a close), `gap` (a transition that does not follow from the last), `folded` (pushed out of a full \
         ledger)."),
    up_down("synfin.ring.usage", "By", &[], read::ring_usage,
        "Bytes that waited in the kernel's ring when it was last read."),
    up_down("synfin.ring.size", "By", &[], read::ring_size,
        "Size of the kernel's ring."),
    gauge("synfin.lag", "s", &[], read::lag,
        "Age of the oldest event when the ring was last read."),
    counter_float("synfin.bpf.program.run_time", "s", &["synfin.probe"], read::program_time,
        "Time spent in an eBPF program, while the kernel measures it (`kernel.bpf_stats_enabled`)."),
    counter("synfin.bpf.program.runs", "{run}", &["synfin.probe"], read::program_runs,
        "Runs of an eBPF program, while the kernel counts them (`kernel.bpf_stats_enabled`)."),
    counter("synfin.bpf.program.recursion_misses", "{run}", &["synfin.probe"], read::program_misses,
        "Runs that the kernel skipped because the program was already running on that CPU."),
    gauge("synfin.probe.status", "1", &["synfin.probe", "synfin.probe.verdict", "synfin.probe.rung"], read::probes,
        "1 for the present verdict about a probe: `active`, `unsupported`, `broken`, `disabled`. The rung of an active \
         one is how it is attached: `tp_btf`, `raw_tracepoint`, `tracepoint`."),
    gauge("synfin.health.status", "1", &["synfin.health"], read::health,
        "1 for what the verdicts add up to: `healthy`, `degraded` (a probe is missing that is not required, or one tells \
         only a part), `failed`."),
    counter("synfin.owners.unresolved", "{cgroup}", &[], read::owners_unresolved,
        "Cgroups that were gone, or out of sight, before their owner could be found out: their connections are told as the host's."),
    counter("synfin.clock.jumps", "{jump}", &[], read::clock_jumps,
        "Jumps of the wall clock against the monotonic one."),
    up_down("synfin.filter.missing_namespaces", "{namespace}", &[], read::missing_namespaces,
        "Network namespaces of the filter that do not exist."),
    counter("synfin.spans.sampled_out", "{span}", &["synfin.sampling.reason"], read::sampled_out,
        "Spans that sampling left out: by `otlp.trace_sample_ratio` (`ratio`), or of the others by `otlp.trace_rate_limit` (`rate_limit`)."),
    // Export.
    up_down("synfin.spans.queue.usage", "By", &[], read::span_queue_memory,
        "Memory of the spans that wait for export, those being sent included."),
    up_down("otel.sdk.processor.span.queue.size", "{span}", &["otel.component.type"], read::span_queue_size,
        "Spans that wait for export, those being sent included."),
    up_down("otel.sdk.processor.span.queue.capacity", "{span}", &["otel.component.type"], read::span_queue_capacity,
        "Spans that may wait for export."),
    counter("otel.sdk.processor.span.processed", "{span}", &["otel.component.type", "error.type"],
        read::spans_processed,
        "Spans that left the queue: to the exporter, or lost with `error.type` `queue_full`, `expired` or `shutdown`."),
    counter("otel.sdk.exporter.span.exported", "{span}", &["otel.component.type", "error.type"],
        read::spans_exported,
        "Spans that the endpoint took, or refused for good with `error.type` `rejected`."),
    up_down("otel.sdk.exporter.span.inflight", "{span}", &["otel.component.type"], read::spans_in_flight,
        "Spans that are being sent."),
    up_down("otel.sdk.processor.log.queue.size", "{log_record}", &["otel.component.type"], read::log_queue_size,
        "Log records that wait for export, those being sent included."),
    up_down("otel.sdk.processor.log.queue.capacity", "{log_record}", &["otel.component.type"],
        read::log_queue_capacity,
        "Log records that may wait for export."),
    counter("otel.sdk.processor.log.processed", "{log_record}", &["otel.component.type", "error.type"],
        read::logs_processed,
        "Log records that left the queue: to the exporter, or lost with `error.type` `queue_full`, `expired` or `shutdown`."),
    counter("otel.sdk.exporter.log.exported", "{log_record}", &["otel.component.type", "error.type"],
        read::logs_exported,
        "Log records that the endpoint took, or refused for good with `error.type` `rejected`."),
    counter("otel.sdk.exporter.metric_data_point.exported", "{data_point}", &["otel.component.type", "error.type"],
        read::points_exported,
        "Data points that the endpoint took, or refused for good with `error.type` `rejected`, or that did not arrive (`unavailable`): \
         what these told is told again by the next export."),
    up_down("synfin.metrics.series", "{series}", &[], read::series_told,
        "Series that this reader was told the last time."),
    up_down("synfin.metrics.series.limit", "{series}", &[], read::series_limit,
        "Series that a reader is told at most (`metrics.series`), but for one of each metric for what exceeds it."),
    counter("synfin.metrics.series.refused", "{series}", &[], read::series_refused,
        "Series that found no room: they are added up in a series of their metric with `otel.metric.overflow`."),
    // The process.
    counter_float("process.cpu.time", "s", &[], read::cpu,
        "CPU time of the agent."),
    counter_float("synfin.drain.cpu.time", "s", &[], read::drain_cpu,
        "CPU time of the thread that drains the ring, part of `process.cpu.time`."),
    up_down("process.memory.usage", "By", &[], read::memory,
        "Resident memory of the agent."),
    gauge("process.uptime", "s", &[], read::uptime,
        "Time since the programs were attached."),
];

/// An attribute of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name.
    pub name: &'static str,
    /// How many values one metric may have of it, in one resource.
    pub most: Most,
    /// What it says, for people.
    pub meaning: &'static str,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// So many.
    Values(usize),
    /// As many as settings say.
    Settings(&'static str),
    /// As many as the kernel knows.
    Kernel(&'static str),
}

const fn key(name: &'static str, most: usize, meaning: &'static str) -> Key {
    Key { name, most: Most::Values(most), meaning }
}

/// Every attribute of the catalogue, with its bound: none has values without one.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("error.type", 136, "Why a handshake failed: `connection_refused`, `timed_out`, `connection_reset`, `aborted`, an errno of \
         connect(2) or `_OTHER`. Why telemetry was lost: the description of the metric says which."),
    key("linux.cgroup.id", census::PLACES, "Id of the cgroup of sockets (cgroup v2: the inode of its directory); of those with the most sockets."),
    key("linux.netns.inode", census::LISTENERS, "Inode of the network namespace; of those with the most sockets, listeners or ports taken."),
    key("network.connection.end", End::ALL.len(), "How a connection ended (EVENTS.md)."),
    key("network.connection.state", State::ALL.len(), "State by RFC 9293; of a transition the one entered."),
    key("network.io.direction", 2, "`transmit` or `receive`."),
    key("network.local.port", census::LISTENERS, "Port of a listener; of the busiest ones."),
    Key { name: "network.peer.group", most: Most::Settings("`metrics.peers`, as many again that others have pushed out and that are told for a while, and \
          `other`; or one for each of `metrics.peer_groups` and `other`"), meaning: "Peer by address, or network." },
    key("network.tcp.close.first", 2, "Who sent the first FIN: `local` or `peer`."),
    key("network.tcp.handshake.role", Role::ALL.len(), "`client` or `server`."),
    Key { name: "network.tcp.reset.reason", most: Most::Kernel("the kernel's `enum sk_rst_reason`, some thirty"), meaning: "Why the kernel sent a RST." },
    key("network.tcp.retransmit.type", Cause::ALL.len(), "Why a segment was sent again."),
    key("network.tcp.segment.type", 3, "`data` (FIN included), `syn` or `syn_ack`."),
    key("network.tcp.state.previous", State::ALL.len(), "The state that was left."),
    key("network.transport", 1, "`tcp`."),
    key("network.type", 2, "`ipv4` or `ipv6`."),
    key("otel.component.type", 1, "Kind of the agent's own exporter or queue."),
    key("synfin.correction.kind", 6, "What the ledger was wrong about: `unknown`, `adopted`, `stale_state`, `missed_close`, `gap` or `folded`."),
    key("synfin.event.kind", EventKind::ALL.len(), "Kind of events: `transition`, `retransmit`, `reset` or `destroy`."),
    key("synfin.health", 3, "`healthy`, `degraded` or `failed`."),
    key("synfin.loss.reason", 8, "Why events were lost: `ring_full`, `recursion`, `decode`, `unknown_kind`, `version`, `unreadable`, `tally_overflow` or `ledger_full`."),
    key("synfin.probe", 6, "A probe (`synfin doctor`)."),
    key("synfin.probe.rung", 3, "How it is attached."),
    key("synfin.probe.verdict", 6, "What became of it."),
    key("synfin.reset.socket", 2, "Whether the RST belongs to a socket."),
    key("synfin.sampling.reason", 2, "What left spans out: `ratio` or `rate_limit`. (On a span the same attribute says why it was kept: EVENTS.md.)"),
    key("synfin.uncounted.reason", 5, "Why sockets are in no count."),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn each_attribute_has_a_bound_and_is_used() {
        let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
        let used: BTreeSet<_> = CATALOGUE.iter().flat_map(|metric| metric.attributes.iter().copied()).collect();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), names);
    }

    #[test]
    fn metrics_md_is_the_catalogue() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == markdown(), "docs/METRICS.md is old: UPDATE=1 cargo test -p synfin metrics_md");
    }

    #[test]
    fn names_are_unique_and_in_the_style_of_the_conventions() {
        let mut seen = HashSet::new();
        for metric in CATALOGUE {
            let name = metric.name;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte)), "{name}");
            assert!(!name.ends_with("total") && !name.ends_with("seconds"), "{name}: Prometheus adds that");
            assert!(metric.description.ends_with('.'), "{name}");
            let keys: HashSet<_> = metric.attributes.iter().collect();
            assert_eq!(keys.len(), metric.attributes.len(), "{name}: an attribute twice");
        }
    }

    #[test]
    fn units_are_ucum() {
        for Metric { name, unit, .. } in CATALOGUE {
            let annotation = unit.strip_prefix('{').and_then(|unit| unit.strip_suffix('}')).is_some_and(|unit| {
                !unit.is_empty() && unit.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            });
            assert!(annotation || ["s", "By", "1"].contains(unit), "{name}: {unit}");
        }
    }

    #[test]
    fn bounds_rise() {
        for metric in CATALOGUE {
            if let Instrument::Histogram(bounds, _) = metric.instrument {
                assert!(bounds.is_sorted_by(|one, next| one < next), "{}", metric.name);
            }
        }
    }
}
