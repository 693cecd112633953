//! `synfin census --sockets` beside `ss` before and after it: state, queues, timer, time left, and what nobody has answered, of each socket.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::fchown,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{SockRef, Socket, TcpKeepalive};
use synfin_tests::{
    census::Form,
    deadline,
    listing::{self, differences, is_about, stood_still},
    moment::SOURCES,
    netns::Netns,
    scenario::close,
    sock::{self, raw::set_tcp_option},
    ss::{self, Row},
    stage::{Family, Link, Side, Stage},
    state::State,
    wire::{End, Fate},
};

/// TIME_WAIT and what else passes lasts a minute.
const PASSING: Duration = Duration::from_secs(45);
/// Bytes that are never acknowledged.
const LOST: &[u8] = &[7; 5000];
/// Bytes that are never read.
const UNREAD: &[u8] = &[7; 1000];
/// A user that has a socket here and is nobody else.
const USER: u32 = 54_321;

/// Sockets in every state and with every timer, and what holds them there.
struct Scene {
    stage: Stage,
    streams: Vec<TcpStream>,
    listeners: Vec<TcpListener>,
    dialing: Option<Socket>,
}

impl Scene {
    fn new(family: Family) -> Result<Self> {
        let stage = Stage::new(family, Link::Wire)?;
        let mut scene = Self { stage, streams: Vec::new(), listeners: Vec::new(), dialing: None };
        scene.connected()?;
        scene.window_closed()?;
        scene.closed()?;
        let (sending, closing) = (scene.pair()?, scene.pair()?);
        scene.half_open()?;
        scene.cut(sending, closing)?;
        Ok(scene)
    }

    /// A connection of the two sides, whose listener stays.
    fn pair(&mut self) -> Result<(TcpStream, TcpStream)> {
        let (listener, address) = sock::listen(&self.stage.server, 1)?;
        let client = sock::connect(&self.stage.client, address)?;
        let server = sock::accept(&listener)?;
        self.listeners.push(listener);
        Ok((client, server))
    }

