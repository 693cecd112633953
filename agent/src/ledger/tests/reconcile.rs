//! Comparisons with listings of the kernel's sockets.

use hashbrown::HashMap;
use proptest::prelude::*;

use super::loss::{closed_by_peer, closing};
use super::property::{choices, lives};
use super::scenarios::{accepted, opened};
use super::script::{AT_ONCE, Life, NETNS, PORT, SECOND, task};
use super::stage::Stage;
use crate::census::{Form, Socket};
use crate::event::State::{CloseWait, Closed, Established, FinWait1, LastAck, Listen, SynReceived, SynSent};
use crate::event::{Direction, Ends, Event, Measures, State};
use crate::ledger::{Corrections, End, Role, Side};

/// A socket of a model, as a listing shows it.
fn socket(ends: Ends, state: State, time_ns: u64) -> Socket {
    Socket {
        time_ns,
        ends,
        state,
        form: Form::Full,
        cgroup: 5,
        inode: ends.cookie + 1000,
        uid: 0,
        receive_queue: 0,
        send_queue: 0,
        timer: None,
        unanswered: 0,
        sent_ago_ns: Some(SECOND),
        received_ago_ns: Some(SECOND / 2),
        measures: None,
    }
}

/// The ends and the state that the kernel has, whatever the ledger was told.
type Truth = Vec<(Ends, State)>;

impl Stage {
    /// One listing of what there is, in the moment.
    fn census(&mut self, truth: &[(Ends, State)]) -> Corrections {
        self.now_ns += SECOND;
        self.ledger.begin_comparison(self.now_ns);
        self.pass(AT_ONCE);
        let owners = HashMap::new();
        for (ends, state) in truth {
            self.ledger.compare(&[socket(*ends, *state, self.now_ns)], &owners);
            self.check();
        }
        let corrections = self.ledger.end_comparison(&[NETNS]);
        self.check();
        corrections
    }
}

fn ends(life: &Life) -> Ends {
    let of = |event: &Event| match event {
        Event::Transition(event) => Some(event.ends),
        _ => None,
    };
    let mut ends = life.steps.iter().rev().find_map(|step| of(&step.event)).expect("a transition");
    (ends.cookie, ends.sock) = (life.cookie, life.sock());
    ends
}

#[test]
fn sockets_older_than_the_agent_are_adopted_and_go_on() {
    let mut stage = Stage::new(10);
    let (mut server, client, listener) =
        (closed_by_peer(accepted(2)), closing(opened(4)), Life::listener(6).call(Listen));
    let truth = [(ends(&listener), Listen), (ends(&server), Established), (ends(&client), Established)];
    let corrections = stage.census(&truth);
    assert_eq!(corrections, Corrections { adopted: 3, ..Corrections::default() });
    assert_eq!((stage.tracked(Listen), stage.tracked(Established)), (1, 2));
    assert_eq!(stage.ledger.totals().adopted, 2, "a listener is no connection");
    assert_eq!(stage.ledger.listeners()[0].open, 1);
    let slot = stage.ledger.table.find(server.cookie).expect("adopted");
    let adopted = *stage.ledger.table.get(slot);
    assert_eq!((adopted.role, adopted.birth_seen, adopted.cgroup), (Some(Role::Server), false, 5));
    assert_eq!(stage.now_ns - adopted.first_ns, SECOND, "it sent something a second ago");
    // The events that come now find it.
    server.steps.retain(
        |step| matches!(&step.event, Event::Transition(event) if event.old != Listen && event.new != Established),
    );
    let cookie = server.cookie;
    stage.play(server);
    stage.settle();
    assert_eq!(stage.only(cookie).end, End::Closed);
    assert_eq!(stage.ledger.totals().unknown_connections, 0);
    assert_eq!(stage.ledger.listeners()[0].open, 0);
}

#[test]
fn holders_are_taken_over() {
    let mut stage = Stage::new(10);
    let life = opened(2);
    stage.ledger.begin_comparison(stage.now_ns);
    let listed = socket(ends(&life), Established, stage.now_ns);
    stage.ledger.compare(&[listed], &HashMap::from([(listed.inode, task(99))]));
    let slot = stage.ledger.table.find(life.cookie).expect("adopted");
    assert_eq!(stage.ledger.table.get(slot).owner, Some(task(99)));
}

