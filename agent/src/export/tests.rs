//! What the tests of exporters tell.

use std::sync::Arc;
use std::time::Duration;

use super::readings::Snapshot;
use super::subject::Subjects;
use crate::accounts::{NOBODY, Shared};
use crate::census::{Census, Churn, Ephemeral, Form, Group, Listener, Network, Place, Sums};
use crate::distribution::Shape;
use crate::event::{Ends, EventKind, Measures, State};
use crate::health::{Cost, Probe, Verdict};
use crate::ledger::{Connection, End, Role};
use crate::owner::directory::Known;
use crate::peers::Peers;
use crate::rung::Rung;
use crate::status::{Loss, LossReason, Status};

/// A status with a number of its own in every field.
pub(super) fn full() -> Status {
    let mut status = Status::default();
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    for old in State::ALL {
        for new in State::ALL {
            status.totals.counts.transitions[old.index()][new.index()] = next();
        }
    }
    for role in Role::ALL {
        status.totals.counts.opened[role.index()] = next();
        status.totals.counts.established[role.index()] = next();
        status.totals.counts.failures[role.index()].insert("connection_refused", next());
        status.totals.counts.failures[role.index()].insert("timed_out", next());
    }
    status.totals.counts.ended = std::array::from_fn(|_| next());
    status.totals.counts.time_wait = std::array::from_fn(|_| next());
    status.totals.counts.retransmits_syn = next();
    status.totals.counts.retransmits_data = std::array::from_fn(|_| next());
    status.totals.retransmits_syn_ack = next();
    status.totals.counts.resets_received = next();
    status.totals.counts.resets_sent = [(0, next()), (1, next())].into();
    status.totals.resets_without_socket = [(1, next()), (synfin_common::event::NO_REASON, next())].into();
    status.totals.unknown_connections = next();
    status.totals.missed_closes = next();
    status.totals.gaps = next();
    status.totals.folded = next();
    status.tracked = std::array::from_fn(|_| next());
    status.ledger_limit = 1_000;
    status.events = std::array::from_fn(|_| next());
    status.losses = vec![
        Loss { reason: LossReason::RingFull, kind: Some(EventKind::Transition), count: next() },
        Loss { reason: LossReason::Decode, kind: None, count: next() },
    ];
    status.probes = vec![Probe {
        name: "state",
        tracepoint: "inet_sock_set_state",
        required: true,
        verdict: Verdict::Active { rung: Rung::TpBtf, partial: false },
        refused: Vec::new(),
        cost: Some(Cost { runs: next(), time: Duration::from_millis(next()), recursion_misses: next() }),
    }];
    status.ring_fill = (next(), next());
    status.lag = Duration::from_millis(next());
    status.cpu = Duration::from_millis(next());
    status.drain_cpu = Duration::from_millis(next());
    status.memory = next();
    status.clock_jumps = next();
    status.missing_namespaces = next();
    status.census = Some(Arc::new(census()));
    status.totals.counts.bytes = std::array::from_fn(|_| next());
    status.accounts = [Shared { cgroup: NOBODY, row: 1, value: Arc::new(status.totals.counts.clone()) }].into();
    let mut peers = Peers::new(1, Vec::new(), Shape::Explicit);
    let ends = Ends { cookie: 1, sock: 0, netns: 1, local_port: 1, peer_port: 2, local: [0; 16], peer: [1; 16] };
    let mut connection = Connection::new(ends, State::Closed, 1);
    connection.measures = Some(Measures { srtt_us: 500, ..Measures::default() });
    peers.add(&connection, End::Closed);
    status.peers = peers.share();
    status.reset_reasons = Arc::new(["not_specified".into(), "no_socket".into()]);
    status
}

/// When the agent began in [`snapshot`], nanoseconds since the Unix epoch.
pub(super) const BEGAN: u64 = 1_700_000_000_000_000_000;

/// A status, ten seconds after the agent began, where nothing has an owner.
pub(super) fn snapshot(status: Status) -> Snapshot {
    let (unix_ns, subjects) = Subjects::new(BEGAN, true).collect(&status, BEGAN + 10_000_000_000, &|_| Known::Host);
    Snapshot { status: Arc::new(status), subjects, unix_ns, unresolved: Some(3), ..Snapshot::default() }
}

fn census() -> Census {
    let group = Group {
        netns: 7,
        state: State::TimeWait,
        form: Form::Timewait,
        network: Network::Ipv6,
        port: Some(80),
        cgroup: 9,
        sockets: 1234,
        receive_queue: 1,
        send_queue: 2,
    };
    let listener = Listener {
        netns: 7,
        local: [0; 16],
        port: 80,
        cgroup: 9,
        cookie: 0,
        inode: 0,
        uid: 0,
        accept_queue: 3,
        accept_limit: 128,
        half_open: 4,
        oldest_ns: Some(1),
    };
    let ephemeral = Some(Ephemeral { taken: 706, limit: 28_232 });
    Census {
        places: vec![Place { inode: 7, name: None, took: Duration::ZERO, ephemeral }],
        sums: Sums { groups: vec![group], listeners: vec![listener], ..Sums::default() },
        churn: Churn { reused: 1, ended: Some(2) },
        ..Census::default()
    }
}
