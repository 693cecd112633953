//! The connections that are exported.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use opentelemetry::trace::{SpanId, TraceId};
use synfin::clock::Clock;
use synfin::event::{Ends, Measures, State, Task};
use synfin::export::otlp::ids::Names;
use synfin::export::otlp::sampling::{Kept, Terms};
use synfin::export::otlp::span::{Head, Part, Subject, Value, Visit, describe};
use synfin::ledger::{Connection, End, Role, Side};
use synfin::status::Status;

/// How much is known of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is older than the agent, which saw this end close it and missed its end.
    Lean,
    /// All that can be known of a client's.
    Full,
}

/// What a span comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) attributes: usize,
    pub(crate) events: usize,
}

impl Visit for Size {
    fn head(&mut self, _head: &Head<'_>) {}

    fn attribute(&mut self, _key: &'static str, _value: Value<'_>) {
        self.attributes += 1;
    }

    fn event(&mut self, _name: &'static str, _unix_ns: u64, _attributes: &[(&'static str, Value<'_>)]) {
        self.events += 1;
    }

    fn link(&mut self, _trace: TraceId, _span: SpanId) {}
}

impl Kind {
    pub(crate) fn of(name: &str) -> Result<Self> {
        [Self::Lean, Self::Full].into_iter().find(|kind| kind.name() == name).context("which spans, lean or full?")
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Full => "full",
        }
    }

    /// What its span is to come to: that of the lean one is what figures are demanded of.
    const fn size(self) -> Size {
        match self {
            Self::Lean => Size { attributes: 15, events: 2 },
            Self::Full => Size { attributes: 33, events: 5 },
        }
    }

    pub(crate) const fn end(self) -> End {
        match self {
            Self::Lean => End::Lost,
            Self::Full => End::TimeWait,
        }
    }

    /// So many of them, that come to what they are to come to.
    pub(crate) fn connections(self, count: usize) -> Result<Vec<Connection>> {
        let connections: Vec<_> = (0..count as u32).map(|number| self.connection(number)).collect();
        let mut size = Size::default();
        visit(&connections[0], self.end(), &mut size);
        ensure!(size == self.size(), "spans of {} connections have {size:?}", self.name());
        Ok(connections)
    }

    pub(crate) fn connection(self, number: u32) -> Connection {
        match self {
            Self::Lean => lean(number),
            Self::Full => full(number),
        }
    }
}

/// Describes a span as the encoder is told of it.
pub(crate) fn visit(connection: &Connection, end: End, to: &mut impl Visit) {
    let (ids, offset) = (Names::draw().of(connection), Clock::default().offset());
    let subject = Subject { connection: *connection, part: Part::Whole(end), offset, ids, kept: Kept::Ratio };
    describe(&subject, Terms::default(), &Status::default(), to);
}

fn ends(number: u32) -> Ends {
    Ends {
        cookie: u64::from(number) + 1,
        sock: 0xffff_8880_0000_0000,
        netns: 4_026_531_840,
        local_port: 32_768 + (number % 28_000) as u16,
        peer_port: 443,
        local: Ipv4Addr::new(10, 12, 34, 56).to_ipv6_mapped().octets(),
        peer: Ipv4Addr::new(192, 168, 101, 202).to_ipv6_mapped().octets(),
    }
}

const fn born_ns(number: u32) -> u64 {
    1_000_000_000 + number as u64 * 1_000
}

pub(crate) const OWNER: Task = Task { pid: 4_242, comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0" };

fn lean(number: u32) -> Connection {
    let first_ns = born_ns(number);
    let mut entered_ns = [0; State::LIMIT];
    entered_ns[State::FinWait1.index()] = first_ns;
    entered_ns[State::FinWait2.index()] = first_ns + 50_000;
    Connection {
        entered_ns,
        last_ns: first_ns + 50_000,
        closed_first: Some(Side::Local),
        left: State::FinWait1,
        owner: Some(OWNER),
        cgroup: 101,
        ..Connection::new(ends(number), State::FinWait2, first_ns)
    }
}

fn full(number: u32) -> Connection {
    let birth = born_ns(number);
    let mut entered_ns = [0; State::LIMIT];
    for (state, after) in [
        (State::SynSent, 0),
        (State::Established, 200_000),
        (State::FinWait1, 1_900_000),
        (State::FinWait2, 1_950_000),
        (State::Closed, 2_000_000),
    ] {
        entered_ns[state.index()] = birth + after;
    }
    Connection {
        role: Some(Role::Client),
        birth_seen: true,
        entered_ns,
        last_ns: birth + 2_000_000,
        closed_ns: birth + 2_000_000,
        closed_first: Some(Side::Local),
        fin_received: true,
        left: State::FinWait2,
        sequence_pair: Some((number, !number)),
        measures: Some(Measures {
            bytes_acked: 1_234,
            bytes_received: 56_789,
            bytes_sent: 1_233,
            bytes_retrans: 0,
            segs_out: 23,
            segs_in: 45,
            retrans: 0,
            srtt_us: 1_500,
            mdev_us: 250,
            snd_cwnd: 10,
            snd_una: 0,
            rcv_nxt: 0,
            snd_nxt: 0,
            ooo: 0,
        }),
        owner: Some(OWNER),
        cgroup: 101,
        ..Connection::new(ends(number), State::Closed, birth)
    }
}