#[test]
fn bytes_count_once_from_when_the_connection_is_known() {
    for is_adopted in [true, false] {
        let mut stage = Stage::new(10);
        let mut life = opened(2).call(Closed);
        if !is_adopted {
            stage.play_to(&mut life, Established);
        }
        let before = stage.ledger.totals().counts.bytes;
        for (sent, received) in [(100, 7), (100, 7), (150, 18)] {
            stage.now_ns += SECOND;
            stage.ledger.begin_comparison(stage.now_ns);
            let measures =
                Measures { bytes_sent: sent + 30, bytes_retrans: 30, bytes_received: received, ..Measures::default() };
            let listed = Socket { measures: Some(measures), ..socket(ends(&life), Established, stage.now_ns) };
            stage.ledger.compare(&[listed], &HashMap::new());
            stage.ledger.end_comparison(&[NETNS]);
        }
        let bytes = &stage.ledger.totals().counts.bytes;
        let gained = |direction: Direction| bytes[direction.index()] - before[direction.index()];
        // What it had carried when it was adopted is not this agent's to count.
        let expected = if is_adopted { (50, 11) } else { (150, 18) };
        assert_eq!((gained(Direction::Transmit), gained(Direction::Receive)), expected, "adopted: {is_adopted}");
    }
}

/// The FIN counts as a byte in the kernel's measures, and comes with an event that has none.
#[test]
fn a_fin_is_no_byte_whenever_it_is_measured() {
    for is_listed_meanwhile in [false, true] {
        let mut stage = Stage::new(10);
        let mut life = closed_by_peer(accepted(2));
        let (ends, cookie) = (ends(&life), life.cookie);
        let list = |stage: &mut Stage, state, bytes_received| {
            stage.now_ns += SECOND;
            stage.ledger.begin_comparison(stage.now_ns);
            let measures = Some(Measures { bytes_received, ..Measures::default() });
            stage.ledger.compare(&[Socket { measures, ..socket(ends, state, stage.now_ns) }], &HashMap::new());
            stage.ledger.end_comparison(&[NETNS]);
        };
        list(&mut stage, Established, 1_000);
        life.steps.retain(
            |step| matches!(&step.event, Event::Transition(event) if event.old != Listen && event.new != Established),
        );
        for step in &mut life.steps {
            if let Event::Transition(event) = &mut step.event {
                event.measures =
                    (event.new == Closed).then(|| Measures { bytes_received: 1_101, ..Measures::default() });
            }
        }
        if is_listed_meanwhile {
            stage.play_to(&mut life, CloseWait);
            list(&mut stage, CloseWait, 1_101);
        }
        stage.play(life);
        stage.settle();
        assert_eq!(stage.ledger.totals().counts.bytes[Direction::Receive.index()], 100);
        assert_eq!(stage.only(cookie).connection.bytes()[Direction::Receive.index()], 1_100);
    }
}

#[test]
fn a_second_listing_changes_nothing() {
    let mut stage = Stage::new(10);
    let truth = [(ends(&opened(2)), Established), (ends(&opened(4)), CloseWait)];
    assert_eq!(stage.census(&truth).adopted, 2);
    assert_eq!(stage.census(&truth), Corrections::default());
}

#[test]
fn a_lost_transition_is_put_right() {
    let mut stage = Stage::new(10);
    let mut life = accepted(2).fin().softirq(CloseWait);
    life.steps.pop_back();
    let ends = ends(&life);
    stage.play(life);
    let corrections = stage.census(&[(ends, CloseWait)]);
    assert_eq!(corrections, Corrections { stale: 1, ..Corrections::default() });
    assert_eq!((stage.tracked(Established), stage.tracked(CloseWait)), (0, 1));
    let slot = stage.ledger.table.find(ends.cookie).expect("still there");
    assert_eq!(stage.ledger.table.get(slot).closed_first, Some(Side::Peer));
    assert_eq!(stage.ledger.totals().stale_states, 1);
}

#[test]
fn a_socket_that_is_gone_is_closed_by_the_second_listing() {
    let mut stage = Stage::new(10);
    let life = opened(2);
    let cookie = life.cookie;
    stage.play(life);
    assert_eq!(stage.census(&[]), Corrections { suspects: 1, ..Corrections::default() });
    assert_eq!(stage.tracked(Established), 1, "one listing may have skipped it");
    assert_eq!(stage.census(&[]), Corrections { missed_closes: 1, ..Corrections::default() });
    assert_eq!(stage.only(cookie).end, End::Lost);
    assert!(stage.ledger.is_empty());
}

