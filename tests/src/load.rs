//! Many plain connections: as fast as one thread makes them, or at an even pace.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    deadline::{PATIENCE, scaled},
    scenario::Expected,
    sock,
    stage::{Side, Stage},
};

/// Opens, uses and closes `count` connections one after the other; on return all have ended.
pub fn connections(stage: &Stage, count: u64) -> Result<Expected> {
    connections_to(stage, &stage.server, count)?;
    Ok(Expected::many(stage, count))
}

/// The same to a server with another address.
pub fn connections_to(stage: &Stage, server: &Side, count: u64) -> Result<()> {
    let (listener, address) = sock::listen(server, 128)?;
    for _ in 0..count {
        let client = sock::connect(&stage.client, address)?;
        let server = exchange(&client, &listener)?;
        close(client, server)?;
    }
    drop(listener);
    stage.await_quiet()
}

/// A load at an even pace, by one thread.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Connections a second; a machine that is too slow for it makes as many as it can.
    pub per_second: u32,
    /// One of so many connections is reset by its client.
    pub reset_each: u64,
}

/// What a load has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Connections, all of which have ended.
    pub connections: u64,
    /// Of these, those that were reset.
    pub resets: u64,
}

impl Pace {
    /// Makes connections one after the other for as long as `go_on` wants, which is told how many there were; on return all have ended.
    pub fn make(self, stage: &Stage, go_on: impl Fn(u64) -> bool + Sync) -> Result<Made> {
        let (listener, address) = sock::listen(&stage.server, 128)?;
        // The thread stays in the namespace: entering it for each socket would cost more than the connection.
        let made = stage.client.netns.run(|| -> Result<Made> {
            let (began, mut made) = (Instant::now(), Made::default());
            while go_on(made.connections) {
                let due = Duration::from_secs_f64(made.connections as f64 / f64::from(self.per_second));
                thread::sleep(due.saturating_sub(began.elapsed()));
                let client = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
                client.set_read_timeout(Some(scaled(PATIENCE)))?;
                let server = exchange(&client, &listener)?;
                made.connections += 1;
                if made.connections.is_multiple_of(self.reset_each) {
                    reset(client, &server)?;
                    made.resets += 1;
                } else {
                    close(client, server)?;
                }
            }
            Ok(made)
        })?;
        drop(listener);
        stage.await_quiet()?;
        Ok(made)
    }
}

/// Accepts what the client began; a question and its answer.
fn exchange(mut client: &TcpStream, listener: &TcpListener) -> Result<TcpStream> {
    let mut server = sock::accept(listener)?;
    client.write_all(b"question")?;
    server.read_exact(&mut [0; 8])?;
    server.write_all(b"answer")?;
    Ok(server)
}

/// The server closes first, as one does that was told `Connection: close`.
fn close(mut client: TcpStream, server: TcpStream) -> Result<()> {
    drop(server);
    client.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The client goes away with a RST.
fn reset(client: TcpStream, server: &TcpStream) -> Result<()> {
    sock::linger_zero(&client)?;
    drop(client);
    sock::await_reset(server)
}
