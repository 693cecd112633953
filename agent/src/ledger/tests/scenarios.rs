//! The lives that sockets lead: each scenario gives every socket of a connection with its events and with what should be
//! told of it in the end.

use libc::{ECONNABORTED, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EPIPE, ETIMEDOUT};

use super::script::{Life, SECOND, task};
use crate::event::State::{
    CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent,
};
use crate::ledger::End;
use crate::ledger::Side::{Local, Peer};

/// A scenario: the sockets of the connection (or connections) number `id`.
pub(super) type Scenario = fn(u32) -> Vec<Life>;

/// Every scenario. All sockets are destroyed at its end.
pub(super) const ALL: [Scenario; 31] = [
    closed_by_client,
    closed_by_server,
    simultaneous_close,
    both_closing,
    self_connect,
    refused,
    timed_out,
    unreachable,
    given_up_while_connecting,
    killed_while_connecting,
    closed_with_unread_data,
    linger_zero,
    half_close_then_peer,
    half_close_then_close,
    orphan_in_fin_wait_2,
    long_fin_timeout,
    data_for_an_orphan,
    reset_in_close_wait,
    aborted_by_administrator,
    keepalive_failed,
    path_lost,
    listener_with_pending_children,
    listen_in_vain,
    bound_only,
    fast_open,
    fast_open_given_up,
    fast_open_reset,
    fast_open_disconnected,
    fast_open_closed_before_the_handshake,
    forked,
    connected_twice,
];

pub(super) fn connecting(id: u32) -> Life {
    Life::client(id).call(SynSent)
}

/// An active open.
pub(super) fn opened(id: u32) -> Life {
    connecting(id).softirq(Established)
}

/// A passive open: both events at the third segment of the handshake.
pub(super) fn accepted(id: u32) -> Life {
    Life::server(id).softirq(SynReceived).at_once().softirq(Established)
}

/// Closes first; the peer's FIN comes a little later.
fn closes_first(life: Life) -> Life {
    let life = life.call(FinWait1).orphan().softirq(FinWait2).fin().softirq(Closed).at_once().destroy();
    life.fate(End::TimeWait, Some(Local))
}

fn closes_second(life: Life) -> Life {
    let life = life.fin().softirq(CloseWait).call(LastAck).orphan().softirq(Closed).at_once().destroy();
    life.fate(End::Closed, Some(Peer))
}

/// Gets a RST; its process closes the socket later.
fn is_reset(life: Life) -> Life {
    let life = life.reset_received().error(ECONNRESET).at_once().softirq(Closed).after(SECOND).destroy();
    life.fate(End::ResetReceived, None)
}

pub(super) fn closed_by_client(id: u32) -> Vec<Life> {
    vec![closes_first(opened(id)), closes_second(accepted(id))]
}

pub(super) fn closed_by_server(id: u32) -> Vec<Life> {
    vec![closes_second(opened(id)), closes_first(accepted(id))]
}

/// Both call close(); one end still gets the acknowledgement before the FIN.
pub(super) fn simultaneous_close(id: u32) -> Vec<Life> {
    let closing = accepted(id).call(FinWait1).orphan().fin().softirq(Closing).softirq(Closed).at_once().destroy();
    vec![closes_first(opened(id)), closing.crossed(End::TimeWait)]
}

/// Both FINs crossed.
pub(super) fn both_closing(id: u32) -> Vec<Life> {
    let closing = |life: Life| {
        let life = life.call(FinWait1).orphan().fin().softirq(Closing).softirq(Closed).at_once().destroy();
        life.crossed(End::TimeWait)
    };
    vec![closing(opened(id)), closing(accepted(id))]
}

/// A socket connected to itself: SYNs cross, then FINs.
pub(super) fn self_connect(id: u32) -> Vec<Life> {
    let life = connecting(id).softirq(SynReceived).softirq(Established).call(FinWait1).orphan().fin();
    vec![life.softirq(Closing).softirq(Closed).at_once().destroy().crossed(End::TimeWait)]
}

pub(super) fn refused(id: u32) -> Vec<Life> {
    let life = connecting(id).reset_received().error(ECONNREFUSED).at_once().softirq(Closed).destroy();
    vec![life.fate(End::Refused, None)]
}

