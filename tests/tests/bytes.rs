//! Bytes of connections that are older than the agent, before `ss`.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use anyhow::{Result, ensure};
use synfin_tests::{
    otlp::Receiver,
    sock, ss,
    stage::{Family, Link, Stage},
    state::State,
    synfin::{Synfin, message},
};

/// Of a connection that is older than the agent, the bytes that it has carried since: those by which `ss` says that they grew, and a FIN is
/// none, whoever sends the first and whether it was there already.
#[test]
fn bytes_of_older_connections() -> Result<()> {
    const EACH: usize = 5;
    for family in [Family::V4, Family::V6] {
        // Of the server's end alone: what both ends have received and sent would be the same sum.
        let stage = Stage::new(family, Link::Wire)?;
        let netns = &stage.server.netns;
        let (listener, address) = sock::listen(&stage.server, 16)?;
        let pair = |_| Ok([sock::connect(&stage.client, address)?, sock::accept(&listener)?]);
        let mut pairs = (0..3 * EACH).map(pair).collect::<Result<Vec<_>>>()?;
        for pair in &mut pairs {
            speak(pair, 100)?;
        }
        for [client, _] in &pairs[..EACH] {
            client.shutdown(Shutdown::Write)?;
        }
        netns.await_sockets("half-closed ones", |rows| {
            rows.iter().filter(|row| row.state == State::CloseWait).count() == EACH
        })?;

        let receiver = Receiver::start()?;
        let mut synfin = Synfin::serve_with(
            [netns],
            &["--otlp-endpoint", &receiver.endpoint()],
            &[("OTEL_METRIC_EXPORT_INTERVAL", "300".to_owned())],
        )?;
        let known = |line: &str| message(line).is_some_and(|text| text == "sockets older than the agent are known");
        synfin.await_stderr("the first listing", known)?;
        let before = ss::carried(netns)?;
        for (number, [client, server]) in pairs.iter_mut().enumerate() {
            if number >= EACH {
                client.write_all(&vec![1; 10 + number])?;
                server.read_exact(&mut vec![0; 10 + number])?;
            }
            server.write_all(&vec![2; 1_000 + number])?;
            client.read_exact(&mut vec![0; 1_000 + number])?;
        }
        let growth = ss::carried(netns)?.iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>();
        for (number, [client, server]) in pairs.into_iter().enumerate() {
            let (first, second) = if number < 2 * EACH { (client, server) } else { (server, client) };
            drop(first);
            sock::await_end(&second)?;
        }
        drop(listener);
        stage.await_quiet()?;
        synfin.terminate()?;
        receiver.look(|judge| {
            judge.verdict()?;
            for (direction, growth) in ["receive", "transmit"].into_iter().zip(growth) {
                let told = judge.series.sum("system.network.tcp.io", &[("network.io.direction", direction)]);
                ensure!(growth > 0 && (told - growth as f64).abs() < 0.5, "{direction}: {told} told, {growth} by ss");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Carries so many bytes both ways.
fn speak(pair: &mut [TcpStream; 2], bytes: usize) -> Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        pair[from].write_all(&vec![7; bytes])?;
        pair[to].read_exact(&mut vec![0; bytes])?;
    }
    Ok(())
}
