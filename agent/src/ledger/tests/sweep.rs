//! The walk over what is tracked, and the checkpoints that it takes.

use std::collections::HashMap;

use proptest::prelude::*;

use super::loss::closed_by_peer;
use super::scenarios;
use super::script::SOON;
use super::stage::Stage;
use crate::event::{Ends, State};
use crate::ledger::connection::{Checkpoint, Connection};
use crate::ledger::sweep::SLICE;
use crate::ledger::{CloseWaits, Ledger, Role};

const SECOND: u64 = 1_000_000_000;

/// A connection on the socket with this cookie, since `first_ns` in a state.
fn connection(cookie: u64, state: State, first_ns: u64) -> Connection {
    let ends = Ends { cookie, sock: cookie, netns: 1, local_port: 1, peer_port: 2, local: [0; 16], peer: [0; 16] };
    let mut connection = Connection::new(ends, state, first_ns);
    (connection.birth_seen, connection.role) = (true, Some(Role::Client));
    connection
}

fn ledger(connections: impl IntoIterator<Item = Connection>) -> Ledger {
    let mut ledger = Ledger::new(1 << 20);
    for connection in connections {
        ledger.insert(&connection);
    }
    ledger
}

/// All checkpoints of one pass, whatever it takes.
fn checkpoints(ledger: &mut Ledger, now_ns: u64, interval_ns: u64) -> Vec<Checkpoint> {
    let mut taken = Vec::new();
    ledger.sweep(now_ns, 0, |mut visit| taken.extend(visit.checkpoint(interval_ns)));
    taken
}

#[test]
fn every_connection_is_visited_once_in_a_period_and_a_call_is_bounded() {
    let all = 10 * SLICE as u64 + 7;
    let mut ledger = ledger((1..=all).map(|cookie| connection(cookie, State::Established, 1)));
    let gone: Vec<u64> = (1..=all).step_by(3).collect();
    for cookie in &gone {
        let slot = ledger.table.find(*cookie).unwrap();
        ledger.finish(slot, None);
    }
    let mut visits: HashMap<u64, Vec<(Option<u64>, u64)>> = HashMap::new();
    for pass in 1..=600 {
        let now_ns = pass * SECOND / 50;
        let mut visited = 0;
        ledger.sweep(now_ns, 5 * SECOND, |visit| {
            visited += 1;
            visits.entry(visit.connection().ends.cookie).or_default().push((visit.previous_ns, visit.now_ns));
        });
        assert!(visited <= 4 * SLICE, "{visited} in one call");
    }
    assert_eq!(visits.len() as u64, all - gone.len() as u64);
    for visits in visits.values() {
        assert_eq!(visits.len(), 3, "in twelve seconds, every five");
        assert_eq!(visits[0].0, None);
        assert!(visits.windows(2).all(|pair| pair[1].0 == Some(pair[0].1)), "{visits:?}");
        assert!(visits.windows(2).all(|pair| pair[1].1 - pair[0].1 <= 5 * SECOND + SECOND / 10), "{visits:?}");
    }
}

#[test]
fn a_checkpoint_comes_each_interval_and_they_leave_no_gap() {
    let mut established = connection(1, State::Established, 10 * SECOND);
    established.entered_ns[State::Established.index()] = 13 * SECOND;
    let mut ledger = ledger([established]);
    let mut taken = Vec::new();
    for now in 10..200 {
        taken.extend(checkpoints(&mut ledger, now * SECOND + 7, 60 * SECOND));
    }
    let told: Vec<_> = taken.iter().map(|at| (at.connection.checkpoints, at.from_ns, at.to_ns)).collect();
    assert_eq!(
        told,
        [(1, 10 * SECOND, 73 * SECOND), (2, 73 * SECOND, 133 * SECOND), (3, 133 * SECOND, 193 * SECOND)],
        "counted from the handshake's end on"
    );
}

#[test]
fn what_has_no_lasting_name_and_what_is_no_connection_has_none() {
    for state in State::ALL {
        let mut ledger = ledger([connection(1, state, SECOND)]);
        let none = matches!(state, State::Listen | State::SynSent | State::SynReceived | State::Closed);
        assert_eq!(checkpoints(&mut ledger, 100 * SECOND, SECOND).is_empty(), none, "{state:?}");
    }
}

