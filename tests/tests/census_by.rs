//! `synfin census --by KEY` beside `ss` of the same moment: every socket once, in the row where it belongs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use synfin_tests::{
    census::{Census, Sum},
    cgroup::Cgroup,
    deadline, need,
    netns::Netns,
    peer::Peer,
    puppet::{COMPLETING, LOCAL, Port, Puppet},
    ss,
    stage::Side,
    state::State,
    synfin::run,
};

/// Every way to read the tables: each must tell the same.
const SOURCES: [&str; 2] = ["iterator", "inet_diag"];
const PUPPET: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// More than anybody else has.
const LEAKED: usize = 40;
const SHARED: usize = 3;
const TIME_WAIT: usize = 7;
const ORPHANS: usize = 6;
const HALF_OPEN: usize = 4;
const WAITING: usize = 5;

/// A namespace with a process that forgets to close, two that share, and sockets that nobody holds.
struct Scene {
    netns: Netns,
    leaky: Peer,
    sharing: Peer,
    child: u32,
    /// Of the test's own listener.
    port: u16,
    _held: Vec<Socket>,
    _puppet: Puppet,
}

impl Scene {
    fn new() -> Result<Self> {
        let netns = Netns::new()?;
        for (key, value) in [("tcp_syncookies", "0"), ("tcp_synack_retries", "12"), ("tcp_fin_timeout", "600")] {
            netns.sysctl(&format!("ipv4/{key}"), value)?;
        }
        let puppet = Puppet::new(&netns)?;
        let side = Side { netns: netns.clone(), ip: LOCAL.0.into() };
        let mut leaky = Peer::start(&side, "by-leaky")?;
        leaky.dial_often(LEAKED, SocketAddr::new(PUPPET.into(), Port::Leaving as u16))?;
        let mut sharing = Peer::start(&side, "by-sharing")?;
        for _ in 0..SHARED {
            sharing.connect(SocketAddr::new(PUPPET.into(), Port::Deaf as u16))?;
        }
        let child = sharing.fork("by-child")?;

        let mut held = Vec::new();
        // Another address for each, one of them of IPv6.
        for to in ["10.9.0.3", "10.9.0.4", "fd09::2"] {
            held.push(connect(&netns, SocketAddr::new(to.parse()?, Port::HalfClosed as u16))?);
        }
        for (port, times) in [(Port::Polite, TIME_WAIT), (Port::Deaf, ORPHANS)] {
            for _ in 0..times {
                drop(connect(&netns, SocketAddr::new(PUPPET.into(), port as u16))?);
            }
        }
        let listener = netns.run(|| -> Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
            socket.listen(64)?;
            Ok(socket)
        })?;
        let port = listener.local_addr()?.as_socket().context("an address of IP")?.port();
        held.push(listener);
        let to = SocketAddr::new(LOCAL.0.into(), port);
        for (first, times) in [(2000, HALF_OPEN), (COMPLETING, WAITING)] {
            (0..times).try_for_each(|turn| puppet.knock(SocketAddr::new(PUPPET.into(), first + turn as u16), to))?;
        }
        let wanted: BTreeMap<State, usize> = [
            (State::Listen, 1),
            (State::SynReceived, HALF_OPEN),
            (State::Established, SHARED + 3 + WAITING),
            (State::FinWait1, ORPHANS),
            (State::CloseWait, LEAKED),
            (State::TimeWait, TIME_WAIT),
        ]
        .into();
        deadline::until("all sockets to be in their states", || {
            let mut states = BTreeMap::new();
            ss::all(&netns)?.iter().for_each(|row| *states.entry(row.state).or_default() += 1);
            Ok((states == wanted).then_some(()))
        })?;
        Ok(Self { netns, leaky, sharing, child, port, _held: held, _puppet: puppet })
    }

    /// A census and what `ss` says, of a time in which nothing changed.
    fn look(&self, flags: &[&str]) -> Result<(Census, Vec<ss::Row>)> {
        for _ in 0..5 {
            let before = ss::held(&self.netns)?;
            let census = Census::take(&[flags, &["--netns", self.netns.name()]].concat())?;
            // Timers run.
            let words = |rows: &[ss::Row]| -> BTreeSet<String> {
                rows.iter().map(|row| format!("{:?}", ss::Row { timer: None, ..row.clone() })).collect()
            };
            if words(&before) == words(&ss::held(&self.netns)?) {
                return Ok((census, before));
            }
        }
        anyhow::bail!("the sockets never stood still")
    }
}

fn connect(netns: &Netns, to: SocketAddr) -> Result<Socket> {
    netns.run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.connect(&to.into()).with_context(|| format!("connecting to {to}"))?;
        Ok(socket)
    })
}

