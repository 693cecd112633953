//! Single lives, as the kernel leads them when no event is lost.

use super::scenarios::{self, Scenario};
use super::script::{AT_ONCE, Life, REASON, SECOND, client_port, stranger, task};
use super::stage::Stage;
use crate::event::State::{CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynSent};
use crate::event::{Event, State};
use crate::ledger::{Connection, End, Role, Side};

/// Plays a scenario from end to end.
pub(super) fn told(scenario: Scenario, id: u32) -> (Stage, Vec<Life>) {
    let mut stage = Stage::new(100);
    let lives = scenario(id);
    for life in &lives {
        stage.play(life.clone());
    }
    stage.settle();
    for life in &lives {
        stage.assert_told(life);
    }
    assert!(stage.ledger.is_empty());
    (stage, lives)
}

/// What was told of the first socket of a scenario.
pub(super) fn first(scenario: Scenario) -> (Connection, End) {
    let (stage, lives) = told(scenario, 2);
    let ended = stage.only(lives[0].cookie);
    (ended.connection, ended.end)
}

pub(super) fn path(connection: &Connection) -> Vec<State> {
    connection.path().map(|(state, _)| state).collect()
}

#[test]
fn every_life_is_told_as_it_was_led_in_both_families_and_on_old_and_new_kernels() {
    for scenario in scenarios::ALL {
        for id in 4..8 {
            told(scenario, id);
        }
    }
}

#[test]
fn who_closes_first_keeps_time_wait() {
    for scenario in [scenarios::closed_by_client, scenarios::closed_by_server] {
        let (stage, _) = told(scenario, 2);
        assert_eq!((stage.count(End::TimeWait), stage.count(End::Closed)), (1, 1));
        assert_eq!(stage.ledger.totals().counts.time_wait, [1, 0, 0]);
    }
    let (client, _) = first(scenarios::closed_by_client);
    assert_eq!(path(&client), [SynSent, Established, FinWait1, FinWait2, Closed]);
    assert_eq!(client.duration_seconds(), Some(0.004));
    let mut stage = Stage::new(10);
    let mut life = scenarios::closed_by_client(2).swap_remove(0);
    assert_eq!(stage.play_to(&mut life, Established).closed_first, None);
    assert_eq!(stage.play_to(&mut life, FinWait1).closed_first, Some(Side::Local));
    let (client, _) = first(scenarios::closed_by_server);
    assert_eq!(path(&client), [SynSent, Established, CloseWait, LastAck, Closed]);
}

#[test]
fn fins_that_cross_leave_time_wait_at_both_ends() {
    let (stage, lives) = told(scenarios::both_closing, 2);
    assert_eq!(stage.ledger.totals().counts.time_wait, [2, 0, 0]);
    let connection = &stage.only(lives[0].cookie).connection;
    assert_eq!(path(connection), [SynSent, Established, FinWait1, Closing, Closed]);
}

#[test]
fn a_reset_is_told_at_both_ends_whether_it_comes_before_the_close_or_after() {
    for scenario in [scenarios::linger_zero, scenarios::closed_with_unread_data] {
        let (stage, lives) = told(scenario, 2);
        assert_eq!((stage.count(End::ResetSent), stage.count(End::ResetReceived)), (1, 1));
        let totals = stage.ledger.totals();
        assert_eq!((totals.counts.resets_received, totals.counts.resets_sent.get(&REASON)), (1, Some(&1)));
        for life in &lives {
            let ended = stage.only(life.cookie);
            let connection = &ended.connection;
            assert_eq!(ended.end.error_type(connection.errno), Some("connection_reset"));
            let sent = ended.end == End::ResetSent;
            assert_eq!((connection.resets_sent, connection.resets_received), (u16::from(sent), u16::from(!sent)));
            assert_eq!(connection.reset_reason, sent.then_some(REASON));
        }
    }
}

#[test]
fn an_abort_by_an_administrator_is_no_reset_of_this_end() {
    let (connection, end) = first(scenarios::aborted_by_administrator);
    assert_eq!((end, connection.errno, connection.resets_sent), (End::Aborted, 103, 1));
    assert_eq!((end.error_type(connection.errno), end.is_normal()), (None, false));
}

#[test]
fn a_self_transition_is_counted_and_enters_nothing() {
    let mut stage = Stage::new(10);
    let lives = scenarios::half_close_then_close(2);
    let mut life = lives[0].clone();
    let before = stage.play_to(&mut life, FinWait2);
    let (after, in_state_ns) = stage.step(&mut life);
    let after = after.expect("a tracked connection");
    assert_eq!((after.state, in_state_ns, stage.tracked(FinWait2)), (FinWait2, None, 1));
    assert_eq!(after.entered_ns, before.entered_ns);
    assert_eq!(stage.ledger.totals().counts.transitions[FinWait2.index()][FinWait2.index()], 1);
    let (closed, in_state_ns) = stage.step(&mut life);
    assert_eq!(in_state_ns, Some(SECOND + AT_ONCE));
    assert_eq!(path(&closed.expect("a closed connection")), [SynSent, Established, FinWait1, FinWait2, Closed]);
    stage.settle();
    assert_eq!(stage.only(life.cookie).end, End::FinWait2);
    assert_eq!(stage.ledger.totals().counts.time_wait, [0; 3]);
    stage.play(scenarios::opened(3).softirq(Established));
    assert_eq!(stage.ledger.totals().established(Role::Client), 2);
}

