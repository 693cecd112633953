//! The kernel's own truth: what its socket tables hold, in every network namespace.
//!
//! Events begin when the agent begins and can be lost; the tables are complete and have no history. A walk counts sockets where
//! they are, or lists them one by one for the ledger to compare itself with.

pub mod cadence;
mod churn;
pub mod diag;
pub mod holders;
mod listing;
pub mod mark;
pub mod namespaces;
mod ports;
mod recent;
mod sums;
mod walker;

use std::io;

use synfin_common::census as wire;
use synfin_common::event::state;

pub use self::churn::Totals as Churn;
pub use self::holders::{Held, Holder};
#[cfg(test)]
pub(crate) use self::listing::sample;
pub use self::listing::{Bound, Listing};
pub use self::ports::{Ephemeral, PortSet};
pub use self::recent::{Memory, Recent};
pub use self::sums::{Form, Group, Listener, Network, Strays, Sums};
pub use self::walker::{Census, Only, Place, Walker};
use crate::event::{Ends, Measures, State};

/// States to list, a bit for each number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(pub u32);

impl States {
    /// Every state, minisocks included.
    pub const ALL: Self = Self(!0);
    /// Listeners alone.
    pub const LISTEN: Self = Self(1 << state::LISTEN);
    /// Full sockets: all but TIME_WAIT (with FIN_WAIT_2 minisocks) and half-open requests.
    pub const FULL: Self = Self(!(1 << state::TIME_WAIT | 1 << state::NEW_SYN_RECV));
}

/// A way to look at the TCP sockets of the network namespace that the calling thread is in.
pub trait Walk: Send {
    /// Counts them, adding to what [`Walk::take`] will give. Answers the local ports of all of them, those that a filter leaves out
    /// included: a port that another has is taken all the same.
    ///
    /// # Errors
    /// What the kernel said. Nothing of this namespace may then be trusted.
    fn count(&mut self) -> io::Result<PortSet>;

    /// What has been counted since the last call.
    ///
    /// # Errors
    /// What the kernel said.
    fn take(&mut self) -> io::Result<Sums>;

    /// Lists those in `states`, in no order. A socket that opens or closes meanwhile may be missing.
    ///
    /// # Errors
    /// What the kernel said; sockets may then be missing.
    fn list(&mut self, states: States, each: &mut dyn FnMut(&Socket)) -> io::Result<()>;

    /// Tells every open file that is a TCP socket, whatever its namespace. False where this way has no means for that: then nothing has
    /// been told, and [`holders::in_proc`] is to be asked.
    ///
    /// # Errors
    /// What the kernel said; holders may then be missing.
    fn holders(&mut self, _each: &mut dyn FnMut(Held)) -> io::Result<bool> {
        Ok(false)
    }
}

/// A timer of a socket, as `ss -o` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Retransmission; tail loss probe and reordering timer too.
    Retransmit,
    /// Keepalive, or the end of FIN_WAIT_2.
    Keepalive,
    /// End of TIME_WAIT.
    TimeWait,
    /// Zero-window probe.
    Probe,
}

impl Timer {
    /// Its name in `ss -o`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retransmit => "on",
            Self::Keepalive => "keepalive",
            Self::TimeWait => "timewait",
            Self::Probe => "persist",
        }
    }

    const fn from_wire(timer: u8) -> Option<Self> {
        Some(match timer {
            wire::timer::RETRANSMIT => Self::Retransmit,
            wire::timer::KEEPALIVE => Self::Keepalive,
            wire::timer::TIME_WAIT => Self::TimeWait,
            wire::timer::PROBE => Self::Probe,
            _ => return None,
        })
    }
}

/// One socket as the kernel had it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Socket {
    /// When it was looked at, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Its two ends.
    pub ends: Ends,
    /// Its state.
    pub state: State,
    /// Which of the kernel's structs it is.
    pub form: Form,
    /// cgroup v2 id, 0 where unknown.
    pub cgroup: u64,
    /// Inode of the socket file, 0 where no process holds it.
    pub inode: u64,
    /// User that made it.
    pub uid: u32,
    /// Bytes that wait to be read; of a listener, connections that wait for accept.
    pub receive_queue: u32,
    /// Bytes that wait to be acknowledged; of a listener, the most connections that may wait.
    pub send_queue: u32,
    /// The timer that runs and the seconds until it expires, negative if it is late.
    pub timer: Option<(Timer, f64)>,
    /// Retransmissions, or zero-window probes, without an answer.
    pub unanswered: u8,
    /// Nanoseconds since data was sent last, of a full socket. A socket is at least as old as that.
    pub sent_ago_ns: Option<u64>,
    /// Nanoseconds since data was received last.
    pub received_ago_ns: Option<u64>,
    /// The kernel's measures, of a full socket.
    pub measures: Option<Measures>,
}

