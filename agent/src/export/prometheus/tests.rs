use opentelemetry::KeyValue;
use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::clock::Offset;
use crate::distribution::{Distributions, Place, Shape};
use crate::event::{Ends, Measures, State};
use crate::export::tests::{full, snapshot};
use crate::ledger::{Connection, End, Role};
use crate::status::Status;

fn exposition() -> Exposition {
    let attributes = [("service.name", "syn\"fin"), ("host.name", "a"), ("host_name", "b")];
    Exposition::new(
        &Resource::builder_empty().with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value))).build(),
        20_000,
    )
}

fn measured() -> Snapshot {
    let mut distributions = Distributions::new(Shape::Explicit);
    let ends = Ends { cookie: 1, sock: 0, netns: 1, local_port: 1, peer_port: 2, local: [0; 16], peer: [0; 16] };
    let mut connection = Connection::new(ends, State::Closed, 1_000_000_000);
    connection.role = Some(Role::Client);
    connection.birth_seen = true;
    connection.entered_ns[State::SynSent.index()] = 1_000_000_000;
    connection.entered_ns[State::Established.index()] = 1_250_000_000;
    connection.closed_ns = 3_000_000_000;
    connection.measures = Some(Measures { srtt_us: 500, ..Measures::default() });
    let place = Place { trace: [7; 16], span: [8; 8] };
    distributions.add(&connection, End::TimeWait, Offset::default(), || Some(place));
    distributions.left(0, State::CloseWait, 1.5);
    snapshot(Status { times: distributions.share(1), ..full() })
}

/// Series with their values as written, without examples. Fails unless each family is whole and each series there once.
fn read(text: &str) -> BTreeMap<String, String> {
    let mut series = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            match (words.next(), words.next()) {
                (Some("TYPE"), Some(name)) => {
                    assert!(families.insert(name), "{name} twice");
                    family = name;
                }
                (Some("HELP" | "UNIT"), Some(name)) => assert_eq!(name, family),
                (Some("EOF"), None) => family = "",
                _ => panic!("{line}"),
            }
            continue;
        }
        assert!(!family.is_empty() && line.starts_with(family), "{line} in {family}");
        let bare = line.split(" # ").next().unwrap();
        let (name, value) = bare.rsplit_once(' ').unwrap();
        assert!(series.insert(name.to_owned(), value.to_owned()).is_none(), "{name} twice");
    }
    series
}

const SCOPE_LABELS: &str = r#"otel_scope_name="synfin",otel_scope_schema_url="https://opentelemetry.io/schemas/1.44.0",otel_scope_version="0.1.0""#;

#[test]
fn what_is_answered_is_what_the_status_says() {
    let snapshot = measured();
    let totals = &snapshot.status.totals;
    for format in [Format::OpenMetrics, Format::Text] {
        let text = exposition().render(&snapshot, format);
        let series = read(&text);
        let value = |name: &str| series.get(name).unwrap_or_else(|| panic!("{name} is not in\n{text}")).as_str();
        assert_eq!(value(r#"target_info{host_name="a;b",service_name="syn\"fin"}"#), "1");
        assert_eq!(
            value(&format!(
                r#"system_network_tcp_retransmits_total{{network_tcp_retransmit_type="timeout",network_tcp_segment_type="syn",{SCOPE_LABELS}}}"#
            )),
            totals.counts.retransmits_syn.to_string()
        );
        assert_eq!(
            value(&format!("process_cpu_time_seconds_total{{{SCOPE_LABELS}}}")),
            snapshot.status.cpu.as_secs_f64().to_string()
        );
        assert_eq!(value(&format!("process_memory_usage_bytes{{{SCOPE_LABELS}}}")), snapshot.status.memory.to_string());
        assert_eq!(
            value(&format!(
                r#"synfin_probe_status_ratio{{synfin_probe="state",synfin_probe_rung="tp_btf",synfin_probe_verdict="active",{SCOPE_LABELS}}}"#
            )),
            "1"
        );
        let handshake = "system_network_tcp_handshake_duration_seconds";
        let client = format!(r#"network_tcp_handshake_role="client",{SCOPE_LABELS}"#);
        for (bound, count) in [("0.1", "0"), ("0.25", "1"), ("+Inf", "1")] {
            assert_eq!(value(&format!(r#"{handshake}_bucket{{{client},le="{bound}"}}"#)), count);
        }
        assert_eq!(value(&format!("{handshake}_sum{{{client}}}")), "0.25");
        assert_eq!(
            text.matches(" # {trace_id=\"07070707070707070707070707070707\"").count(),
            match format {
                Format::OpenMetrics => 3,
                Format::Text => 0,
            }
        );
        assert_eq!(text.ends_with("\n# EOF\n"), format == Format::OpenMetrics);
        assert_eq!(text.contains("# UNIT process_memory_usage_bytes bytes\n"), format == Format::OpenMetrics);
    }
}

#[test]
fn every_metric_of_the_catalogue_is_there() {
    let text = exposition().render(&measured(), Format::Text);
    for metric in CATALOGUE {
        let head = format!("# TYPE {} {}\n", names::series(metric), Kind::of(metric.instrument).name());
        // Queues that do not exist have no series.
        let no_queue = metric.name.starts_with("otel.sdk.") || metric.name.starts_with("synfin.spans.");
        assert_eq!(text.contains(&head), !no_queue, "{}", metric.name);
    }
}

#[test]
fn nothing_known_is_no_error() {
    let text = exposition().render(&snapshot(Status::default()), Format::OpenMetrics);
    assert!(read(&text).len() > 10);
    assert!(!text.contains("handshake_duration"));
}
