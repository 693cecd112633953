//! Connections that end with a RST.

use std::{io::Write as _, net::TcpStream};

use anyhow::Result;

use super::{ACCEPT, Ends, Expected, First, LISTENER, OPEN, RESET, pair};
use crate::{
    sock,
    stage::{Side, Stage},
    state::State::Listen,
};

/// The opener closes with data that it never read.
pub fn by_client(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    close_unread(&stage.client, pair.client, &pair.server)?;
    drop(pair.listener);
    stage.await_quiet()?;
    Ok(one_reset(stage, "reset_sent", "reset_received"))
}

/// The accepting end closes with data that it never read.
pub fn by_server(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    close_unread(&stage.server, pair.server, &pair.client)?;
    drop(pair.listener);
    stage.await_quiet()?;
    Ok(one_reset(stage, "reset_received", "reset_sent"))
}

/// The opener closes with SO_LINGER 0.
pub fn linger_zero(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    sock::linger_zero(&pair.client)?;
    drop(pair.client);
    sock::await_reset(&pair.server)?;
    drop(pair.listener);
    stage.await_quiet()?;
    Ok(one_reset(stage, "reset_sent", "reset_received"))
}

/// A listener closes while two connections wait to be accepted.
pub fn listener_with_pending(stage: &Stage) -> Result<Expected> {
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let clients = [sock::connect(&stage.client, address)?, sock::connect(&stage.client, address)?];
    stage.server.netns.await_sockets("two connections to accept", |rows| {
        rows.iter().any(|row| row.state == Listen && row.receive_queue == 2)
    })?;
    drop(listener);
    clients.iter().try_for_each(sock::await_reset)?;
    drop(clients);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    for _ in 0..2 {
        connection(&mut expected, stage, "reset_received", "reset_sent");
    }
    Ok(expected)
}

/// One socket: connect, disconnect by connect(AF_UNSPEC), connect again, disconnect again.
pub fn disconnect_reconnect(stage: &Stage) -> Result<Expected> {
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let socket = sock::socket(&stage.client)?;
    for _ in 0..2 {
        sock::dial(&socket, &address.into())?;
        let server = sock::accept(&listener)?;
        sock::raw::disconnect(&socket)?;
        sock::await_reset(&server)?;
    }
    drop(socket);
    drop(listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    for _ in 0..2 {
        connection(&mut expected, stage, "reset_sent", "reset_received");
    }
    Ok(expected)
}

fn one_reset(stage: &Stage, client: &'static str, server: &'static str) -> Expected {
    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    connection(&mut expected, stage, client, server);
    expected
}

fn connection(expected: &mut Expected, stage: &Stage, client: &'static str, server: &'static str) {
    expected.life(&stage.client, &[OPEN, RESET]);
    expected.life(&stage.server, &[ACCEPT, RESET]);
    expected.end(&stage.client, "client", ends(client), First::Nobody);
    expected.end(&stage.server, "server", ends(server), First::Nobody);
}

fn ends(end: &'static str) -> Ends {
    if end == "reset_sent" { &["reset_sent"] } else { &["reset_received"] }
}

/// Sends to `closer`, closes it before it reads, and waits until `other` is reset.
fn close_unread(side: &Side, closer: TcpStream, mut other: &TcpStream) -> Result<()> {
    let port = closer.local_addr()?.port();
    other.write_all(b"never read")?;
    side.netns.await_sockets("unread data", |rows| {
        rows.iter().any(|row| row.local_port == port && row.state != Listen && row.receive_queue > 0)
    })?;
    drop(closer);
    sock::await_reset(other)
}
