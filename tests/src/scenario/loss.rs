//! Segments that are lost and sent again.

use std::{
    io::{Read as _, Write as _},
    thread,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    ACCEPT, CLOSE_FIRST, CLOSE_SECOND, Ends, Expected, First, LISTENER, OPEN, close::one_after_the_other, pair,
};
use crate::{
    sock,
    stage::Stage,
    wire::{End, Fate},
    witness::nstat::Counters,
};

/// Enough for many segments, little enough for a fresh socket's buffer.
const BYTES: usize = 40_000;
/// Enough for some segments, little enough for a fresh connection to send without waiting for an answer.
const FLIGHT: usize = 8000;

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
    let mut expected = closed_by_client_after_loss(stage, end, true);
    expected.probes_send_new_data = true;
    Ok(expected)
}

/// The first of some segments is lost, once: what comes of the others makes the kernel send it again, before any timer runs out.
pub fn segment(stage: &Stage) -> Result<Expected> {
    one_of_a_flight(stage, |sent, _| sent == 0, "TcpExtTCPFastRetrans")
}

/// The last of some segments is lost, once: no answer tells of it, so that the kernel sends it again as a probe.
pub fn tail(stage: &Stage) -> Result<Expected> {
    one_of_a_flight(stage, |sent, payload| sent + payload == FLIGHT, "TcpExtTCPLossProbes")
}

/// Of segments that leave together one is lost, chosen by the bytes that were sent before it and by its own; which must make this
/// counter of the kernel grow.
fn one_of_a_flight(stage: &Stage, lost: fn(usize, usize) -> bool, counter: &str) -> Result<Expected> {
    let mut pair = pair(stage)?;
    // A round trip, so that the kernel knows how long to wait for an answer.
    pair.client.write_all(b"question")?;
    pair.server.read_exact(&mut [0; 8])?;
    pair.server.write_all(b"answer")?;
    pair.client.read_exact(&mut [0; 6])?;
    let before = Counters::of(&stage.client.netns)?;
    let mut sent = 0;
    stage.wire()?.rule(move |segment| {
        if segment.from != End::Client || segment.payload == 0 {
            return Fate::Pass;
        }
        let is_lost = lost(sent, segment.payload);
        sent += segment.payload;
        if is_lost { Fate::Drop } else { Fate::Pass }
    });
    // By one call: no timer can run out between the segments.
    pair.client.write_all(&[7; FLIGHT])?;
    pair.server.read_exact(&mut [0; FLIGHT])?;
    let growth = Counters::of(&stage.client.netns)?.since(&before).get(counter);
    ensure!(growth > 0, "a segment was lost, and {counter} has not grown: the kernel has found another way");
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
