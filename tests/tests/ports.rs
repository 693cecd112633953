//! Ephemeral ports, counted beside `ss` and the settings of the same namespace: which are taken, and of how many.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{ErrorKind, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use synfin_tests::{
    census::Census,
    crowd::{Crowd, local, puppets},
    deadline,
    moment::{SOURCES, agree, in_one_moment},
    need,
    netns::Netns,
    prometheus::{TEXT, address, scrape},
    puppet::Port,
    ss,
    stage::Family,
    state::State,
    synfin::Synfin,
};

/// Longest time until a running agent tells what has changed: a census each five seconds, on a busy machine.
const TELLING: Duration = Duration::from_secs(30);

/// What `ss` and the namespace's own settings say: how many ports are taken, of how many.
fn witnessed(netns: &Netns, rows: &[ss::Row]) -> Result<(u64, u64)> {
    let ports = chosen_from(netns)?;
    let taken: BTreeSet<u16> = rows.iter().map(|row| row.port).filter(|port| ports.contains(port)).collect();
    Ok((taken.len() as u64, ports.len() as u64))
}

/// The ports that the kernel may choose.
fn chosen_from(netns: &Netns) -> Result<BTreeSet<u16>> {
    let read = |name: &str| -> Result<String> {
        // In one go: the kernel tells these no further than the first read.
        let mut bytes = vec![0; 256 << 10];
        let length = netns.run(|| File::open(format!("/proc/sys/net/ipv4/{name}"))?.read(&mut bytes))?;
        bytes.truncate(length);
        Ok(String::from_utf8(bytes)?)
    };
    let range = read("ip_local_port_range")?;
    let (low, high) = range.trim().split_once('\t').context("two numbers")?;
    let mut ports: BTreeSet<u16> = (low.parse()?..=high.parse()?).collect();
    let reserved = read("ip_local_reserved_ports")?;
    for part in reserved.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.parse()?, last.parse()?);
        ports.retain(|port| !(first..=last).contains(port));
    }
    Ok(ports)
}

/// Connects from a port of the test's choice, which it may share with others.
fn connect_from(netns: &Netns, from: SocketAddr, to: SocketAddr) -> Result<Socket> {
    netns.run(|| {
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into()).with_context(|| format!("binding to {from}"))?;
        socket.connect(&to.into()).with_context(|| format!("connecting from {from} to {to}"))?;
        Ok(socket)
    })
}

