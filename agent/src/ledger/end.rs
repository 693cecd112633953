//! How a connection ended, told from its last transition and the resets around it.

use super::connection::{Connection, End};
use crate::event::{State, Transition};

/// The end of a connection that the kernel has closed. Called when its resets are known too: the kernel reports the
/// close first and sends the RST afterwards (`tcp_disconnect`, `tcp_close` with unread data, an orphan that gets data).
pub(super) fn classify(connection: &Connection) -> End {
    let errno = i32::from(connection.errno);
    match connection.left {
        // Nothing but a RST answers a SYN and ends the attempt.
        State::SynSent if connection.blind && connection.resets_received > 0 => End::Refused,
        State::SynSent | State::SynReceived => opening(connection, errno),
        // These close in order, unless an error says otherwise. A RST that was sent earlier (a challenge, a stray
        // segment) did not end them.
        State::LastAck if errno == 0 && connection.resets_received == 0 => End::Closed,
        State::Closing if errno == 0 && connection.resets_received == 0 => End::TimeWait,
        State::FinWait2 if errno == 0 && !had_reset(connection) => {
            // Without its flags it most likely went where nearly all of them go.
            if connection.fin_received || connection.blind {
                // tcp_fin → tcp_time_wait(TCP_TIME_WAIT)
                End::TimeWait
            } else if connection.orphan {
                // tcp_time_wait(TCP_FIN_WAIT2): the rest of its life is a minisock's, which no event shows.
                End::FinWait2
            } else {
                End::Aborted
            }
        }
        _ => broken(connection, errno),
    }
}

/// Whether no RST of its socket can follow this close, so that its end is known at once: both FINs have come, and the kernel has drawn
/// the conclusion (`tcp_rcv_state_process` in LAST_ACK, `tcp_time_wait`), no task that had locked the socket. A task that closes with unread
/// data sends a RST only afterwards; an orphan in FIN_WAIT_2 without the peer's FIN that gets data is answered by one. Where memory is short the
/// RST comes first (`tcp_out_of_resources`). Of MPTCP's subflows some kernels send it after the close (`mptcp_subflow_reset`): it is counted
/// for the host then, and does not change the end.
pub(super) fn is_final(connection: &Connection, close: &Transition) -> bool {
    matches!(connection.left, State::LastAck | State::Closing | State::FinWait2)
        && connection.fin_received
        && connection.errno == 0
        && connection.resets_received == 0
        && !close.owner_context
        && !connection.blind
}

fn had_reset(connection: &Connection) -> bool {
    connection.resets_received > 0 || connection.resets_sent > 0
}

/// The handshake was not finished.
fn opening(connection: &Connection, errno: i32) -> End {
    match errno {
        libc::ECONNREFUSED => End::Refused,
        libc::ETIMEDOUT => End::TimedOut,
        _ if connection.resets_received > 0 => End::ResetReceived,
        0 if connection.resets_sent > 0 => End::ResetSent,
        0 | libc::ECONNABORTED => End::Aborted,
        _ => End::Failed,
    }
}

/// It was open and did not close in order.
fn broken(connection: &Connection, errno: i32) -> End {
    if connection.resets_received > 0 {
        return End::ResetReceived;
    }
    match errno {
        libc::ETIMEDOUT => End::TimedOut,
        // `ss -K` and its like: the RST is the consequence, not the cause.
        libc::ECONNABORTED => End::Aborted,
        _ if connection.resets_sent > 0 => End::ResetSent,
        0 => End::Aborted,
        _ => End::Failed,
    }
}
