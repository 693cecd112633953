//! `synfin census` for people: states, listeners with what hangs on them, then what has no listener.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use super::table::{printable, table};
use crate::census::holders::Holder;
use crate::census::{Census, Form, Group, Listener, Network};
use crate::clock::Offset;
use crate::event::State;
use crate::source::Chosen;

/// Holders of listeners, by the inode of the socket file.
pub type Holders = BTreeMap<u64, Vec<Holder>>;

/// Holders named in a row at most.
const NAMED: usize = 3;

/// The whole text.
pub fn text(census: &Census, holders: &Holders, source: &Chosen, offset: Offset) -> String {
    let mut out = String::new();
    head(&mut out, census, offset);
    states(&mut out, &census.sums.groups);
    listeners(&mut out, census, holders);
    others(&mut out, census);
    ephemeral(&mut out, census);
    notes(&mut out, census);
    if let Some(note) = source.note() {
        out.push_str(&format!("\n{note}\n"));
    }
    out
}

fn head(out: &mut String, census: &Census, offset: Offset) {
    out.push_str(&format!(
        "TCP sockets of {}\n",
        moment(census.places.len(), census.began_ns, census.ended_ns, offset)
    ));
}

/// Where and when it was looked.
pub(super) fn moment(places: usize, began_ns: u64, ended_ns: u64, offset: Offset) -> String {
    let time = offset.rfc3339(began_ns);
    let time = time.get(..19).unwrap_or(&time).replace('T', " ");
    let took = ended_ns.saturating_sub(began_ns) as f64 / 1e6;
    let spaces = if places == 1 { "1 network namespace".to_owned() } else { format!("{places} network namespaces") };
    format!("{spaces} at {time} UTC, walked in {took:.1} ms")
}

fn states(out: &mut String, groups: &[Group]) {
    let head = ["STATE", "SOCKETS", "IPV4", "IPV6", "RECV-Q", "SEND-Q"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    let sum = |which: &dyn Fn(&Group) -> bool, what: &dyn Fn(&Group) -> u64| {
        groups.iter().filter(|group| which(group)).map(what).sum::<u64>()
    };
    let row = |name: String, which: &dyn Fn(&Group) -> bool| {
        let of = |network| sum(&|group| which(group) && group.network == network, &|group| group.sockets);
        vec![
            name,
            sum(which, &|group| group.sockets).to_string(),
            of(Network::Ipv4).to_string(),
            of(Network::Ipv6).to_string(),
            sum(which, &|group| group.receive_queue).to_string(),
            sum(which, &|group| group.send_queue).to_string(),
        ]
    };
    for state in State::ALL {
        let of_state = |group: &Group| group.state == state;
        if groups.iter().any(of_state) {
            rows.push(row(state.name().to_owned(), &of_state));
        }
    }
    rows.push(row("total".to_owned(), &|_| true));
    table(out, &rows, &[0]);
    // The kernel keeps these two without a socket that a process could close.
    let orphans = |group: &Group| group.form == Form::Timewait && group.state == State::FinWait2;
    let waiting = sum(&orphans, &|group| group.sockets);
    if waiting > 0 {
        out.push_str(&format!("{waiting} of fin_wait_2 are minisocks: closed here, the peer's FIN is awaited\n"));
    }
}

/// What listens on one port of a namespace.
#[derive(Default)]
struct Port<'a> {
    listeners: Vec<&'a Listener>,
    states: HashMap<State, u64>,
}

