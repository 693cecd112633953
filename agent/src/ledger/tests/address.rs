//! Sockets without cookies: what programs see that cannot make one. The kernel gives the address of a socket that is gone
//! to the next one at once.

use proptest::prelude::*;

use super::property::{choices, interleave, lives};
use super::scenarios::{connecting, opened};
use super::script::{Fate, Life, SECOND, client_port};
use super::stage::{Stage, fate};
use crate::event::State::{Closed, Established, FinWait1, FinWait2};
use crate::ledger::{End, Role};

/// No event of the life has a cookie.
fn bare(life: Life) -> Life {
    life.without_cookie(usize::MAX)
}

fn closed_in_order(id: u32) -> Life {
    opened(id).call(FinWait1).orphan().softirq(FinWait2).fin().softirq(Closed)
}

/// One that waits for its grace: a RST may follow.
fn orphan(id: u32) -> Life {
    opened(id).call(FinWait1).orphan().softirq(FinWait2).softirq(Closed)
}

#[test]
fn an_address_is_an_identity_for_the_life_of_its_socket() {
    let mut stage = Stage::new(1000);
    let mut life = bare(orphan(1).destroy());
    let connection = stage.play_to(&mut life, Established);
    assert_eq!((connection.ends.cookie, connection.role), (0, Some(Role::Client)));
    stage.play(life);
    assert_eq!(stage.tracked(Closed), 1); // in its grace
    stage.pass(SECOND);
    assert_eq!((stage.only(0).end, stage.ledger.len()), (End::FinWait2, 0));
}

#[test]
fn the_next_socket_at_an_address_is_another_connection() {
    let mut stage = Stage::new(1000);
    let first = bare(orphan(1).destroy());
    let sock = first.sock();
    stage.play(first);
    // Within the grace of the first one, as the kernel does it.
    stage.play(bare(orphan(2).destroy()).at_address(sock));
    stage.settle();
    let ports: Vec<u16> = stage.ended.iter().map(|ended| ended.connection.ends.local_port).collect();
    assert_eq!((ports, stage.count(End::FinWait2)), (vec![client_port(1), client_port(2)], 2));
}

#[test]
fn a_close_that_was_lost_does_not_haunt_the_next_socket() {
    let mut stage = Stage::new(1000);
    let lost = bare(opened(1));
    let sock = lost.sock();
    stage.play(lost);
    let mut next = bare(super::scenarios::accepted(2)).at_address(sock);
    let connection = stage.play_to(&mut next, Established);
    assert_eq!((connection.role, connection.birth_seen), (Some(Role::Server), true));
    assert_eq!((stage.count(End::Lost), stage.tracked(Established)), (1, 1));
}

#[test]
fn a_cookie_that_comes_late_names_the_same_connection() {
    let mut stage = Stage::new(1000);
    let life = closed_in_order(1).destroy();
    let cookie = life.cookie;
    stage.play(life.without_cookie(2)); // SYN_SENT and ESTABLISHED
    stage.settle();
    let ended = stage.only(cookie);
    assert_eq!((ended.end, ended.connection.birth_seen), (End::TimeWait, true));
    assert_eq!((stage.ended.len(), stage.ledger.totals().unknown_connections), (1, 0));
}

/// The classic tracepoint of a received RST makes the cookie, and that of the end of a socket too.
#[test]
fn a_closed_connection_may_get_its_cookie_in_its_grace() {
    let mut stage = Stage::new(1000);
    let life = opened(1).error(libc::ECONNRESET).softirq(Closed).reset_received().destroy();
    let cookie = life.cookie;
    stage.play(life.without_cookie(3));
    stage.pass(SECOND);
    assert_eq!((stage.only(cookie).end, stage.ledger.len()), (End::ResetReceived, 0));

    let life = connecting(2).destroy();
    stage.play(life.without_cookie(1));
    assert_eq!((stage.only(0).end, stage.ledger.len()), (End::Lost, 0));
}

#[test]
fn without_the_kernels_types_the_course_and_the_resets_tell_the_end() {
    let mut stage = Stage::new(1000);
    stage.play(closed_in_order(1).destroy().blind());
    stage.play(connecting(2).reset_received().error(libc::ECONNREFUSED).softirq(Closed).destroy().blind());
    stage.play(opened(3).reset_received().error(libc::ECONNRESET).softirq(Closed).destroy().blind());
    stage.settle();
    let ends: Vec<End> = stage.ended.iter().map(|ended| ended.end).collect();
    assert_eq!(ends, [End::TimeWait, End::Refused, End::ResetReceived]);
}

/// What became of every life, in an order of its own: without cookies nobody can say which is whose.
fn sorted(fates: impl Iterator<Item = Option<Fate>>) -> Vec<String> {
    let mut fates: Vec<String> = fates.map(|fate| format!("{fate:?}")).collect();
    fates.sort();
    fates
}

proptest! {
    #[test]
    fn without_loss_every_life_is_told_as_it_was_led(
        lives in lives(12),
        bare_events in prop::collection::vec(prop_oneof![Just(0), 1..6_usize, Just(usize::MAX)], 24),
        choices in choices(0.0),
    ) {
        let mut stage = Stage::new(1000);
        let wanted = sorted(lives.iter().flat_map(|life| &life.fates).copied().map(Some));
        let each = |(life, events): (Life, &usize)| life.without_cookie(*events);
        interleave(&mut stage, lives.into_iter().zip(bare_events.iter().cycle()).map(each).collect(), &choices);
        stage.settle();
        prop_assert_eq!(sorted(stage.ended.iter().map(fate)), wanted);
        prop_assert!(stage.ledger.is_empty());
        let totals = stage.ledger.totals();
        prop_assert_eq!((totals.unknown_connections, totals.missed_closes, totals.gaps), (0, 0, 0));
    }

    #[test]
    fn whatever_is_lost_nothing_dead_stays(
        lives in lives(12),
        bare_events in prop::collection::vec(prop_oneof![1..6_usize, Just(usize::MAX)], 24),
        choices in prop_oneof![choices(0.05), choices(0.5)],
        limit in prop_oneof![1..8_usize, Just(1000)],
    ) {
        let mut stage = Stage::new(limit);
        let cookies: Vec<u64> = lives.iter().map(|life| life.cookie).collect();
        let each = |(life, events): (Life, &usize)| life.without_cookie(*events);
        let lives = lives.into_iter().zip(bare_events.iter().cycle()).map(each).collect();
        let actors = interleave(&mut stage, lives, &choices);
        for (actor, cookie) in actors.iter().zip(cookies) {
            let sock = actor.sock.unwrap_or_default();
            stage.destroy(cookie, sock);
            stage.destroy(0, sock);
        }
        stage.settle();
        prop_assert!(stage.ledger.is_empty(), "{:?}", stage.ledger.tracked());
    }
}
