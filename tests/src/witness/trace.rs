//! The kernel's own trace buffer: every event of the tracepoints as a line of text.
//!
//! It runs no program, so nothing is skipped when one interrupts another, and it needs no more than tracefs. It names no
//! namespace: places are told by the address of this end. So one play must not use the same address in two namespaces,
//! and nobody else may make connections meanwhile, as holds in a virtual machine that runs one test at a time.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use super::{Place, Places, Retransmits, Seen, mapped};
use crate::{need, state::State, tracefs};

const EVENTS: [&str; 6] = [
    "sock/inet_sock_set_state",
    "tcp/tcp_retransmit_skb",
    "tcp/tcp_retransmit_synack",
    "tcp/tcp_send_reset",
    "tcp/tcp_receive_reset",
    "tcp/tcp_destroy_sock",
];

/// Enough for some 30,000 events on each CPU; the kernel says if it was not.
const BUFFER_KIB: &str = "4096";

/// A trace buffer of our own, which other users of tracing neither see nor fill.
#[derive(Debug)]
pub struct Trace {
    instance: PathBuf,
}

impl Trace {
    /// Makes the buffer and switches the tracepoints on.
    pub fn start() -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);

        need::root()?;
        tracefs::mount()?;
        let name = format!("instances/synfin-test-{}-{}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let instance = tracefs::path(&name);
        fs::create_dir(&instance).with_context(|| format!("making the trace buffer {}", instance.display()))?;
        let trace = Self { instance };
        trace.write("buffer_size_kb", BUFFER_KIB)?;
        for event in EVENTS {
            trace.write(&format!("events/{event}/enable"), "1")?;
        }
        Ok(trace)
    }

    /// Switches them off and reads what came.
    pub fn stop(self) -> Result<Seen> {
        self.write("events/enable", "0")?;
        let text = self.read("trace")?;
        let places = text.lines().filter(|line| !line.starts_with('#')).try_fold(Places::new(), take)?;
        Ok(Seen { witness: "the trace buffer", missed: self.missed()?, retransmits: Retransmits::Calls, places })
    }

    /// Events that found no room, over all CPUs.
    fn missed(&self) -> Result<u64> {
        let mut missed = 0;
        for cpu in fs::read_dir(self.instance.join("per_cpu"))? {
            let stats = fs::read_to_string(cpu?.path().join("stats"))?;
            for line in stats.lines() {
                if let Some(("overrun" | "commit overrun" | "dropped events", count)) = line.split_once(": ") {
                    missed += count.trim().parse::<u64>().with_context(|| format!("trace statistics: {line:?}"))?;
                }
            }
        }
        Ok(missed)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.instance.join(file);
        fs::write(&path, text).with_context(|| format!("writing {text} to {}", path.display()))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.instance.join(file);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // tracefs removes a buffer with all its files by removing its folder; a leftover costs memory alone.
        drop(fs::remove_dir(&self.instance));
    }
}

/// Adds a line: `comm-1 [000] d.s1. 12.3: tcp_send_reset: skbaddr=… src=10.0.0.1:80 …`.
fn take(mut places: Places, line: &str) -> Result<Places> {
    let event = EVENTS.iter().find_map(|event| {
        let (_, name) = event.split_once('/')?;
        let (_, fields) = line.split_once(&format!(": {name}: "))?;
        Some((name, fields))
    });
    let (name, fields) = event.with_context(|| format!("no such event in the trace: {line:?}"))?;
    let field = |key: &str| {
        let found = fields.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        found.with_context(|| format!("no {key} in the trace line {line:?}"))
    };
    // MPTCP's outer socket has states too, and is no TCP connection.
    if name == "inet_sock_set_state" && field("protocol")? != "IPPROTO_TCP" {
        return Ok(places);
    }
    let address = match field("saddrv6") {
        Ok(text) => text.parse::<Ipv6Addr>()?,
        // tcp_send_reset since it has a reason.
        Err(_) => mapped(field("src")?.parse::<SocketAddr>()?.ip()),
    };
    let sums = places.entry(Place::Address(address)).or_default();
    match name {
        "inet_sock_set_state" => {
            let state = |key| State::from_trace(field(key)?);
            sums.transitions.add(state("oldstate")?, state("newstate")?, 1);
        }
        "tcp_retransmit_skb" => sums.retransmits += 1,
        "tcp_retransmit_synack" => sums.syn_acks += 1,
        "tcp_send_reset" => sums.resets_sent += 1,
        "tcp_receive_reset" => sums.resets_received += 1,
        _ => sums.destroyed += 1,
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Places> {
        lines.iter().try_fold(Places::new(), |places, line| take(places, line))
    }

    #[test]
    fn lines_of_old_and_new_kernels_are_read() -> Result<()> {
        let places = read(&[
            "  odd: name-7  [000] ..s1.  7.1: inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP sport=80 dport=9 \
             saddr=10.7.0.1 daddr=10.7.0.2 saddrv6=::ffff:10.7.0.1 daddrv6=::ffff:10.7.0.2 oldstate=TCP_SYN_RECV newstate=TCP_ESTABLISHED",
            " <idle>-0 [001] ..s.. 7.2: tcp_send_reset: skbaddr=00 skaddr=00 src=10.7.0.1:80 dest=10.7.0.2:9 state=TCP_CLOSE reason=NO_SOCKET",
            " <idle>-0 [001] ..s.. 7.2: tcp_receive_reset: sport=1 dport=2 saddr=0.0.0.0 daddr=0.0.0.0 saddrv6=fd07::1 daddrv6=fd07::2 sock_cookie=1",
            " <idle>-0 [001] ..s.. 7.2: tcp_send_reset: skbaddr=00 skaddr=00 src=[fd07::1]:80 dest=[fd07::2]:9 state=UNKNOWN reason=TCP_STATE",
        ])?;
        let v4 = &places[&Place::Address("::ffff:10.7.0.1".parse()?)];
        assert_eq!((v4.transitions.get(State::SynReceived, State::Established), v4.transitions.total()), (1, 1));
        assert_eq!((v4.resets_sent, v4.resets_received), (1, 0));
        let v6 = &places[&Place::Address("fd07::1".parse()?)];
        assert_eq!((v6.resets_sent, v6.resets_received), (1, 1));
        Ok(())
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        read(&["x-1 [000] ..... 1.0: tcp_probe: family=AF_INET"]).expect_err("another event");
        read(&["x-1 [000] ..... 1.0: tcp_destroy_sock: sport=1"]).expect_err("no address");
    }
}