#[test]
fn a_suspect_that_is_met_again_is_none() {
    let mut stage = Stage::new(10);
    let life = opened(2);
    let ends = ends(&life);
    stage.play(life);
    for _ in 0..3 {
        assert_eq!(stage.census(&[]).suspects, 1);
        assert_eq!(stage.census(&[(ends, Established)]), Corrections::default());
    }
}

#[test]
fn what_was_not_walked_stays() {
    let mut stage = Stage::new(10);
    stage.play(opened(2));
    for _ in 0..3 {
        stage.now_ns += SECOND;
        stage.ledger.begin_comparison(stage.now_ns);
        assert_eq!(stage.ledger.end_comparison(&[NETNS + 1]), Corrections::default());
    }
    assert_eq!(stage.tracked(Established), 1);
}

#[test]
fn events_after_the_look_win() {
    let mut stage = Stage::new(10);
    let mut life = opened(2).call(FinWait1);
    let ends = ends(&life);
    stage.play_to(&mut life, Established);
    stage.now_ns += SECOND;
    stage.ledger.begin_comparison(stage.now_ns);
    let seen = socket(ends, Established, stage.now_ns);
    stage.step(&mut life);
    stage.ledger.compare(&[seen], &HashMap::new());
    assert_eq!(stage.ledger.end_comparison(&[NETNS]), Corrections::default());
    assert_eq!(stage.tracked(FinWait1), 1);
}

#[test]
fn a_task_that_was_preempted_in_a_transition_is_believed() {
    let mut stage = Stage::new(10);
    let mut life = opened(2).call(FinWait1);
    let ends = ends(&life);
    stage.play_to(&mut life, FinWait1);
    // The program has told of FIN_WAIT_1; the kernel comes to it half a second later.
    stage.now_ns += SECOND / 2;
    stage.ledger.begin_comparison(stage.now_ns);
    stage.ledger.compare(&[socket(ends, Established, stage.now_ns)], &HashMap::new());
    assert_eq!(stage.ledger.end_comparison(&[NETNS]), Corrections::default());
    assert_eq!((stage.tracked(FinWait1), stage.ended.len()), (1, 0));
}

#[test]
fn a_connection_that_ended_after_the_look_is_not_adopted() {
    for cookies in [true, false] {
        let mut stage = Stage::new(10);
        let mut life = closing(opened(2));
        let mut listed = ends(&life);
        if !cookies {
            listed.cookie = 0; // nobody had asked for one at that moment
        }
        stage.play_to(&mut life, Established);
        stage.now_ns += SECOND;
        stage.ledger.begin_comparison(stage.now_ns);
        let seen = socket(listed, Established, stage.now_ns);
        stage.play(life);
        stage.pass(SECOND);
        assert!(stage.ledger.is_empty());
        stage.ledger.compare(&[seen], &HashMap::new());
        assert_eq!(stage.ledger.end_comparison(&[NETNS]), Corrections::default());
        assert!(stage.ledger.is_empty());
    }
}

/// As inet_diag lists it: with a cookie, which it makes, and without an address.
fn unplaced(ends: Ends) -> Ends {
    Ends { sock: 0, ..ends }
}

#[test]
fn a_listing_without_addresses_finds_what_has_no_cookie() {
    let mut stage = Stage::new(10);
    let (mut client, mut server) =
        (closing(opened(2)).without_cookie(2), closed_by_peer(accepted(4)).without_cookie(2));
    let listener = Life::listener(6).call(Listen).without_cookie(1);
    let truth = [
        (unplaced(ends(&listener)), Listen),
        (unplaced(ends(&client)), Established),
        (unplaced(ends(&server)), Established),
    ];
    let cookies = [client.cookie, server.cookie];
    stage.play(listener);
    stage.play_to(&mut client, Established);
    stage.play_to(&mut server, Established);
    assert_eq!(stage.census(&truth), Corrections::default());
    assert_eq!((stage.tracked(Listen), stage.tracked(Established)), (1, 2));
    assert_eq!(stage.census(&truth), Corrections::default(), "and again, by the cookies that they have now");
    // From now on events tell the cookie as well.
    stage.play(client);
    stage.play(server);
    stage.settle();
    for cookie in cookies {
        assert!(stage.only(cookie).end.is_normal());
    }
    assert_eq!(stage.ledger.totals().unknown_connections, 0);
}

