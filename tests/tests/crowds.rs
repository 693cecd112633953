//! `synfin census` beside `ss` and /proc/net/sockstat of the same moment, with sockets by the ten thousand: equal, socket by socket counted.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use synfin_tests::{
    census::Form,
    crowd::{Crowd, FAMILIES, local, puppets},
    deadline,
    moment::{agree, in_one_moment, of},
    need,
    netns::Netns,
    peer::Peer,
    puppet::{CHATTER, COMPLETING, COMPLETING_AND_LEAVING, Port},
    sock::raw::set_tcp_option,
    ss,
    stage::Family,
    state::State,
};

const NAMESPACES: usize = 24;
/// Sockets of each state in each namespace: 10,080 in all.
const EACH: usize = 420;
/// Of those in ESTABLISHED and in CLOSE_WAIT, held by the test; the others wait for accept.
const HELD: usize = 210;
/// Of those in ESTABLISHED, with bytes in both queues.
const QUEUED: usize = 60;
const UNACKNOWLEDGED: &[u8] = b"thirty bytes without an answer";

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

/// Every state, ten thousand times, in many namespaces at once.
#[test]
fn every_state() -> Result<()> {
    need::root()?;
    let mut crowds = (0..NAMESPACES).map(|_| Crowd::new()).collect::<Result<Vec<_>>>()?;
    let _peers = by_two(&mut crowds, lasting)?;
    by_two(&mut crowds, passing)?;
    crowds.iter().try_for_each(settled)?;

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

/// Does it to each crowd, two at a time.
fn by_two<T: Send>(crowds: &mut [Crowd], phase: fn(&mut Crowd) -> Result<T>) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let workers: Vec<_> = crowds
            .chunks_mut(NAMESPACES / 2)
            .map(|crowds| scope.spawn(move || crowds.iter_mut().map(phase).collect::<Result<Vec<T>>>()))
            .collect();
        let done: Result<Vec<Vec<T>>> =
            workers.into_iter().map(|worker| worker.join().expect("no panic in a worker")).collect();
        Ok(done?.into_iter().flatten().collect())
    })
}

/// What does not go away by itself. A process may have only so many files: some sockets need none, others have a process of their own.
fn lasting(crowd: &mut Crowd) -> Result<Peer> {
    let mut peer = Peer::start(&crowd.side(Family::V4), "census-crowd")?;
    for family in FAMILIES {
        peer.listen_often(EACH / 3 - 1, local(family))?;
        peer.dial_often(EACH / 3, SocketAddr::new(puppets(family), Port::Silent as u16))?;
        let port = crowd.listen(family, 0, 4096)?.port();
        crowd.knock(family, port, 2000, EACH / 3)?;
        crowd.knock(family, port, COMPLETING, (EACH - HELD) / 3)?;
        crowd.knock(family, port, COMPLETING_AND_LEAVING, (EACH - HELD) / 3)?;
    }
    let hold = |_, socket| Ok(Some(socket));
    // Few with a holder, the others without: to the kernel's tables one is as good as the other.
    let close = |turn: usize, socket: Socket| {
        if !turn.is_multiple_of(7) {
            return Ok(None);
        }
        socket.shutdown(Shutdown::Write)?;
        Ok(Some(socket))
    };
    crowd.connect(Port::Deaf, HELD - QUEUED, hold)?;
    crowd.connect(Port::Chatty, QUEUED, |_, mut socket| {
        socket.write_all(UNACKNOWLEDGED)?;
        Ok(Some(socket))
    })?;
    crowd.connect(Port::Deaf, EACH, close)?;
    crowd.connect(Port::Crossing, EACH, close)?;
    crowd.connect(Port::Leaving, HELD, hold)?;
    crowd.connect(Port::Leaving, EACH, |turn, socket| {
        read_fin(&socket)?;
        close(turn, socket)
    })?;
    Ok(peer)
}

/// Waits for the FIN: then the socket is in CLOSE_WAIT.
fn read_fin(mut socket: &Socket) -> Result<()> {
    let read = socket.read(&mut [0])?;
    ensure!(read == 0, "data instead of a FIN");
    Ok(())
}

/// What the kernel takes away a minute later.
fn passing(crowd: &mut Crowd) -> Result<()> {
    crowd.connect(Port::HalfClosed, EACH, |turn, socket| {
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
    crowd.connect(Port::Polite, EACH, |_, _| Ok(None))
}

/// How many sockets are in which state, once all are where they will stay.
fn settled(crowd: &Crowd) -> Result<()> {
    let wanted: BTreeMap<State, usize> = STATES.into_iter().map(|state| (state, EACH)).collect();
    let mut last = BTreeMap::new();
    let settled = deadline::until("all sockets to be in their states", || {
        last.clear();
        for row in ss::all(&crowd.netns)? {
            *last.entry(row.state).or_insert(0) += 1;
        }
        Ok((last == wanted).then_some(()))
    });
    settled.with_context(|| format!("{}: {last:?}", crowd.netns.name()))
}
