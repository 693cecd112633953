//! Children between LISTEN → SYN_RECV and their next event, known by their address alone, and what may be lost there.

use super::loss::{closed_by_peer, closing, without};
use super::scenarios::{accepted, opened};
use super::script::Life;
use super::stage::Stage;
use crate::event::State::{Established, FinWait1, Listen, SynReceived};
use crate::ledger::embryo::{EMBRYO_NS, EMBRYOS};
use crate::ledger::{End, Side};

#[test]
fn a_child_whose_birth_was_lost_is_a_server_all_the_same() {
    let mut stage = Stage::new(10);
    let life = without(closing(accepted(2)).fate(End::TimeWait, Some(Side::Local)), &[SynReceived]);
    stage.play(life.clone());
    stage.settle();
    stage.assert_told(&life);
    assert_eq!(stage.ledger.totals().counts.opened, [0, 1]);
    assert_eq!(stage.ledger.totals().unknown_connections, 0);
}

#[test]
fn a_child_whose_handshake_was_lost_is_found_by_its_address() {
    let mut stage = Stage::new(10);
    let life = closed_by_peer(accepted(2)).fate(End::Closed, Some(Side::Peer));
    stage.play(without(life.clone(), &[Established]));
    stage.settle();
    stage.assert_told(&life);
    let totals = stage.ledger.totals();
    assert_eq!(
        (totals.gaps, totals.counts.opened, totals.unknown_connections, totals.missed_closes),
        (1, [0, 1], 0, 0)
    );
    assert!(stage.ledger.is_empty());
}

#[test]
fn a_child_of_which_nothing_follows_ends_with_its_socket_or_with_the_next_at_its_address() {
    let embryo = |id| without(accepted(id), &[Established]).at_address(1);
    let ends: [fn(&mut Stage); 4] = [
        |stage| stage.destroy(77, 1),
        |stage| stage.play(opened(3).at_address(1)),
        |stage| stage.play(accepted(3).at_address(1)),
        |stage| stage.play(Life::listener(3).call(Listen).at_address(1)),
    ];
    for end in ends {
        let mut stage = Stage::new(10);
        stage.play(embryo(2));
        assert_eq!(stage.ledger.len(), 1);
        end(&mut stage);
        assert_eq!((stage.count(End::Lost), stage.ledger.totals().missed_closes), (1, 1));
        assert_eq!(stage.tracked(SynReceived), 0);
    }
}

#[test]
fn an_embryo_is_not_taken_for_another_socket_at_its_address() {
    let mut stage = Stage::new(10);
    stage.play(without(accepted(2), &[Established]).at_address(1));
    let mut stranger = opened(3).at_address(1).call(FinWait1);
    stranger.steps.drain(..2);
    stage.play(stranger);
    let totals = stage.ledger.totals();
    assert_eq!((stage.count(End::Lost), totals.unknown_connections, totals.gaps), (1, 1, 0));
}

#[test]
fn embryos_expire() {
    let mut stage = Stage::new(10);
    stage.play(without(accepted(2), &[Established]));
    stage.now_ns += EMBRYO_NS;
    stage.ledger.expire_embryos(stage.now_ns);
    assert_eq!(stage.ledger.len(), 1);
    stage.ledger.expire_embryos(stage.now_ns + 1);
    stage.pass(0);
    assert_eq!((stage.count(End::Lost), stage.ledger.len(), stage.tracked(SynReceived)), (1, 0, 0));
}

#[test]
fn embryos_are_bounded() {
    let mut stage = Stage::new(10);
    let embryo = without(accepted(2), &[Established]);
    let beyond = 100;
    for at in 0..(EMBRYOS + beyond) as u64 {
        // Past the stage's checks, which would take long.
        stage.ledger.apply(&embryo.steps[0].at(stage.now_ns, at * 64));
    }
    assert_eq!((stage.ledger.len(), stage.tracked(SynReceived)), (EMBRYOS, EMBRYOS as u64));
    assert_eq!(stage.count(End::Lost), beyond as u64);
}

#[test]
fn a_full_ledger_takes_an_embryo_in_at_the_cost_of_the_one_idle_longest() {
    let mut stage = Stage::new(1);
    stage.play(opened(2));
    let mut child = accepted(3);
    stage.step(&mut child);
    assert_eq!(stage.ledger.len(), 2);
    stage.step(&mut child);
    assert_eq!((stage.count(End::Folded), stage.ledger.len()), (1, 1));
    assert_eq!(stage.ledger.totals().counts.established, [1, 1]);
}