#[test]
fn what_lacks_an_end_is_taken_for_no_other() {
    let mut stage = Stage::new(10);
    let (mut child, mut client) = (accepted(2), opened(4).blind());
    let (another, older) = (accepted(6), opened(8));
    // Births without a peer, as kernels tell them, or without a port.
    if let Some(Event::Transition(birth)) = child.steps.front_mut().map(|step| &mut step.event) {
        (birth.ends.peer_port, birth.ends.peer) = (0, [0; 16]);
    }
    stage.play_to(&mut child, SynReceived);
    stage.play_to(&mut client, SynSent);
    // Of their listener, and to the same peer: neither is the one that was born, for all that is known.
    let peer = ends(&client);
    let older = Ends { local_port: 50_000, peer: peer.peer, local: peer.local, ..unplaced(ends(&older)) };
    let truth = [(unplaced(ends(&another)), Established), (older, Established)];
    assert_eq!(stage.census(&truth), Corrections { adopted: 2, suspects: 1, ..Corrections::default() });
    for (ends, _) in &truth {
        let slot = stage.ledger.table.find(ends.cookie).expect("adopted");
        let adopted = stage.ledger.table.get(slot);
        assert_eq!((adopted.owner, adopted.birth_seen), (None, false));
    }
    assert_eq!(stage.census(&truth).missed_closes, 2, "the births of which nothing more was heard");
}

#[test]
fn of_two_with_the_same_ends_the_live_one_is_met() {
    let mut stage = Stage::new(10);
    let (mut closed, mut live) = (closing(opened(2)).blind(), opened(4).blind());
    let same = ends(&closed);
    for step in &mut live.steps {
        if let Event::Transition(event) = &mut step.event {
            event.ends = Ends {
                local_port: event.ends.local_port.min(1) * same.local_port,
                sock: event.ends.sock,
                cookie: 0,
                ..same
            };
        }
    }
    stage.play_to(&mut closed, Closed);
    stage.play_to(&mut live, Established);
    stage.now_ns += 20_000_000; // the first one waits for its last words
    stage.ledger.begin_comparison(stage.now_ns);
    let listed = Ends { cookie: live.cookie, ..unplaced(same) };
    stage.ledger.compare(&[socket(listed, Established, stage.now_ns)], &HashMap::new());
    assert_eq!(stage.ledger.end_comparison(&[NETNS]), Corrections::default());
    assert!(stage.ledger.table.find(live.cookie).is_some());
}

#[test]
fn an_adopted_client_in_syn_sent_has_no_invented_age() {
    let mut stage = Stage::new(10);
    let life = opened(2);
    stage.ledger.begin_comparison(stage.now_ns);
    stage.ledger.compare(&[socket(ends(&life), SynSent, stage.now_ns)], &HashMap::new());
    let slot = stage.ledger.table.find(life.cookie).expect("adopted");
    assert_eq!(stage.ledger.table.get(slot).first_ns, stage.now_ns);
}

#[test]
fn clients_without_a_port_are_not_taken_for_each_other() {
    let mut stage = Stage::new(10);
    let (mut one, mut two) = (opened(2).blind(), opened(4).blind());
    let listed = |life: &Life, port| Ends { local_port: port, cookie: life.cookie, ..unplaced(ends(life)) };
    let truth = [(listed(&one, 40_001), SynSent), (listed(&two, 40_002), SynSent)];
    stage.play_to(&mut one, SynSent);
    stage.play_to(&mut two, SynSent);
    assert_eq!(stage.census(&truth), Corrections::default());
    assert_eq!(stage.tracked(SynSent), 2);
    // Which is which only their next events tell.
    stage.play_to(&mut one, Established);
    stage.play_to(&mut two, Established);
    assert_eq!((stage.tracked(SynSent), stage.tracked(Established), stage.ended.len()), (0, 2, 0));
}

#[test]
fn a_connection_without_cookie_that_ended_after_the_look_is_not_adopted() {
    for sock in [true, false] {
        let mut stage = Stage::new(10);
        let mut life = closing(opened(2)).blind();
        let listed = if sock { ends(&life) } else { unplaced(ends(&life)) };
        stage.play_to(&mut life, Established);
        stage.now_ns += SECOND;
        stage.ledger.begin_comparison(stage.now_ns);
        let seen = socket(listed, Established, stage.now_ns);
        stage.play(life);
        stage.pass(SECOND);
        assert!(stage.ledger.is_empty());
        stage.ledger.compare(&[seen], &HashMap::new());
        assert_eq!(stage.ledger.end_comparison(&[NETNS]), Corrections::default());
        assert!(stage.ledger.is_empty());
    }
}