    /// Established ones: with keepalive timers, with unread bytes, without accept, of another user.
    fn connected(&mut self) -> Result<()> {
        let (client, server) = self.pair()?;
        // The default, two hours.
        SockRef::from(&client).set_keepalive(true)?;
        let minutes = TcpKeepalive::new().with_time(Duration::from_mins(5));
        SockRef::from(&server).set_tcp_keepalive(&minutes)?;
        self.streams.extend([client, server]);

        // Within one side, where somebody answers when the wire is cut.
        let side = self.stage.client.clone();
        let (listener, address) = sock::listen(&side, 1)?;
        let client = sock::connect(&side, address)?;
        SockRef::from(&client).set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(9)))?;
        fchown(&client, Some(USER), None)?;
        self.streams.extend([client, sock::accept(&listener)?]);
        self.listeners.push(listener);

        let (mut client, server) = self.pair()?;
        client.write_all(UNREAD)?;
        self.streams.extend([client, server]);

        // As many as a queue of two takes.
        let (listener, address) = sock::listen(&self.stage.server, 2)?;
        for _ in 0..3 {
            self.streams.push(sock::connect(&self.stage.client, address)?);
        }
        self.listeners.push(listener);
        Ok(())
    }

    /// A receiver that reads nothing, until its window is closed.
    fn window_closed(&mut self) -> Result<()> {
        let (listener, address) =
            sock::listen_with(&self.stage.server, 1, |socket| Ok(socket.set_recv_buffer_size(4096)?))?;
        let mut client = sock::connect(&self.stage.client, address)?;
        SockRef::from(&client).set_send_buffer_size(16_384)?;
        self.streams.push(sock::accept(&listener)?);
        self.listeners.push(listener);
        client.set_nonblocking(true)?;
        loop {
            match client.write(&[7; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("filling the window"),
            }
        }
        self.streams.push(client);
        // At first a probe may still find room for a few bytes; that it waits so long shows that several have found none.
        await_row(&self.stage.client, "zero-window probes", |row| {
            timer(row) == Some("persist") && has_left(row, Duration::from_secs(1))
        })
    }

    /// What is left of closed ones.
    fn closed(&mut self) -> Result<()> {
        let (client, server) = self.pair()?;
        close::one_after_the_other(&self.stage.client, client, server)?;

        // Closed in two steps it always becomes a minisock.
        let (client, server) = self.pair()?;
        let port = client.local_addr()?.port();
        client.shutdown(Shutdown::Write)?;
        await_fin_wait_2(&self.stage.client, port)?;
        drop(client);
        self.streams.push(server);

        // It stays a socket for all but the last minute.
        let (client, server) = self.pair()?;
        let port = client.local_addr()?.port();
        set_tcp_option(&client, libc::TCP_LINGER2, 120)?;
        drop(client);
        self.streams.push(server);
        await_fin_wait_2(&self.stage.client, port)
    }

    /// A handshake whose second step is lost each time.
    fn half_open(&mut self) -> Result<()> {
        self.stage.wire()?.rule(
            |segment| {
                if segment.from == End::Server && segment.syn { Fate::Drop } else { Fate::Pass }
            },
        );
        let (listener, address) = sock::listen(&self.stage.server, 1)?;
        let dialing = sock::socket(&self.stage.client)?;
        dialing.set_nonblocking(true)?;
        let began = dialing.connect(&address.into());
        ensure!(began.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINPROGRESS)), "{began:?}");
        self.dialing = Some(dialing);
        self.listeners.push(listener);
        await_row(&self.stage.server, "a half-open request", |row| row.form == Form::Request)
    }

    /// Nothing comes through any more: neither data nor a FIN.
    fn cut(
        &mut self,
        (mut sender, other): (TcpStream, TcpStream),
        (closer, held): (TcpStream, TcpStream),
    ) -> Result<()> {
        self.stage.wire()?.rule(|_| Fate::Drop);
        sender.write_all(LOST)?;
        drop(closer);
        self.streams.extend([sender, other, held]);
        // A tail loss probe comes first. It counts as no retransmission, so that it could not be told from the next one.
        await_row(&self.stage.client, "data sent again", is_lost_data)?;
        await_row(&self.stage.client, "a FIN sent again", is_lost_fin)
    }
}

fn await_row(side: &Side, what: &str, wanted: impl Fn(&Row) -> bool) -> Result<()> {
    deadline::until(what, || Ok(ss::all(&side.netns)?.iter().any(&wanted).then_some(())))
}

fn await_fin_wait_2(side: &Side, port: u16) -> Result<()> {
    await_row(side, "FIN_WAIT2", |row| row.port == port && row.state == State::FinWait2)
}

fn is_lost_data(row: &Row) -> bool {
    row.state == State::Established
        && row.send_queue == LOST.len() as u64
        && timer(row) == Some("on")
        && unanswered(row) >= 2
}

fn is_lost_fin(row: &Row) -> bool {
    row.state == State::FinWait1 && timer(row) == Some("on") && unanswered(row) >= 2
}

fn timer(row: &Row) -> Option<&str> {
    row.timer.as_ref().map(|timer| timer.kind.as_str())
}

fn unanswered(row: &Row) -> u64 {
    row.timer.as_ref().map_or(0, |timer| timer.unanswered)
}

/// Whether more than so much time is left.
fn has_left(row: &Row, least: Duration) -> bool {
    row.timer.as_ref().is_some_and(|timer| timer.remaining.start > least)
}

