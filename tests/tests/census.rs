//! What `synfin census` tells: listeners, the namespaces that it finds, what filters leave, and why it tells less or nothing.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::utsname::uname;
use synfin_tests::{
    census::{self, Census},
    crowd::{Crowd, FAMILIES, local},
    deadline,
    moment::{SOURCES, agree, in_one_moment, of},
    need,
    netns::Netns,
    peer::Peer,
    puppet::{COMPLETING, Port},
    ss,
    stage::Family,
    state::State,
    synfin::run,
};

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

/// One that neither a process nor a mount shows: the walk over open files finds it, which takes `bpf_sock_from_file` (Linux 5.11).
#[test]
fn a_namespace_that_only_a_socket_keeps() -> Result<()> {
    let crowd = Crowd::new()?;
    let netns = &crowd.netns;
    let listener = netns.run(|| std::net::TcpListener::bind(SocketAddr::new(local(Family::V4), 0)))?;
    netns.delete()?;
    let release = uname()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next().context("a version")??, numbers.next().context("a version")??);
    let census = Census::take(&["--source", "iterator"])?;
    if version < (5, 11) {
        ensure!(!census.namespaces().contains(&netns.inode()), "it is found after all: say so in README");
        return Ok(());
    }
    let listeners = census.listeners(netns)?;
    let [row] = listeners.as_slice() else { anyhow::bail!("{listeners:?} in {release}") };
    ensure!(row.port == listener.local_addr()?.port(), "{row:?}");
    ensure!(row.pids == [u64::from(std::process::id())].into(), "{row:?}");
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