#[test]
fn those_missed_while_nobody_looked_are_one() {
    let mut ledger = ledger([connection(1, State::Established, SECOND)]);
    assert_eq!(checkpoints(&mut ledger, 2 * SECOND, SECOND)[0].connection.checkpoints, 1);
    let late = checkpoints(&mut ledger, 50 * SECOND + 5, SECOND);
    let [Checkpoint { connection, from_ns, to_ns }] = late[..] else { panic!("{late:?}") };
    assert_eq!((connection.checkpoints, from_ns, to_ns), (2, 2 * SECOND, 50 * SECOND));
}

#[test]
fn a_life_that_began_before_the_agent_has_its_first_at_the_next_boundary() {
    let mut old = connection(1, State::CloseWait, 5 * SECOND);
    (old.birth_seen, old.role) = (false, None);
    let mut ledger = ledger([old]);
    assert_eq!(checkpoints(&mut ledger, 1_000 * SECOND, 60 * SECOND), []);
    assert_eq!(checkpoints(&mut ledger, 1_024 * SECOND, 60 * SECOND), []);
    let taken = checkpoints(&mut ledger, 1_026 * SECOND, 60 * SECOND);
    assert_eq!((taken[0].from_ns, taken[0].to_ns), (5 * SECOND, 1_025 * SECOND));
    assert_eq!(taken[0].connection.checkpoints, 1);
}

#[test]
fn a_real_life_keeps_its_count_to_the_end() {
    let mut stage = Stage::new(10);
    let mut life = scenarios::ALL[0](1).remove(0);
    let established = stage.play_to(&mut life, State::Established).entered_ns[State::Established.index()];
    let interval_ns = 1_000 * SOON;
    for visit in 1..=3 {
        stage.pass(established + visit * interval_ns - stage.now_ns);
        assert_eq!(checkpoints(&mut stage.ledger, stage.now_ns, interval_ns).len(), stage.ledger.len(), "{visit}");
    }
    let cookie = life.cookie;
    stage.play(life);
    stage.settle();
    assert_eq!(stage.only(cookie).connection.checkpoints, 3);
}

proptest! {
    /// However seldom and irregularly somebody looks: numbers without a gap, stretches that follow each other, and together they
    /// are the life up to the last boundary.
    #[test]
    fn stretches_follow_each_other(
        interval_ns in 1..20_u64,
        birth_seen in any::<bool>(),
        established_after in 0..10_u64,
        looks in prop::collection::vec(1..30_u64, 1..40),
    ) {
        let mut connection = connection(1, State::Established, 100);
        connection.birth_seen = birth_seen;
        connection.entered_ns[State::Established.index()] = 100 + established_after;
        let (mut now_ns, mut previous_ns) = (100 + established_after, None);
        let (mut until, mut number) = (100, 0);
        for look in looks {
            now_ns += look;
            if let Some(checkpoint) = connection.checkpoint(interval_ns, previous_ns, now_ns) {
                number += 1;
                prop_assert_eq!(checkpoint.connection.checkpoints, number);
                prop_assert_eq!(checkpoint.from_ns, until);
                prop_assert!(checkpoint.from_ns < checkpoint.to_ns && checkpoint.to_ns <= now_ns);
                until = checkpoint.to_ns;
            }
            // Nothing that was due is still to come, but what an unseen life had before.
            if previous_ns.is_some() && number > 0 {
                prop_assert!(now_ns - until < interval_ns);
            }
            previous_ns = Some(now_ns);
        }
        prop_assert_eq!(connection.checkpoints, number);
    }
}

#[test]
fn the_oldest_close_wait_of_each_owner_is_told_when_a_walk_is_done() {
    let mut stage = Stage::new(10_000);
    let mut waits = CloseWaits::default();
    let mut walk = |stage: &mut Stage| {
        stage.pass(SECOND);
        let now_ns = stage.now_ns;
        while !stage.ledger.sweep(now_ns, 0, |visit| waits.meet(visit.connection())) {}
        waits.end_walk();
        waits.oldest().to_vec()
    };
    let waiting = |id| scenarios::opened(id).fin().softirq(State::CloseWait);
    let mut first = closed_by_peer(scenarios::opened(2));
    stage.play_to(&mut first, State::CloseWait);
    let since = stage.now_ns;
    assert_eq!(walk(&mut stage), [(42, since)]);
    for id in 3..3_000 {
        stage.play(waiting(id));
    }
    assert_eq!(walk(&mut stage), [(42, since)], "the oldest, wherever it is");
    stage.play(first);
    let [(42, next)] = walk(&mut stage)[..] else { panic!("there are others") };
    assert!(next > since);
}
