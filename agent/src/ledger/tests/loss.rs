//! Single events that are missing: those of before the agent's start, and lost ones.

use super::scenarios::{accepted, opened};
use super::script::{Life, SECOND, SOON};
use super::stage::Stage;
use crate::event::State::{
    CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent,
};
use crate::event::{Cause, Event, State};
use crate::ledger::{End, Role, Side};

/// The life without its entries into these states.
pub(super) fn without(mut life: Life, lost: &[State]) -> Life {
    life.steps.retain(|step| !matches!(&step.event, Event::Transition(event) if lost.contains(&event.new)));
    life
}

pub(super) fn closing(life: Life) -> Life {
    life.call(FinWait1).orphan().softirq(FinWait2).fin().softirq(Closed).at_once().destroy()
}

pub(super) fn closed_by_peer(life: Life) -> Life {
    life.fin().softirq(CloseWait).call(LastAck).orphan().softirq(Closed).at_once().destroy()
}

#[test]
fn a_connection_older_than_the_agent_is_unknown_and_ends_as_it_ends() {
    let cases =
        [(closing(opened(2)), End::TimeWait, Side::Local), (closed_by_peer(accepted(2)), End::Closed, Side::Peer)];
    for (life, end, closed_first) in cases {
        // Whatever its first event is, except the very last.
        for lost in 2..life.steps.len() - 1 {
            let mut stage = Stage::new(10);
            let mut life = life.clone();
            life.steps.drain(..lost);
            let cookie = life.cookie;
            stage.play(life);
            stage.settle();
            let ended = stage.only(cookie);
            assert_eq!((ended.end, ended.connection.closed_first), (end, Some(closed_first)), "{lost} events lost");
            assert_eq!((ended.connection.role, ended.connection.birth_seen), (None, false));
            assert_eq!((ended.connection.duration_seconds(), ended.connection.sequence_pair), (None, None));
            let totals = stage.ledger.totals();
            assert_eq!((totals.unknown_connections, totals.counts.opened, totals.gaps), (1, [0, 0], 0));
            assert!(stage.ledger.is_empty());
        }
    }
}

#[test]
fn the_time_in_a_state_is_unknown_where_its_beginning_is() {
    let mut stage = Stage::new(10);
    let mut life = closing(opened(2));
    life.steps.drain(..2);
    assert_eq!(stage.step(&mut life).1, None);
    assert_eq!(stage.step(&mut life).1, Some(SOON));
}

#[test]
fn what_is_heard_of_an_unknown_socket_without_a_change_of_state_tracks_nothing() {
    let mut stage = Stage::new(10);
    let mut life = opened(2).retransmit().reset_received().destroy();
    life.steps.drain(..2);
    stage.play(life);
    let totals = stage.ledger.totals();
    assert_eq!((totals.counts.retransmits_data[Cause::Timeout.index()], totals.counts.resets_received), (1, 1));
    assert_eq!((totals.unknown_connections, totals.missed_closes), (0, 0));
    assert!(stage.ledger.is_empty());
}

#[test]
fn a_listener_older_than_the_agent_tracks_nothing_when_it_closes() {
    let mut stage = Stage::new(10);
    stage.play(without(Life::listener(2).call(Listen).call(Closed).destroy(), &[Listen]));
    assert!(stage.ledger.is_empty());
    assert_eq!(stage.ledger.totals().unknown_connections, 0);
}

#[test]
fn a_lost_transition_is_a_gap_and_the_rest_is_right() {
    let mut stage = Stage::new(10);
    let life = without(closing(opened(2)), &[Established]).fate(End::TimeWait, Some(Side::Local));
    stage.play(life.clone());
    stage.settle();
    stage.assert_told(&life);
    assert_eq!((stage.ledger.totals().gaps, stage.ledger.totals().counts.established), (1, [0, 0]));
    // The first FIN is known by the states that it leads to.
    let mut stage = Stage::new(10);
    let life = without(closing(opened(2)), &[FinWait1]).fate(End::TimeWait, Some(Side::Local));
    stage.play(life.clone());
    stage.settle();
    stage.assert_told(&life);
}

#[test]
fn a_connection_that_was_open_is_no_failed_handshake_though_its_opening_was_lost() {
    let mut stage = Stage::new(10);
    stage.play(without(opened(2).reset_received().error(libc::ECONNRESET).softirq(Closed), &[Established]));
    stage.settle();
    assert_eq!(stage.count(End::ResetReceived), 1);
    assert!(stage.ledger.totals().counts.failures[Role::Client.index()].is_empty());
}

#[test]
fn a_self_transition_after_a_gap_moves_the_connection_once() {
    let mut stage = Stage::new(10);
    let mut life = opened(2).call(FinWait1).softirq(FinWait2).call(FinWait2).orphan().softirq(Closed).destroy();
    life.steps.drain(2..4);
    assert_eq!(stage.play_to(&mut life, FinWait2).state, FinWait2);
    assert_eq!((stage.tracked(Established), stage.tracked(FinWait2)), (0, 1));
    stage.play(life);
    stage.settle();
    assert!(stage.ledger.is_empty());
}

