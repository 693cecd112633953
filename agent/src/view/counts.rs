//! `synfin census --by KEY` for people: a row for each key, a column for each state.

use std::collections::{BTreeMap, BTreeSet};

use super::census::{hidden, moment, several};
use super::table::{duration, printable, table};
use crate::by::By;
use crate::census::{Bound, Listing};
use crate::clock::Offset;
use crate::event::State;
use crate::owner::{Counts, Key, Row, Sum, Why};
use crate::source::Chosen;

/// Peers that are named.
const PEERS: usize = 50;

/// Digits of a container's id, as its runtime shows them.
const DIGITS: usize = 12;

/// The whole text.
pub fn text(counts: &Counts, listing: &Listing, source: &Chosen, offset: Offset) -> String {
    let (began_ns, ended_ns) = (listing.began_ns, listing.ended_ns);
    let moment = moment(listing.places.len(), began_ns, ended_ns, offset);
    let mut out = format!("TCP sockets by {} of {moment}\n", counts.by);
    let (rows, others) = folded(counts);
    let shown = Shown::of(counts, listing, rows);
    shown.table(&mut out, others);
    out.push('\n');
    let notes = notes(counts, listing, others);
    if notes.is_empty() {
        out.push_str("every socket is shown, and counts once\n");
    }
    for note in notes {
        out.push_str(&format!("{note}\n"));
    }
    if let Chosen::InetDiag(why) = source {
        out.push_str(&format!("by inet_diag ({why})\n"));
    }
    out
}

/// Rows to show: of peers those with the most sockets, and one for how many others.
fn folded(counts: &Counts) -> (Vec<Row>, usize) {
    let is_peer = |row: &&Row| matches!(row.key, Key::Peer(_));
    let others = counts.rows.iter().filter(is_peer).count().saturating_sub(PEERS);
    if others == 0 {
        return (counts.rows.clone(), 0);
    }
    let mut rest = Row::new(Key::Unknown);
    let mut rows: Vec<Row> = Vec::new();
    let mut named = 0;
    for row in &counts.rows {
        if is_peer(&row) {
            named += 1;
            if named > PEERS {
                for (state, sum) in &row.states {
                    rest.add(*state, sum);
                }
                continue;
            }
        }
        rows.push(row.clone());
    }
    // Known keys come first, so that this is where the named ones end.
    rows.insert(PEERS, rest);
    (rows, others)
}

/// What the table shows.
struct Shown<'a> {
    by: By,
    listing: &'a Listing,
    rows: Vec<Row>,
    states: Vec<State>,
    has_shared: bool,
    has_pods: bool,
}

impl<'a> Shown<'a> {
    fn of(counts: &Counts, listing: &'a Listing, rows: Vec<Row>) -> Self {
        let occurs = |state: &State| rows.iter().any(|row| row.sockets(*state) > 0);
        Self {
            by: counts.by,
            listing,
            states: State::ALL.into_iter().filter(occurs).collect(),
            has_shared: rows.iter().any(|row| row.total().shared > 0),
            has_pods: rows.iter().any(|row| matches!(row.key, Key::Container { pod: Some(_), .. })),
            rows,
        }
    }

    fn table(&self, out: &mut String, others: usize) {
        let heads = self.heads();
        // The words of a key to the left, its numbers to the right.
        let mut left: Vec<usize> = (0..heads.len()).filter(|at| !matches!(heads[*at], "PID" | "CGROUP")).collect();
        let mut head: Vec<String> = heads.iter().map(ToString::to_string).collect();
        head.push("TOTAL".to_owned());
        head.extend(self.states.iter().map(|state| state.name().to_ascii_uppercase().replace('_', "-")));
        if self.has_shared {
            head.push("SHARED".to_owned());
        }
        head.extend(["RECV-Q", "SEND-Q", "QUIET"].map(str::to_owned));
        if self.by == By::Cgroup {
            // Of any length: behind all others it makes no column wide.
            left.push(head.len());
            head.push("PATH".to_owned());
        }
        let mut all = Row::new(Key::Unknown);
        let mut lines = vec![head];
        for (at, row) in self.rows.iter().enumerate() {
            for (state, sum) in &row.states {
                all.add(*state, sum);
            }
            let is_rest = others > 0 && at == PEERS;
            let (name, last) = if is_rest { (vec![format!("{others} others")], None) } else { self.name(&row.key) };
            lines.push(self.line(name, row, last));
        }
        if self.rows.len() != 1 {
            let mut name = vec![String::new(); heads.len()];
            "total".clone_into(&mut name[usize::from(self.by == By::Process)]);
            lines.push(self.line(name, &all, None));
        }
        table(out, &lines, &left);
    }

