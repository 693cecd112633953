//! `synfin census` beside `ss` and /proc/net/sockstat of the same moment: equal, socket by socket counted.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use synfin_tests::{
    census::{self, Census, Form, Key, Sum},
    deadline, need,
    netns::Netns,
    peer::Peer,
    puppet::{CHATTER, COMPLETING, COMPLETING_AND_LEAVING, LOCAL, Port, Puppet},
    sock::raw::set_tcp_option,
    ss,
    stage::{Family, Side},
    state::State,
    synfin::{Synfin, run},
};
use tempfile::TempDir;

const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Mapped];
const NAMESPACES: usize = 24;
/// Sockets of each state in each namespace: 10,080 in all.
const EACH: usize = 420;
/// Of those in ESTABLISHED and in CLOSE_WAIT, held by the test; the others wait for accept.
const HELD: usize = 210;
/// Of those in ESTABLISHED, with bytes in both queues.
const QUEUED: usize = 60;
const UNACKNOWLEDGED: &[u8] = b"thirty bytes without an answer";

/// A namespace with a puppet, and the sockets that live in it.
struct Crowd {
    netns: Netns,
    puppet: Puppet,
    held: Vec<Socket>,
    peer: Option<Peer>,
}

impl Crowd {
    fn new() -> Result<Self> {
        let netns = Netns::new()?;
        for (key, value) in [
            // Requests and SYNs stay for minutes, and no request is answered by a cookie.
            ("tcp_syncookies", "0"),
            ("tcp_max_syn_backlog", "100000"),
            ("tcp_synack_retries", "12"),
            ("tcp_syn_retries", "12"),
            ("ip_local_port_range", "1100 65000"),
        ] {
            netns.sysctl(&format!("ipv4/{key}"), value)?;
        }
        let puppet = Puppet::new(&netns)?;
        Ok(Self { netns, puppet, held: Vec::new(), peer: None })
    }

    fn side(&self, family: Family) -> Side {
        Side { netns: self.netns.clone(), ip: local(family) }
    }

    /// Many connections to one port of the puppet; `then` gets each, and gives back what is to be held open.
    fn connect(
        &mut self,
        port: Port,
        times: usize,
        then: impl Fn(usize, Socket) -> Result<Option<Socket>> + Sync,
    ) -> Result<()> {
        let made: Result<Vec<Option<Socket>>> = self.netns.run(|| {
            (0..times)
                .map(|turn| {
                    let family = FAMILIES[turn % 3];
                    let socket = Socket::new(domain(family), Type::STREAM, Some(Protocol::TCP))?;
                    let to = SocketAddr::new(puppets(family), port as u16).into();
                    socket.connect(&to).with_context(|| format!("connecting to {port:?}"))?;
                    then(turn / 3, socket)
                })
                .collect()
        });
        self.held.extend(made?.into_iter().flatten());
        Ok(())
    }

    fn listen(&mut self, family: Family, port: u16, backlog: i32) -> Result<SocketAddr> {
        let socket = self.netns.run(|| -> Result<Socket> {
            let socket = Socket::new(domain(family), Type::STREAM, Some(Protocol::TCP))?;
            if family == Family::V6 {
                socket.set_only_v6(true)?;
            }
            let any: IpAddr =
                if family == Family::V4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            socket.bind(&SocketAddr::new(any, port).into())?;
            socket.listen(backlog)?;
            Ok(socket)
        })?;
        let address = socket.local_addr()?.as_socket().context("an address of IP")?;
        self.held.push(socket);
        Ok(address)
    }

    /// Asks the listener of a family for connections, from ports `from` on.
    fn knock(&self, family: Family, port: u16, from: u16, times: usize) -> Result<()> {
        let (here, there) = match family {
            Family::V6 => (puppets(Family::V6), local(Family::V6)),
            // To the listener of both families IPv4 comes v4-mapped.
            Family::V4 | Family::Mapped => (puppets(Family::V4), local(Family::V4)),
        };
        (0..times).try_for_each(|turn| {
            self.puppet.knock(SocketAddr::new(here, from + turn as u16), SocketAddr::new(there, port))
        })
    }

