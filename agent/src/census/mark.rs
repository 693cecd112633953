//! The TCP counters of a namespace in one number: as long as it stands still, nothing is sent, received, opened or closed there.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// The number of the network namespace that the calling thread is in; None where its counters cannot be read.
pub fn of_this_thread() -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    for (file, lines) in [("sockstat", "TCP:"), ("sockstat6", "TCP6:"), ("snmp", "Tcp:"), ("netstat", "TcpExt:")] {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => own(&text, lines).for_each(|field| field.hash(&mut hasher)),
            // A kernel without IPv6 has no such file.
            Err(_) if file == "sockstat6" => {}
            Err(_) => return None,
        }
    }
    Some(hasher.finish())
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
        assert!(of_this_thread().is_some());
    }
}
