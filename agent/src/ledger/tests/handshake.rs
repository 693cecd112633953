//! How connections begin: opened from here and from there, by fast open, by both at once, or not at all.

use super::life::{first, path, told};
use super::scenarios::{self, Scenario};
use super::script::{Life, PORT, SECOND, SOON, client_port, task};
use super::stage::Stage;
use crate::event::State::{Closed, Closing, Established, FinWait1, FinWait2, SynReceived, SynSent};
use crate::ledger::Role;

#[test]
fn an_active_open_is_a_client_whose_port_is_known_later() {
    let mut stage = Stage::new(10);
    let mut life = scenarios::opened(2);
    let connection = stage.play_to(&mut life, SynSent);
    assert_eq!((connection.role, connection.ends.local_port), (Some(Role::Client), 0));
    assert_eq!((connection.birth_seen, connection.owner), (true, Some(task(102))));
    assert_eq!((stage.tracked(SynSent), connection.handshake_seconds()), (1, None));
    let mut again = scenarios::connecting(2).retransmit();
    again.steps.pop_front();
    let (connection, _) = stage.step(&mut again);
    assert_eq!(connection.map(|connection| connection.ends.local_port), Some(client_port(2)));
    let (connection, in_state_ns) = stage.step(&mut life);
    let connection = connection.expect("a tracked connection");
    assert_eq!(in_state_ns, Some(2 * SOON));
    assert_eq!((connection.state, connection.ends.local_port), (Established, client_port(2)));
    assert_eq!(connection.handshake_seconds(), Some(0.002));
    assert_eq!((stage.tracked(SynSent), stage.tracked(Established)), (0, 1));
    assert_eq!(stage.ledger.totals().established(Role::Client), 1);
}

#[test]
fn a_passive_open_waits_by_address_until_its_cookie_is_known() {
    for id in [4, 6] {
        let mut stage = Stage::new(10);
        let mut life = scenarios::accepted(id);
        let embryo = stage.play_to(&mut life, SynReceived);
        assert_eq!((embryo.role, embryo.ends.cookie, stage.tracked(SynReceived)), (Some(Role::Server), 0, 1));
        let child = stage.play_to(&mut life, Established);
        assert_eq!((child.ends.cookie, child.ends.local_port), (life.cookie, PORT));
        assert_eq!((child.ends.peer_address(), child.ends.peer_port), life.peer());
        assert_eq!((stage.tracked(SynReceived), stage.tracked(Established)), (0, 1));
        assert_eq!((child.handshake_seconds(), child.owner, child.cgroup), (None, None, 42));
        assert_eq!(stage.ledger.totals().established(Role::Server), 1);
    }
}

#[test]
fn both_ends_agree_on_the_sequence_numbers() {
    let (stage, lives) = told(scenarios::closed_by_client, 2);
    let pair = |at: usize| stage.only(lives[at].cookie).connection.sequence_pair;
    assert_eq!(pair(0), Some((1002, 2002)));
    assert_eq!(pair(0), pair(1));
}

#[test]
fn data_before_the_handshake_is_done_leave_no_pair_that_both_ends_know() {
    let (stage, lives) = told(scenarios::fast_open, 2);
    let pair = |at: usize| stage.only(lives[at].cookie).connection.sequence_pair;
    assert_eq!((pair(0), pair(1)), (None, None));
    for (server, received, acknowledged) in [(false, 0, 1), (true, 1, 0), (true, 0, 1)] {
        let mut life = if server { Life::server(2).softirq(SynReceived) } else { scenarios::connecting(2) };
        life = life.early(received, acknowledged).softirq(Established);
        let mut stage = Stage::new(10);
        assert_eq!(stage.play_to(&mut life, Established).sequence_pair, None, "{server} {received} {acknowledged}");
    }
}

#[test]
fn a_handshake_that_fails_is_counted_by_its_cause() {
    let cases: [(Scenario, &str); 7] = [
        (scenarios::refused, "connection_refused"),
        (scenarios::timed_out, "timed_out"),
        (scenarios::unreachable, "host_unreachable"),
        (scenarios::given_up_while_connecting, "aborted"),
        (scenarios::killed_while_connecting, "aborted"),
        (scenarios::fast_open_reset, "connection_reset"),
        (scenarios::fast_open_disconnected, "connection_reset"),
    ];
    for (scenario, why) in cases {
        let (stage, lives) = told(scenario, 2);
        let totals = stage.ledger.totals();
        let role = lives[0].fates[0].role;
        assert_eq!(
            totals.counts.failures[role.index()].iter().map(|(why, count)| (*why, *count)).collect::<Vec<_>>(),
            [(why, 1)]
        );
        assert_eq!((totals.counts.opened[role.index()], totals.established(role)), (1, 0));
    }
}

#[test]
fn a_connection_that_was_open_is_no_failed_handshake() {
    for scenario in
        [scenarios::linger_zero, scenarios::keepalive_failed, scenarios::path_lost, scenarios::connected_twice]
    {
        let (stage, _) = told(scenario, 2);
        assert!(stage.ledger.totals().counts.failures.iter().all(std::collections::BTreeMap::is_empty));
    }
}

#[test]
fn syns_that_are_sent_again_are_counted_apart() {
    let (connection, _) = first(scenarios::timed_out);
    assert_eq!((connection.retransmits_syn, connection.retransmits_data, connection.retransmits()), (2, 0, 2));
    assert_eq!(connection.first_retransmit_ns, connection.first_ns + SECOND);
    assert_eq!(connection.duration_seconds(), Some(7.0));
    let (connection, _) = first(scenarios::path_lost);
    assert_eq!((connection.retransmits_syn, connection.retransmits_data), (0, 2));
}

#[test]
fn a_fast_open_child_may_wait_long_and_even_close_first() {
    let (stage, lives) = told(scenarios::fast_open, 2);
    let server = &stage.only(lives[1].cookie).connection;
    assert_eq!(server.entered_ns[Established.index()] - server.entered_ns[SynReceived.index()], 20 * SECOND);
    let (stage, lives) = told(scenarios::fast_open_closed_before_the_handshake, 2);
    let server = &stage.only(lives[1].cookie).connection;
    assert_eq!(path(server), [SynReceived, FinWait1, FinWait2, Closed]);
    assert_eq!((server.retransmits_data, stage.ledger.totals().established(Role::Server)), (1, 0));
}

#[test]
fn a_socket_connected_to_itself_is_one_client() {
    let (connection, _) = first(scenarios::self_connect);
    assert_eq!(path(&connection), [SynSent, SynReceived, Established, FinWait1, Closing, Closed]);
}