/// Sums by key, `-` for none, and state.
type Sums = BTreeMap<(String, State), Sum>;

/// What the lines say, by the value of this key of theirs.
fn told(census: &Census, by: &str, key: &str) -> Result<Sums> {
    let mut sums = Sums::new();
    for line in census.lines("census") {
        ensure!(line["synfin.census.by"] == by, "not by {by}: {line}");
        let number = |key: &str| line[key].as_u64().with_context(|| format!("no number {key}: {line}"));
        let missing = &line["synfin.census.missing"];
        ensure!(missing.is_null() || line[key].is_null(), "{key} though it is missing: {line}");
        let name = match &line[key] {
            Value::Null => missing.as_str().context("neither a key nor why it is missing")?.replace("none", "-"),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let state = State::from_name(line["network.connection.state"].as_str().context("no state")?)?;
        let sum = Sum {
            sockets: number("count")?,
            receive_queue: number("network.tcp.receive_queue")?,
            send_queue: number("network.tcp.send_queue")?,
        };
        ensure!(sums.insert((name, state), sum).is_none(), "twice: {line}");
    }
    Ok(sums)
}

/// What `ss` says, by a key of each socket.
fn witnessed(rows: &[ss::Row], key: impl Fn(&ss::Row) -> String) -> Sums {
    let mut sums = Sums::new();
    for row in rows {
        let bytes = |count: u64| if row.state == State::Listen { 0 } else { count };
        let (receive_queue, send_queue) = (bytes(row.receive_queue), bytes(row.send_queue));
        *sums.entry((key(row), row.state)).or_default() += Sum { sockets: 1, receive_queue, send_queue };
    }
    sums
}

fn all(sums: &Sums) -> u64 {
    sums.values().map(|sum| sum.sockets).sum()
}

/// Process, listener and peer: the same as `ss` says, from each source.
#[test]
fn sums_are_those_of_ss() -> Result<()> {
    let scene = Scene::new()?;
    for source in SOURCES {
        let of = |by| scene.look(&["--by", by, "--source", source]);

        let (census, rows) = of("process")?;
        let holder = |row: &ss::Row| row.pids.first().map_or_else(|| "-".to_owned(), ToString::to_string);
        let by_process = told(&census, "process", "process.pid")?;
        assert_eq!(by_process, witnessed(&rows, holder), "{source}");
        let end = census.end()?;
        assert_eq!(end["synfin.census.source"], source);
        let first = census.lines("census").next().context("a first line")?;
        assert_eq!(first["process.pid"], scene.leaky.pid(), "the one with the most sockets: {first}");
        assert_eq!(first["process.executable.name"], "by-leaky");
        assert_eq!((&first["network.connection.state"], &first["count"]), (&"close_wait".into(), &LEAKED.into()));

        // Nobody holds these, and those that two hold are counted once.
        let none = |state| by_process.get(&("-".to_owned(), state)).map_or(0, |sum| sum.sockets);
        assert_eq!(none(State::TimeWait), TIME_WAIT as u64);
        assert_eq!(none(State::FinWait1), ORPHANS as u64);
        assert_eq!(none(State::SynReceived), HALF_OPEN as u64);
        assert_eq!(none(State::Established), WAITING as u64);
        let (parent, child) = (scene.sharing.pid(), scene.child);
        let lines = || census.lines("census");
        let shared = lines().find(|line| line["process.pid"] == parent.min(child)).context("a line for both")?;
        assert_eq!((&shared["count"], &shared["synfin.census.shared"]), (&SHARED.into(), &SHARED.into()), "{shared}");
        assert!(lines().all(|line| line["process.pid"] != parent.max(child)), "counted twice");
        assert!(first["synfin.census.shared"].is_null(), "{first}");

        let (census, rows) = of("listener")?;
        let listened: BTreeSet<u16> =
            rows.iter().filter(|row| row.state == State::Listen).map(|row| row.port).collect();
        let listener = |row: &ss::Row| if listened.contains(&row.port) { row.port.to_string() } else { "-".to_owned() };
        assert_eq!(told(&census, "listener", "network.local.port")?, witnessed(&rows, listener), "{source}");
        let line = census.lines("census").find(|line| line["network.local.port"] == scene.port);
        assert_eq!(line.context("a line for the listener")?["network.local.address"], "0.0.0.0");
        assert!(census.lines("census").all(|line| line["linux.netns.inode"] == scene.netns.inode()));

        let (census, rows) = of("peer")?;
        let peer = |row: &ss::Row| match row.state {
            State::Listen => "-".to_owned(),
            _ => row.peer.to_canonical().to_string(),
        };
        let by_peer = told(&census, "peer", "network.peer.address")?;
        assert_eq!(by_peer, witnessed(&rows, peer), "{source}");
        assert_eq!(all(&by_peer), rows.len() as u64);
    }
    Ok(())
}

/// The engineer reads the culprit in the first row.
#[test]
fn text_begins_with_the_culprit() -> Result<()> {
    let scene = Scene::new()?;
    let ended = run(&["census", "--by", "process", "--netns", scene.netns.name()])?;
    ended.expect(0)?;
    let text = ended.stdout.join("\n");
    let head = ended.stdout.iter().position(|line| line.trim_start().starts_with("PID")).context("a head")?;
    let words = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let (head, row) = (words(&ended.stdout[head]), words(&ended.stdout[head + 1]));
    let cell = |name: &str| head.iter().position(|cell| cell == name).map(|at| row[at].clone());
    assert_eq!(cell("PID"), Some(scene.leaky.pid().to_string()), "{text}");
    assert_eq!(cell("PROCESS").as_deref(), Some("by-leaky"), "{text}");
    assert_eq!(cell("TOTAL"), Some(LEAKED.to_string()), "{text}");
    assert_eq!(cell("CLOSE-WAIT"), Some(LEAKED.to_string()), "{text}");
    assert!(text.contains(&format!("no process: {TIME_WAIT} minisocks")), "{text}");
    assert!(text.contains(&format!("shared: {SHARED} held by several")), "{text}");
    assert!(ended.stdout.iter().all(|line| line.trim_end() == line), "blanks at the end: {text}");
    Ok(())
}

/// A listener that the filter leaves out still says to whom a connection belongs.
#[test]
fn a_filter_hides_no_listener() -> Result<()> {
    let scene = Scene::new()?;
    for source in SOURCES {
        let peer_port = COMPLETING.to_string();
        let (census, rows) = scene.look(&["--by", "listener", "--port", &peer_port, "--source", source])?;
        assert!(rows.iter().any(|row| row.peer_port == COMPLETING));
        let one = Sum { sockets: 1, ..Sum::default() };
        let wanted: Sums = [((scene.port.to_string(), State::Established), one)].into();
        assert_eq!(told(&census, "listener", "network.local.port")?, wanted, "{source}");
    }
    Ok(())
}

/// Sockets of a cgroup as a Kubernetes node names them, while it is there and when it is gone.
#[test]
fn cgroups_name_container_and_pod() -> Result<()> {
    const CONNECTIONS: u64 = 8;
    let uid = format!("0a1b2c3d-0001-4fff-8abc-{:012x}", std::process::id());
    let container = format!("{:064x}", u128::from(std::process::id()) << 64 | 0xfeed);
    let slice = format!("/kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
    let path = format!("{slice}/cri-containerd-{container}.scope");

    let netns = Netns::new()?;
    netns.sysctl("ipv4/tcp_synack_retries", "12")?;
    let puppet = Puppet::new(&netns)?;
    let mut cgroup = Cgroup::new(&path)?;
    let id = cgroup.id()?;
    let side = Side { netns: netns.clone(), ip: LOCAL.0.into() };
    let mut peer = Peer::start(&side, "by-pod")?;
    cgroup.take_in(peer.pid())?;
    // One of another process, in no container of ours.
    let deaf = SocketAddr::new(PUPPET.into(), Port::Deaf as u16);
    let _other = connect(&netns, deaf)?;
    let listener = peer.listen(SocketAddr::new(LOCAL.0.into(), 0))?;
    for _ in 0..CONNECTIONS {
        peer.connect(deaf)?;
    }
    // A request has no cgroup of its own, and belongs to its listener's.
    puppet.knock(SocketAddr::new(PUPPET.into(), 2000), listener)?;
    let has = |state| Ok(ss::all(&netns)?.iter().any(|row| row.state == state).then_some(()));
    deadline::until("a half-open socket", || has(State::SynReceived))?;

    // It stays until its timer finds that its listener is gone.
    let is_request = |line: &Value| line["network.connection.state"] == "syn_received";
    let look = |by: &str, source: &str| Census::take(&["--by", by, "--source", source, "--netns", netns.name()]);
    let sum = |census: &Census, which: &dyn Fn(&Value) -> bool| {
        let lines = census.lines("census").filter(|line| which(line));
        lines.filter_map(|line| line["count"].as_u64()).sum::<u64>()
    };
    let witness = netns.run(|| need::run(Command::new("ss").args(["-tanH", "--cgroup"])))?;
    let said = witness.lines().filter(|line| line.contains(&format!("cgroup:{path}"))).count() as u64;
    assert_eq!(said, CONNECTIONS + 1, "{witness}");
    for source in SOURCES {
        let census = look("cgroup", source)?;
        assert_eq!(sum(&census, &|line| line["linux.cgroup.path"] == *path), said + 1, "{source}");
        assert!(
            census.lines("census").all(|line| (line["linux.cgroup.id"] == id) == (line["linux.cgroup.path"] == *path))
        );
        let census = look("container", source)?;
        let of_ours = |line: &Value| line["container.id"] == *container && line["k8s.pod.uid"] == *uid;
        assert_eq!((sum(&census, &of_ours), sum(&census, &|_| true)), (said + 1, said + 2), "{source}");
        let census = look("pod", source)?;
        let of_ours = |line: &Value| line["k8s.pod.uid"] == *uid;
        assert_eq!((sum(&census, &of_ours), sum(&census, &|_| true)), (said + 1, said + 2), "{source}");
    }
    let text = run(&["census", "--by", "pod", "--netns", netns.name()])?;
    text.expect(0)?;
    assert!(text.stdout.iter().any(|line| line.starts_with(&uid)), "{:?}", text.stdout);

    // Its connections outlive process and cgroup: then nobody can say any more whose they were.
    peer.kill()?;
    cgroup.remove();
    assert!(!cgroup.folder().exists(), "the cgroup cannot be removed");
    deadline::until("the orphans", || has(State::FinWait1))?;
    for source in SOURCES {
        let census = look("cgroup", source)?;
        let gone = |line: &Value| line["linux.cgroup.id"] == id && line["linux.cgroup.path"].is_null();
        assert_eq!(
            (sum(&census, &gone), sum(&census, &|line| !is_request(line))),
            (CONNECTIONS, CONNECTIONS + 1),
            "{source}"
        );
        for by in ["container", "pod"] {
            let census = look(by, source)?;
            let unknown = |line: &Value| {
                line["synfin.census.missing"] == "unknown" && line["network.connection.state"] == "fin_wait_1"
            };
            assert_eq!(sum(&census, &unknown), CONNECTIONS, "{source} by {by}");
        }
    }
    Ok(())
}

/// Each socket has its line; what the lines say beside `ss` is for the tests of `--sockets`.
#[test]
fn each_socket_has_a_line() -> Result<()> {
    let scene = Scene::new()?;
    for source in SOURCES {
        let (census, rows) = scene.look(&["--sockets", "--source", source])?;
        let ends = |address: IpAddr, port: u64, peer: u64, state: State| format!("{address} {port} {peer} {state:?}");
        let number = |line: &Value, key: &str| line[key].as_u64().unwrap_or(0);
        let mut told = Vec::new();
        for line in census.lines("socket") {
            let address = line["network.local.address"].as_str().context("no address")?.parse()?;
            let (port, peer) = (number(line, "network.local.port"), number(line, "network.peer.port"));
            let state = State::from_name(line["network.connection.state"].as_str().context("no state")?)?;
            told.push(ends(address, port, peer, state));
            let age = line["synfin.socket.age"].as_f64();
            assert_eq!(age.is_some(), state == State::TimeWait, "{line}");
            assert!(age.is_none_or(|age| (0.0..60.0).contains(&age)), "{line}");
            if state == State::CloseWait {
                assert_eq!(line["process.pid"], scene.leaky.pid(), "{line}");
            }
            assert_eq!(
                line["holders"].is_array(),
                line["process.pid"] == scene.sharing.pid().min(scene.child),
                "{line}"
            );
        }
        let mut witnessed: Vec<String> = rows
            .iter()
            .map(|row| ends(row.address.to_canonical(), row.port.into(), row.peer_port.into(), row.state))
            .collect();
        told.sort();
        witnessed.sort();
        assert_eq!(told, witnessed, "{source}");
    }
    let ended = run(&["census", "--sockets", "--netns", scene.netns.name()])?;
    ended.expect(0)?;
    let leaks = format!("{}/by-leaky", scene.leaky.pid());
    assert_eq!(ended.stdout.iter().filter(|line| line.contains(&leaks)).count(), LEAKED, "{:?}", ended.stdout);
    Ok(())
}

#[test]
fn wrong_views_are_2() -> Result<()> {
    for (flags, part) in [
        (&["--by", "user"] as &[&str], "process, cgroup, container, pod, listener, peer"),
        (&["--by", "process", "--sockets"], "cannot be used with"),
    ] {
        let ended = run(&[&["census"], flags].concat())?;
        ended.expect(2)?;
        let message = ended.stderr.join("\n");
        assert!(message.contains(part), "{message}");
        assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
    }
    Ok(())
}