fn listeners(out: &mut String, census: &Census, holders: &Holders) {
    let mut ports: BTreeMap<(u32, u16), Port<'_>> = BTreeMap::new();
    for row in &census.sums.listeners {
        ports.entry((row.netns, row.port)).or_default().listeners.push(row);
    }
    for group in &census.sums.groups {
        let port = group.port.and_then(|port| ports.get_mut(&(group.netns, port)));
        if let Some(port) = port {
            *port.states.entry(group.state).or_default() += group.sockets;
        }
    }
    if ports.is_empty() {
        return;
    }
    let head = [
        "LISTENER",
        "NETNS",
        "ACCEPT-Q",
        "LIMIT",
        "HALF-OPEN",
        "OLDEST",
        "ESTAB",
        "CLOSE-WAIT",
        "TIME-WAIT",
        "OTHER",
        "HOLDER",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for ((netns, _), port) in &ports {
        rows.push(port_row(census, *netns, port, holders));
    }
    table(out, &rows, &[0, 1, 10]);
}

fn port_row(census: &Census, netns: u32, port: &Port<'_>, holders: &Holders) -> Vec<String> {
    let sum = |what: fn(&Listener) -> u32| port.listeners.iter().map(|row| u64::from(what(row))).sum::<u64>();
    let count = |state| port.states.get(&state).copied().unwrap_or(0);
    let (established, close_wait, time_wait) =
        (count(State::Established), count(State::CloseWait), count(State::TimeWait));
    let all: u64 = port.states.values().sum();
    // The listeners themselves and the half-open have columns of their own.
    let other = all - established - close_wait - time_wait - count(State::Listen) - count(State::SynReceived);
    let oldest = port.listeners.iter().filter_map(|row| row.oldest_ns).min();
    let oldest = oldest
        .map_or_else(|| "-".to_owned(), |since| format!("{:.1}s", census.ended_ns.saturating_sub(since) as f64 / 1e9));
    let addresses: BTreeSet<SocketAddr> =
        port.listeners.iter().map(|row| SocketAddr::new(row.address(), row.port)).collect();
    vec![
        several(addresses.into_iter()),
        namespace(census, netns),
        sum(|row| row.accept_queue).to_string(),
        sum(|row| row.accept_limit).to_string(),
        sum(|row| row.half_open).to_string(),
        oldest,
        established.to_string(),
        close_wait.to_string(),
        time_wait.to_string(),
        other.to_string(),
        held_by(port.listeners.iter().map(|row| row.inode), holders),
    ]
}

/// The first two addresses, and how many more there are.
pub(super) fn several(addresses: impl ExactSizeIterator<Item = SocketAddr>) -> String {
    let more = addresses.len().saturating_sub(2);
    let mut names: Vec<String> = addresses.take(2).map(|address| address.to_string()).collect();
    if more > 0 {
        names.push(format!("+{more}"));
    }
    names.join(" ")
}

/// The processes that hold any of these sockets.
pub(super) fn held_by(inodes: impl Iterator<Item = u64>, holders: &Holders) -> String {
    let mut all: Vec<&Holder> = inodes.filter_map(|inode| holders.get(&inode)).flatten().collect();
    all.sort_by_key(|holder| holder.pid);
    all.dedup();
    let mut names: Vec<String> =
        all.iter().take(NAMED).map(|holder| format!("{}/{}", holder.pid, printable(&holder.name))).collect();
    if all.len() > NAMED {
        names.push(format!("+{}", all.len() - NAMED));
    }
    if names.is_empty() { "-".to_owned() } else { names.join(" ") }
}

/// Connections that no listener of their namespace accepted: clients, and what a closed listener left behind.
fn others(out: &mut String, census: &Census) {
    let mut rows = vec![["NO LISTENER", "STATE", "SOCKETS", "RECV-Q", "SEND-Q"].map(str::to_owned).to_vec()];
    let mut sums: BTreeMap<(u32, usize), (u64, u64, u64)> = BTreeMap::new();
    for group in census.sums.groups.iter().filter(|group| group.port.is_none()) {
        let place = State::ALL.iter().position(|state| *state == group.state).unwrap_or(0);
        let row = sums.entry((group.netns, place)).or_default();
        *row = (row.0 + group.sockets, row.1 + group.receive_queue, row.2 + group.send_queue);
    }
    for ((netns, place), (sockets, receive, send)) in &sums {
        let state = State::ALL[*place].name().to_owned();
        rows.push(vec![namespace(census, *netns), state, sockets.to_string(), receive.to_string(), send.to_string()]);
    }
    if rows.len() > 1 {
        table(out, &rows, &[0, 1]);
    }
}

/// Ports that the kernel chose, or could have, where any is taken.
fn ephemeral(out: &mut String, census: &Census) {
    let mut rows = vec![["EPHEMERAL PORTS", "TAKEN", "LIMIT", "USED"].map(str::to_owned).to_vec()];
    for place in &census.places {
        if let Some((ports, used)) = place.ephemeral.and_then(|ports| Some((ports, ports.utilization()?)))
            && ports.taken > 0
        {
            let used = format!("{:.1}%", used * 100.0);
            rows.push(vec![namespace(census, place.inode), ports.taken.to_string(), ports.limit.to_string(), used]);
        }
    }
    if rows.len() > 1 {
        table(out, &rows, &[0]);
    }
}

/// What processes may hide whose namespace could not be asked for.
pub(super) fn hidden(processes: usize) -> Option<String> {
    (processes > 0).then(|| {
        format!("perhaps not counted: namespaces of {processes} processes that may not be asked for theirs (CAP_SYS_PTRACE is missing)")
    })
}

fn notes(out: &mut String, census: &Census) {
    for (inode, why) in &census.failures {
        out.push_str(&format!("\nnot counted: namespace {inode}: {why}\n"));
    }
    if let Some(note) = hidden(census.hidden) {
        out.push_str(&format!("\n{note}\n"));
    }
    let strays = census.sums.strays;
    if strays.groups > 0 {
        out.push_str(&format!("\nnot counted: {} sockets, because there are too many groups\n", strays.groups));
    }
    if strays.listeners > 0 {
        out.push_str(&format!("\nnot shown: {} listeners, because there are too many\n", strays.listeners));
    }
    if strays.unreadable > 0 {
        out.push_str(&format!("\nnot counted: {} sockets of an unknown kind\n", strays.unreadable));
    }
}

fn namespace(census: &Census, inode: u32) -> String {
    let name = census.places.iter().find(|place| place.inode == inode).and_then(|place| place.name.clone());
    name.map_or_else(|| inode.to_string(), |name| printable(&name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::census::{Ephemeral, Place, Strays, Sums};

    fn group(state: State, form: Form, port: Option<u16>, sockets: u64) -> Group {
        let network = Network::Ipv4;
        Group { netns: 7, state, form, network, port, cgroup: 1, sockets, receive_queue: sockets, send_queue: 0 }
    }

    fn listener(inode: u64) -> Listener {
        Listener {
            netns: 7,
            local: std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(),
            port: 80,
            cgroup: 1,
            cookie: inode,
            inode,
            uid: 0,
            accept_queue: 3,
            accept_limit: 128,
            half_open: 2,
            oldest_ns: Some(500_000_000),
        }
    }

    #[test]
    fn tables() {
        let groups = vec![
            group(State::Listen, Form::Full, Some(80), 2),
            group(State::Established, Form::Full, Some(80), 5),
            group(State::SynReceived, Form::Request, Some(80), 4),
            group(State::FinWait2, Form::Timewait, Some(80), 6),
            group(State::SynSent, Form::Full, None, 9),
        ];
        let strays = Strays { groups: 11, ..Strays::default() };
        let place = |inode, name: Option<&str>, ephemeral| {
            let name = name.map(str::to_owned);
            Place { inode, name, took: Duration::ZERO, ephemeral }
        };
        let ports = |taken, limit| Some(Ephemeral { taken, limit });
        let census = Census {
            began_ns: 1_000_000_000,
            ended_ns: 1_012_500_000,
            sums: Sums { groups, listeners: vec![listener(1), listener(2)], strays },
            places: vec![
                place(7, Some("blue"), ports(9, 12)),
                place(9, None, ports(0, 28_232)),
                place(10, None, None),
                place(11, None, ports(28_231, 28_232)),
            ],
            failures: vec![(8, "no permission".into())],
            ..Census::default()
        };
        let holder = |pid| Holder { pid, name: "a\tb".into() };
        let holders = BTreeMap::from([(1, vec![holder(4), holder(5)]), (2, vec![holder(5)])]);
        let text = text(&census, &holders, &Chosen::InetDiag("old".to_owned()), Offset::from_nanos(0));
        let expected = "\
TCP sockets of 4 network namespaces at 1970-01-01 00:00:01 UTC, walked in 12.5 ms

STATE         SOCKETS  IPV4  IPV6  RECV-Q  SEND-Q
listen              2     2     0       2       0
syn_sent            9     9     0       9       0
syn_received        4     4     0       4       0
established         5     5     0       5       0
fin_wait_2          6     6     0       6       0
total              26    26     0      26       0
6 of fin_wait_2 are minisocks: closed here, the peer's FIN is awaited

LISTENER    NETNS  ACCEPT-Q  LIMIT  HALF-OPEN  OLDEST  ESTAB  CLOSE-WAIT  TIME-WAIT  OTHER  HOLDER
0.0.0.0:80  blue          6    256          4    0.5s      5           0          0      6  4/a?b 5/a?b

NO LISTENER  STATE     SOCKETS  RECV-Q  SEND-Q
blue         syn_sent        9       9       0

EPHEMERAL PORTS  TAKEN  LIMIT    USED
blue                 9     12   75.0%
11               28231  28232  100.0%

not counted: namespace 8: no permission

not counted: 11 sockets, because there are too many groups

by inet_diag (old): every socket is copied, ages of half-open connections are unknown, and those of listeners that share an address count with one of them; namespaces that only an open socket keeps are not found
";
        assert_eq!(text, expected, "{text}");
    }
}
