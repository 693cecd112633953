//! `synfin watch` for people: a line for each event, in the columns of tcpstates.

use std::net::IpAddr;

use synfin_common::event::NO_REASON;

use crate::clock::Offset;
use crate::event::{Ends, Event, State, Task};
use crate::ledger::{Applied, Ended};
use crate::status::{Loss, Status};
use crate::tally::{Tallied, What};

/// The head of the table.
pub const HEAD: &str = "TIME(UTC)       PID     COMM             LOCAL                      PEER                       EVENT                             MS";

/// Writes lines into a buffer of the caller's.
#[derive(Debug)]
pub struct Writer<'a> {
    /// Wall clock for this batch of lines.
    pub offset: Offset,
    /// Kernel names of reset reasons.
    pub reset_reasons: &'a [String],
}

impl Writer<'_> {
    fn line(&self, out: &mut String, time_ns: u64, task: Option<Task>, ends: [String; 2], what: &str, ms: &str) {
        let [local, peer] = ends;
        let time = self.offset.rfc3339(time_ns);
        // The part of the day, to the microsecond: of 2026-11-22T17:14:05.123456789Z.
        let time = time.get(11..26).unwrap_or(&time);
        let (pid, comm) = task.map_or_else(Default::default, |task| (task.pid.to_string(), printable(&task.name())));
        out.push_str(&format!("{time:<15} {pid:<7} {comm:<16} {local:<26} {peer:<26} {what:<33} {ms}"));
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }

    /// An event, with what the ledger knows about it.
    pub fn event(&self, out: &mut String, event: &Event, applied: &Applied<'_>) {
        let known = applied.connection.and_then(|connection| connection.owner);
        match event {
            Event::Transition(event) => {
                let owner = if event.owner_context { Some(event.task) } else { known };
                let mut what = format!("{} -> {}", upper(event.old), upper(event.new));
                if let Some(error) = crate::event::error_type(event.errno) {
                    what.push_str(&format!(" ({error})"));
                }
                let ms = applied.in_state_ns.map(|ns| format!("{:.3}", ns as f64 / 1e6)).unwrap_or_default();
                self.line(out, event.time_ns, owner, ends(&event.ends), &what, &ms);
            }
            Event::Retransmit(event) => {
                let segment = if event.syn { " SYN" } else { "" };
                let what = format!("retransmit{segment} x{} in {}", event.segments, upper(event.state));
                self.line(out, event.time_ns, known, ends(&event.ends), &what, "");
            }
            Event::Reset(event) => {
                let what =
                    format!("RST {} in {}{}", sent(event.direction), upper(event.state), self.reason(event.reason));
                self.line(out, event.time_ns, known, ends(&event.ends), &what, "");
            }
            Event::Destroy(_) => {}
        }
    }

    /// What the kernel has summed up since the last look.
    pub fn tallied(&self, out: &mut String, time_ns: u64, row: &Tallied) {
        match row.what {
            What::SynAckRetransmit { port, .. } => {
                let what = format!("retransmit SYN-ACK x{}", row.count);
                self.line(out, time_ns, None, [format!("*:{port}"), String::new()], &what, "");
            }
            What::ResetWithoutSocket { reason } => {
                let reason = self.reason((reason != NO_REASON).then_some(reason));
                let what = format!("RST sent x{}{reason}", row.count);
                self.line(out, time_ns, None, ["(no socket)".to_owned(), String::new()], &what, "");
            }
        }
    }

    /// A connection that ended.
    pub fn ended(&self, out: &mut String, ended: &Ended) {
        let Ended { connection, end } = ended;
        let first = connection.closed_first.map_or(String::new(), |side| format!(", {} first", side.name()));
        let what = format!("END {}{first}", end.name());
        let ms = connection.duration_seconds().map(|seconds| format!("{:.3}", seconds * 1e3)).unwrap_or_default();
        let time_ns = connection.closed_ns.max(connection.last_ns);
        self.line(out, time_ns, connection.owner, ends(&connection.ends), &what, &ms);
    }

    /// Something lost since the last such line.
    pub fn loss(&self, out: &mut String, time_ns: u64, loss: &Loss) {
        let kind = loss.kind.map_or("record", |kind| kind.name());
        let what = format!("LOST {} {kind} ({})", loss.count, loss.reason.name());
        self.line(out, time_ns, None, Default::default(), &what, "");
    }

    /// The last words: nothing at all when nothing was lost.
    pub fn end(&self, out: &mut String, status: &Status) {
        if status.lost() > 0 {
            out.push_str(&format!("{} records were lost, see the LOST lines above\n", status.lost()));
        }
    }

    fn reason(&self, reason: Option<u32>) -> String {
        let name = reason.and_then(|reason| self.reset_reasons.get(reason as usize)).filter(|name| !name.is_empty());
        name.map_or(String::new(), |name| format!(" ({name})"))
    }
}

const fn sent(direction: crate::event::Direction) -> &'static str {
    match direction {
        crate::event::Direction::Transmit => "sent",
        crate::event::Direction::Receive => "received",
    }
}

/// A state as `ss` and people write it.
fn upper(state: State) -> String {
    state.name().to_ascii_uppercase()
}

fn ends(ends: &Ends) -> [String; 2] {
    [end(ends.local_address(), ends.local_port), end(ends.peer_address(), ends.peer_port)]
}

fn end(address: IpAddr, port: u16) -> String {
    let port = if port == 0 { "*".to_owned() } else { port.to_string() };
    match address {
        address if address.is_unspecified() => format!("*:{port}"),
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// A command name may hold anything, escape sequences too; a terminal must not obey it.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a?[2Jb?c");
    }

    #[test]
    fn no_line_ends_with_blanks() {
        let writer = Writer { offset: crate::clock::Clock::default().offset(), reset_reasons: &[] };
        let mut out = String::new();
        writer.line(&mut out, 1, None, ["a".to_owned(), String::new()], "RST sent x1", "");
        writer.line(&mut out, 1, None, Default::default(), "CLOSED -> LISTEN", "0.100");
        writer.line(&mut out, 1, None, Default::default(), "", "");
        assert!(out.lines().count() == 3 && out.lines().all(|line| !line.ends_with(' ')), "{out:?}");
        assert!(out.contains("LISTEN                  0.100\n"), "{out:?}");
    }

    #[test]
    fn unknown_ends_are_stars() {
        assert_eq!(end("0.0.0.0".parse().expect("an address"), 0), "*:*");
        assert_eq!(end("::1".parse().expect("an address"), 80), "[::1]:80");
        assert_eq!(end("127.0.0.1".parse().expect("an address"), 80), "127.0.0.1:80");
    }
}