    /// What does not go away by itself. A process may have only so many files: some sockets need none, others have a process of their own.
    fn lasting(&mut self) -> Result<()> {
        let mut peer = Peer::start(&self.side(Family::V4), "census-crowd")?;
        for family in FAMILIES {
            peer.listen_often(EACH / 3 - 1, local(family))?;
            peer.dial_often(EACH / 3, SocketAddr::new(puppets(family), Port::Silent as u16))?;
            let port = self.listen(family, 0, 4096)?.port();
            self.knock(family, port, 2000, EACH / 3)?;
            self.knock(family, port, COMPLETING, (EACH - HELD) / 3)?;
            self.knock(family, port, COMPLETING_AND_LEAVING, (EACH - HELD) / 3)?;
        }
        self.peer = Some(peer);
        let hold = |_, socket| Ok(Some(socket));
        // Few with a holder, the others without: to the kernel's tables one is as good as the other.
        let close = |turn: usize, socket: Socket| {
            if !turn.is_multiple_of(7) {
                return Ok(None);
            }
            socket.shutdown(Shutdown::Write)?;
            Ok(Some(socket))
        };
        self.connect(Port::Deaf, HELD - QUEUED, hold)?;
        self.connect(Port::Chatty, QUEUED, |_, mut socket| {
            socket.write_all(UNACKNOWLEDGED)?;
            Ok(Some(socket))
        })?;
        self.connect(Port::Deaf, EACH, close)?;
        self.connect(Port::Crossing, EACH, close)?;
        self.connect(Port::Leaving, HELD, hold)?;
        self.connect(Port::Leaving, EACH, |turn, socket| {
            read_fin(&socket)?;
            close(turn, socket)
        })
    }

    /// What the kernel takes away a minute later.
    fn passing(&mut self) -> Result<()> {
        self.connect(Port::HalfClosed, EACH, |turn, socket| {
            match turn % 7 {
                0 => {
                    socket.shutdown(Shutdown::Write)?;
                    Ok(Some(socket))
                }
                // A full socket without a holder: it becomes a minisock for its last minute.
                1 | 2 => set_tcp_option(&socket, libc::TCP_LINGER2, 120).map(|()| None).context("setting TCP_LINGER2"),
                _ => Ok(None),
            }
        })?;
        self.connect(Port::Polite, EACH, |_, _| Ok(None))
    }

    /// How many sockets are in which state, once all are where they will stay.
    fn settled(&self) -> Result<()> {
        let wanted: BTreeMap<State, usize> = STATES.into_iter().map(|state| (state, EACH)).collect();
        let mut last = BTreeMap::new();
        let settled = deadline::until("all sockets to be in their states", || {
            last.clear();
            for row in ss::all(&self.netns)? {
                *last.entry(row.state).or_insert(0) += 1;
            }
            Ok((last == wanted).then_some(()))
        });
        settled.with_context(|| format!("{}: {last:?}", self.netns.name()))
    }
}

const STATES: [State; 10] = [
    State::Established,
    State::SynSent,
    State::SynReceived,
    State::FinWait1,
    State::FinWait2,
    State::TimeWait,
    State::CloseWait,
    State::LastAck,
    State::Listen,
    State::Closing,
];

/// Waits for the FIN: then the socket is in CLOSE_WAIT.
fn read_fin(mut socket: &Socket) -> Result<()> {
    let read = socket.read(&mut [0])?;
    ensure!(read == 0, "data instead of a FIN");
    Ok(())
}

fn domain(family: Family) -> Domain {
    if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 }
}

fn local(family: Family) -> IpAddr {
    match family {
        Family::V4 => LOCAL.0.into(),
        Family::V6 => LOCAL.1.into(),
        Family::Mapped => LOCAL.0.to_ipv6_mapped().into(),
    }
}

/// An address of the puppet.
fn puppets(family: Family) -> IpAddr {
    let (v4, v6) = (Ipv4Addr::new(10, 9, 0, 2), Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2));
    match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.into(),
        Family::Mapped => v4.to_ipv6_mapped().into(),
    }
}