pub(super) fn timed_out(id: u32) -> Vec<Life> {
    let life = connecting(id).after(SECOND).retransmit().after(2 * SECOND).retransmit().after(4 * SECOND);
    vec![life.error(ETIMEDOUT).softirq(Closed).destroy().fate(End::TimedOut, None)]
}

pub(super) fn unreachable(id: u32) -> Vec<Life> {
    vec![connecting(id).error(EHOSTUNREACH).softirq(Closed).destroy().fate(End::Failed, None)]
}

/// A connect() that does not block, then close().
pub(super) fn given_up_while_connecting(id: u32) -> Vec<Life> {
    vec![connecting(id).call(Closed).at_once().destroy().fate(End::Aborted, None)]
}

/// `ss -K` of a socket in SYN_SENT, which has nobody to send a RST to.
pub(super) fn killed_while_connecting(id: u32) -> Vec<Life> {
    vec![connecting(id).error(ECONNABORTED).softirq(Closed).destroy().fate(End::Aborted, None)]
}

/// The server closes although data wait: the kernel reports CLOSED, then sends the RST.
pub(super) fn closed_with_unread_data(id: u32) -> Vec<Life> {
    let server = accepted(id).call(Closed).at_once().reset_sent().at_once().orphan().destroy();
    vec![is_reset(opened(id)), server.fate(End::ResetSent, None)]
}

/// SO_LINGER with 0 seconds.
pub(super) fn linger_zero(id: u32) -> Vec<Life> {
    let client = opened(id).call(Closed).at_once().reset_sent().at_once().orphan().destroy();
    vec![client.fate(End::ResetSent, None), is_reset(accepted(id))]
}

/// shutdown(SHUT_WR), and the peer closes before the process does.
pub(super) fn half_close_then_peer(id: u32) -> Vec<Life> {
    let client = opened(id).call(FinWait1).softirq(FinWait2).after(SECOND).fin().softirq(Closed).orphan().destroy();
    let server = accepted(id).fin().softirq(CloseWait).after(SECOND).call(LastAck).orphan().softirq(Closed);
    vec![client.fate(End::TimeWait, Some(Local)), server.at_once().destroy().fate(End::Closed, Some(Peer))]
}

/// shutdown(SHUT_WR), then close(), which reports FIN_WAIT_2 → FIN_WAIT_2 and leaves the rest to a minisock. The server
/// finds that it is gone.
pub(super) fn half_close_then_close(id: u32) -> Vec<Life> {
    let client = opened(id).call(FinWait1).softirq(FinWait2).after(SECOND).call(FinWait2).orphan().at_once();
    let server = accepted(id).fin().softirq(CloseWait).after(100 * SECOND).call(LastAck).orphan().reset_received();
    vec![
        client.call(Closed).at_once().destroy().fate(End::FinWait2, Some(Local)),
        server.error(ECONNRESET).at_once().softirq(Closed).at_once().destroy().fate(End::ResetReceived, Some(Peer)),
    ]
}

/// close(), and the peer takes its time: a minisock waits for its FIN.
pub(super) fn orphan_in_fin_wait_2(id: u32) -> Vec<Life> {
    let client = opened(id).call(FinWait1).orphan().softirq(FinWait2).at_once().softirq(Closed).at_once().destroy();
    vec![client.fate(End::FinWait2, Some(Local)), closes_second(accepted(id))]
}

/// As before, with tcp_fin_timeout over a minute: the full socket stays for the part beyond it.
pub(super) fn long_fin_timeout(id: u32) -> Vec<Life> {
    let client = opened(id).call(FinWait1).orphan().softirq(FinWait2).after(60 * SECOND).softirq(Closed);
    vec![client.at_once().destroy().fate(End::FinWait2, Some(Local)), closes_second(accepted(id))]
}

/// Data for a socket that nobody holds any more: it is destroyed, and then the RST goes out.
pub(super) fn data_for_an_orphan(id: u32) -> Vec<Life> {
    let client = opened(id).call(FinWait1).orphan().softirq(FinWait2).softirq(Closed).at_once().destroy().at_once();
    let server = accepted(id).fin().softirq(CloseWait).reset_received().error(EPIPE).at_once().softirq(Closed);
    vec![client.reset_sent().fate(End::ResetSent, Some(Local)), server.destroy().fate(End::ResetReceived, Some(Peer))]
}

