//! Handshakes: the odd ones and the ones that fail.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    process,
};

use anyhow::{Result, bail, ensure};

use super::{CLOSE_FIRST, CLOSE_SECOND, Expected, First, LISTENER, close::one_after_the_other, pair};
use crate::{
    sock,
    stage::Stage,
    state::State::{Closed, Closing, Established, FinWait1, SynReceived, SynSent},
    wire::Fate,
    witness::nstat,
};

/// A port where nobody listens.
pub fn refused(stage: &Stage) -> Result<Expected> {
    // Bound but not listening: nobody else can get the port, and each SYN to it is answered with a RST.
    let nobody = sock::socket(&stage.server)?;
    nobody.bind(&stage.server.at(0).into())?;
    let address = nobody.local_addr()?.as_socket();
    let Some(address) = address else { bail!("bound to something else than an IP address") };
    match sock::dial(&sock::socket(&stage.client)?, &address.into()) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        other => bail!("connecting to a closed port gave {other:?}"),
    }
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.client, &[&[Closed, SynSent, Closed]]);
    expected.end(&stage.client, "client", &["refused"], First::Nobody);
    expected.owner(&stage.client, (Closed, SynSent), process::id(), None);
    Ok(expected)
}

/// An address that swallows everything.
pub fn timed_out(stage: &Stage) -> Result<Expected> {
    // One retransmission after 1 s, the end 2 s later.
    stage.client.netns.sysctl("ipv4/tcp_syn_retries", "1")?;
    stage.client.netns.sysctl_if_known("ipv4/tcp_syn_linear_timeouts", "0")?;
    stage.wire()?.rule(|_| Fate::Drop);
    let socket = sock::socket(&stage.client)?;
    match sock::dial(&socket, &stage.server.at(9).into()) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
        other => bail!("connecting to a black hole gave {other:?}"),
    }
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.client, &[&[Closed, SynSent, Closed]]);
    expected.end(&stage.client, "client", &["timed_out"], First::Nobody).retransmits = true;
    Ok(expected)
}

/// The opener gives up and closes before any answer; AttemptFails does not count that.
pub fn abandoned(stage: &Stage) -> Result<Expected> {
    let wire = stage.wire()?;
    wire.rule(|_| Fate::Drop);
    let socket = sock::socket(&stage.client)?;
    socket.set_nonblocking(true)?;
    let started = socket.connect(&stage.server.at(9).into());
    ensure!(started.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINPROGRESS)), "{started:?}");
    wire.await_dropped(1)?;
    drop(socket);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.client, &[&[Closed, SynSent, Closed]]);
    expected.end(&stage.client, "client", &["aborted"], First::Nobody);
    Ok(expected)
}

/// A socket that connects to itself: one socket is both ends, and its SYN and its FIN each cross themselves.
pub fn self_connect(stage: &Stage) -> Result<Expected> {
    let socket = sock::socket(&stage.client)?;
    socket.bind(&stage.client.at(0).into())?;
    let own = socket.local_addr()?;
    sock::dial(&socket, &own)?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"to myself")?;
    stream.read_exact(&mut [0; 9])?;
    drop(stream);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    let life = [Closed, SynSent, SynReceived, Established, FinWait1, Closing, Closed];
    expected.life(&stage.client, &[&life]);
    expected.end(&stage.client, "client", &["time_wait"], First::Both);
    Ok(expected)
}

/// Two sockets connect to each other, and their SYNs cross (RFC 9293 §3.5).
pub fn simultaneous(stage: &Stage) -> Result<Expected> {
    let wire = stage.wire()?;
    wire.rule(|segment| if segment.syn { Fate::Hold } else { Fate::Pass });
    let [client, server] = [&stage.client, &stage.server].map(sock::socket);
    let (client, server) = (client?, server?);
    client.bind(&stage.client.at(4001).into())?;
    server.bind(&stage.server.at(4002).into())?;
    for (socket, to) in [(&client, stage.server.at(4002)), (&server, stage.client.at(4001))] {
        socket.set_nonblocking(true)?;
        let started = socket.connect(&to.into());
        ensure!(started.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINPROGRESS)), "{started:?}");
    }
    wire.await_held(2)?;
    wire.release()?;
    for side in [&stage.client, &stage.server] {
        side.netns.await_sockets("ESTABLISHED", |rows| rows.iter().any(|row| row.state == Established))?;
    }
    client.set_nonblocking(false)?;
    server.set_nonblocking(false)?;
    let end = one_after_the_other(&stage.client, client.into(), server.into())?;
    stage.await_quiet()?;

    let open = [Closed, SynSent, SynReceived, Established];
    let mut expected = Expected::default();
    expected.life(&stage.client, &[&open, CLOSE_FIRST]);
    expected.life(&stage.server, &[&open, CLOSE_SECOND]);
    expected.end(&stage.client, "client", end, First::Local);
    expected.end(&stage.server, "client", &["closed"], First::Peer);
    Ok(expected)
}

/// A listener that keeps no state for half-open connections.
pub fn syn_cookies(stage: &Stage) -> Result<Expected> {
    stage.server.netns.sysctl("ipv4/tcp_syncookies", "2")?;
    let before = nstat::Counters::of(&stage.server.netns)?;
    let pair = pair(stage)?;
    let end = one_after_the_other(&stage.client, pair.client, pair.server)?;
    drop(pair.listener);
    stage.await_quiet()?;
    let received = nstat::Counters::of(&stage.server.netns)?.since(&before).get("TcpExtSyncookiesRecv");
    ensure!(received == 1, "the handshake went by {received} SYN cookies, not 1");

    let mut expected = Expected::default();
    expected.ordinary(stage, end);
    Ok(expected)
}

/// TCP fast open: the first connection fetches a cookie, the second carries data in its SYN.
pub fn fast_open(stage: &Stage) -> Result<Expected> {
    for netns in stage.namespaces() {
        netns.sysctl("ipv4/tcp_fastopen", "3")?;
    }
    let before = nstat::Counters::of(&stage.server.netns)?;
    let (listener, address) =
        sock::listen_with(&stage.server, 16, |socket| Ok(sock::raw::set_tcp_option(socket, libc::TCP_FASTOPEN, 16)?))?;
    let mut ends = Vec::new();
    for _ in 0..2 {
        let socket = sock::socket(&stage.client)?;
        sock::raw::set_tcp_option(&socket, libc::TCP_FASTOPEN_CONNECT, 1)?;
        sock::dial(&socket, &address.into())?;
        let mut client = TcpStream::from(socket);
        client.write_all(b"early")?; // with a cookie, connect() only noted the address: this sends the SYN
        let mut server = sock::accept(&listener)?;
        server.read_exact(&mut [0; 5])?;
        ends.push(one_after_the_other(&stage.client, client, server)?);
    }
    drop(listener);
    stage.await_quiet()?;
    let after = nstat::Counters::of(&stage.server.netns)?.since(&before);
    let (active, passive) = (after.get("TcpExtTCPFastOpenActive"), after.get("TcpExtTCPFastOpenPassive"));
    ensure!(
        (active, passive) == (1, 1),
        "{active} connections opened and {passive} accepted with data in the SYN, not 1"
    );

    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    for end in ends {
        expected.exchange(stage, end);
    }
    Ok(expected)
}