#[test]
fn whatever_a_closed_socket_reports_its_end_is_known() {
    let mut stage = Stage::new(10);
    let life = scenarios::opened(2).call(FinWait1).softirq(FinWait2).call(Closed).orphan().fin().call(Closed);
    stage.play(life.clone());
    assert_eq!((stage.tracked(Closed), stage.ledger.totals().gaps), (1, 0));
    stage.settle();
    assert_eq!(stage.only(life.cookie).end, End::Aborted);
    let life = scenarios::opened(3).call(Closed).call(Closed).reset_sent();
    stage.play(life.clone());
    stage.settle();
    assert_eq!(stage.only(life.cookie).end, End::ResetSent);
    assert_eq!(stage.ledger.totals().missed_closes, 0);
}

#[test]
fn a_stray_reset_does_not_spoil_a_close_in_order() {
    let mut stage = Stage::new(10);
    let closed = scenarios::accepted(2).fin().softirq(CloseWait).reset_sent().call(LastAck).orphan().softirq(Closed);
    let crossed = scenarios::accepted(3).reset_sent().call(FinWait1).fin().softirq(Closing).softirq(Closed);
    stage.play(closed.clone());
    stage.play(crossed.clone());
    stage.settle();
    assert_eq!(stage.only(closed.cookie).end, End::Closed);
    assert_eq!(stage.only(crossed.cookie).end, End::TimeWait);
}

#[test]
fn an_orphan_in_fin_wait_2_is_no_time_wait() {
    for scenario in [scenarios::orphan_in_fin_wait_2, scenarios::long_fin_timeout] {
        let (connection, end) = first(scenario);
        assert_eq!((end, connection.orphan, connection.fin_received), (End::FinWait2, true, false));
    }
    let (connection, end) = first(scenarios::half_close_then_peer);
    assert_eq!((end, connection.orphan, connection.fin_received), (End::TimeWait, false, true));
}

#[test]
fn a_reset_after_the_end_of_the_socket_still_explains_it() {
    let (connection, end) = first(scenarios::data_for_an_orphan);
    assert_eq!((end, connection.resets_sent, connection.left), (End::ResetSent, 1, FinWait2));
}

#[test]
fn the_owner_is_the_last_task_that_used_the_socket_and_stays() {
    let mut stage = Stage::new(10);
    let mut life = scenarios::opened(2);
    assert_eq!(stage.play_to(&mut life, Established).owner, Some(task(102)));
    stage.play(life.owned_by(task(7000)).call(FinWait1).orphan().softirq(FinWait2).fin().softirq(Closed));
    stage.settle();
    let connection = &stage.ended[0].connection;
    assert_eq!(connection.owner, Some(task(7000)));
    let (stage, lives) = told(scenarios::closed_by_client, 2);
    assert_ne!(stage.only(lives[1].cookie).connection.owner, Some(stranger()));
}

#[test]
fn one_socket_may_carry_two_connections() {
    let (stage, lives) = told(scenarios::connected_twice, 2);
    let ended = stage.ended_on(lives[0].cookie);
    let [first, second] = ended.as_slice() else { panic!("two connections") };
    assert_eq!((first.connection.closed_first, first.connection.resets_sent), (None, 1));
    assert_eq!((second.connection.closed_first, second.connection.resets_sent), (Some(Side::Local), 0));
    assert!(first.connection.closed_ns < second.connection.first_ns);
    assert_eq!(path(&second.connection), [SynSent, Established, FinWait1, FinWait2, Closed]);
    assert_eq!(stage.ledger.totals().counts.opened[Role::Client.index()], 2);
}

#[test]
fn the_same_address_with_the_same_ends_is_another_connection_under_another_cookie() {
    let mut stage = Stage::new(10);
    for cookie in 0..3 {
        for life in scenarios::closed_by_client(2) {
            let mut life = life.at_address(0x1000);
            for step in &mut life.steps {
                match &mut step.event {
                    Event::Transition(event) if event.ends.cookie != 0 => event.ends.cookie += cookie * 100,
                    Event::Destroy(event) => event.cookie += cookie * 100,
                    _ => {}
                }
            }
            stage.play(life);
        }
    }
    stage.settle();
    assert_eq!((stage.count(End::TimeWait), stage.count(End::Closed)), (3, 3));
    assert!(stage.ledger.is_empty());
}

#[test]
fn what_the_kernel_forgets_at_the_close_stays_known() {
    let mut stage = Stage::new(10);
    stage.play(scenarios::opened(2).forgotten().error(libc::ETIMEDOUT).softirq(Closed));
    stage.settle();
    let connection = &stage.ended[0].connection;
    assert_eq!((connection.ends.local_port, connection.cgroup), (client_port(2), 42));
    assert_eq!(stage.ended[0].end, End::TimedOut);
}

#[test]
fn a_listener_is_no_connection() {
    let mut stage = Stage::new(10);
    let mut life = Life::listener(2).call(Listen).call(Closed);
    let listener = stage.play_to(&mut life, Listen);
    assert_eq!((listener.role, listener.birth_seen, stage.tracked(Listen)), (None, true, 1));
    let (connection, _) = stage.step(&mut life);
    assert_eq!(connection, None);
    stage.settle();
    assert!(stage.ledger.is_empty() && stage.ended.is_empty());
    assert_eq!(stage.ledger.totals().counts.ended, [0; End::ALL.len()]);
}