/// Jiffies per second of this kernel (`CONFIG_HZ`), from its clocks: jiffies began at -300 s, counted in 32 bits (`INITIAL_JIFFIES`).
pub fn hertz(jiffies: u64, time_ns: u64) -> u64 {
    const CHOICES: [u64; 6] = [100, 250, 300, 1000, 1024, 200];
    let seconds = time_ns as f64 / 1e9;
    let off = |hertz: u64| {
        let first = u64::from(u32::MAX) + 1 - 300 * hertz;
        (jiffies.wrapping_sub(first) as i64 as f64 / hertz as f64 - seconds).abs()
    };
    CHOICES.into_iter().min_by(|a, b| off(*a).total_cmp(&off(*b))).unwrap_or(CHOICES[0])
}

/// How long a TIME_WAIT lasts (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT_SECONDS: f64 = 60.0;

impl Socket {
    /// Nanoseconds since data was sent or received last, or since it was established without any: it is at least as old as that. None where no
    /// data can have been yet, and of what is no full connection.
    pub fn quiet_ns(&self) -> Option<u64> {
        self.has_data_times().then_some(self.sent_ago_ns?.min(self.received_ago_ns?))
    }

    /// Nanoseconds for which it has been established at least: since the first of the two, data sent last and data received last.
    pub fn established_ago_ns(&self) -> Option<u64> {
        self.has_data_times().then_some(self.sent_ago_ns?.max(self.received_ago_ns?))
    }

    /// Until the handshake is done the kernel's times are those of another connection, or zero.
    const fn has_data_times(&self) -> bool {
        !matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// Seconds that its TIME_WAIT has lasted, since it began or a segment of the peer began it anew. None for all others, whose age no table tells.
    pub fn time_wait_seconds(&self) -> Option<f64> {
        match (self.form, self.state, self.timer) {
            (Form::Timewait, State::TimeWait, Some((_, left))) => {
                Some(((TIME_WAIT_SECONDS - left) * 1e6).round() / 1e6).filter(|age| *age >= 0.0)
            }
            _ => None,
        }
    }

    /// A process has a file of it open, or the kernel itself uses it.
    pub const fn is_held(&self) -> bool {
        self.inode != 0
    }

    /// Reads a record of the listing.
    pub fn from_wire(row: &wire::Socket) -> Option<Self> {
        let form = Form::from_wire(row.form)?;
        let hertz = hertz(row.jiffies, row.time_ns);
        let ago = |jiffies: u32| u64::from(jiffies) * (1_000_000_000 / hertz);
        let is_connection = form == Form::Full && row.state != state::LISTEN;
        Some(Self {
            time_ns: row.time_ns,
            ends: Ends {
                cookie: row.ends.id,
                sock: row.ends.sock,
                netns: row.ends.netns,
                local_port: row.ends.local_port,
                peer_port: row.ends.peer_port,
                local: row.ends.local,
                peer: row.ends.peer,
            },
            state: State::try_from(row.state).ok()?,
            form,
            cgroup: row.cgroup,
            inode: row.inode,
            uid: row.uid,
            receive_queue: row.receive_queue,
            send_queue: row.send_queue,
            timer: Timer::from_wire(row.timer).map(|timer| (timer, f64::from(row.timer_left) / hertz as f64)),
            unanswered: if row.timer == wire::timer::PROBE { row.probes } else { row.retransmits },
            sent_ago_ns: is_connection.then(|| ago(row.sent_ago)),
            received_ago_ns: is_connection.then(|| ago(row.received_ago)),
            measures: is_connection.then_some(row.measures),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jiffies_tell_their_rate() {
        for hertz_of_kernel in [100, 250, 300, 1000] {
            for seconds in [5, 400, 100_000] {
                let jiffies = u64::from(u32::MAX) + 1 - 300 * hertz_of_kernel + seconds * hertz_of_kernel;
                assert_eq!(hertz(jiffies, seconds * 1_000_000_000), hertz_of_kernel, "{seconds} s after boot");
            }
        }
    }

    #[test]
    fn quiet_is_known_once_it_is_established() {
        let mut socket = sample(State::Established, Form::Full, 5, 0);
        assert_eq!(socket.quiet_ns(), Some(5000));
        for state in [State::SynSent, State::SynReceived] {
            socket.state = state;
            assert_eq!(socket.quiet_ns(), None, "{state:?}");
        }
        assert_eq!(sample(State::TimeWait, Form::Timewait, 0, 0).quiet_ns(), None);
    }

    #[test]
    fn age_is_that_of_time_wait() {
        let mut socket = sample(State::TimeWait, Form::Timewait, 0, 0);
        for (left, age) in [(59.0, Some(1.0)), (60.0, Some(0.0)), (-0.5, Some(60.5)), (90.0, None)] {
            socket.timer = Some((Timer::TimeWait, left));
            assert_eq!(socket.time_wait_seconds(), age, "{left}");
        }
        // How long this one lasts depends on how it began.
        socket.state = State::FinWait2;
        socket.timer = Some((Timer::TimeWait, 10.0));
        assert_eq!(socket.time_wait_seconds(), None);
    }
}
