//! The refreshing summary of `synfin run`: states, rates, listeners, and how the agent itself fares.

use std::time::Duration;

use crate::event::State;
use crate::health::roll_up;
use crate::ledger::Role;
use crate::status::Status;

/// The screen as text of at most `height` lines of at most `width` characters. `before` is an earlier status, against
/// which rates are counted.
pub fn render(before: &Status, now: &Status, width: usize, height: usize) -> String {
    let mut text = String::new();
    let health = roll_up(&now.probes).name();
    text.push_str(&format!(
        "synfin {}  up {}  {health}  tracking {} of {}  lost {}\n",
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
    states(&mut text, now);
    rates(&mut text, before, now);
    failures(&mut text, now);
    listeners(&mut text, before, now);
    agent(&mut text, before, now);
    crop(&text, width, height)
}

fn states(text: &mut String, now: &Status) {
    text.push_str("\nSTATE        now    (connections since synfin began; older ones come with the census)\n");
    for state in State::ALL {
        // Events never show TIME_WAIT, and a closed connection is no connection.
        if matches!(state, State::TimeWait | State::Closed) {
            continue;
        }
        let count = now.tracked[state.index()];
        let bar = "#".repeat((64 - count.leading_zeros()) as usize);
        text.push_str(&format!("{:<12} {count:<6} {bar}\n", state.name()));
    }
}

fn rates(text: &mut String, before: &Status, now: &Status) {
    let rate = |count: fn(&Status) -> u64| per_second(before, now, count);
    text.push_str(&format!("\nPER SECOND   opened {:.0} client, {:.0} server   failed {:.0}   ended {:.0}   transitions {:.0}\n             \
         retransmits {:.0} data, {:.0} syn, {:.0} syn-ack   resets {:.0} received, {:.0} sent\n",
        rate(|status| status.totals.opened[Role::Client.index()]),
        rate(|status| status.totals.opened[Role::Server.index()]),
        rate(|status| status.totals.failures.iter().flat_map(|failures| failures.values()).sum()),
        rate(|status| status.totals.ended.iter().sum()),
        rate(|status| status.totals.transitions_sum()),
        rate(|status| status.totals.retransmits_data),
        rate(|status| status.totals.retransmits_syn),
        rate(|status| status.totals.retransmits_syn_ack),
        rate(|status| status.totals.resets_received),
        rate(|status| status.totals.resets_sent.values().chain(status.totals.resets_without_socket.values()).sum())
    ));
}

fn failures(text: &mut String, now: &Status) {
    let rows: Vec<String> = Role::ALL
        .into_iter()
        .flat_map(|role| {
            now.totals.failures[role.index()].iter().map(move |(why, count)| format!("{count} {why} ({})", role.name()))
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
    text.push_str("\nLISTENER  NETNS        open     accepted   per second\n");
    for listener in now.listeners.iter().take(8) {
        let had = before.listeners.iter().find(|had| (had.netns, had.port) == (listener.netns, listener.port));
        let grown = listener.opened.saturating_sub(had.map_or(0, |had| had.opened));
        let rate = grown as f64 / elapsed(before, now);
        text.push_str(&format!(
            ":{:<8} {:<12} {:<8} {:<10} {rate:.0}\n",
            listener.port, listener.netns, listener.open, listener.opened
        ));
    }
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

fn crop(text: &str, width: usize, height: usize) -> String {
    let lines = text.lines().take(height).map(|line| line.chars().take(width).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Listener;

    #[test]
    fn shows_states_rates_and_listeners_within_the_screen() {
        let before = Status { time_ns: 1_000_000_000, ..Status::default() };
        let mut now = Status { time_ns: 3_000_000_000, ledger_limit: 100, ..Status::default() };
        now.tracked[State::CloseWait.index()] = 40;
        now.totals.opened = [10, 20];
        now.totals.failures[0].insert("connection_refused", 3);
        now.listeners = vec![Listener { netns: 7, port: 443, opened: 20, open: 5 }];
        let text = render(&before, &now, 200, 100);
        assert!(text.contains("close_wait   40     ######"), "{text}");
        assert!(text.contains("opened 5 client, 10 server"), "{text}");
        assert!(text.contains("3 connection_refused (client) in all"), "{text}");
        assert!(text.contains(":443      7            5        20         10"), "{text}");
        let small = render(&before, &now, 20, 5);
        assert!(small.lines().count() == 5 && small.lines().all(|line| line.chars().count() <= 20), "{small}");
    }
}
