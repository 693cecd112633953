//! Connections that end with FINs.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use anyhow::{Result, ensure};

use super::{ACCEPT, CLOSE_FIRST, CLOSE_SECOND, Expected, First, LISTENER, OPEN, pair};
use crate::{
    stage::{Side, Stage},
    state::State::{Closed, Closing, Established, FinWait1, FinWait2},
    wire::Fate,
};

/// The opener closes; the other end closes once the opener's socket has become a FIN_WAIT2 minisock.
pub fn by_client(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    one_after_the_other(&stage.client, pair.client, pair.server)?;
    drop(pair.listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.ordinary(stage, &["fin_wait_2"]);
    Ok(expected)
}

/// The same with the accepting end first.
pub fn by_server(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    one_after_the_other(&stage.server, pair.server, pair.client)?;
    drop(pair.listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    expected.life(&stage.client, &[OPEN, CLOSE_SECOND]);
    expected.life(&stage.server, &[ACCEPT, CLOSE_FIRST]);
    expected.end(&stage.client, "client", &["closed"], First::Peer);
    expected.end(&stage.server, "server", &["fin_wait_2"], First::Local);
    Ok(expected)
}

/// The opener shuts its sending half, gets an answer and the other end's FIN, and closes last of all.
pub fn half(stage: &Stage) -> Result<Expected> {
    let mut pair = pair(stage)?;
    pair.client.shutdown(Shutdown::Write)?;
    read_to_end(&mut pair.server, 0)?;
    pair.server.write_all(b"bye")?;
    drop(pair.server);
    read_to_end(&mut pair.client, 3)?;
    drop(pair.client);
    drop(pair.listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.ordinary(stage, &["time_wait"]);
    Ok(expected)
}

/// The opener shuts its sending half, and closes while the other end keeps its half open.
///
/// The kernel reports the close as a transition from FIN_WAIT2 to itself.
pub fn half_then_whole(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    let port = pair.client.local_addr()?.port();
    pair.client.shutdown(Shutdown::Write)?;
    stage
        .client
        .netns
        .await_sockets("FIN_WAIT2", |rows| rows.iter().any(|row| row.local_port == port && row.state == FinWait2))?;
    one_after_the_other(&stage.client, pair.client, pair.server)?;
    drop(pair.listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.ordinary(stage, &["fin_wait_2"]);
    expected.life(&stage.client, &[&[FinWait2, FinWait2]]);
    Ok(expected)
}

/// Both ends close, and each FIN arrives before the other end has heard that its own arrived (RFC 9293 §3.6, case 3).
pub fn simultaneous(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    let wire = stage.wire()?;
    wire.rule(|segment| if segment.fin { Fate::Hold } else { Fate::Pass });
    drop(pair.client);
    drop(pair.server);
    wire.await_held(2)?;
    wire.release()?;
    drop(pair.listener);
    stage.await_quiet()?;

    let close = [Established, FinWait1, Closing, Closed];
    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    expected.life(&stage.client, &[OPEN, &close]);
    expected.life(&stage.server, &[ACCEPT, &close]);
    expected.end(&stage.client, "client", &["time_wait"], First::Both);
    expected.end(&stage.server, "server", &["time_wait"], First::Both);
    Ok(expected)
}

/// Closes `first`, waits until its side keeps only a minisock, then closes `second`.
pub fn one_after_the_other(side: &Side, first: TcpStream, mut second: TcpStream) -> Result<()> {
    let port = first.local_addr()?.port();
    drop(first);
    read_to_end(&mut second, 0)?;
    // The ACK of the FIN may be delayed; without this wait it could ride on the other FIN, and FIN_WAIT2 would last no
    // time at all.
    side.netns.await_sockets("a FIN_WAIT2 minisock", |rows| {
        rows.iter().any(|row| row.local_port == port && row.state == FinWait2 && row.minisock)
    })?;
    drop(second);
    Ok(())
}

/// Reads up to the other end's FIN.
pub(super) fn read_to_end(stream: &mut TcpStream, bytes: usize) -> Result<()> {
    let read = stream.read_to_end(&mut Vec::new())?;
    ensure!(read == bytes, "{read} bytes came before the FIN, not {bytes}");
    Ok(())
}
