//! Segments that are lost and sent again.

use std::{
    io::{Read as _, Write as _},
    thread,
};

use anyhow::{Context as _, Result};

use super::{
    ACCEPT, CLOSE_FIRST, CLOSE_SECOND, Ends, Expected, First, LISTENER, OPEN, close::one_after_the_other, pair,
};
use crate::{
    sock,
    stage::Stage,
    wire::{End, Fate},
};

/// Enough for many segments, little enough for a fresh socket's buffer.
const BYTES: usize = 40_000;

/// The first flight of data is lost; it is sent again, several segments at a time.
pub fn data(stage: &Stage) -> Result<Expected> {
    let mut pair = pair(stage)?;
    let wire = stage.wire()?;
    wire.rule(|segment| if segment.from == End::Client && segment.payload > 0 { Fate::Drop } else { Fate::Pass });
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| pair.client.write_all(&vec![7; BYTES]));
        wire.await_dropped(10)?;
        wire.release()?;
        pair.server.read_exact(&mut vec![0; BYTES])?;
        writer.join().ok().context("the writer panicked")??;
        Ok(())
    })?;
    let end = one_after_the_other(&stage.client, pair.client, pair.server)?;
    drop(pair.listener);
    stage.await_quiet()?;
    Ok(closed_by_client_after_loss(stage, end, true))
}

/// The first FIN is lost.
pub fn fin(stage: &Stage) -> Result<Expected> {
    let pair = pair(stage)?;
    let mut lost = false;
    stage.wire()?.rule(move |segment| {
        if segment.fin && !lost {
            lost = true;
            return Fate::Drop;
        }
        Fate::Pass
    });
    let end = one_after_the_other(&stage.client, pair.client, pair.server)?;
    drop(pair.listener);
    stage.await_quiet()?;
    Ok(closed_by_client_after_loss(stage, end, true))
}

/// The ACK that ends the handshake is lost: the server sends its SYN-ACK again.
pub fn third_ack(stage: &Stage) -> Result<Expected> {
    let mut lost = false;
    stage.wire()?.rule(move |segment| {
        if segment.from == End::Client && segment.ack && !lost {
            lost = true;
            return Fate::Drop;
        }
        Fate::Pass
    });
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let client = sock::connect(&stage.client, address)?;
    let server = sock::accept(&listener)?;
    let end = one_after_the_other(&stage.client, client, server)?;
    drop(listener);
    stage.await_quiet()?;
    Ok(closed_by_client_after_loss(stage, end, false))
}

fn closed_by_client_after_loss(stage: &Stage, end_of_client: Ends, retransmits: bool) -> Expected {
    let mut expected = Expected::default();
    expected.life(&stage.server, &[LISTENER]);
    expected.life(&stage.client, &[OPEN, CLOSE_FIRST]);
    expected.life(&stage.server, &[ACCEPT, CLOSE_SECOND]);
    expected.end(&stage.client, "client", end_of_client, First::Local).retransmits = retransmits;
    expected.end(&stage.server, "server", &["closed"], First::Peer);
    expected
}