/// Sockets of every state and both families, that share ports, inside and outside of the range, on reserved ports too: each port counts once.
#[test]
fn each_port_counts_once() -> Result<()> {
    let mut crowd = Crowd::new()?;
    let netns = crowd.netns.clone();
    netns.sysctl("ipv4/ip_local_port_range", "40000 40199")?;
    netns.sysctl("ipv4/ip_local_reserved_ports", "30000,40010-40019,40150,40199-41000")?;
    // Half-open connections on it, from outside; both families on one port; outside of the range; reserved.
    for (family, port) in [(Family::V4, 40_005), (Family::V6, 40_005), (Family::Mapped, 8080), (Family::V4, 40_012)] {
        crowd.listen(family, port, 64)?;
    }
    crowd.knock(Family::V4, 40_005, 2000, 7)?;
    crowd.knock(Family::V6, 8080, 2000, 5)?;
    let mut held = Vec::new();
    let from = |family, port| SocketAddr::new(local(family), port);
    let to = |family, port: Port| SocketAddr::new(puppets(family), port as u16);
    // To three peers of two families from one port; from a reserved one; from outside; from the last port of all.
    for port in [Port::Deaf, Port::HalfClosed] {
        held.push(connect_from(&netns, from(Family::V4, 40_170), to(Family::V4, port))?);
    }
    held.push(connect_from(&netns, from(Family::V6, 40_170), to(Family::V6, Port::Deaf))?);
    for port in [40_150, 40_019, 39_999, 40_200, 65_535] {
        held.push(connect_from(&netns, from(Family::V4, port), to(Family::V4, Port::Deaf))?);
    }
    // From ports of the kernel's choice, which are none of these.
    for port in [Port::Deaf, Port::Leaving] {
        crowd.connect(port, 12, |_, socket| Ok(Some(socket)))?;
    }
    for port in [Port::Deaf, Port::HalfClosed, Port::Polite, Port::Crossing] {
        crowd.connect(port, 9, |_, _| Ok(None))?;
    }
    // And one in SYN_SENT, which nobody answers.
    let dialling = netns.run(|| -> Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        let begun = socket.connect(&to(Family::V6, Port::Silent).into()).map_err(|error| error.raw_os_error());
        ensure!(begun == Err(Some(libc::EINPROGRESS)), "{begun:?}");
        Ok(socket)
    })?;
    held.push(dialling);
    let all_states = [
        State::Listen,
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::CloseWait,
        State::FinWait1,
        State::FinWait2,
        State::Closing,
        State::TimeWait,
    ];
    deadline::until("sockets of all states", || {
        let rows = ss::all(&netns)?;
        let half_open = rows.iter().filter(|row| row.state == State::SynReceived).count();
        let there = |state: &State| rows.iter().any(|row| row.state == *state);
        Ok((half_open == 12 && all_states.iter().all(there)).then_some(()))
    })?;

    let name = netns.name();
    let (censuses, rows) = in_one_moment(&[&netns], &["--netns", name])?;
    agree(&censuses, &netns, &rows[0])?;
    let wanted = witnessed(&netns, &rows[0])?;
    ensure!(wanted.1 == 200 - 12, "{wanted:?}");
    // The play must show what it is for.
    let mut sockets: BTreeMap<u16, usize> = BTreeMap::new();
    rows[0].iter().for_each(|row| *sockets.entry(row.port).or_default() += 1);
    for (port, least) in [(40_005, 9), (40_170, 3), (40_012, 1), (40_150, 1), (40_019, 1), (39_999, 1), (40_200, 1)] {
        ensure!(sockets.get(&port).is_some_and(|count| *count >= least), "{port}: {sockets:?}");
    }
    ensure!(wanted.0 > 20 && wanted.0 < wanted.1, "{wanted:?}");
    for (census, source) in censuses.iter().zip(SOURCES) {
        assert_eq!(census.ephemeral_ports(&netns)?, Some(wanted), "by {source}: {sockets:?}");
    }

    // A filter hides sockets; their ports are taken all the same.
    for flags in [["--port", "8080"], ["--peer", "192.0.2.0/24"]] {
        let (censuses, _) = in_one_moment(&[&netns], &["--netns", name, flags[0], flags[1]])?;
        for (census, source) in censuses.iter().zip(SOURCES) {
            assert_eq!(census.ephemeral_ports(&netns)?, Some(wanted), "by {source} with {flags:?}");
        }
    }
    Ok(())
}

/// Each namespace has its own ports and its own range; what is reserved may be a long text.
#[test]
fn each_namespace_for_itself() -> Result<()> {
    let (one, other) = (Netns::new()?, Netns::new()?);
    one.sysctl("ipv4/ip_local_port_range", "20000 29999")?;
    let every_second: Vec<String> = (20_000..30_000).step_by(2).map(|port| port.to_string()).collect();
    one.sysctl("ipv4/ip_local_reserved_ports", &every_second.join(","))?;
    let listen = |netns: &Netns, ports: &[u16]| -> Result<Vec<TcpListener>> {
        netns.run(|| ports.iter().map(|port| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, *port))?)).collect())
    };
    let _held = (listen(&one, &[20_001, 20_002, 29_999, 40_000])?, listen(&other, &[20_001, 40_000, 40_001])?);
    let (censuses, rows) = in_one_moment(&[&one, &other], &[])?;
    let other_limit = witnessed(&other, &rows[1])?.1;
    for (census, source) in censuses.iter().zip(SOURCES) {
        assert_eq!(census.ephemeral_ports(&one)?, Some((2, 5000)), "by {source}");
        assert_eq!(census.ephemeral_ports(&other)?, Some((2, other_limit)), "by {source}");
        ensure!(witnessed(&one, &rows[0])? == (2, 5000));
    }
    Ok(())
}

