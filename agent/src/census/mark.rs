//! The TCP counters of a namespace in one number: as long as it stands still, nothing is sent, received, opened or closed there, and
//! the kernel chooses from the same ports.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::churn::Counters;
use super::ports::Settings;

/// What the counters of a namespace say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// All of them in one number.
    pub number: u64,
    /// Those of minisocks.
    pub minisocks: Counters,
}

/// The counters of the network namespace that the calling thread is in; None where they cannot be read.
pub fn of_this_thread() -> Option<Mark> {
    let mut hasher = DefaultHasher::new();
    let mut minisocks = Counters::default();
    for (file, lines) in [("sockstat", "TCP:"), ("sockstat6", "TCP6:"), ("snmp", "Tcp:"), ("netstat", "TcpExt:")] {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => {
                own(&text, lines).for_each(|field| field.hash(&mut hasher));
                match file {
                    "sockstat" => minisocks.present = named(&text, lines, "tw").unwrap_or(0),
                    "netstat" => {
                        let counter = |name| counter(&text, lines, name).unwrap_or(0);
                        minisocks.counted = counter("TW") + counter("TWKilled");
                        minisocks.recycled = counter("TWRecycled");
                    }
                    _ => {}
                }
            }
            // A kernel without IPv6 has no such file.
            Err(_) if file == "sockstat6" => {}
            Err(_) => return None,
        }
    }
    Settings::of_this_thread().hash(&mut hasher);
    Some(Mark { number: hasher.finish(), minisocks })
}

/// A counter out of the two lines of a group: names, then values.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group)).map(|line| line.split(' '));
    let at = lines.next()?.position(|field| field == name)?;
    lines.next()?.nth(at)?.parse().ok()
}

/// A number that stands behind its name in a line.
fn named(text: &str, line: &str, name: &str) -> Option<u64> {
    let mut fields = text.lines().find(|other| other.starts_with(line))?.split(' ');
    fields.find(|field| *field == name)?;
    fields.next()?.parse().ok()
}

/// The fields of the lines that begin so, without those that all namespaces share.
fn own<'a>(text: &'a str, lines: &'a str) -> impl Iterator<Item = &'a str> {
    // TCP: inuse 4 orphan 0 tw 1 alloc 6 mem 2
    let shared = |name: &str| matches!(name, "orphan" | "alloc" | "mem");
    text.lines().filter(move |line| line.starts_with(lines)).flat_map(move |line| {
        let mut before = "";
        line.split(' ').filter(move |field| {
            let skip = shared(before) || shared(field);
            before = field;
            !skip
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_namespaces_share_does_not_count() {
        let text = "sockets: used 9\nTCP: inuse 4 orphan 1 tw 2 alloc 6 mem 2\nUDP: inuse 1 mem 0\n";
        assert_eq!(own(text, "TCP:").collect::<Vec<_>>(), ["TCP:", "inuse", "4", "tw", "2"]);
        assert_eq!((named(text, "TCP:", "tw"), named(text, "UDP:", "tw")), (Some(2), None));
        assert!(of_this_thread().is_some());
        let text = "TcpExt: SyncookiesSent TWRecycled\nTcpExt: 3 14\nIpExt: TWRecycled\nIpExt: 1\n";
        assert_eq!(counter(text, "TcpExt:", "TWRecycled"), Some(14));
        assert_eq!(counter(text, "TcpExt:", "TW"), None);
    }
}