/// Every way to read the tables: each must tell the same.
const SOURCES: [&str; 2] = ["iterator", "inet_diag"];

/// Takes a census of each source until the kernel's counters of all these namespaces, and all that `ss` says, are the same before and after;
/// gives them with what `ss` said.
fn in_one_moment(namespaces: &[&Netns], flags: &[&str]) -> Result<([Census; 2], Vec<Vec<ss::Row>>)> {
    let counters = || namespaces.iter().map(|netns| netns.sockstat()).collect::<Result<Vec<_>>>();
    for _ in 0..5 {
        let before = counters()?;
        let rows = namespaces.iter().map(|netns| ss::all(netns)).collect::<Result<Vec<_>>>()?;
        let censuses = SOURCES.map(|source| Census::take(&[flags, &["--source", source]].concat()));
        let again = namespaces.iter().map(|netns| ss::all(netns)).collect::<Result<Vec<_>>>()?;
        let same = |(one, other): (&Vec<ss::Row>, &Vec<ss::Row>)| ss::sums(one) == ss::sums(other);
        if counters()? == before && rows.iter().zip(&again).all(same) {
            let [one, other] = censuses;
            return Ok(([one?, other?], rows));
        }
    }
    anyhow::bail!("the sockets never stood still")
}

/// Fails where a census is not what `ss` and sockstat say, or the sources do not tell the same of cgroups.
fn agree(censuses: &[Census; 2], netns: &Netns, rows: &[ss::Row]) -> Result<()> {
    for (census, source) in censuses.iter().zip(SOURCES) {
        let told = census.end()?["synfin.census.source"].as_str();
        ensure!(told == Some(source), "a census of {source} says that it comes from {told:?}");
        agrees(census, netns, rows).with_context(|| format!("by {source}"))?;
    }
    let [one, other] = censuses.each_ref().map(|census| census.by_cgroup(netns));
    ensure!(one == other, "{}: by iterators {one:?}, by inet_diag {other:?}", netns.name());
    Ok(())
}

fn agrees(census: &Census, netns: &Netns, rows: &[ss::Row]) -> Result<()> {
    let (told, witnessed) = (census.sums(netns)?, ss::sums(rows));
    let wrong: Vec<_> = witnessed
        .keys()
        .chain(told.keys())
        .filter(|key| told.get(key) != witnessed.get(key))
        .map(|key| format!("{key:?}: census {:?}, ss {:?}", told.get(key), witnessed.get(key)))
        .collect();
    ensure!(wrong.is_empty(), "{}:\n{}", netns.name(), wrong.join("\n"));
    let count = |form: Form| of(&told, |key| key.form == form).sockets;
    let sockstat = netns.sockstat()?;
    ensure!(count(Form::Full) == sockstat.inuse, "{} full sockets beside {sockstat:?}", count(Form::Full));
    ensure!(count(Form::Timewait) == sockstat.timewait, "{} minisocks beside {sockstat:?}", count(Form::Timewait));
    Ok(())
}

fn of(sums: &BTreeMap<Key, Sum>, which: impl Fn(&Key) -> bool) -> Sum {
    let mut all = Sum::default();
    sums.iter().filter(|(key, _)| which(key)).for_each(|(_, sum)| all += *sum);
    all
}

