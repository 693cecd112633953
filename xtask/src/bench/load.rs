//! The traffic: connections over the loopback of the arena, each opened, accepted and closed, from one thread or many.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::panic;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::time::ClockId;

use super::arena::Arena;
use super::process;

/// Addresses that a thread connects to in turn. One alone would run out of ports, and search ever longer for one, as
/// TIME_WAIT sockets pile up.
pub(super) const ADDRESSES: u64 = 200;

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) threads: usize,
    pub(super) cargo: Cargo,
}

/// What each connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cargo {
    /// Nothing: the cheapest connection that there is, of which synfin takes the largest share.
    Nothing,
    /// A request of [`REQUEST`] bytes and an answer of [`ANSWER`]: what connections are made for.
    Request,
}

/// Bytes of a request, and of an answer.
const REQUEST: usize = 200;
const ANSWER: usize = 1000;

impl Traffic {
    /// In reports.
    pub(super) fn name(self) -> String {
        let threads = if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        match self.cargo {
            Cargo::Nothing => threads,
            Cargo::Request => format!("{threads}, request and answer"),
        }
    }
}

/// What some traffic makes the kernel report: the ground truth that events are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Made {
    /// Connections, both ends of which are in the arena.
    pub(super) connections: u64,
    /// Sockets that listened for them.
    pub(super) listeners: u64,
}

impl Made {
    /// State changes: four to open and six to close a connection, whichever end closes first; a listener opens and closes.
    pub(super) const fn transitions(self) -> u64 {
        10 * self.connections + 2 * self.listeners
    }

    /// Events of any kind: besides, each socket is destroyed once.
    pub(super) const fn events(self) -> u64 {
        self.transitions() + 2 * self.connections + self.listeners
    }

    /// Spans: one for each end.
    pub(super) const fn spans(self) -> u64 {
        2 * self.connections
    }
}

/// What some traffic took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Took {
    pub(super) wall: Duration,
    /// CPU time of all threads that made it, with the programs that the kernel ran on it.
    pub(super) cpu: Duration,
}

/// Makes at least `total` connections, an equal share from each thread, as fast as they go.
pub(super) fn connections(arena: &Arena, traffic: Traffic, total: u64) -> Result<(Made, Took)> {
    let Traffic { threads, cargo } = traffic;
    let share = total.div_ceil(threads as u64);
    let barrier = Barrier::new(threads + 1);
    let took = thread::scope(|scope| {
        let worker = |cpu| {
            let listener = process::stay_on(cpu).and_then(|()| listen(arena));
            // Also after a failure: the others wait for everybody.
            barrier.wait();
            let before = own_cpu()?;
            repeat(&listener?, share, cargo)?;
            anyhow::Ok(own_cpu()?.saturating_sub(before))
        };
        let workers: Vec<_> = (0..threads).map(|cpu| scope.spawn(move || worker(cpu))).collect();
        barrier.wait();
        let start = Instant::now();
        let mut cpu = Duration::ZERO;
        for worker in workers {
            cpu += worker.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        }
        anyhow::Ok(Took { wall: start.elapsed(), cpu })
    })?;
    Ok((Made { connections: share * threads as u64, listeners: threads as u64 }, took))
}

/// Sends `bytes` over one connection.
pub(super) fn transfer(arena: &Arena, bytes: u64) -> Result<()> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let listener = listen(arena)?;
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, listener.local_addr()?.port()))?;
            let (mut server, _) = listener.accept()?;
            let reader = thread::spawn(move || std::io::copy(&mut server, &mut std::io::sink()));
            std::io::copy(&mut std::io::repeat(b'.').take(bytes), &mut client).context("sending")?;
            client.flush()?;
            drop(client);
            reader.join().unwrap_or_else(|cause| panic::resume_unwind(cause)).context("receiving")?;
            Ok(())
        });
        worker.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
    })
}

fn own_cpu() -> Result<Duration> {
    Ok(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?.into())
}

fn listen(arena: &Arena) -> Result<TcpListener> {
    arena.enter()?;
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen in the namespace of the bench")
}

fn repeat(listener: &TcpListener, count: u64, cargo: Cargo) -> Result<()> {
    let mut bytes = [b'.'; ANSWER];
    let port = listener.local_addr()?.port();
    for number in 0..count {
        let address = Ipv4Addr::new(127, 0, 1, (1 + number % ADDRESSES) as u8);
        let mut client = TcpStream::connect((address, port)).with_context(|| format!("connection {number}"))?;
        let (mut server, _) = listener.accept()?;
        if cargo == Cargo::Request {
            client.write_all(&bytes[..REQUEST])?;
            server.read_exact(&mut bytes[..REQUEST])?;
            server.write_all(&bytes)?;
            client.read_exact(&mut bytes)?;
        }
        drop(client);
        drop(server);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_connection_is_twelve_events() {
        let made = Made { connections: 1, listeners: 0 };
        assert_eq!((made.transitions(), made.events(), made.spans()), (10, 12, 2));
        assert_eq!(Made { connections: 0, listeners: 1 }.events(), 3);
    }

    #[test]
    fn a_listener_serves_all_its_connections() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        repeat(&listener, 3, Cargo::Nothing).unwrap();
        repeat(&listener, 3, Cargo::Request).unwrap();
    }
}