/// Connects until the kernel finds no port: all are taken then, by `synfin census` and by a running agent, which also sees another range and
/// the end of it all.
#[test]
fn exhaustion() -> Result<()> {
    const PORTS: u64 = 64;
    let netns = Netns::new()?;
    netns.sysctl("ipv4/ip_local_port_range", "40000 40065")?;
    netns.sysctl("ipv4/ip_local_reserved_ports", "40000-40001")?;
    let server = |ip: IpAddr| netns.run(|| TcpListener::bind((ip, 8000)));
    let (v4, v6) = (server(Ipv4Addr::LOCALHOST.into())?, server(Ipv6Addr::LOCALHOST.into())?);
    let mut synfin = Synfin::serve([&netns], &["--http", "127.0.0.1:0"])?;
    let address = address(&mut synfin)?;
    let await_metrics = |what: &str, wanted: (u64, u64)| {
        let inode = netns.inode().to_string();
        let mut told = Vec::new();
        deadline::within(TELLING, what, || {
            let scrape = scrape(address, TEXT)?;
            told = ["usage", "limit", "utilization_ratio"]
                .map(|name| {
                    let family = format!("system_network_tcp_ephemeral_port_{name}");
                    scrape
                        .of(&family)
                        .find(|row| row.labels.get("linux_netns_inode") == Some(&inode))
                        .map(|row| row.value)
                })
                .to_vec();
            let (usage, limit) = (wanted.0 as f64, wanted.1 as f64);
            let same = |(told, wanted): (&Option<f64>, f64)| told.is_some_and(|told| (told - wanted).abs() < 1e-9);
            Ok(told.iter().zip([usage, limit, usage / limit]).all(same).then_some(()))
        })
        .with_context(|| format!("{told:?}, not {wanted:?}"))
    };
    await_metrics("no port to be taken", (0, PORTS))?;

    let mut held = Vec::new();
    let mut dial = |server: &TcpListener| {
        let to = server.local_addr()?;
        let client = netns.run(|| TcpStream::connect(to))?;
        held.push((server.accept()?.0, client));
        std::io::Result::Ok(())
    };
    let refused = loop {
        if let Err(error) = dial(&v4) {
            break error;
        }
    };
    ensure!(refused.kind() == ErrorKind::AddrNotAvailable, "{refused}");
    let tell = |what: &str| -> Result<()> {
        let (censuses, rows) = in_one_moment(&[&netns], &["--netns", netns.name()])?;
        ensure!(witnessed(&netns, &rows[0])? == (PORTS, PORTS), "{what}: {:?}", witnessed(&netns, &rows[0])?);
        for (census, source) in censuses.iter().zip(SOURCES) {
            assert_eq!(census.ephemeral_ports(&netns)?, Some((PORTS, PORTS)), "{what}, by {source}");
        }
        Ok(())
    };
    tell("no port is left for that server")?;
    // To another one the same ports lead.
    for _ in 0..PORTS / 2 {
        dial(&v6)?;
    }
    tell("another server shares the ports")?;
    await_metrics("all ports to be taken", (PORTS, PORTS))?;

    // Nothing moves but the range.
    netns.sysctl("ipv4/ip_local_port_range", "40000 40129")?;
    await_metrics("the other range", (PORTS, 2 * PORTS))?;
    // Closed by a reset: no TIME_WAIT stays.
    for (server, client) in held {
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        drop(client);
        drop(server);
    }
    await_metrics("all ports to be free", (0, 2 * PORTS))?;
    synfin.terminate()?;
    Ok(())
}

/// Where the settings cannot be read, nothing is said of the ports, and all else is told.
#[test]
fn settings_that_cannot_be_read() -> Result<()> {
    let netns = Netns::new()?;
    let _listener = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 8000)))?;
    for source in SOURCES {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc/sys/net && exec \"$0\" \"$@\""]);
        command.arg(need::binary()?).args(["census", "--json", "--source", source, "--netns", netns.name()]);
        let lines: Vec<String> = need::run(&mut command)?.lines().map(str::to_owned).collect();
        let census = Census::parse(&lines)?;
        ensure!(census.ephemeral_ports(&netns)?.is_none(), "{lines:?}");
        ensure!(census.listeners(&netns)?.len() == 1, "{lines:?}");
    }
    ensure!(fs::exists("/proc/sys/net/ipv4")?, "the settings of this host are hidden");
    Ok(())
}
