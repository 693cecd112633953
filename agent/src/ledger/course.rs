//! The course of a connection: which transition may come next, and what each one tells.

use super::connection::{Connection, Role, Side};
use crate::event::{Ends, Measures, State, Transition};

/// Whether a connection in `state` may go from `old` to `new` next, if need be after transitions that were lost. A
/// connection never goes back nor from one way of closing to the other: what does not fit belongs to a later one on the same
/// socket.
pub(super) fn continues(state: State, old: State, new: State) -> bool {
    match (state, old) {
        (State::Closed, State::Closed) => new == State::Closed,
        (State::Listen, State::Listen) => matches!(new, State::Listen | State::Closed),
        (State::Closed | State::Listen, _) | (_, State::Closed | State::Listen) => false,
        _ if new == State::Listen => false,
        _ if state == old => true,
        _ => progress(state) < progress(old) && (closer(state).is_none() || closer(state) == closer(old)),
    }
}

/// How far a connection in this state has come.
const fn progress(state: State) -> u8 {
    match state {
        State::Listen | State::Closed | State::SynSent => 0,
        State::SynReceived => 1,
        State::Established => 2,
        State::FinWait1 | State::CloseWait => 3,
        State::FinWait2 | State::Closing | State::LastAck | State::TimeWait => 4,
    }
}

/// A connection whose first event this is, as it was just before.
pub(super) fn begin(event: &Transition, role: Option<Role>, birth_seen: bool) -> Connection {
    let unknown = Connection::new(event.ends, event.old, event.time_ns);
    Connection { role, birth_seen, cgroup: event.cgroup, ..unknown }
}

/// Writes a transition into its connection.
pub(super) fn note(connection: &mut Connection, event: &Transition) {
    let (old, new) = (event.old, event.new);
    learn(&mut connection.ends, &event.ends);
    connection.last_ns = connection.last_ns.max(event.time_ns);
    if old == State::Closed && new == State::Closed {
        return; // all has been said
    }
    connection.state = new;
    connection.fin_received |= event.fin_received;
    connection.orphan = event.orphan;
    connection.blind |= event.blind;
    connection.closed_first = connection.closed_first.or(closer(old)).or(closer(new));
    connection.simultaneous |= old == State::Closing || new == State::Closing;
    if event.cgroup != 0 {
        connection.cgroup = event.cgroup;
    }
    if event.owner_context {
        connection.owner = Some(event.task);
    }
    if event.measures.is_some() {
        connection.measures = event.measures;
        connection.fin_measured = connection.fin_received;
    }
    if old == new {
        return; // close() on a socket in FIN_WAIT_2 reports FIN_WAIT_2 → FIN_WAIT_2; nothing is entered or left
    }
    if new == State::Closed {
        connection.left = old;
        connection.errno = event.errno;
        connection.closed_ns = event.time_ns;
        connection.entered_ns[State::Closed.index()] = event.time_ns;
        return;
    }
    let entered = &mut connection.entered_ns[new.index()];
    if *entered == 0 {
        *entered = event.time_ns;
    }
    if new == State::Established {
        // Without a role nobody can say which number is the client's.
        let known = connection.role.zip(event.measures);
        connection.sequence_pair = known.and_then(|(role, measures)| sequence_pair(role, &measures));
    }
}

/// The client's and the server's first sequence number at ESTABLISHED, if the other end knows the same two.
///
/// Not if data came before (fast open): data in the SYN have moved the client's number, and an answer to them may have moved
/// the server's, on one end by more than on the other. And not if the kernel's types did not tell where the numbers are.
fn sequence_pair(role: Role, measures: &Measures) -> Option<(u32, u32)> {
    let Measures { snd_una, rcv_nxt, bytes_acked, bytes_received, .. } = *measures;
    let (pair, of_handshake) = match role {
        Role::Client => ((snd_una, rcv_nxt), 1), // the kernel counts its SYN as a byte acknowledged
        Role::Server => ((rcv_nxt, snd_una), 0),
    };
    (bytes_acked <= of_handshake && bytes_received == 0 && pair != (0, 0)).then_some(pair)
}

/// Who sent the first FIN of a connection that is, or was, in this state.
pub(super) const fn closer(state: State) -> Option<Side> {
    match state {
        State::FinWait1 | State::FinWait2 | State::Closing | State::TimeWait => Some(Side::Local),
        State::CloseWait | State::LastAck => Some(Side::Peer),
        State::Listen | State::SynSent | State::SynReceived | State::Established | State::Closed => None,
    }
}

/// Fills in what an event knows and the connection did not; never forgets (at the end the kernel's ports may be gone).
pub(super) fn learn(known: &mut Ends, event: &Ends) {
    if known.local_port == 0 {
        known.local_port = event.local_port;
    }
    if known.peer_port == 0 {
        known.peer_port = event.peer_port;
    }
    if is_unspecified(&known.local) {
        known.local = event.local;
    }
    if is_unspecified(&known.peer) {
        known.peer = event.peer;
    }
}

/// Whether it is `::`, or `0.0.0.0` as it is mapped.
const fn is_unspecified(address: &[u8; 16]) -> bool {
    matches!(u128::from_be_bytes(*address), 0 | 0xffff_0000_0000)
}
