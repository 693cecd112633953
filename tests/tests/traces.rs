//! Two ends, one trace: agents on both ends of a connection that know nothing of each other give its two spans one trace, whatever
//! NAT does between them; where they cannot, the spans stand alone and never with those of another connection.
//!
//! A span is matched with the socket that it tells of by the socket's own addresses and the order of time, never by its ids.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Result, ensure};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use socket2::Socket;
use synfin_tests::{
    netns::Netns,
    router::{REUSED_PORT, Router},
    scenario::open,
    sock,
    stage::{Family, Link, Side, Stage},
    twins::{self, Agent, Made, Told},
    wire::{End, Fate},
    witness::nstat::Counters,
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Connections of each course and family.
const COUNT: usize = 25;

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum Course {
    ClosedByClient,
    ClosedByServer,
    ResetByClient,
    ResetByServer,
    HalfClosed,
}

const COURSES: [Course; 5] =
    [Course::ClosedByClient, Course::ClosedByServer, Course::ResetByClient, Course::ResetByServer, Course::HalfClosed];

#[test]
fn through_nat_in_both_directions() -> Result<()> {
    let scene = Routed::new()?;
    let made = scene.every_course()?;
    scene.joined(&made)
}

/// The server's first number is a SYN cookie: no other number than that of any handshake.
#[test]
fn through_nat_with_syn_cookies() -> Result<()> {
    let scene = Routed::new()?;
    let server = scene.router.server.clone();
    server.sysctl("ipv4/tcp_syncookies", "2")?;
    let before = Counters::of(&server)?;
    let made = scene.every_course()?;
    let received = Counters::of(&server)?.since(&before).get("TcpExtSyncookiesRecv");
    ensure!(received == made.len() as u64, "{received} of {} handshakes went by SYN cookies", made.len());
    scene.joined(&made)
}

/// The same addresses and ports again and again, on both sides of the router, both with and without what TIME_WAIT remembers.
#[test]
fn the_same_tuple_again() -> Result<()> {
    let scene = Routed::new()?;
    let mut made: Vec<Made> = Vec::new();
    for road in &scene.roads {
        let from = road.client.at(REUSED_PORT);
        let first = made.len();
        for course in [Course::ResetByClient, Course::ClosedByServer].repeat(COUNT) {
            made.push(road.connection(course, || sock::connect_from(&road.client, from, road.entrance))?);
            // A port is free again for the client once its last socket has gone.
            scene.router.client.await_quiet()?;
        }
        let tuple = |made: &Made| (made.client, made.server);
        ensure!(made[first..].iter().all(|one| tuple(one) == tuple(&made[first])), "the tuple was another: {made:?}");
    }
    scene.joined(&made)
}

#[test]
fn both_ends_in_one_agent() -> Result<()> {
    for family in [Family::V4, Family::V6, Family::Mapped] {
        let stage = Stage::new(family, Link::Loopback)?;
        let agent = Agent::start(stage.namespaces())?;
        let made = on_stage(&stage)?;
        let told = agent.end()?;
        twins::joined(&twins::pair(&made, &told.spans)?, told.lost)?;
    }
    Ok(())
}

/// A middlebox that rewrites sequence numbers: what both ends know is not the same any more, so their spans stand apart.
#[test]
fn rewritten_sequence_numbers() -> Result<()> {
    for family in FAMILIES {
        for (of_client, of_server) in [(0x1234_5678, 0xfedc_ba98), (0, 1), (u32::MAX, 0)] {
            let stage = Stage::new(family, Link::Wire)?;
            let agents = Agents::start([&stage.client.netns, &stage.server.netns])?;
            stage.wire()?.rewrite(of_client, of_server);
            let made = on_stage(&stage)?;
            let told = agents.end()?;
            twins::apart(&twins::pair(&made, told.spans())?)?;
        }
    }
    Ok(())
}

/// Fast open: data in the SYN moves the numbers before the handshake ends, and an answer before its end moves them on one end only.
#[test]
fn fast_open() -> Result<()> {
    for family in FAMILIES {
        let stage = Stage::new(family, Link::Wire)?;
        for netns in stage.namespaces() {
            netns.sysctl("ipv4/tcp_fastopen", "3")?;
        }
        let before = Counters::of(&stage.server.netns)?;
        let agents = Agents::start([&stage.client.netns, &stage.server.netns])?;
        let fast = |socket: &Socket| Ok(sock::raw::set_tcp_option(socket, libc::TCP_FASTOPEN, 16)?);
        let (listener, address) = sock::listen_with(&stage.server, 16, fast)?;
        // The first one fetches the cookie, by an ordinary handshake.
        let mut made = vec![early(&stage, &listener, address, false)?];
        for answered_early in [false, true].repeat(COUNT) {
            made.push(early(&stage, &listener, address, answered_early)?);
        }
        drop(listener);
        stage.await_quiet()?;
        let told = agents.end()?;

        let opened = Counters::of(&stage.server.netns)?.since(&before).get("TcpExtTCPFastOpenPassive");
        ensure!(opened == 2 * COUNT as u64, "{opened} connections came with data in the SYN, not {}", 2 * COUNT);
        let twins = twins::pair(&made, told.spans())?;
        twins::never_wrongly_joined(&twins)?;
        twins::joined(&twins[..1], told.lost())?;
        twins::alone(&twins[1..])?;
    }
    Ok(())
}

/// Connections that were open before the agent was: nothing tells their first numbers any more.
#[test]
fn handshakes_that_were_not_seen() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let connect = || Ok((sock::connect(&stage.client, address)?, sock::accept(&listener)?));
    let connections: Vec<_> = (0..COUNT).map(|_| connect()).collect::<Result<_>>()?;
    let agent = Agent::start(stage.namespaces())?;
    for (client, server) in connections {
        Course::ClosedByClient.play(client, server)?;
    }
    drop(listener);
    stage.await_quiet()?;
    let Told { spans, .. } = agent.end()?;
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    ensure!((spans.len(), traces.len()) == (2 * COUNT, 2 * COUNT), "{} spans, {} traces", spans.len(), traces.len());
    ensure!(spans.iter().all(|span| span.parent_span_id.is_empty()), "{spans:?}");
    Ok(())
}

