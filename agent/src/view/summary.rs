//! The refreshing summary of `synfin run`: states, rates, listeners, and how the agent itself fares.

use std::time::Duration;

use super::columns::printable;
use crate::event::State;
use crate::health::roll_up;
use crate::ledger::Role;
use crate::status::{Export, Status};

/// What the screen shows.
#[derive(Clone, Copy, Debug)]
pub struct Screen<'a> {
    /// An earlier status, against which rates are counted.
    pub before: &'a Status,
    /// The latest one.
    pub now: &'a Status,
    /// The last warnings of the log, oldest first.
    pub warnings: &'a [String],
}

impl Screen<'_> {
    /// The screen as text of at most `height` lines of at most `width` characters: what is wrong and how the agent fares
    /// come first, so that a low screen cuts what is least missed, and says how much that is. A size of 0 is unknown.
    pub fn render(&self, width: usize, height: usize) -> String {
        let Self { before, now, warnings } = self;
        let width = if width == 0 { USUAL.0 } else { width };
        let height = if height == 0 { USUAL.1 } else { height };
        let mut text = String::new();
        head(&mut text, now);
        agent(&mut text, before, now);
        exports(&mut text, now, width);
        rates(&mut text, before, now);
        failures(&mut text, now);
        states(&mut text, now);
        listeners(&mut text, before, now);
        let mut room = height / 3; // of the screen, for warnings: the last ones, each whole or not at all
        let mut shown: Vec<Vec<String>> = Vec::new();
        for line in warnings.iter().rev().map(|line| wrapped(&format!("! {}", printable(line)), 2, width)) {
            let Some(left) = room.checked_sub(line.len()) else { break };
            room = left;
            shown.insert(0, line);
        }
        let shown = shown.concat();
        let mut lines = cut(text.lines().map(str::to_owned).collect(), height - shown.len());
        lines.extend(shown);
        let lines = lines.iter().map(|line| line.trim_end().chars().take(width).collect::<String>());
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Columns and lines of a terminal that does not tell its size, as some serial consoles and containers do not.
const USUAL: (usize, usize) = (80, 24);

fn head(text: &mut String, now: &Status) {
    let health = roll_up(&now.probes).name();
    let export = if now.exports.iter().any(|export| export.failing.is_some()) { ", export fails" } else { "" };
    text.push_str(&format!(
        "synfin {}  up {}  {health}{export}  tracking {} of {}  lost {}\n",
        env!("CARGO_PKG_VERSION"),
        age(now.uptime),
        now.connections(),
        now.ledger_limit,
        now.lost(),
    ));
    if now.lost() > 0 {
        let rows: Vec<String> = now
            .losses
            .iter()
            .map(|loss| format!("{} {} {}", loss.count, loss.kind.map_or("", |kind| kind.name()), loss.reason.name()))
            .collect();
        text.push_str(&format!("LOST: {}\n", rows.join(", ")));
    }
}

/// Signals that go the same way share their lines.
fn exports(text: &mut String, now: &Status, width: usize) {
    let mut title = "EXPORT";
    for (at, first) in now.exports.iter().enumerate() {
        let same = |other: &&Export| (&other.endpoint, other.protocol) == (&first.endpoint, first.protocol);
        if now.exports[..at].iter().any(|other| same(&other)) {
            continue;
        }
        let group: Vec<&Export> = now.exports.iter().filter(same).collect();
        let failing = group.iter().filter_map(|export| export.failing).max();
        let failing = failing.map_or(String::new(), |since| format!("   fails since {}", age(since)));
        text.push_str(&format!("\n{title:<12} {} ({}){failing}\n", printable(&first.endpoint), first.protocol));
        let each = |count: fn(&Export) -> Option<String>| -> String {
            group.iter().filter_map(|export| count(export)).collect::<Vec<_>>().join(", ")
        };
        let sent = each(|export| Some(format!("{} {}", export.sent, export.items)));
        let queued = group.iter().map(|export| export.queued).sum::<u64>();
        let lost = each(|export| {
            let rows: Vec<_> =
                export.lost.iter().map(|(reason, count)| format!("{count} {} {reason}", export.items)).collect();
            (!rows.is_empty()).then(|| rows.join(", "))
        });
        let lost = if lost.is_empty() { "0" } else { &lost };
        text.push_str(&format!("             sent {sent}   queued {queued}   lost {lost}\n"));
        let error = group.iter().filter_map(|export| export.error.as_ref()).min_by_key(|(_, age)| *age);
        if let Some((why, ago)) = error {
            let line = format!("             last error {} ago: {}", age(*ago), printable(why));
            text.extend(wrapped(&line, 13, width).into_iter().flat_map(|line| [line, "\n".to_owned()]));
        }
        title = "";
    }
}

/// What the ledger follows beside what the kernel's tables held at the last census.
fn states(text: &mut String, now: &Status) {
    match &now.census {
        Some(census) => text.push_str(&format!(
            "\nSTATE        now      kernel    (census {} ago, {} namespaces)\n",
            age(Duration::from_nanos(now.time_ns.saturating_sub(census.began_ns))),
            census.places.len()
        )),
        None => text.push_str("\nSTATE        now      (connections since synfin began: there is no census)\n"),
    }
    for state in State::ALL {
        if state == State::Closed {
            continue; // a closed connection is no connection
        }
        let counted = now.census.as_ref().map(|census| census.sums.sockets(|group| group.state == state));
        // Events never show TIME_WAIT.
        let (tracked, most) = match (state, counted) {
            (State::TimeWait, None) => continue,
            (State::TimeWait, Some(counted)) => (String::new(), counted),
            (_, counted) => {
                let tracked = now.tracked[state.index()];
                (tracked.to_string(), tracked.max(counted.unwrap_or(0)))
            }
        };
        let counted = counted.map_or_else(String::new, |counted| format!("{counted:<8}"));
        let bar = "#".repeat((64 - most.leading_zeros()) as usize);
        text.push_str(&format!("{:<12} {tracked:<8} {counted} {bar}\n", state.name()));
    }
    let drift = now.drift;
    if drift.adopted + drift.stale + drift.missed_closes > 0 {
        text.push_str(&format!(
            "PUT RIGHT    {} unseen, {} in another state, {} gone, in {} comparisons with the kernel\n",
            drift.adopted, drift.stale, drift.missed_closes, drift.listings
        ));
    }
}

fn rates(text: &mut String, before: &Status, now: &Status) {
    let rate = |count: fn(&Status) -> u64| per_second(before, now, count);
    text.push_str(&format!("\nPER SECOND   opened {:.0} client, {:.0} server   failed {:.0}   ended {:.0}   transitions {:.0}\n             \
         retransmits {:.0} data, {:.0} syn, {:.0} syn-ack   resets {:.0} received, {:.0} sent\n",
        rate(|status| status.totals.counts.opened[Role::Client.index()]),
        rate(|status| status.totals.counts.opened[Role::Server.index()]),
        rate(|status| status.totals.counts.failures.iter().flat_map(|failures| failures.values()).sum()),
        rate(|status| status.totals.counts.ended.iter().sum()),
        rate(|status| status.totals.counts.transitions_sum()),
        rate(|status| status.totals.counts.retransmits_data.iter().sum()),
        rate(|status| status.totals.counts.retransmits_syn),
        rate(|status| status.totals.retransmits_syn_ack),
        rate(|status| status.totals.counts.resets_received),
        rate(|status| status.totals.counts.resets_sent.values().chain(status.totals.resets_without_socket.values()).sum())
    ));
}

fn failures(text: &mut String, now: &Status) {
    let rows: Vec<String> = Role::ALL
        .into_iter()
        .flat_map(|role| {
            now.totals.counts.failures[role.index()]
                .iter()
                .map(move |(why, count)| format!("{count} {why} ({})", role.name()))
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&format!("FAILED       {} in all\n", rows.join(", ")));
    }
}

fn listeners(text: &mut String, before: &Status, now: &Status) {
    if now.listeners.is_empty() {
        return;
    }
    text.push_str("\nLISTENER  NETNS        open     accepted   per second   waiting   half-open\n");
    for listener in now.listeners.iter().take(8) {
        let had = before.listeners.iter().find(|had| (had.netns, had.port) == (listener.netns, listener.port));
        let grown = listener.opened.saturating_sub(had.map_or(0, |had| had.opened));
        let rate = grown as f64 / elapsed(before, now);
        text.push_str(&format!(
            ":{:<8} {:<12} {:<8} {:<10} {rate:<12.0} {}\n",
            listener.port,
            listener.netns,
            listener.open,
            listener.opened,
            queues(now, listener.netns, listener.port)
        ));
    }
}

/// What waits at a port, as of the last census.
fn queues(now: &Status, netns: u32, port: u16) -> String {
    let Some(census) = &now.census else { return String::new() };
    let rows = census.sums.listeners.iter().filter(|row| (row.netns, row.port) == (netns, port));
    let (mut waiting, mut limit, mut half_open) = (0_u64, 0_u64, 0_u64);
    for row in rows {
        waiting += u64::from(row.accept_queue);
        limit += u64::from(row.accept_limit);
        half_open += u64::from(row.half_open);
    }
    if limit == 0 { String::new() } else { format!("{:<9} {half_open}", format!("{waiting}/{limit}")) }
}

fn agent(text: &mut String, before: &Status, now: &Status) {
    let cpu = now.cpu.saturating_sub(before.cpu).as_secs_f64() / elapsed(before, now) * 100.0;
    let (used, size) = now.ring_fill;
    text.push_str(&format!(
        "\nAGENT        cpu {cpu:.1} %   memory {:.1} MiB   ring {:.1} % of {} KiB   lag {:.1} ms\n",
        now.memory as f64 / f64::from(1 << 20),
        used as f64 / size.max(1) as f64 * 100.0,
        size >> 10,
        now.lag.as_secs_f64() * 1e3,
    ));
    for probe in &now.probes {
        let cost = probe.cost.filter(|cost| cost.runs > 0).map_or(String::new(), |cost| {
            format!("   {} ns each, {} runs", cost.time.as_nanos() / u128::from(cost.runs), cost.runs)
        });
        if !probe.verdict.is_active() || !cost.is_empty() {
            text.push_str(&format!("  {:<15} {}{cost}\n", probe.name, probe.verdict));
        }
    }
}

fn elapsed(before: &Status, now: &Status) -> f64 {
    (now.time_ns.saturating_sub(before.time_ns) as f64 / 1e9).max(0.001)
}

fn per_second(before: &Status, now: &Status, count: fn(&Status) -> u64) -> f64 {
    count(now).saturating_sub(count(before)) as f64 / elapsed(before, now)
}

fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A line in pieces of at most `width` characters, broken between words; all but the first begin with `indent` blanks.
fn wrapped(line: &str, indent: usize, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest: Vec<char> = line.chars().collect();
    // Where there is no room for words, they are cropped.
    while rest.len() > width && width > 2 * indent {
        let blank = (indent + 1..=width).rev().find(|&at| rest[at] == ' ');
        let tail = rest.split_off(blank.unwrap_or(width));
        lines.push(rest.into_iter().collect());
        rest = std::iter::repeat_n(' ', indent).chain(tail.into_iter().skip(usize::from(blank.is_some()))).collect();
    }
    lines.push(rest.into_iter().collect());
    lines
}

/// The first of these lines, and how many are cut, on at most `height`.
fn cut(mut lines: Vec<String>, height: usize) -> Vec<String> {
    if lines.len() > height {
        let kept = height.saturating_sub(1).max(1);
        let cut = lines.len() - kept;
        lines.truncate(kept);
        if height > kept {
            lines.push(format!("... {cut} more lines need a higher terminal"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::census::{Census, Form, Sums};
    use crate::ledger::Listener;

    #[test]
    fn shows_states_rates_and_listeners_within_the_screen() {
        let before = Status { time_ns: 1_000_000_000, ..Status::default() };
        let mut now = Status { time_ns: 3_000_000_000, ledger_limit: 100, ..Status::default() };
        now.tracked[State::CloseWait.index()] = 40;
        now.totals.counts.opened = [10, 20];
        now.totals.counts.failures[0].insert("connection_refused", 3);
        now.listeners = vec![Listener { netns: 7, port: 443, opened: 20, open: 5 }];
        let text = screen(&before, &now, &[]).render(200, 100);
        assert!(text.contains("close_wait   40        ######"), "{text}");
        assert!(text.contains("opened 5 client, 10 server"), "{text}");
        assert!(text.contains("3 connection_refused (client) in all"), "{text}");
        assert!(text.contains(":443      7            5        20         10"), "{text}");
        assert!(!text.contains("EXPORT"), "{text}");
    }

    #[test]
    fn shows_what_the_kernel_holds_beside_it() {
        let group = |state, form, sockets| crate::census::Group {
            netns: 7,
            state,
            form,
            network: crate::census::Network::Ipv4,
            port: None,
            cgroup: 0,
            sockets,
            receive_queue: 0,
            send_queue: 0,
        };
        let listener = crate::census::Listener {
            netns: 7,
            local: [0; 16],
            port: 443,
            cgroup: 0,
            cookie: 0,
            inode: 0,
            uid: 0,
            accept_queue: 3,
            accept_limit: 128,
            half_open: 9,
            oldest_ns: None,
        };
        let sums = Sums {
            groups: vec![group(State::TimeWait, Form::Timewait, 500), group(State::Established, Form::Full, 4)],
            listeners: vec![listener],
            ..Sums::default()
        };
        let census = Census { began_ns: 1_000_000_000, sums, ..Census::default() };
        let mut now = Status { time_ns: 3_000_000_000, census: Some(Arc::new(census)), ..Status::default() };
        now.tracked[State::Established.index()] = 4;
        now.drift.adopted = 2;
        now.listeners = vec![Listener { netns: 7, port: 443, opened: 20, open: 5 }];
        let text = screen(&Status::default(), &now, &[]).render(200, 100);
        assert!(text.contains("(census 2s ago, 0 namespaces)"), "{text}");
        assert!(text.contains("established  4        4        ###\n"), "{text}");
        assert!(text.contains("time_wait             500      #########\n"), "{text}");
        assert!(text.contains("PUT RIGHT    2 unseen"), "{text}");
        assert!(text.contains("3/128     9"), "{text}");
    }

    fn screen<'a>(before: &'a Status, now: &'a Status, warnings: &'a [String]) -> Screen<'a> {
        Screen { before, now, warnings }
    }

    fn export(items: &'static str, endpoint: &str) -> Export {
        Export { items, endpoint: endpoint.to_owned(), protocol: "grpc", ..Export::default() }
    }

    #[test]
    fn export_is_told_by_endpoint_with_its_last_error() {
        let seconds = Duration::from_secs;
        let spans = Export {
            sent: 10,
            queued: 4,
            lost: vec![("queue_full", 3), ("rejected", 2)],
            failing: Some(seconds(70)),
            error: Some(("nobody\u{1b} listens there".to_owned(), seconds(3))),
            ..export("spans", "http://a:4317")
        };
        let logs = Export { error: Some(("older".to_owned(), seconds(9))), ..export("logs", "http://a:4317") };
        let exports = vec![spans, logs, export("metrics", "http://b:4317")];
        let now = Status { exports, ..Status::default() };
        let text = screen(&now, &now, &[]).render(200, 100);
        assert!(text.lines().next().unwrap().contains("export fails"), "{text}");
        let lines = "
EXPORT       http://a:4317 (grpc)   fails since 1m10s
             sent 10 spans, 0 logs   queued 4   lost 3 spans queue_full, 2 spans rejected
             last error 3s ago: nobody? listens there

             http://b:4317 (grpc)
             sent 0 metrics   queued 0   lost 0
";
        assert!(text.contains(lines), "{text}");
    }

    #[test]
    fn a_low_screen_keeps_what_is_wrong_and_says_what_it_cuts() {
        let now = Status { exports: vec![export("spans", "http://a:4317")], ..Status::default() };
        let warnings: Vec<String> = ["first", "second", "third"].map(str::to_owned).into();
        let whole = screen(&now, &now, &warnings).render(200, 100);
        assert!(whole.ends_with("! first\n! second\n! third"), "{whole}");
        let lines = whole.lines().count();
        for height in 1..=lines + 1 {
            let text = screen(&now, &now, &warnings).render(40, height);
            assert!(text.lines().count() <= height && text.lines().all(|line| line.chars().count() <= 40), "{text}");
            assert!(text.starts_with("synfin "), "{text}");
            assert_eq!(text.contains("more lines"), (2..lines).contains(&height), "{height}: {text}");
            assert_eq!(text.contains("! third"), height >= 3, "{height}: {text}");
        }
        let low = screen(&now, &now, &warnings).render(80, 10);
        assert!(low.contains("AGENT") && low.contains("EXPORT"), "{low}");
    }

    #[test]
    fn long_words_of_advice_are_wrapped() {
        assert_eq!(wrapped("  one two three", 2, 9), ["  one two", "  three"]);
        assert_eq!(wrapped("abcdefghij", 1, 4), ["abcd", " efg", " hij"]);
        assert_eq!(wrapped("one two", 2, 3), ["one two"], "no room");
        let warnings = ["advice ".repeat(50)];
        let now = Status::default();
        let text = screen(&now, &now, &warnings).render(80, 24);
        assert_eq!(text.matches("advice").count(), 50, "{text}");
    }

    #[test]
    fn a_terminal_without_a_size_has_the_usual_one() {
        let now = Status::default();
        let text = screen(&now, &now, &[]).render(0, 0);
        assert_eq!(text, screen(&now, &now, &[]).render(80, 24));
        assert!(text.contains("AGENT"), "{text}");
    }
}
