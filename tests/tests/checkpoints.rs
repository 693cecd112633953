//! Connections that live long are told of while they live: how often, under which parent, and linked to what.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use opentelemetry_proto::tonic::trace::v1::Span;
use synfin_tests::{
    otlp::{
        judge::{Judge, integer, text},
        spans::{CHECKPOINT, NUMBER},
    },
    sock,
    stage::{Family, Link, Stage},
    twins::{self, Agent, Made},
};

const INTERVAL: Duration = Duration::from_secs(1);
/// Checkpoints of each end that are waited for.
const WANTED: usize = 3;
/// Until they have come, on a busy machine.
const WAITING: Duration = Duration::from_secs(30);
/// What is due is found by the walk, four times in an interval, by a thread that may have to wait for a CPU.
const LATE: Duration = Duration::from_secs(2);

fn agent(stage: &[&synfin_tests::netns::Netns]) -> Result<Agent> {
    Agent::start_with(stage.iter().copied(), &[("SYNFIN_OTLP_CHECKPOINT_INTERVAL", "1s".to_owned())])
}

fn is_checkpoint(span: &Span) -> bool {
    span.name == CHECKPOINT
}

/// Two agents, one for each end: both tell of the same connections, in the same traces, each under its own span.
#[test]
fn both_ends_tell_of_a_long_life() -> Result<()> {
    let stage = Stage::new(Family::V6, Link::Wire)?;
    let agents = [agent(&[&stage.client.netns])?, agent(&[&stage.server.netns])?];
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let open = || -> Result<(TcpStream, TcpStream)> {
        let mut client = sock::connect(&stage.client, address)?;
        let mut server = sock::accept(&listener)?;
        client.write_all(b"question")?;
        server.read_exact(&mut [0; 8])?;
        Ok((client, server))
    };
    let lasting = [open()?, open()?];
    let brief = open()?;
    let made: Vec<Made> =
        lasting.iter().chain([&brief]).map(|(client, server)| Made::of(client, server)).collect::<Result<_>>()?;
    let [(client, server), reset] = lasting;
    end(brief.0, brief.1)?;
    // From now on it is half closed: its state is told, and the transition by one checkpoint alone.
    client.shutdown(Shutdown::Write)?;
    for agent in &agents {
        let enough = |judge: &Judge| {
            judge.spans.iter().filter(|span| integer(&span.attributes, NUMBER) == Some(WANTED as i64)).count() == 2
        };
        agent.receiver().await_received(WAITING, "checkpoints of both connections", enough)?;
    }
    drop(server);
    drop(client);
    sock::linger_zero(&reset.0)?;
    drop(reset.0);
    drop((reset.1, listener));
    stage.await_quiet()?;

    let mut spans = Vec::new();
    let mut lost = 0;
    for agent in agents {
        let told = agent.end()?;
        spans.extend(told.spans);
        lost += told.lost;
    }
    let wholes = spans.iter().filter(|span| !is_checkpoint(span));
    let twins = twins::pair(&made, wholes)?;
    twins::joined(&twins, lost)?;
    let [half_closed, reset, brief] = twins[..] else { unreachable!("three were made") };
    for twins in [half_closed, reset] {
        for whole in [twins.client, twins.server] {
            let checkpoints = life(&spans, whole)?;
            ensure!(checkpoints.len() >= WANTED, "{} checkpoints: {checkpoints:?}", checkpoints.len());
        }
    }
    for whole in [brief.client, brief.server] {
        ensure!(life(&spans, whole)?.is_empty(), "a brief connection had a checkpoint");
    }
    for (whole, state) in [(half_closed.client, "fin_wait_2"), (half_closed.server, "close_wait")] {
        let checkpoints = life(&spans, whole)?;
        let last = checkpoints.last().context("checked above")?;
        ensure!(text(&last.attributes, "network.connection.state") == Some(state), "{last:?}");
        let entered = format!("tcp.{state}");
        let told = checkpoints.iter().filter(|span| span.events.iter().any(|event| event.name == entered)).count();
        ensure!(told == 1, "{told} checkpoints tell that {state} was entered");
    }
    let of_these: usize = [half_closed, reset]
        .iter()
        .flat_map(|twins| [twins.client, twins.server])
        .map(|whole| life(&spans, whole).map_or(0, |all| all.len()))
        .sum();
    let all = spans.iter().filter(|span| is_checkpoint(span)).count();
    ensure!(of_these == all, "{all} checkpoints, {of_these} of them of the two connections that lasted");
    Ok(())
}