/// Every state, ten thousand times, in many namespaces at once.
#[test]
fn every_state() -> Result<()> {
    need::root()?;
    let mut crowds = (0..NAMESPACES).map(|_| Crowd::new()).collect::<Result<Vec<_>>>()?;
    for phase in [Crowd::lasting, Crowd::passing] {
        thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> = crowds
                .chunks_mut(NAMESPACES / 2)
                .map(|crowds| scope.spawn(move || crowds.iter_mut().try_for_each(phase)))
                .collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("no panic in a worker"))
        })?;
    }
    crowds.iter().try_for_each(Crowd::settled)?;

    let namespaces: Vec<&Netns> = crowds.iter().map(|crowd| &crowd.netns).collect();
    let (censuses, rows) = in_one_moment(&namespaces, &[])?;
    let mut states: BTreeMap<State, u64> = BTreeMap::new();
    for (netns, rows) in namespaces.iter().zip(&rows) {
        agree(&censuses, netns, rows)?;
        let sums = censuses[0].sums(netns)?;
        for state in STATES {
            *states.entry(state).or_default() += of(&sums, |key| key.state == state).sockets;
        }
        let orphans = of(&sums, |key| key.state == State::FinWait2 && key.form == Form::Timewait).sockets;
        // Not each becomes one: the kernel keeps the full socket where the ACK comes while close() still has it.
        let closed = EACH as u64 / 7 * 4;
        assert!((closed / 2..=closed).contains(&orphans), "{orphans} FIN_WAIT_2 minisocks");
        // The FIN that nobody has read counts as a byte, so that only this state tells what was sent.
        let queued = of(&sums, |key| key.state == State::Established);
        let bytes = |each: usize| (QUEUED * each) as u64;
        assert_eq!((queued.receive_queue, queued.send_queue), (bytes(CHATTER), bytes(UNACKNOWLEDGED.len())));
    }
    assert!(states.values().all(|count| *count >= 10_000), "{states:?}");
    Ok(())
}

/// A row for each listener: queues, half-open connections and their age, who holds it.
#[test]
fn listeners() -> Result<()> {
    const HALF_OPEN: usize = 40;
    const WAITING: usize = 25;
    let mut crowd = Crowd::new()?;
    let mut ports = Vec::new();
    for (turn, family) in FAMILIES.into_iter().enumerate() {
        ports.push(crowd.listen(family, 0, 100 + turn as i32)?.port());
    }
    // One that nobody asks for anything, held by another process.
    let mut peer = Peer::start(&crowd.side(Family::V4), "census-holder")?;
    let quiet = peer.listen(SocketAddr::new(local(Family::V4), 0))?;
    let began = Instant::now();
    crowd.knock(FAMILIES[0], ports[0], 2000, 1)?;
    let first = Instant::now();
    for (turn, family) in FAMILIES.into_iter().enumerate() {
        let already = usize::from(turn == 0);
        crowd.knock(family, ports[turn], 2000 + already as u16, HALF_OPEN - turn - already)?;
        crowd.knock(family, ports[turn], COMPLETING, WAITING + turn)?;
    }
    deadline::until("all to knock", || {
        let rows = ss::all(&crowd.netns)?;
        let count = |state| rows.iter().filter(|row| row.state == state).count();
        Ok((count(State::SynReceived) == 3 * HALF_OPEN - 3 && count(State::Established) == 3 * WAITING + 3)
            .then_some(()))
    })?;
    let witnessed = ss::listeners(&crowd.netns)?;
    let before = first.elapsed();
    let (censuses, rows) = in_one_moment(&[&crowd.netns], &["--netns", crowd.netns.name()])?;
    let ages = before.as_secs_f64()..began.elapsed().as_secs_f64();
    agree(&censuses, &crowd.netns, &rows[0])?;
    for (census, source) in censuses.iter().zip(SOURCES) {
        let told = census.listeners(&crowd.netns)?;
        assert_eq!((told.len(), witnessed.len()), (4, 4), "{told:?} {witnessed:?}");
        for row in &witnessed {
            let listener =
                told.iter().find(|listener| listener.port == row.port).context("a line for each listener")?;
            assert_eq!(listener.address, row.address);
            assert_eq!(listener.accept_queue, (row.receive_queue, row.send_queue), "{listener:?} {row:?}");
            assert_eq!(listener.cookie, Some(row.cookie));
            assert_eq!(listener.pids, row.pids);
        }
        for (turn, port) in ports.iter().enumerate() {
            let listener = told.iter().find(|listener| listener.port == *port).context("a line for it")?;
            assert_eq!(listener.half_open, (HALF_OPEN - turn) as u64);
            assert_eq!(listener.accept_queue, ((WAITING + turn) as u64, 100 + turn as u64));
            assert!(listener.pids.contains(&u64::from(std::process::id())), "{listener:?}");
            match listener.oldest {
                None => assert_eq!(source, "inet_diag", "{listener:?}"),
                // The others were asked a moment later than the first.
                Some(oldest) if turn > 0 => assert!((0.0..ages.end).contains(&oldest), "{oldest} s beside {ages:?}"),
                Some(oldest) => assert!(ages.contains(&oldest), "{oldest} s beside {ages:?}"),
            }
        }
        let quiet =
            told.iter().find(|listener| listener.port == quiet.port()).context("a line for the other process")?;
        assert_eq!((quiet.half_open, quiet.oldest), (0, None));
        assert!(quiet.pids.contains(&u64::from(peer.pid())), "{quiet:?}");
    }
    Ok(())
}

