//! What the tests of exporters tell.

use std::sync::Arc;
use std::time::Duration;

use crate::census::{Census, Churn, Ephemeral, Form, Group, Listener, Network, Place, Sums};
use crate::event::{EventKind, State};
use crate::health::{Cost, Probe, Verdict};
use crate::ledger::Role;
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
            status.totals.transitions[old.index()][new.index()] = next();
        }
    }
    for role in Role::ALL {
        status.totals.opened[role.index()] = next();
        status.totals.established[role.index()] = next();
        status.totals.failures[role.index()].insert("connection_refused", next());
        status.totals.failures[role.index()].insert("timed_out", next());
    }
    status.totals.ended = std::array::from_fn(|_| next());
    status.totals.time_wait = std::array::from_fn(|_| next());
    status.totals.retransmits_syn = next();
    status.totals.retransmits_data = std::array::from_fn(|_| next());
    status.totals.retransmits_syn_ack = next();
    status.totals.resets_received = next();
    status.totals.resets_sent = [(0, next()), (1, next())].into();
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
    status.reset_reasons = Arc::new(["not_specified".into(), "no_socket".into()]);
    status
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