/// Both ends are clients: nobody's number comes first, so each begins a trace of its own.
#[test]
fn simultaneous_open() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Wire)?;
    let agents = Agents::start([&stage.client.netns, &stage.server.netns])?;
    open::simultaneous(&stage)?;
    let told = agents.end()?;
    let spans: Vec<_> = told.spans().collect();
    ensure!(spans.len() == 2 && spans[0].trace_id != spans[1].trace_id, "{spans:?}");
    ensure!(spans.iter().all(|span| span.kind() == SpanKind::Client && span.parent_span_id.is_empty()), "{spans:?}");
    Ok(())
}

/// A connection whose data may travel in the SYN. If `answered_early`, the server's answer is acknowledged together with its SYN:
/// the ACK of that one alone is lost.
fn early(stage: &Stage, listener: &TcpListener, address: SocketAddr, answered_early: bool) -> Result<Made> {
    let wire = stage.wire()?;
    if answered_early {
        wire.rule(|segment| {
            let bare = segment.from == End::Client && !segment.syn && segment.payload == 0;
            if bare { Fate::Drop } else { Fate::Pass }
        });
    }
    let socket = sock::socket(&stage.client)?;
    sock::raw::set_tcp_option(&socket, libc::TCP_FASTOPEN_CONNECT, 1)?;
    sock::dial(&socket, &address.into())?;
    let mut client = TcpStream::from(socket);
    client.write_all(b"early")?; // with a cookie, connect() only noted the address: this sends the SYN
    let mut server = sock::accept(listener)?;
    server.read_exact(&mut [0; 5])?;
    if answered_early {
        wire.await_dropped(1)?;
        wire.rule(|_| Fate::Pass);
    }
    server.write_all(b"answer")?;
    client.read_exact(&mut [0; 6])?;
    let made = Made::of(&client, &server)?;
    Course::ClosedByClient.play(client, server)?;
    Ok(made)
}

/// Connections of every course on a stage, until all have ended.
fn on_stage(stage: &Stage) -> Result<Vec<Made>> {
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let road = Road { client: stage.client.clone(), entrance: address, listener };
    let made = COURSES
        .repeat(2)
        .into_iter()
        .map(|course| road.connection(course, || sock::connect(&road.client, road.entrance)))
        .collect::<Result<_>>()?;
    drop(road);
    stage.await_quiet()?;
    Ok(made)
}

