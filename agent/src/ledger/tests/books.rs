//! The ledger's books: bounds, the grace of what has closed, listeners, totals.

use super::scenarios::{self, accepted, opened};
use super::script::{Life, NETNS, PORT, REASON, SECOND, SOON};
use super::stage::Stage;
use crate::event::State::{
    CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent,
};
use crate::event::{Event, State};
use crate::ledger::{End, GRACE_NS, LISTENERS, Ledger, Listener, Role};

#[test]
fn a_full_ledger_folds_the_one_idle_longest_and_counts_it() {
    let mut stage = Stage::new(3);
    for id in 2..5 {
        stage.play(opened(id));
    }
    // Whatever is heard of a connection makes another one the oldest.
    let mut busy = opened(2).retransmit();
    busy.steps.drain(..2);
    stage.play(busy);
    stage.play(opened(5));
    assert_eq!((stage.ledger.len(), stage.ledger.totals().folded), (3, 1));
    assert_eq!(stage.only(opened(3).cookie).end, End::Folded);
    let mut busy = opened(4).reset_sent();
    busy.steps.drain(..2);
    stage.play(busy);
    stage.play(opened(6));
    assert_eq!(stage.only(opened(2).cookie).end, End::Folded);
    let mut busy = opened(5).call(FinWait1);
    busy.steps.drain(..2);
    stage.play(busy);
    // What comes of a folded one later is unknown.
    let mut late = opened(3).call(FinWait1);
    late.steps.drain(..2);
    stage.play(late);
    assert_eq!(stage.only(opened(4).cookie).end, End::Folded);
    assert_eq!((stage.ledger.len(), stage.ledger.totals().unknown_connections), (3, 1));
    assert_eq!(stage.ledger.totals().folded, 3);
}

#[test]
fn a_full_ledger_cuts_the_grace_of_a_closed_connection_and_folds_nothing() {
    let mut stage = Stage::new(1);
    stage.play(opened(2).error(libc::ETIMEDOUT).softirq(Closed));
    stage.play(opened(3));
    assert_eq!((stage.ended[0].end, stage.ledger.totals().folded), (End::TimedOut, 0));
}

#[test]
fn a_listener_that_is_pushed_out_is_told_nowhere() {
    let mut stage = Stage::new(1);
    stage.play(Life::listener(2).call(Listen));
    stage.play(opened(3));
    assert_eq!((stage.ledger.totals().folded, stage.ended.len()), (0, 0));
}

#[test]
fn memory_grows_with_the_connections_at_a_time_and_not_with_their_number() {
    let mut stage = Stage::new(100);
    for id in 0..200 {
        stage.play(opened(id).call(Closed).destroy());
        stage.settle();
    }
    assert_eq!(stage.ledger.table.entries(), 1);
    for id in 0..200 {
        stage.play(opened(id));
    }
    assert_eq!(stage.ledger.table.entries(), 100);
}

#[test]
fn the_smallest_ledger_holds_one() {
    assert_eq!(Ledger::new(0).limit(), 1);
}

#[test]
fn a_reset_decides_the_end_within_the_grace_and_not_after_it() {
    for (late_ns, end) in [(GRACE_NS - 1, End::ResetSent), (GRACE_NS, End::Aborted)] {
        let mut stage = Stage::new(10);
        let mut life = opened(2).call(Closed).reset_sent();
        stage.play_to(&mut life, Closed);
        stage.pass(late_ns);
        assert_eq!(stage.ended.len(), usize::from(end == End::Aborted));
        let reset = life.steps[0].at(stage.now_ns, life.sock());
        stage.apply(&reset);
        stage.pass(GRACE_NS);
        assert_eq!(stage.only(life.cookie).end, end);
        assert_eq!(stage.ledger.totals().counts.resets_sent.get(&REASON), Some(&1));
    }
}

#[test]
fn a_closed_connection_is_tracked_as_such_until_its_grace_is_over_or_all_is_settled() {
    let mut stage = Stage::new(10);
    for id in 2..5 {
        stage.play(opened(id).call(Closed));
    }
    assert_eq!((stage.tracked(Closed), stage.ledger.len()), (3, 3));
    stage.pass(GRACE_NS - 4 * SOON);
    assert_eq!((stage.tracked(Closed), stage.ended.len()), (2, 1));
    stage.settle();
    assert_eq!((stage.tracked(Closed), stage.ended.len()), (0, 3));
}