/// A hundred thousand in TIME_WAIT, each one counted.
#[test]
fn many_in_time_wait() -> Result<()> {
    const COUNT: usize = 100_000;
    // One port serves many connections, as long as they differ in the other end.
    const ENDS: usize = 4;
    let crowd = Crowd::new()?;
    crowd.netns.sysctl("ipv4/tcp_max_tw_buckets", "200000")?;
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..ENDS)
            .map(|end| {
                let crowd = &crowd;
                scope.spawn(move || {
                    crowd.netns.run(|| -> Result<()> {
                        let to = SocketAddr::from(([10, 9, 1, end as u8], Port::Polite as u16)).into();
                        for _ in 0..COUNT / ENDS {
                            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
                            socket.connect(&to)?;
                        }
                        Ok(())
                    })
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic in a worker"))
    })?;
    deadline::until("all to be in TIME_WAIT", || Ok((crowd.netns.sockstat()?.timewait == COUNT as u64).then_some(())))?;
    let (censuses, rows) = in_one_moment(&[&crowd.netns], &["--netns", crowd.netns.name()])?;
    agree(&censuses, &crowd.netns, &rows[0])?;
    let sums = censuses[0].sums(&crowd.netns)?;
    assert_eq!(of(&sums, |key| key.state == State::TimeWait).sockets, COUNT as u64);
    Ok(())
}

/// A namespace is found by a process in it, or by the place where it is mounted.
#[test]
fn namespaces_are_found() -> Result<()> {
    let mut named = Crowd::new()?;
    named.listen(Family::V4, 0, 8)?;
    let by_process = Crowd::new()?;
    let mut peer = Peer::start(&by_process.side(Family::V4), "census-peer")?;
    peer.listen(SocketAddr::new(local(Family::V4), 0))?;
    let inode = by_process.netns.inode();
    by_process.netns.delete()?;

    for source in SOURCES {
        let census = Census::take(&["--source", source])?;
        let found = census.namespaces();
        assert!(found.contains(&named.netns.inode()), "the mounted one is missing: {found:?}");
        assert!(found.contains(&inode), "the one of a process is missing: {found:?}");
        let names = |netns: &Netns| -> Vec<Option<String>> {
            census.of("listener", netns).map(|line| line["linux.netns.name"].as_str().map(str::to_owned)).collect()
        };
        assert_eq!(names(&named.netns), [Some(named.netns.name().to_owned())]);
        assert_eq!(names(&by_process.netns), [None]);
    }
    Ok(())
}

/// Namespaces that come and go while a census runs disturb nothing.
#[test]
fn namespaces_that_vanish() -> Result<()> {
    let mut staying = Crowd::new()?;
    staying.listen(Family::V6, 0, 8)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let churn = scope.spawn(|| -> Result<usize> {
            let mut made = 0;
            while !stop.load(Ordering::Relaxed) {
                let netns = Netns::new()?;
                let listener = netns.run(|| std::net::TcpListener::bind("127.0.0.1:0"))?;
                netns.delete()?;
                drop(listener);
                made += 1;
            }
            Ok(made)
        });
        let censuses: Result<()> = (0..10).try_for_each(|turn| {
            let census = Census::take(&["--source", SOURCES[turn % 2]])?;
            ensure!(census.listeners(&staying.netns)?.len() == 1, "the one that stays is missing");
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let made = churn.join().expect("no panic in the churn")?;
        censuses?;
        ensure!(made > 10, "only {made} namespaces came and went");
        Ok(())
    })
}

/// What the filters leave out is not there, what they let through is.
#[test]
fn filters() -> Result<()> {
    let (mut crowd, mut other) = (Crowd::new()?, Crowd::new()?);
    let port = crowd.listen(Family::Mapped, 0, 64)?.port();
    crowd.listen(Family::V4, 0, 64)?;
    other.listen(Family::V4, port, 64)?;
    crowd.knock(Family::V4, port, 2000, 5)?;
    crowd.knock(Family::V4, port, COMPLETING, 7)?;
    for target in [Port::Deaf, Port::HalfClosed] {
        crowd.connect(target, 9, |_, socket| Ok(Some(socket)))?;
    }
    crowd.connect(Port::HalfClosed, 6, |_, _| Ok(None))?;

    let name = crowd.netns.name();
    let (censuses, rows) = in_one_moment(&[&crowd.netns], &["--netns", name])?;
    agree(&censuses, &crowd.netns, &rows[0])?;
    for census in &censuses {
        assert_eq!(census.namespaces(), [crowd.netns.inode()].into(), "--netns lets no other through");
    }
    for wanted in [port, Port::HalfClosed as u16] {
        let text = wanted.to_string();
        let (censuses, rows) = in_one_moment(&[&crowd.netns], &["--netns", name, "--port", &text])?;
        let rows: Vec<ss::Row> =
            rows[0].iter().filter(|row| row.port == wanted || row.peer_port == wanted).cloned().collect();
        assert!(!rows.is_empty());
        for census in &censuses {
            assert_eq!(census.sums(&crowd.netns)?, ss::sums(&rows), "--port {wanted}");
        }
    }
    let (censuses, _) = in_one_moment(&[&crowd.netns], &["--netns", name, "--peer", "fd09::/64"])?;
    for census in &censuses {
        let sums = census.sums(&crowd.netns)?;
        assert_eq!(of(&sums, |key| key.network == "ipv6").sockets, 8, "{sums:?}");
        assert_eq!(of(&sums, |_| true).sockets, 8, "{sums:?}");
    }
    Ok(())
}

#[test]
fn wrong_namespace_is_2() -> Result<()> {
    need::root()?;
    let ended = census::run(&["--netns", "synfin-no-such-netns"])?;
    ended.expect(2)?;
    assert!(ended.stderr.join("\n").contains("synfin-no-such-netns"), "{:?}", ended.stderr);
    assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
    Ok(())
}

/// What the fallback cannot tell is said to people too.
#[test]
fn the_fallback_names_what_is_missing() -> Result<()> {
    need::root()?;
    let said = |flags: &[&str]| -> Result<String> {
        let ended = run(&[&["census"], flags].concat())?;
        ended.expect(0)?;
        Ok(ended.stdout.join("\n"))
    };
    assert!(said(&["--source", "inet_diag"])?.contains("by inet_diag (asked for): "));
    assert!(!said(&["--source", "iterator"])?.contains("inet_diag"));
    let wrong = run(&["census", "--source", "proc"])?;
    wrong.expect(2)?;
    assert!(wrong.stderr.join("\n").contains("not a source; use auto"), "{:?}", wrong.stderr);
    Ok(())
}

/// Without privileges: 77, and the message says what is missing.
#[test]
fn no_privileges_is_77() -> Result<()> {
    need::root()?;
    need::tool("setpriv", "util-linux")?;
    // The tests' build may be below a folder that only root enters.
    let scratch = TempDir::new()?;
    let copy = scratch.path().join("synfin");
    // By a process of its own: what another thread starts meanwhile would hold the copy open for writing, and it could not run.
    need::run(Command::new("cp").arg(need::binary()?).arg(&copy))?;
    need::run(Command::new("chmod").arg("755").arg(scratch.path()).arg(&copy))?;
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).args(["census", "--json"]);
    let ended = Synfin::spawn(nobody)?.wait()?;
    ended.expect(77)?;
    let message = ended.stderr.join("\n");
    assert!(message.contains("CAP_BPF") || message.contains("root"), "no word of what is missing: {message}");
    assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
    Ok(())
}