#[test]
fn a_socket_with_a_new_connection_has_two() {
    let mut stage = Stage::new(10);
    let mut life = closing(opened(2));
    let ends = ends(&life);
    stage.play_to(&mut life, FinWait1);
    // Its close and the next connect were lost.
    assert_eq!(stage.census(&[(ends, Established)]).adopted, 1);
    assert_eq!(stage.only(ends.cookie).end, End::Lost);
    assert_eq!(stage.tracked(Established), 1);
}

#[test]
fn a_child_whose_handshake_was_lost_is_no_second_one() {
    let mut stage = Stage::new(10);
    let mut life = accepted(2);
    let ends = ends(&life);
    stage.play_to(&mut life, SynReceived);
    assert_eq!(stage.census(&[(ends, Established)]), Corrections { stale: 1, ..Corrections::default() });
    assert_eq!((stage.tracked(SynReceived), stage.tracked(Established)), (0, 1));
    assert_eq!(stage.ledger.totals().counts.opened[Role::Server.index()], 1);
}

/// Plays each life up to some point, with losses. Answers what the kernel has then.
fn play_in_part(stage: &mut Stage, lives: Vec<Life>, choices: &[(u8, bool)]) -> Truth {
    let mut choices = choices.iter().copied().cycle();
    let mut truth = Truth::new();
    for mut life in lives {
        let until = usize::from(choices.next().unwrap_or_default().0) % (life.steps.len() + 1);
        let mut now: Option<(Ends, State)> = None;
        for at in 0..until {
            let Some(step) = life.steps.pop_front() else { break };
            stage.now_ns += step.after_ns;
            let event = step.at(stage.now_ns, life.sock());
            match &event {
                Event::Transition(event) => {
                    let known = now.map_or(event.ends, |(ends, _)| ends);
                    let mut ends = event.ends;
                    // What a record does not say, the socket knows.
                    (ends.cookie, ends.sock) = (life.cookie, life.sock());
                    if ends.local_port == 0 {
                        ends.local_port = known.local_port;
                    }
                    now = Some((ends, event.new));
                }
                Event::Destroy(_) => now = None,
                _ => {}
            }
            if !choices.next().unwrap_or_default().1 || at == usize::MAX {
                stage.apply(&event);
            }
        }
        truth.extend(now.filter(|(_, state)| *state != Closed));
    }
    // Listeners come first in every listing.
    truth.sort_by_key(|(_, state)| *state != Listen);
    truth
}

proptest! {
    /// Whatever was lost: after two listings the ledger has exactly the sockets that there are, each in its state.
    #[test]
    fn any_loss_heals(lives in lives(8), choices in choices(0.3), cookies in any::<bool>(), addresses in any::<bool>()) {
        let mut stage = Stage::new(1000);
        let lives = lives.into_iter().map(|life| if cookies { life } else { life.without_cookie(usize::MAX) }).collect();
        let sockets = play_in_part(&mut stage, lives, &choices);
        let listed = |(ends, state): &(Ends, State)| (if addresses { *ends } else { unplaced(*ends) }, *state);
        let truth: Truth = sockets.iter().map(listed).collect();
        stage.pass(SECOND);
        stage.census(&truth);
        stage.census(&truth);
        let mut expected = [0; State::LIMIT];
        for (_, state) in &truth {
            expected[state.index()] += 1;
        }
        prop_assert_eq!(stage.ledger.tracked(), &expected);
        for (ends, state) in &sockets {
            if !addresses && matches!(state, SynSent | SynReceived) {
                continue; // alike: which is which is not known, only how many there are
            }
            let slot = stage.ledger.table.find(ends.cookie);
            prop_assert_eq!(slot.map(|slot| stage.ledger.table.get(slot).state), Some(*state));
        }
        prop_assert_eq!(stage.census(&truth), Corrections::default(), "a third one finds nothing");
    }
}

#[test]
fn ports_of_the_model_are_listened_on() {
    assert_eq!(ends(&accepted(2)).local_port, PORT);
    assert_eq!(ends(&accepted(2).softirq(LastAck)).local_port, PORT);
}