type Subject = (&'static str, fn(&Row) -> bool);

/// Each must be seen to be told rightly, once at least.
#[rustfmt::skip] // a table
const SUBJECTS: [Subject; 17] = [
    ("data sent again", is_lost_data),
    ("a FIN sent again", is_lost_fin),
    ("a SYN sent again", |row| row.state == State::SynSent && timer(row) == Some("on") && unanswered(row) >= 1),
    ("a SYN-ACK sent again", |row| row.form == Form::Request && timer(row) == Some("on") && unanswered(row) >= 1),
    ("zero-window probes", |row| timer(row) == Some("persist") && unanswered(row) >= 1 && row.send_queue > 0),
    ("a closed window", |row| row.state == State::Established && row.receive_queue > UNREAD.len() as u64),
    ("keepalive, hours", |row| timer(row) == Some("keepalive") && has_left(row, Duration::from_hours(1))),
    ("keepalive, minutes", |row| timer(row) == Some("keepalive") && !has_left(row, Duration::from_mins(5)) && has_left(row, Duration::from_secs(70))),
    ("keepalive, seconds", |row| row.state == State::Established && timer(row) == Some("keepalive") && !has_left(row, Duration::from_secs(9))),
    ("another user's", |row| row.uid == u64::from(USER)),
    ("unread bytes", |row| row.receive_queue == UNREAD.len() as u64 && row.timer.is_none()),
    ("a queue for accept", |row| row.state == State::Listen && (row.receive_queue, row.send_queue) == (3, 2)),
    ("one in that queue", |row| row.state == State::Established && row.inode == 0),
    ("TIME_WAIT", |row| row.state == State::TimeWait && timer(row) == Some("timewait")),
    ("a FIN_WAIT2 minisock", |row| row.state == State::FinWait2 && row.form == Form::Timewait),
    ("a FIN_WAIT2 socket", |row| row.state == State::FinWait2 && row.form == Form::Full && timer(row) == Some("keepalive")),
    ("CLOSE_WAIT", |row| row.state == State::CloseWait && row.timer.is_none()),
];

/// Takes a listing between two looks of `ss`; gives the subjects that stood still meanwhile, all of them told rightly.
fn look(netns: &Netns, source: &str) -> Result<BTreeSet<&'static str>> {
    let before = ss::all(netns)?;
    let told = listing::take(netns, source)?;
    let after = ss::all(netns)?;
    for line in &told {
        ensure!(before.iter().chain(&after).any(|row| is_about(line, row)), "ss knows nothing of {line}");
    }
    let mut seen = BTreeSet::new();
    for row in &before {
        let Some(again) = after.iter().find(|again| again.cookie == row.cookie) else { continue };
        let lines: Vec<_> = told.iter().filter(|line| is_about(line, row)).collect();
        let [line] = lines[..] else { anyhow::bail!("{} lines about {row:?}", lines.len()) };
        if stood_still(row, again) {
            let wrong = differences(line, row, again);
            ensure!(
                wrong.is_empty(),
                "{}
{line}
{row:?}
{again:?}",
                wrong.join(
                    "
"
                )
            );
            seen.extend(SUBJECTS.iter().filter(|(_, is_it)| is_it(row)).map(|(name, _)| *name));
        }
    }
    Ok(seen)
}

fn as_ss_tells(family: Family) -> Result<()> {
    let scene = Scene::new(family)?;
    let mut missing: Vec<_> = SOURCES.iter().flat_map(|source| SUBJECTS.map(|(name, _)| (*source, name))).collect();
    let told = deadline::within(PASSING, "every subject to stand still", || {
        for source in SOURCES {
            for netns in scene.stage.namespaces() {
                let seen = look(netns, source).with_context(|| format!("by {source}"))?;
                missing.retain(|(of, name)| *of != source || !seen.contains(name));
            }
        }
        Ok(missing.is_empty().then_some(()))
    });
    told.with_context(|| format!("not seen so far: {missing:?}"))
}

#[test]
fn v4() -> Result<()> {
    as_ss_tells(Family::V4)
}

#[test]
fn v6() -> Result<()> {
    as_ss_tells(Family::V6)
}

#[test]
fn v4_mapped() -> Result<()> {
    as_ss_tells(Family::Mapped)
}