/// How one family comes to a listener.
struct Road {
    client: Side,
    /// Where to connect to.
    entrance: SocketAddr,
    listener: TcpListener,
}

impl Road {
    /// Opens a connection, asks and answers, and lets it take its course.
    fn connection(&self, course: Course, connect: impl FnOnce() -> Result<TcpStream>) -> Result<Made> {
        let mut client = connect()?;
        let mut server = sock::accept(&self.listener)?;
        client.write_all(b"question")?;
        server.read_exact(&mut [0; 8])?;
        server.write_all(b"answer")?;
        client.read_exact(&mut [0; 6])?;
        let made = Made::of(&client, &server)?;
        course.play(client, server)?;
        Ok(made)
    }
}

impl Course {
    fn play(self, mut client: TcpStream, mut server: TcpStream) -> Result<()> {
        match self {
            Self::ClosedByClient => close(client, &server),
            Self::ClosedByServer => close(server, &client),
            Self::ResetByClient => reset(client, &server),
            Self::ResetByServer => reset(server, &client),
            Self::HalfClosed => {
                client.shutdown(Shutdown::Write)?;
                sock::await_end(&server)?;
                server.write_all(b"late")?;
                drop(server);
                let mut late = Vec::new();
                client.read_to_end(&mut late)?;
                ensure!(late == b"late", "{late:?}");
                Ok(())
            }
        }
    }
}

fn close(first: TcpStream, second: &TcpStream) -> Result<()> {
    drop(first);
    sock::await_end(second)
}

fn reset(by: TcpStream, other: &TcpStream) -> Result<()> {
    sock::linger_zero(&by)?;
    drop(by);
    sock::await_reset(other)
}

/// Two agents, one for each end.
struct Agents([Agent; 2]);

/// What the two of them told.
struct BothTold([Told; 2]);

impl Agents {
    fn start(ends: [&Netns; 2]) -> Result<Self> {
        let [client, server] = ends;
        Ok(Self([Agent::start([client])?, Agent::start([server])?]))
    }

    fn end(self) -> Result<BothTold> {
        let [client, server] = self.0;
        Ok(BothTold([client.end()?, server.end()?]))
    }
}

impl BothTold {
    fn spans(&self) -> impl Iterator<Item = &Span> {
        self.0.iter().flat_map(|told| &told.spans)
    }

    fn lost(&self) -> u64 {
        self.0.iter().map(|told| told.lost).sum()
    }
}

/// A router with a listener of each family behind it, and an agent on either side.
struct Routed {
    router: Router,
    roads: Vec<Road>,
    agents: Agents,
}

impl Routed {
    fn new() -> Result<Self> {
        let router = Router::new()?;
        let roads = FAMILIES.iter().map(|family| {
            let (listener, address) = sock::listen(&router.server(*family)?, 16)?;
            Ok(Road { client: router.client(*family)?, entrance: router.publish(*family, address)?, listener })
        });
        let roads = roads.collect::<Result<_>>()?;
        let agents = Agents::start([&router.client, &router.server])?;
        Ok(Self { router, roads, agents })
    }

    /// Connections of every course and family.
    fn every_course(&self) -> Result<Vec<Made>> {
        let connections =
            self.roads.iter().flat_map(|road| COURSES.repeat(COUNT).into_iter().map(move |course| (road, course)));
        let made =
            connections.map(|(road, course)| road.connection(course, || sock::connect(&road.client, road.entrance)));
        made.collect()
    }

    /// Ends the agents. Fails unless the router gave each end other addresses and ports than the other one has, each agent told of
    /// its own end of each connection, and these are joined.
    fn joined(self, made: &[Made]) -> Result<()> {
        drop(self.roads);
        self.router.await_quiet()?;
        let told = self.agents.end()?;
        for Made { client, server } in made {
            for (near, far) in [(client.0, server.1), (client.1, server.0)] {
                ensure!(near.ip() != far.ip() && near.port() != far.port(), "{near} was not translated: {far}");
            }
        }
        let [client, server] = &told.0;
        let counts = (client.spans.len(), server.spans.len());
        ensure!(counts == (made.len(), made.len()), "{counts:?} spans of clients and servers, {} made", made.len());
        twins::joined(&twins::pair(made, told.spans())?, told.lost())
    }
}