#[test]
fn a_socket_that_is_gone_without_a_close_was_missed() {
    let mut stage = Stage::new(10);
    stage.play(opened(2).destroy());
    stage.play(accepted(2).retransmit().destroy());
    assert_eq!(stage.ended[1].connection.duration_seconds(), Some(0.001 + 0.000_01));
    assert_eq!((stage.count(End::Lost), stage.ledger.totals().missed_closes), (2, 2));
    let ended = stage.ended[0];
    assert_eq!(ended.connection.duration_seconds(), Some(0.001)); // up to the last that was heard of it
    assert_eq!((ended.connection.state, ended.connection.closed_ns, ended.end.is_seen()), (Established, 0, false));
    // A listener is counted there, and told nowhere.
    stage.play(Life::listener(3).call(Listen).destroy());
    assert_eq!((stage.count(End::Lost), stage.ledger.totals().missed_closes), (2, 3));
    assert!(stage.ledger.is_empty());
}

#[test]
fn a_birth_on_a_socket_that_was_not_closed_ends_what_was_there() {
    let mut stage = Stage::new(10);
    let life = opened(2).call(Closed).call(SynSent).softirq(Established);
    stage.play(without(life, &[Closed]));
    assert_eq!((stage.count(End::Lost), stage.ledger.totals().missed_closes), (1, 1));
    assert_eq!((stage.ledger.totals().counts.opened, stage.tracked(Established)), ([2, 0], 1));
}

#[test]
fn a_transition_that_goes_back_belongs_to_a_later_connection() {
    // The close of the first and the birth of the second were lost.
    let mut stage = Stage::new(10);
    let mut life = opened(2).call(Closed).call(SynSent).softirq(Established);
    life.steps.drain(2..4);
    let cookie = life.cookie;
    stage.play(life);
    assert_eq!((stage.count(End::Lost), stage.ledger.totals().unknown_connections), (1, 1));
    assert_eq!((stage.tracked(Established), stage.only(cookie).connection.birth_seen), (1, true));
    // All between the first FIN of the first and that of the second was lost: one closed first, the other did not.
    let mut stage = Stage::new(10);
    let life = opened(2).call(FinWait1).softirq(Closed).call(SynSent).softirq(Established);
    let mut life = closed_by_peer(life);
    life.steps.drain(3..8);
    stage.play(life);
    stage.settle();
    assert_eq!((stage.count(End::Lost), stage.count(End::Closed)), (1, 1));
}

#[test]
fn a_known_socket_in_syn_received_is_no_child() {
    // It connected once, and now again, to one that connects to it; the beginning of this was lost.
    let mut stage = Stage::new(10);
    let mut life = opened(2).call(Closed).call(SynSent).softirq(SynReceived).softirq(Established);
    life.steps.drain(3..5);
    stage.play(life);
    assert_eq!((stage.ledger.totals().counts.opened, stage.ledger.totals().unknown_connections), ([1, 0], 1));
}

#[test]
fn fins_that_cross_are_known_by_the_state_left_too() {
    let mut stage = Stage::new(10);
    let life = opened(2).call(FinWait1).orphan().fin().softirq(Closing).softirq(Closed).crossed(End::TimeWait);
    stage.play(without(life.clone(), &[Closing]));
    stage.settle();
    stage.assert_told(&life);
}

#[test]
fn a_closed_connection_does_not_come_to_life_again() {
    // The birth of the second was lost while the first waited for its last words.
    let mut stage = Stage::new(10);
    let mut life = opened(2).call(Closed).at_once().reset_sent().call(SynSent).softirq(Established);
    life.steps.remove(4);
    let cookie = life.cookie;
    stage.play(life);
    assert_eq!(stage.only(cookie).end, End::ResetSent);
    stage.pass(SECOND);
    assert_eq!((stage.ended.len(), stage.tracked(Established)), (1, 1));
    assert_eq!(stage.ledger.totals().unknown_connections, 1);
}

#[test]
fn a_listener_whose_close_was_lost_does_not_become_a_connection() {
    let mut stage = Stage::new(10);
    let listener = Life::listener(2).call(Listen).call(Closed).call(SynSent).softirq(Established);
    stage.play(without(listener, &[Closed, SynSent]));
    let totals = stage.ledger.totals();
    assert_eq!((totals.missed_closes, totals.unknown_connections, stage.tracked(Listen)), (1, 1, 0));
    // Nor a connection a listener.
    let mut stage = Stage::new(10);
    let mut life = opened(2).call(Closed).call(Listen).call(Closed);
    life.steps.drain(2..4);
    stage.play(life);
    assert_eq!((stage.count(End::Lost), stage.ledger.is_empty()), (1, true));
}

#[test]
fn closed_again_means_that_the_close_was_missed() {
    let mut stage = Stage::new(10);
    let life = opened(2).call(Closed).call(Closed);
    stage.play(life.clone());
    stage.pass(SECOND);
    assert_eq!((stage.only(life.cookie).end, stage.ledger.totals().missed_closes), (End::Aborted, 0));
    let mut stage = Stage::new(10);
    let mut life = life;
    life.steps.remove(2);
    stage.play(life);
    assert_eq!((stage.count(End::Lost), stage.ledger.is_empty()), (1, true));
}