#[test]
fn a_close_that_no_reset_can_follow_has_no_grace() {
    let served = |id| accepted(id).fin().softirq(CloseWait).call(LastAck);
    let at_once = [
        (End::Closed, served(1).orphan().softirq(Closed)),
        (End::TimeWait, opened(2).call(FinWait1).orphan().softirq(FinWait2).fin().softirq(Closed)),
        (End::TimeWait, opened(3).call(FinWait1).fin().softirq(Closing).softirq(Closed)),
    ];
    let waits = [
        // Data may have come for the orphan, which is answered by a RST.
        (End::FinWait2, opened(4).call(FinWait1).orphan().softirq(FinWait2).softirq(Closed)),
        // It may have been closed with unread data.
        (End::Closed, served(5).call(Closed)),
        (End::TimedOut, served(6).error(libc::ETIMEDOUT).softirq(Closed)),
        (End::ResetReceived, served(7).reset_received().softirq(Closed)),
        (End::Aborted, opened(8).softirq(Closed)),
        // Whether the FIN has come is not known.
        (End::Closed, served(9).softirq(Closed).blind()),
    ];
    for (lives, ended) in [(&at_once[..], 1), (&waits[..], 0)] {
        for (end, life) in lives {
            let mut stage = Stage::new(10);
            // The last event tells of the connection, whether it is still there or not.
            let connection = stage.play_to(&mut life.clone(), Closed);
            assert_eq!(connection.closed_ns, stage.now_ns);
            assert_eq!(stage.ended.len(), ended, "{end:?}");
            stage.pass(GRACE_NS);
            assert_eq!((stage.only(connection.ends.cookie).end, stage.ledger.len()), (*end, 0));
        }
    }
}

#[test]
fn many_graces_that_end_together_end_in_the_order_of_their_closes() {
    let mut stage = Stage::new(100);
    let lives: Vec<Life> = (0..50).map(|id| opened(id).call(Closed)).collect();
    let cookies: Vec<u64> = lives.iter().map(|life| life.cookie).collect();
    for life in lives {
        stage.play(life);
    }
    stage.pass(SECOND);
    let ended: Vec<u64> = stage.ended.iter().map(|ended| ended.connection.ends.cookie).collect();
    assert_eq!((ended, stage.ledger.len()), (cookies, 0));
}

#[test]
fn a_connection_that_was_opened_again_is_not_ended_by_the_grace_of_the_first() {
    let mut stage = Stage::new(10);
    stage.play(opened(2).call(Closed).call(SynSent));
    assert_eq!(stage.ended.len(), 1);
    stage.pass(GRACE_NS);
    assert_eq!((stage.ended.len(), stage.tracked(SynSent)), (1, 1));
    // Nor its close.
    let mut stage = Stage::new(10);
    stage.play(opened(2).call(Closed).call(SynSent).after(GRACE_NS / 2).call(Closed));
    stage.pass(GRACE_NS / 2);
    assert_eq!((stage.ended.len(), stage.tracked(Closed)), (1, 1));
    stage.pass(GRACE_NS / 2);
    assert_eq!((stage.ended.len(), stage.tracked(Closed)), (2, 0));
}

#[test]
fn listeners_are_told_by_the_connections_that_they_accept() {
    let mut stage = Stage::new(10);
    stage.play(Life::listener(2).call(Listen));
    let row = |opened, open| Listener { netns: NETNS, port: PORT, opened, open };
    assert_eq!(stage.ledger.listeners(), [row(0, 0)]);
    let mut child = accepted(2);
    stage.play_to(&mut child, SynReceived);
    assert_eq!(stage.ledger.listeners(), [row(1, 1)]);
    stage.play(child);
    stage.play(accepted(3).call(Closed));
    // One that has closed is not open any more, although its end is told later.
    assert_eq!(stage.ledger.listeners(), [row(2, 1)]);
    stage.settle();
    assert_eq!(stage.ledger.listeners(), [row(2, 1)]);
    // A client on the port of a listener is none of its connections.
    stage.play(opened(4));
    stage.destroy(accepted(2).cookie, accepted(2).sock());
    assert_eq!(stage.ledger.listeners(), [row(2, 0)]);
}

#[test]
fn many_listeners_are_told_busiest_first_and_beyond_the_limit_their_sums_stay_exact() {
    let mut ledger = Ledger::new(100_000);
    let mut children = 0;
    for at in 0..5000_u16 {
        for child in 0..=(at % 3) {
            let step = &accepted(2).steps[1];
            let Event::Transition(mut event) = step.at(1, 0) else { panic!("a transition") };
            event.ends.local_port = 1 + at;
            event.ends.cookie = u64::from(at) * 8 + u64::from(child);
            ledger.apply(&Event::Transition(event));
            children += 1;
        }
    }
    let rows = ledger.listeners();
    assert_eq!(rows.len(), LISTENERS);
    assert!(rows.is_sorted_by(|a, b| a.opened >= b.opened));
    assert_eq!((rows[0].netns, rows[0].port), (0, 0));
    assert_eq!(rows[1].opened, 3);
    assert_eq!(ledger.totals().counts.opened[Role::Server.index()], children);
}

#[test]
fn transitions_are_counted_by_the_state_left_and_the_state_entered() {
    let mut stage = Stage::new(100);
    for id in 4..8 {
        for life in [scenarios::closed_by_client(id), scenarios::half_close_then_close(id + 10)].concat() {
            stage.play(life);
        }
    }
    let totals = stage.ledger.totals();
    let count = |old: State, new: State| totals.counts.transitions[old.index()][new.index()];
    assert_eq!((count(Closed, SynSent), count(SynSent, Established)), (8, 8));
    assert_eq!((count(Listen, SynReceived), count(SynReceived, Established)), (8, 8));
    assert_eq!((count(FinWait1, FinWait2), count(FinWait2, FinWait2), count(FinWait2, Closed)), (8, 4, 8));
    assert_eq!(totals.counts.transitions_sum(), 4 * (10 + 11));
}
