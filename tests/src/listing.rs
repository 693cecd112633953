//! `synfin census --sockets --json`, held against `ss` socket by socket.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    census::{self, Form},
    netns::Netns,
    ss::Row,
    state::State,
};

/// How far two readings of a timer may differ beside what `ss` cuts off: two ticks of the slowest clock of a kernel, 100 Hz.
const TICKS: Duration = Duration::from_millis(20);

const REMAINING: &str = "synfin.socket.timer.remaining";

/// Runs it for a namespace and gives the lines about sockets.
pub fn take(netns: &Netns, source: &str) -> Result<Vec<Value>> {
    let ended = census::run(&["--sockets", "--netns", netns.name(), "--source", source])?;
    ended.expect(0)?;
    let lines = ended.stdout.iter().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")));
    let lines: Vec<Value> = lines.collect::<Result<_>>()?;
    let sockets: Vec<Value> = lines.into_iter().filter(|line| line["type"] == "socket").collect();
    for line in &sockets {
        ensure!(line["linux.netns.inode"] == netns.inode(), "of another namespace: {line}");
    }
    Ok(sockets)
}

/// Whether the line is about this socket, by its two ends.
pub fn is_about(line: &Value, row: &Row) -> bool {
    let address =
        |key: &str| line[key].as_str().and_then(|text| text.parse().ok()).filter(|ip: &IpAddr| !ip.is_unspecified());
    let port = |key: &str| line[key].as_u64().unwrap_or(0);
    let of_row = |ip: IpAddr| Some(ip.to_canonical()).filter(|ip| !ip.is_unspecified());
    address("network.local.address") == of_row(row.address)
        && address("network.peer.address") == of_row(row.peer)
        && port("network.local.port") == u64::from(row.port)
        && port("network.peer.port") == u64::from(row.peer_port)
}

/// Whether nothing but time passed between two readings of one socket.
pub fn stood_still(before: &Row, after: &Row) -> bool {
    let timers = match (&before.timer, &after.timer) {
        (None, None) => true,
        // One that was armed again has more time than before, or has been unanswered once more.
        (Some(one), Some(other)) => {
            (&one.kind, one.unanswered) == (&other.kind, other.unanswered)
                && other.remaining.start <= one.remaining.start
        }
        _ => false,
    };
    let but_timer = |row: &Row| Row { timer: None, ..row.clone() };
    timers && but_timer(before) == but_timer(after)
}

/// What the line says of a socket that stood still, and `ss` does not.
pub fn differences(line: &Value, before: &Row, after: &Row) -> Vec<String> {
    let form = match before.form {
        Form::Full => "full",
        Form::Timewait => "timewait",
        Form::Request => "request",
    };
    let timer = before.timer.as_ref();
    let mut rows: Vec<(&str, Option<Value>)> = vec![
        ("network.connection.state", Some(before.state.name().into())),
        ("network.type", Some(before.network().into())),
        ("linux.socket.form", Some(form.into())),
        ("synfin.socket.timer", timer.map(|timer| timer.kind.as_str().into())),
    ];
    // Of what is no full socket the kernel knows less, and what it does not know is not told.
    let known = |key: &str| before.form == Form::Full || line.get(key).is_some();
    let (receive, send) = match before.state {
        State::Listen => ("network.tcp.accept_queue.length", "network.tcp.accept_queue.limit"),
        _ => ("network.tcp.receive_queue", "network.tcp.send_queue"),
    };
    let numbers = [(receive, before.receive_queue), (send, before.send_queue), ("linux.socket.cookie", before.cookie)];
    rows.extend(numbers.into_iter().filter(|(key, _)| known(key)).map(|(key, number)| (key, Some(number.into()))));
    // Without a file the kernel knows no user.
    let has_file = before.inode > 0;
    rows.push(("linux.socket.inode", has_file.then(|| before.inode.into())));
    rows.push(("user.id", has_file.then(|| before.uid.into())));
    rows.extend(timer.map(|timer| ("synfin.socket.unanswered", Some(timer.unanswered.into()))));

    let mut wrong: Vec<String> = Vec::new();
    for (key, expected) in rows {
        if line.get(key) != expected.as_ref() {
            wrong.push(format!("{key} is {:?}, by ss {expected:?}", line.get(key)));
        }
    }
    let told = line.get(REMAINING).and_then(Value::as_f64);
    match (told, timer.zip(after.timer.as_ref())) {
        (None, None) => {}
        (Some(told), Some((before, after))) => {
            let least = after.remaining.start.as_secs_f64() - TICKS.as_secs_f64();
            let most = (before.remaining.end + TICKS).as_secs_f64();
            if !(least..most).contains(&told) {
                wrong.push(format!("{REMAINING} is {told}, by ss {least} to {most}"));
            }
        }
        (told, by_ss) => wrong.push(format!("{REMAINING} is {told:?}, by ss {by_ss:?}")),
    }
    wrong
}
