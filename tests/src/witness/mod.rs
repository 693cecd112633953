//! Others who saw the same: a witness of the kernel's tracepoints, and the kernel's own counters.
//!
//! None knows synfin. A test that compares with both tells a missed event from a wrong expectation. bpftrace is the
//! witness wherever it can be had; an emulated kernel of the matrix has no room for it, and there the kernel's own trace
//! buffer ([`trace`]) bears witness.

pub mod bpftrace;
pub mod nstat;
pub mod trace;

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, Ipv6Addr},
};

use anyhow::{Result, bail};

use self::{bpftrace::Bpftrace, trace::Trace};
use crate::{netns::Netns, stage::Side, state::Counts};

/// Chooses the witness: `bpftrace` (also when unset) or `trace`.
pub const WITNESS_VARIABLE: &str = "SYNFIN_TEST_WITNESS";

/// One who watches the tracepoints.
#[derive(Debug)]
pub enum Witness {
    /// Programs of its own in the kernel, by namespace.
    Bpftrace(Bpftrace),
    /// The kernel's trace buffer, by address.
    Trace(Trace),
}

/// What it saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its name, for messages.
    pub witness: &'static str,
    /// Events that it missed, as the kernel counts them; with any, nothing can be compared.
    pub missed: u64,
    /// What one retransmit of [`Sums`] is.
    pub retransmits: Retransmits,
    places: Places,
}

/// What a witness adds up of retransmissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retransmits {
    /// Segments, as the kernel's counter does.
    Segments,
    /// Calls of the tracepoint, each of which may stand for several segments.
    Calls,
}

/// Where something happened, as well as the witness can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Inode number of the namespace.
    Netns(u64),
    /// Address of this end, IPv4 as a mapped one.
    Address(Ipv6Addr),
}

type Places = BTreeMap<Place, Sums>;

/// Events of one place.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// State changes.
    pub transitions: Counts,
    /// Segments or calls sent again, other than SYN-ACKs.
    pub retransmits: u64,
    /// SYN-ACKs sent again.
    pub syn_acks: u64,
    /// RSTs sent.
    pub resets_sent: u64,
    /// RSTs that ended a connection.
    pub resets_received: u64,
    /// Sockets destroyed.
    pub destroyed: u64,
}

impl Witness {
    /// Starts the witness that the environment chooses; on return it sees everything.
    pub fn start() -> Result<Self> {
        match env::var(WITNESS_VARIABLE).as_deref() {
            Err(_) | Ok("bpftrace") => Ok(Self::Bpftrace(Bpftrace::start()?)),
            Ok("trace") => Ok(Self::Trace(Trace::start()?)),
            Ok(other) => bail!("{WITNESS_VARIABLE} is {other:?}: no such witness, choose bpftrace or trace"),
        }
    }

    /// Ends it and asks what it saw.
    pub fn stop(self) -> Result<Seen> {
        match self {
            Self::Bpftrace(bpftrace) => bpftrace.stop(),
            Self::Trace(trace) => trace.stop(),
        }
    }
}

impl Seen {
    /// What happened on one side of a stage (on both, where they share a namespace).
    pub fn of(&self, side: &Side) -> Sums {
        let places = [Place::Netns(side.netns.inode()), Place::Address(mapped(side.ip))];
        // A witness tells places in one way only.
        places.iter().find_map(|place| self.places.get(place)).cloned().unwrap_or_default()
    }

    /// What happened in a namespace; only bpftrace can tell.
    pub fn in_netns(&self, netns: &Netns) -> Sums {
        self.places.get(&Place::Netns(netns.inode())).cloned().unwrap_or_default()
    }

    /// Sockets of these sides that were destroyed.
    ///
    /// One that was disconnected before has no address any more: the witness that tells places by address counts all.
    pub fn destroyed<'a>(&self, sides: impl IntoIterator<Item = &'a Side>) -> u64 {
        let by_address = |(place, sums): (&Place, &Sums)| matches!(place, Place::Address(_)).then_some(sums.destroyed);
        let nowhere: u64 = self.places.iter().filter_map(by_address).sum();
        nowhere + sides.into_iter().map(|side| self.in_netns(&side.netns).destroyed).sum::<u64>()
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// How often a play is repeated when the witness was not all there.
const ATTEMPTS: u32 = 5;

/// Plays before a witness until the witness saw all of it: `play` answers with its result, or with what the witness got
/// wrong by what is known without it (the script of a scenario, the kernel's counters).
///
/// The namespaces come from `set_up`, before the witness: the number of one that was deleted is given out again, and
/// what happened in the old one would count for the new one.
///
/// The kernel skips a tracepoint's program when the CPU is inside another one, or inside a system call on the map of any
/// process, and mostly counts that ([`Seen::missed`]). It hits events out of timers where others use BPF too: 1 to 20
/// of 60 time-outs beside two processes that did nothing but update maps. synfin is held against no such witness.
pub fn attentive<S, T>(
    set_up: impl Fn() -> Result<S>,
    play: impl Fn(S, Witness) -> Result<Result<T, String>>,
) -> Result<T> {
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        let stage = set_up()?;
        match play(stage, Witness::start()?)? {
            Ok(played) => return Ok(played),
            Err(wrong) => why = wrong,
        }
    }
    bail!("in {ATTEMPTS} attempts no witness saw what must have happened:\n{why}")
}