/// What was there before the agent has ids of the agent's own; they are the same at a checkpoint and at the end.
#[test]
fn older_than_the_agent() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let client = sock::connect(&stage.client, address)?;
    let server = sock::accept(&listener)?;
    let agent = agent(&[&stage.client.netns])?;
    let enough = |judge: &Judge| judge.spans.iter().filter(|span| is_checkpoint(span)).count() >= 2 * WANTED;
    agent.receiver().await_received(WAITING, "checkpoints of both ends", enough)?;
    end(client, server)?;
    drop(listener);
    stage.await_quiet()?;
    let told = agent.end()?;
    let wholes: Vec<&Span> = told.spans.iter().filter(|span| !is_checkpoint(span)).collect();
    ensure!(wholes.len() == 2, "{} connections", wholes.len());
    ensure!(wholes[0].trace_id != wholes[1].trace_id, "nothing tells that these are two ends");
    for whole in wholes {
        let checkpoints = life(&told.spans, whole)?;
        ensure!(!checkpoints.is_empty(), "no checkpoints of {whole:?}");
        for checkpoint in checkpoints {
            let of_birth = checkpoint.attributes.iter().any(|pair| pair.key == "network.connection.duration");
            ensure!(!of_birth, "an age of what was born before: {checkpoint:?}");
        }
    }
    Ok(())
}

#[test]
fn switched_off() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    let off = [("SYNFIN_OTLP_CHECKPOINT_INTERVAL", "0".to_owned())];
    let agents = [Agent::start_with(stage.namespaces(), &off)?, agent(&[&stage.client.netns])?];
    let (listener, address) = sock::listen(&stage.server, 16)?;
    let client = sock::connect(&stage.client, address)?;
    let server = sock::accept(&listener)?;
    let enough = |judge: &Judge| judge.spans.iter().any(is_checkpoint);
    agents[1].receiver().await_received(WAITING, "a checkpoint of the agent that has them", enough)?;
    end(client, server)?;
    drop(listener);
    stage.await_quiet()?;
    let [off, on] = agents;
    ensure!(on.end()?.spans.iter().any(is_checkpoint), "checked above");
    let told = off.end()?.spans;
    ensure!(told.len() == 2 && !told.iter().any(is_checkpoint), "{told:?}");
    ensure!(told.iter().all(|span| span.links.is_empty()), "{told:?}");
    Ok(())
}

/// The checkpoints of a connection in the order of their numbers. Fails unless they are one life: numbered from 1 on, children of the
/// connection's span in its trace, each beginning where the last one ended and linked to it, and the whole to the last of them.
fn life<'a>(spans: &'a [Span], whole: &Span) -> Result<Vec<&'a Span>> {
    let mut checkpoints: Vec<&Span> =
        spans.iter().filter(|span| is_checkpoint(span) && span.parent_span_id == whole.span_id).collect();
    checkpoints.sort_by_key(|span| integer(&span.attributes, NUMBER));
    let link = |span: &Span| span.links.iter().map(|link| link.span_id.clone()).collect::<Vec<_>>();
    let (mut until, mut before) = (whole.start_time_unix_nano, Vec::new());
    for (number, checkpoint) in (1_i64..).zip(&checkpoints) {
        ensure!(integer(&checkpoint.attributes, NUMBER) == Some(number), "number {number} is missing: {checkpoints:?}");
        ensure!(checkpoint.trace_id == whole.trace_id, "another trace: {checkpoint:?}");
        ensure!(link(checkpoint) == before, "linked to {:02x?}, not {before:02x?}", link(checkpoint));
        // The wall clock may have been corrected a little between two of them.
        let gap = checkpoint.start_time_unix_nano.abs_diff(until);
        ensure!(gap < 10_000_000, "{gap} ns between two checkpoints: {checkpoints:?}");
        let lasted = Duration::from_nanos(checkpoint.end_time_unix_nano - checkpoint.start_time_unix_nano);
        ensure!(lasted + Duration::from_millis(1) > INTERVAL, "one of {lasted:?}: {checkpoint:?}");
        ensure!(checkpoint.status.as_ref().is_none_or(|status| status.code == 0), "{checkpoint:?}");
        before = vec![checkpoint.span_id.clone()];
        until = checkpoint.end_time_unix_nano;
    }
    ensure!(link(whole) == before, "the connection is linked to {:02x?}, not {before:02x?}", link(whole));
    let left = Duration::from_nanos(whole.end_time_unix_nano.saturating_sub(until));
    ensure!(left < INTERVAL + LATE, "{left:?} of its life were told by no checkpoint");
    Ok(checkpoints)
}

fn end(client: TcpStream, server: TcpStream) -> Result<()> {
    drop(client);
    sock::await_end(&server)?;
    drop(server);
    Ok(())
}