/// The client closes its sending half, then resets.
pub(super) fn reset_in_close_wait(id: u32) -> Vec<Life> {
    let client = opened(id).call(FinWait1).softirq(FinWait2).call(Closed).at_once().reset_sent().orphan().destroy();
    let server = accepted(id).fin().softirq(CloseWait).reset_received().error(EPIPE).at_once().softirq(Closed);
    vec![client.fate(End::ResetSent, Some(Local)), server.destroy().fate(End::ResetReceived, Some(Peer))]
}

/// `ss -K`: the RST goes out before the state changes.
pub(super) fn aborted_by_administrator(id: u32) -> Vec<Life> {
    let client = opened(id).reset_sent().error(ECONNABORTED).at_once().softirq(Closed).after(SECOND).destroy();
    vec![client.fate(End::Aborted, None), is_reset(accepted(id))]
}

/// No answer to keepalive probes: a RST for good measure, then the error.
pub(super) fn keepalive_failed(id: u32) -> Vec<Life> {
    let client = opened(id).after(100 * SECOND).reset_sent().error(ETIMEDOUT).at_once().softirq(Closed).destroy();
    vec![client.fate(End::TimedOut, None)]
}

/// Data go unanswered and a router says why.
pub(super) fn path_lost(id: u32) -> Vec<Life> {
    let client = opened(id).retransmit().retransmit().after(100 * SECOND).error(EHOSTUNREACH).softirq(Closed);
    vec![client.destroy().fate(End::Failed, None)]
}

/// The listener closes; the kernel resets what nobody has accepted.
pub(super) fn listener_with_pending_children(id: u32) -> Vec<Life> {
    let listener = Life::listener(id).call(Listen).after(SECOND).call(Closed).at_once().destroy();
    let child = accepted(id).after(SECOND).call(Closed).at_once().reset_sent().at_once().orphan().destroy();
    vec![listener, child.fate(End::ResetSent, None), is_reset(opened(id))]
}

/// listen() that finds the port taken.
pub(super) fn listen_in_vain(id: u32) -> Vec<Life> {
    vec![Life::listener(id).call(Listen).at_once().call(Closed).destroy()]
}

pub(super) fn bound_only(id: u32) -> Vec<Life> {
    vec![Life::client(id).destroy()]
}

/// The child is born at a SYN with data, waits for the handshake, and answers meanwhile.
pub(super) fn fast_open(id: u32) -> Vec<Life> {
    let server = Life::server(id).softirq(SynReceived).early(5, 6).after(20 * SECOND).softirq(Established);
    vec![closes_second(connecting(id).early(0, 5).softirq(Established)), closes_first(server)]
}

/// Nobody answers the SYN-ACK.
pub(super) fn fast_open_given_up(id: u32) -> Vec<Life> {
    let server = Life::server(id).softirq(SynReceived).after(63 * SECOND).error(ETIMEDOUT).softirq(Closed);
    vec![server.at_once().destroy().fate(End::TimedOut, None)]
}

/// A RST answers the SYN-ACK: the first that names the child's cookie.
pub(super) fn fast_open_reset(id: u32) -> Vec<Life> {
    let server = Life::server(id).softirq(SynReceived).reset_received().error(ECONNRESET).at_once().softirq(Closed);
    vec![server.at_once().destroy().fate(End::ResetReceived, None)]
}

/// The listener closes before the handshake is done.
pub(super) fn fast_open_disconnected(id: u32) -> Vec<Life> {
    let server = Life::server(id).softirq(SynReceived).call(Closed).at_once().reset_sent().at_once().orphan().destroy();
    vec![server.fate(End::ResetSent, None)]
}

/// The server accepts, answers and closes while the handshake lasts.
pub(super) fn fast_open_closed_before_the_handshake(id: u32) -> Vec<Life> {
    let server = Life::server(id).softirq(SynReceived).retransmit();
    vec![closes_second(opened(id)), closes_first(server)]
}

/// The parent's close() shows nothing, the child's ends the connection.
pub(super) fn forked(id: u32) -> Vec<Life> {
    vec![closes_first(opened(id).owned_by(task(4242))), closes_second(accepted(id))]
}

/// connect(AF_UNSPEC) resets, and the same socket connects again.
pub(super) fn connected_twice(id: u32) -> Vec<Life> {
    let client = opened(id).call(Closed).at_once().reset_sent().fate(End::ResetSent, None).call(SynSent);
    vec![closes_first(client.softirq(Established)), is_reset(accepted(id))]
}
