//! /proc/net/tcp and tcp6 of a namespace: what exists right now.
//!
//! Only for waiting until the kernel has got somewhere. It is no witness: it has no history.

use std::{fs, io};

use anyhow::{Context as _, Result};

use crate::{deadline, netns::Netns, state::State};

/// One line.
#[derive(Clone, Debug)]
pub struct Row {
    /// Port of this end.
    pub local_port: u16,
    /// Port of the other end.
    pub peer_port: u16,
    /// State; a request socket shows as [`State::SynReceived`].
    pub state: State,
    /// Bytes that wait to be read (for a listener: connections that wait to be accepted).
    pub receive_queue: u64,
    /// Inode of the socket file; 0 once no process holds it.
    pub inode: u64,
    /// What is left of a closed connection: a TIME_WAIT or FIN_WAIT2 minisock.
    pub minisock: bool,
}

impl Netns {
    /// All TCP sockets of the namespace, both families.
    pub fn sockets(&self) -> Result<Vec<Row>> {
        let text = self.run(|| -> io::Result<String> {
            // `thread-self`: /proc/net means the process's first thread, which is elsewhere.
            Ok(fs::read_to_string("/proc/thread-self/net/tcp")? + &fs::read_to_string("/proc/thread-self/net/tcp6")?)
        })?;
        text.lines().filter(|line| !line.trim_start().starts_with("sl")).map(row).collect()
    }

    /// Waits until the sockets are as `wanted` says.
    pub fn await_sockets(&self, what: &str, wanted: impl Fn(&[Row]) -> bool) -> Result<()> {
        deadline::until(&format!("{what} in {}", self.name()), || Ok(wanted(&self.sockets()?).then_some(())))
    }

    /// Waits until nothing is left that could still change state: at most minisocks.
    pub fn await_quiet(&self) -> Result<()> {
        self.await_sockets("all connections to end", |rows| rows.iter().all(|row| row.minisock))
            .with_context(|| format!("left over: {:?}", self.sockets()))
    }
}

/// /proc/net/sockstat and sockstat6 of a namespace: the kernel's own counters of TCP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockstat {
    /// Hashed sockets of both families: listeners and connections, no minisocks and no requests.
    pub inuse: u64,
    /// Minisocks: in TIME_WAIT, and in FIN_WAIT2 without a holder.
    pub timewait: u64,
}

impl Netns {
    /// The counters now.
    pub fn sockstat(&self) -> Result<Sockstat> {
        let text = self.run(|| -> io::Result<String> {
            let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            Ok(read("sockstat")? + &read("sockstat6")?)
        })?;
        // `TCP: inuse 3 orphan 0 tw 1 alloc 4 mem 0` and `TCP6: inuse 2`.
        let value = |protocol: &str, name: &str| -> Result<u64> {
            let line = text.lines().find(|line| line.starts_with(protocol)).context("no such protocol")?;
            let mut words = line.split_whitespace().skip_while(|word| *word != name);
            words.nth(1).with_context(|| format!("no {name} in {line:?}"))?.parse().context("no number")
        };
        Ok(Sockstat { inuse: value("TCP:", "inuse")? + value("TCP6:", "inuse")?, timewait: value("TCP:", "tw")? })
    }
}

/// `sl local:port remote:port st tx:rx tr:when retrnsmt uid timeout inode …`, numbers in hex.
fn row(line: &str) -> Result<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let hex = |field: usize, part: usize| -> Result<u64> {
        let text = fields.get(field).and_then(|field| field.rsplit(':').nth(part)).context("field missing")?;
        Ok(u64::from_str_radix(text, 16)?)
    };
    let read = || -> Result<Row> {
        let state = State::from_kernel(hex(3, 0)?)?;
        // Timer 3 is the TIME_WAIT timer; a FIN_WAIT2 minisock has it as well, a real FIN_WAIT2 socket never.
        let minisock = hex(5, 1)? == 3;
        let inode = fields.get(9).context("inode missing")?.parse()?; // in decimal, unlike the rest
        let (local_port, peer_port) = (hex(1, 0)? as u16, hex(2, 0)? as u16);
        Ok(Row { local_port, peer_port, state, receive_queue: hex(4, 0)?, inode, minisock })
    };
    read().with_context(|| format!("line of /proc/net/tcp: {line:?}"))
}