    fn line(&self, name: Vec<String>, row: &Row, last: Option<String>) -> Vec<String> {
        let Sum { sockets, shared, receive_queue, send_queue, quiet_ns } = row.total();
        let mut line = name;
        line.push(sockets.to_string());
        line.extend(self.states.iter().map(|state| row.sockets(*state).to_string()));
        if self.has_shared {
            line.push(shared.to_string());
        }
        line.extend([receive_queue.to_string(), send_queue.to_string()]);
        line.push(quiet_ns.map_or_else(|| "-".to_owned(), duration));
        line.extend(last);
        line
    }

    fn heads(&self) -> Vec<&'static str> {
        match self.by {
            By::Process => vec!["PID", "PROCESS"],
            By::Cgroup => vec!["CGROUP"],
            By::Container if self.has_pods => vec!["CONTAINER", "POD"],
            By::Container => vec!["CONTAINER"],
            By::Pod => vec!["POD"],
            By::Listener if self.listing.places.len() > 1 => vec!["LISTENER", "NETNS"],
            By::Listener => vec!["LISTENER"],
            By::Peer => vec!["PEER"],
        }
    }

    /// Cells of a key, and one behind all others.
    fn name(&self, key: &Key) -> (Vec<String>, Option<String>) {
        let nothing = || "-".to_owned();
        let mut last = None;
        let mut cells = match key {
            Key::Process { pid, name } => vec![pid.to_string(), printable(name)],
            Key::Cgroup { id, path } => {
                last = Some(path.as_deref().map_or_else(|| "unknown path".to_owned(), printable));
                vec![id.to_string()]
            }
            Key::Container { id, pod } => {
                let mut cells = vec![id.chars().take(DIGITS).collect()];
                if self.has_pods {
                    cells.push(pod.clone().unwrap_or_else(nothing));
                }
                cells
            }
            Key::Pod(uid) => vec![uid.clone()],
            Key::Listener { netns, port } => {
                let addresses: BTreeSet<_> = self.listing.bound(*netns, *port).iter().map(Bound::address).collect();
                vec![several(addresses.into_iter().map(|address| std::net::SocketAddr::new(address, *port)))]
            }
            Key::Peer(address) => vec![address.to_string()],
            Key::None(_) | Key::Unknown => {
                let word = if *key == Key::Unknown { "unknown" } else { "no" };
                let words = format!("{word} {}", self.by);
                match self.by {
                    By::Process => vec![nothing(), words],
                    By::Cgroup => {
                        last = Some(words);
                        vec![nothing()]
                    }
                    By::Container if self.has_pods => vec![words, nothing()],
                    _ => vec![words],
                }
            }
        };
        if let (By::Listener, Key::Listener { netns, .. } | Key::None(Some(netns))) = (self.by, key)
            && self.listing.places.len() > 1
        {
            cells.push(self.listing.name(*netns).map_or_else(|| netns.to_string(), printable));
        }
        (cells, last)
    }
}

