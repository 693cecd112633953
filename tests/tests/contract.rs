//! The judge of JSON lines itself: it takes what docs/EVENTS.md promises and nothing else.

use serde_json::{Value, json};
use synfin_tests::recording::Recording;

fn transition() -> Value {
    json!({
        "type": "transition", "version": 1, "time": "2026-11-22T17:30:40.123456789Z", "linux.time.monotonic": 5,
        "network.transport": "tcp", "network.type": "ipv4", "linux.netns.inode": 4_026_532_000_u64,
        "network.tcp.state.previous": "closed", "network.connection.state": "syn_sent", "linux.socket.cookie": 7,
    })
}

fn start() -> Value {
    json!({
        "type": "start", "version": 1, "time": "2026-11-22T17:30:40.123456789Z", "linux.time.monotonic": 1,
        "synfin.version": "0.1.0", "linux.kernel.release": "6.18", "synfin.probes": {"state": "active"},
        "synfin.rungs": {"state": "tp_btf"},
    })
}

fn end() -> Value {
    json!({
        "type": "end", "version": 1, "time": "2026-11-22T17:30:40.123456789Z", "linux.time.monotonic": 9,
        "synfin.events": {"transition": 1}, "synfin.lost": {},
    })
}

fn parse(lines: &[Value]) -> anyhow::Result<Recording> {
    Recording::parse(&lines.iter().map(Value::to_string).collect::<Vec<_>>())
}

#[test]
fn right_lines_pass() {
    let recording = parse(&[start(), transition(), end()]).expect("a right recording");
    assert_eq!(recording.of_type("transition").count(), 1);
}

#[test]
fn wrong_lines_are_rejected() {
    let spoilt: [(&str, &str, Value); 9] = [
        ("network.peer.address", "is null", Value::Null),
        ("network.peer.address", "is empty", json!("")),
        ("network.peer.port", "network.peer.port", json!(0)),
        ("color", "not documented", json!("blue")),
        ("version", "version is 2", json!(2)),
        ("time", "RFC 3339", json!("2026-11-22T17:30:40.123Z")),
        ("linux.time.monotonic", "monotonic", json!("5")),
        ("network.transport", "network.transport", json!("udp")),
        ("type", "not documented", json!("surprise")),
    ];
    for (key, why, value) in spoilt {
        let mut line = transition();
        line[key] = value;
        let error = parse(&[start(), line, end()]).expect_err(why);
        assert!(format!("{error:#}").contains(why), "rejected, but not for {why:?}: {error:#}");
    }
    for missing in ["linux.netns.inode", "linux.socket.cookie", "network.tcp.state.previous"] {
        let mut line = transition();
        line.as_object_mut().expect("an object").remove(missing);
        parse(&[start(), line, end()]).expect_err(missing);
    }
}

#[test]
fn a_cut_stream_is_rejected() {
    parse(&[start(), transition()]).expect_err("no end");
    parse(&[transition(), end()]).expect_err("no start");
    parse(&[]).expect_err("nothing");
}
