//! Connections whose owning process matters.

use anyhow::{Result, ensure};

use super::{ACCEPT, CLOSE_FIRST, CLOSE_SECOND, Expected, First, LISTENER, OPEN, close::read_to_end};
use crate::{
    peer::Peer,
    sock,
    stage::Stage,
    state::State::{Closed, Established, FinWait1, Listen, SynSent},
};

/// How many connections the killed process has.
const CONNECTIONS: usize = 3;

/// The opener's process makes a child; the parent's close does nothing, the child's exit closes the connection.
pub fn fork(stage: &Stage) -> Result<Expected> {
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let mut peer = Peer::start(&stage.client, "test-parent")?;
    peer.connect(address)?;
    let mut server = sock::accept(&listener)?;
    let child = peer.fork("test-child")?;
    peer.close()?;
    let open = stage.client.netns.sockets()?.iter().filter(|row| row.state == Established).count();
    ensure!(open == 2, "the parent's close must leave both sockets open, {open} are");
    peer.end_child()?;
    read_to_end(&mut server, 0)?;
    drop(server);
    drop(listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    expected.life(&stage.client, &[OPEN, CLOSE_FIRST]);
    expected.life(&stage.server, &[ACCEPT, CLOSE_SECOND]);
    expected.end(&stage.client, "client", &["fin_wait_2", "time_wait"], First::Local);
    expected.end(&stage.server, "server", &["closed"], First::Peer);
    expected.owner(&stage.client, (Closed, SynSent), peer.pid(), Some("test-parent"));
    expected.owner(&stage.client, (Established, FinWait1), child, Some("test-child"));
    Ok(expected)
}

/// A process that opened connections is killed.
pub fn kill_client(stage: &Stage) -> Result<Expected> {
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let mut peer = Peer::start(&stage.client, "test-victim")?;
    let mut servers = Vec::new();
    for _ in 0..CONNECTIONS {
        peer.connect(address)?;
        servers.push(sock::accept(&listener)?);
    }
    peer.kill()?;
    for mut server in servers {
        read_to_end(&mut server, 0)?;
    }
    drop(listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    for _ in 0..CONNECTIONS {
        expected.life(&stage.client, &[OPEN, CLOSE_FIRST]);
        expected.life(&stage.server, &[ACCEPT, CLOSE_SECOND]);
        expected.end(&stage.client, "client", &["fin_wait_2", "time_wait"], First::Local);
        expected.end(&stage.server, "server", &["closed"], First::Peer);
    }
    expected.owner(&stage.client, (Closed, SynSent), peer.pid(), Some("test-victim"));
    expected.owner(&stage.client, (Established, FinWait1), peer.pid(), Some("test-victim"));
    Ok(expected)
}

/// A process that accepted connections is killed, and its listener with it.
pub fn kill_server(stage: &Stage) -> Result<Expected> {
    let mut peer = Peer::start(&stage.server, "test-victim")?;
    let address = peer.listen(stage.server.at(0))?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(sock::connect(&stage.client, address)?);
        peer.accept()?;
    }
    peer.kill()?;
    for mut client in clients {
        read_to_end(&mut client, 0)?;
    }
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    for _ in 0..CONNECTIONS {
        expected.life(&stage.client, &[OPEN, CLOSE_SECOND]);
        expected.life(&stage.server, &[ACCEPT, CLOSE_FIRST]);
        expected.end(&stage.client, "client", &["closed"], First::Peer);
        expected.end(&stage.server, "server", &["fin_wait_2", "time_wait"], First::Local);
    }
    expected.owner(&stage.server, (Established, FinWait1), peer.pid(), Some("test-victim"));
    expected.owner(&stage.server, (Listen, Closed), peer.pid(), Some("test-victim"));
    Ok(expected)
}