/// What is not in the table, or not known, a line each.
fn notes(counts: &Counts, listing: &Listing, others: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let reasons = |reasons: &BTreeMap<Why, u64>| {
        let parts: Vec<String> = reasons.iter().map(|(why, count)| format!("{count} {}", why.text())).collect();
        parts.join(", ")
    };
    for (word, why) in [("no", &counts.none), ("unknown", &counts.unknown)] {
        if !why.is_empty() {
            notes.push(format!("{word} {}: {}", counts.by, reasons(why)));
        }
    }
    let shared: u64 = counts.rows.iter().map(|row| row.total().shared).sum();
    if shared > 0 {
        notes.push(format!("shared: {shared} held by several processes, each counts for the lowest pid alone"));
    }
    notes.extend(counts.lack.iter().map(|lack| printable(&lack.text())));
    if others > 0 {
        notes.push(format!("not shown: {others} peers with fewer sockets; --json names all"));
    }
    notes.extend(listing.failures.iter().map(|(inode, why)| format!("not counted: namespace {inode}: {why}")));
    notes.extend(hidden(listing.hidden));
    notes
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::census::{Form, Place, Socket, sample};
    use crate::owner::Owners;

    fn listing(sockets: Vec<Socket>, namespaces: u32) -> Listing {
        let place = |inode| Place {
            inode,
            name: (inode == 7).then(|| "blue".to_owned()),
            took: Duration::ZERO,
            ephemeral: None,
        };
        let local = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets();
        Listing {
            began_ns: 1_000_000_000,
            ended_ns: 1_012_500_000,
            sockets,
            listeners: vec![Bound { netns: 7, port: 80, local, cgroup: 0 }],
            places: (7..7 + namespaces).map(place).collect(),
            failures: Vec::new(),
            held: Vec::new(),
            hidden: 0,
        }
    }

    fn shown(by: By, listing: &Listing) -> String {
        let counts = Counts::of(by, listing, Owners::default());
        text(&counts, listing, &Chosen::InetDiag("old".to_owned()), Offset::from_nanos(0))
    }

    #[test]
    fn rows_and_reasons() {
        let mut client = sample(State::Established, Form::Full, 3_000_000, 0);
        client.ends.local_port = 4000;
        let sockets = vec![
            sample(State::Listen, Form::Full, 1, 0),
            sample(State::Established, Form::Full, 2, 0),
            client,
            sample(State::CloseWait, Form::Full, 0, 0),
            sample(State::TimeWait, Form::Timewait, 0, 0),
        ];
        let text = shown(By::Listener, &listing(sockets.clone(), 2));
        let expected = "\
TCP sockets by listener of 2 network namespaces at 1970-01-01 00:00:01 UTC, walked in 12.5 ms

LISTENER     NETNS  TOTAL  LISTEN  ESTABLISHED  CLOSE-WAIT  TIME-WAIT  RECV-Q  SEND-Q  QUIET
0.0.0.0:80   blue       4       1            1           1          1       6       8   0.0s
no listener  blue       1       0            1           0          0       3       4   3.0s
total                   5       1            2           1          1       9      12   3.0s

no listener: 1 on ports that nothing listens on (opened here, or the listener is gone)
by inet_diag (old)
";
        assert_eq!(text, expected, "{text}");

        // Nobody holds these inodes.
        let text = shown(By::Process, &listing(sockets, 1));
        let expected = "\
TCP sockets by process of 1 network namespace at 1970-01-01 00:00:01 UTC, walked in 12.5 ms

PID  PROCESS          TOTAL  LISTEN  ESTABLISHED  CLOSE-WAIT  TIME-WAIT  RECV-Q  SEND-Q  QUIET
  -  unknown process      3       1            2           0          0       6       8   3.0s
  -  no process           2       0            0           1          1       3       4   0.0s
     total                5       1            2           1          1       9      12   3.0s
";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("no process: 1 minisocks (TIME_WAIT, or FIN_WAIT_2 after close), 1 not accepted yet\n"));
        assert!(text.contains("unknown process: 3 held by what cannot be seen here"), "{text}");
    }

    #[test]
    fn peers_beyond_the_first_are_one_row() {
        let peer = |last: u8| {
            let mut socket = sample(State::Established, Form::Full, 1, 0);
            socket.ends.peer = Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped().octets();
            socket
        };
        let mut sockets: Vec<Socket> = (1..=52).map(peer).collect();
        sockets.extend([peer(9), sample(State::Listen, Form::Full, 1, 0)]);
        let text = shown(By::Peer, &listing(sockets, 1));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[3].starts_with("10.0.0.9 ") && lines[3].contains(" 2 "), "{text}");
        // Title, blank, head, 50 peers, others, no peer, total.
        let others = lines.iter().position(|line| line.starts_with("2 others ")).unwrap();
        assert_eq!(others, 3 + 50, "{text}");
        assert!(lines[others + 2].starts_with("total") && lines[others + 2].contains(" 54 "), "{text}");
        assert!(text.contains("not shown: 2 peers with fewer sockets; --json names all"), "{text}");
    }
}
