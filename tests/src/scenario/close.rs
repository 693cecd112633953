//! Connections that end with FINs.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use anyhow::{Result, ensure};

use super::{ACCEPT, CLOSE_FIRST, CLOSE_SECOND, Ends, Expected, First, LISTENER, OPEN, pair};
use crate::{
    deadline,
    procnet::Row,
    ss,
    stage::{Side, Stage},
    state::State::{Closed, Closing, Established, FinWait1, FinWait2},
    wire::Fate,
};

/// The opener closes; the other end closes once the opener's socket is in FIN_WAIT2 without a holder.
pub fn by_client(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    let end = one_after_the_other(&stage.client, pair.client, pair.server)?;
    drop(pair.listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.ordinary(stage, end);
    Ok(expected)
}

/// The same with the accepting end first.
pub fn by_server(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    let end = one_after_the_other(&stage.server, pair.server, pair.client)?;
    drop(pair.listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    expected.life(&stage.client, &[OPEN, CLOSE_SECOND]);
    expected.life(&stage.server, &[ACCEPT, CLOSE_FIRST]);
    expected.end(&stage.client, "client", &["closed"], First::Peer);
    expected.end(&stage.server, "server", end, First::Local);
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
    let end = one_after_the_other(&stage.client, pair.client, pair.server)?;
    drop(pair.listener);
    stage.await_quiet()?;

    let mut expected = Expected::default();
    expected.ordinary(stage, end);
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

/// Closes `first`, waits until it is in FIN_WAIT2 without a holder, then closes `second`. Gives how `first` must end.
pub fn one_after_the_other(side: &Side, first: TcpStream, mut second: TcpStream) -> Result<Ends> {
    let ports = (first.local_addr()?.port(), first.peer_addr()?.port());
    drop(first);
    read_to_end(&mut second, 0)?;
    // The ACK of the FIN may be delayed; without this wait it could ride on the other FIN, and FIN_WAIT2 would last no
    // time at all.
    let end = deadline::until("a FIN_WAIT2 socket without a holder", || {
        let Some(row) = orphan(side, ports)? else { return Ok(None) };
        if row.minisock {
            return Ok(Some(end_in_fin_wait_2(&row)));
        }
        // The kernel may be about to make a minisock of it: what it is once nobody has it locked, it stays.
        ss::await_unlocked(&side.netns)?;
        Ok(orphan(side, ports)?.map(|row| end_in_fin_wait_2(&row)))
    })?;
    drop(second);
    Ok(end)
}

/// The FIN_WAIT2 socket between these ports that no process holds any more.
fn orphan(side: &Side, ports: (u16, u16)) -> Result<Option<Row>> {
    let is_it = |row: &Row| (row.local_port, row.peer_port) == ports && row.state == FinWait2 && row.inode == 0;
    Ok(side.netns.sockets()?.into_iter().find(is_it))
}

/// A FIN_WAIT2 orphan is replaced by a minisock, and so has ended before the other FIN comes, with one exception: while
/// close() has the socket locked, an ACK waits for the end of close(), which then leaves the socket as it is
/// (`tcp_rcv_state_process`: `sock_owned_by_user`) for as long as the minisock would have lived. That one takes the other
/// FIN itself, and goes on as a minisock in TIME_WAIT.
fn end_in_fin_wait_2(orphan: &Row) -> Ends {
    if orphan.minisock { &["fin_wait_2"] } else { &["time_wait"] }
}

/// Reads up to the other end's FIN.
pub(super) fn read_to_end(stream: &mut TcpStream, bytes: usize) -> Result<()> {
    let read = stream.read_to_end(&mut Vec::new())?;
    ensure!(read == bytes, "{read} bytes came before the FIN, not {bytes}");
    Ok(())
}
