//! The ledger: every connection from its first event to its end.
//!
//! Synchronous, without a clock of its own, without allocation for an event in steady state. Events of one socket come
//! in the kernel's order (the socket's lock orders them and the ring keeps it), but any of them may be missing: each is
//! taken at its word, and what it contradicts is counted.
//!
//! A connection is found by its socket's cookie. One socket may carry several connections, so that a birth always starts a
//! new one. A child has no settled cookie at LISTEN → SYN_RECV and waits among the embryos, by address, for its next
//! event.

mod connection;
mod end;
mod listeners;
mod table;
mod totals;

use std::collections::VecDeque;

use hashbrown::HashMap;

pub use connection::{Connection, End, Role, Side, seconds};
use listeners::Listeners;
pub use listeners::{LISTENERS, Listener};
use table::{Slot, Table};
pub use totals::Totals;

use crate::event::{Destroy, Direction, Ends, Event, Reset, Retransmit, State, Transition};

/// How long a closed connection waits for its last words, in event time. The kernel sends the RST of an abort some
/// microseconds after it has reported CLOSED; a preempted task may take a time slice or two.
const GRACE_NS: u64 = 100_000_000;

/// An embryo lives until its handshake is done (fast open: at most the SYN-ACK retries, about a minute). One that is older
/// was lost.
const EMBRYO_NS: u64 = 180_000_000_000;

/// Embryos at most: far more than can be between two events of a child, few enough to bound memory.
const EMBRYOS: usize = 65_536;

/// A connection that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// What was known of it.
    pub connection: Connection,
    /// How it ended.
    pub end: End,
}

/// What an event meant to the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// The connection after the event; none where the ledger does not track it.
    pub connection: Option<&'a Connection>,
    /// Nanoseconds spent in the state left, where its beginning was seen.
    pub in_state_ns: Option<u64>,
}

/// Every connection, bounded.
#[derive(Debug)]
pub struct Ledger {
    table: Table,
    /// Children between LISTEN → SYN_RECV and their next event, by the address of their socket.
    embryos: HashMap<u64, Connection>,
    /// Closed connections in the order of their close: (time of close, cookie).
    closing: VecDeque<(u64, u64)>,
    ended: Vec<Ended>,
    totals: Totals,
    tracked: [u64; State::LIMIT],
    listeners: Listeners,
}

impl Ledger {
    /// A ledger that holds at most `limit` connections.
    pub fn new(limit: usize) -> Self {
        Self {
            table: Table::new(limit),
            embryos: HashMap::new(),
            closing: VecDeque::new(),
            ended: Vec::new(),
            totals: Totals::default(),
            tracked: [0; State::LIMIT],
            listeners: Listeners::default(),
        }
    }

    /// Takes in an event.
    pub fn apply(&mut self, event: &Event) -> Applied<'_> {
        match event {
            Event::Transition(transition) => self.transition(transition),
            Event::Retransmit(retransmit) => self.retransmit(retransmit),
            Event::Reset(reset) => self.reset(reset),
            Event::Destroy(destroy) => self.destroy(destroy),
        }
    }

    /// Lets time pass: `now_ns` is a moment up to which every event has been applied.
    pub fn tick(&mut self, now_ns: u64) {
        while let Some(&(closed_ns, cookie)) = self.closing.front() {
            if now_ns.saturating_sub(closed_ns) < GRACE_NS {
                break;
            }
            self.closing.pop_front();
            // A socket that was connected again has another time of close, or none.
            if let Some(slot) = self.table.find(cookie).filter(|slot| self.table.get(*slot).closed_ns == closed_ns) {
                self.finish(slot, None);
            }
        }
    }

    /// Expires embryos that were never heard of again. Walks them all: for once in a while.
    pub fn expire_embryos(&mut self, now_ns: u64) {
        let stale: Vec<u64> = self
            .embryos
            .iter()
            .filter(|(_, embryo)| now_ns.saturating_sub(embryo.first_ns) > EMBRYO_NS)
            .map(|(sock, _)| *sock)
            .collect();
        for sock in stale {
            self.lose_embryo(sock);
        }
    }

    /// Ends every connection that has been closed, whatever its grace: for the last moment of a run.
    pub fn settle(&mut self) {
        self.tick(u64::MAX);
    }

    /// Connections that ended since the last call, moved into `into`.
    pub fn take_ended(&mut self, into: &mut Vec<Ended>) {
        into.append(&mut self.ended);
    }

    /// What was counted since start.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// For what is tallied in the kernel.
    pub const fn totals_mut(&mut self) -> &mut Totals {
        &mut self.totals
    }

    /// Connections tracked now by [`State::index`], listeners included.
    pub const fn tracked(&self) -> &[u64; State::LIMIT] {
        &self.tracked
    }

    /// Connections (and listeners) tracked now.
    pub fn len(&self) -> usize {
        self.table.len() + self.embryos.len()
    }

    /// Whether nothing is tracked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most that [`Ledger::len`] may be, embryos aside.
    pub const fn limit(&self) -> usize {
        self.table.limit()
    }

    /// The busiest listeners.
    pub fn listeners(&self) -> Vec<Listener> {
        self.listeners.top()
    }

    fn transition(&mut self, event: &Transition) -> Applied<'_> {
        let (old, new) = (event.old, event.new);
        self.totals.transitions[old.index()][new.index()] += 1;
        if old == State::Listen && new == State::SynReceived {
            return self.embryo(event);
        }
        let Some(slot) = self.slot_for(event) else { return Applied { connection: None, in_state_ns: None } };
        let entered = self.table.get(slot).entered_ns[old.index()];
        let in_state_ns = (entered != 0).then(|| event.time_ns.saturating_sub(entered));
        let before = self.table.get(slot).state;
        let connection = self.table.get_mut(slot);
        note(connection, event);
        if new != before {
            self.tracked[before.index()] -= 1;
            self.tracked[new.index()] += 1;
        }
        if new == State::Established
            && old != State::Established
            && let Some(role) = self.table.get(slot).role
        {
            self.totals.established[role.index()] += 1;
        }
        if new == State::Closed && old != State::Closed {
            self.closing.push_back((event.time_ns, event.ends.cookie));
        }
        self.table.touch(slot);
        Applied { connection: Some(self.table.get(slot)), in_state_ns }
    }

    /// The slot of a transition's connection, in state `old` with everything before this event in it.
    fn slot_for(&mut self, event: &Transition) -> Option<Slot> {
        let (old, new) = (event.old, event.new);
        let found = self.table.find(event.ends.cookie);
        let birth = old == State::Closed && matches!(new, State::SynSent | State::Listen);
        if birth {
            if let Some(slot) = found {
                self.supersede(slot);
            }
            let role = (new == State::SynSent).then_some(Role::Client);
            if role.is_some() {
                self.totals.opened[Role::Client.index()] += 1;
            } else {
                self.listeners.opened(event.ends.netns, event.ends.local_port, 0);
            }
            return Some(self.insert(&begin(event, role, true)));
        }
        if let Some(slot) = found {
            if self.table.get(slot).state != old {
                self.totals.gaps += 1;
            }
            return Some(slot);
        }
        if old == State::SynReceived {
            if let Some(mut embryo) = self.embryos.remove(&event.ends.sock) {
                self.tracked[embryo.state.index()] -= 1;
                embryo.ends.cookie = event.ends.cookie;
                return Some(self.insert(&embryo));
            }
            // Its birth was lost or filtered out; it lies microseconds back.
            self.opened_server(&event.ends);
            return Some(self.insert(&begin(event, Some(Role::Server), true)));
        }
        if old == State::Closed || (old == State::Listen && new == State::Closed) {
            return None; // CLOSED → CLOSED, or a listener that is older than the agent: nothing to track
        }
        self.totals.unknown_connections += 1;
        Some(self.insert(&begin(event, None, false)))
    }

    fn embryo(&mut self, event: &Transition) -> Applied<'_> {
        if self.embryos.contains_key(&event.ends.sock) || self.embryos.len() >= EMBRYOS {
            // The address is used again, so that the last child there was lost; or something makes children without end.
            let sock = if self.embryos.contains_key(&event.ends.sock) {
                Some(event.ends.sock)
            } else {
                self.embryos.keys().next().copied()
            };
            if let Some(sock) = sock {
                self.lose_embryo(sock);
            }
        }
        self.opened_server(&event.ends);
        let mut child = begin(event, Some(Role::Server), true);
        note(&mut child, event);
        self.tracked[child.state.index()] += 1;
        let child = &*self.embryos.entry(event.ends.sock).insert(child).into_mut();
        Applied { connection: Some(child), in_state_ns: None }
    }

    fn opened_server(&mut self, ends: &Ends) {
        self.totals.opened[Role::Server.index()] += 1;
        self.listeners.opened(ends.netns, ends.local_port, 1);
    }

    fn lose_embryo(&mut self, sock: u64) {
        if let Some(embryo) = self.embryos.remove(&sock) {
            self.tracked[embryo.state.index()] -= 1;
            self.totals.missed_closes += 1;
            self.push_ended(&embryo, End::Lost);
        }
    }

    fn retransmit(&mut self, event: &Retransmit) -> Applied<'_> {
        let segments = u64::from(event.segments);
        if event.syn {
            self.totals.retransmits_syn += segments;
        } else {
            self.totals.retransmits_data += segments;
        }
        self.touch_with(event.ends.cookie, event.time_ns, |connection| {
            let count = if event.syn { &mut connection.retransmits_syn } else { &mut connection.retransmits_data };
            *count = count.saturating_add(event.segments);
            if connection.first_retransmit_ns == 0 {
                connection.first_retransmit_ns = event.time_ns;
            }
            learn(&mut connection.ends, &event.ends);
        })
    }

    fn reset(&mut self, event: &Reset) -> Applied<'_> {
        match event.direction {
            Direction::Receive => self.totals.resets_received += 1,
            Direction::Transmit => {
                let reason = event.reason.unwrap_or(synfin_common::event::NO_REASON);
                *self.totals.resets_sent.entry(reason).or_default() += 1;
            }
        }
        self.touch_with(event.ends.cookie, event.time_ns, |connection| match event.direction {
            Direction::Receive => connection.resets_received = connection.resets_received.saturating_add(1),
            Direction::Transmit => {
                connection.resets_sent = connection.resets_sent.saturating_add(1);
                connection.reset_reason = event.reason;
            }
        })
    }

    fn touch_with(&mut self, cookie: u64, time_ns: u64, change: impl FnOnce(&mut Connection)) -> Applied<'_> {
        let connection = self.table.find(cookie).map(|slot| {
            self.table.touch(slot);
            let connection = self.table.get_mut(slot);
            connection.last_ns = connection.last_ns.max(time_ns);
            change(connection);
            &*connection
        });
        Applied { connection, in_state_ns: None }
    }

    fn destroy(&mut self, event: &Destroy) -> Applied<'_> {
        // A fast open child that was given up before any other event of it.
        self.lose_embryo(event.sock);
        if let Some(slot) = self.table.find(event.cookie).filter(|slot| self.table.get(*slot).closed_ns == 0) {
            self.lose(slot);
        }
        // A closed one waits for its grace: its RST may still come.
        Applied { connection: None, in_state_ns: None }
    }

    /// Another connection begins on the socket: this one is over.
    fn supersede(&mut self, slot: Slot) {
        if self.table.get(slot).closed_ns == 0 {
            self.lose(slot);
        } else {
            self.finish(slot, None);
        }
    }

    fn lose(&mut self, slot: Slot) {
        self.totals.missed_closes += 1;
        self.finish(slot, Some(End::Lost));
    }

    fn insert(&mut self, connection: &Connection) -> Slot {
        if self.table.is_full() {
            self.fold_oldest();
        }
        self.tracked[connection.state.index()] += 1;
        self.table.insert(connection)
    }

    fn fold_oldest(&mut self) {
        let Some(slot) = self.table.oldest() else { return };
        if self.table.get(slot).closed_ns != 0 {
            self.finish(slot, None); // it has ended and only its grace is cut short
        } else {
            self.totals.folded += 1;
            self.finish(slot, Some(End::Folded));
        }
    }

    fn finish(&mut self, slot: Slot, end: Option<End>) {
        let connection = self.table.remove(slot);
        self.tracked[connection.state.index()] -= 1;
        let end = end.unwrap_or_else(|| end::classify(&connection));
        self.push_ended(&connection, end);
    }

    fn push_ended(&mut self, connection: &Connection, end: End) {
        if connection.left == State::Listen || connection.state == State::Listen {
            return; // a listener, no connection
        }
        if connection.role == Some(Role::Server) {
            self.listeners.ended(connection.ends.netns, connection.ends.local_port);
        }
        self.totals.add_end(connection, end);
        self.ended.push(Ended { connection: *connection, end });
    }
}

/// A connection whose first event this is, as it was just before.
fn begin(event: &Transition, role: Option<Role>, birth_seen: bool) -> Connection {
    Connection {
        ends: event.ends,
        role,
        state: event.old,
        first_ns: event.time_ns,
        birth_seen,
        entered_ns: [0; State::LIMIT],
        last_ns: event.time_ns,
        closed_ns: 0,
        closed_first: None,
        simultaneous: false,
        fin_received: false,
        orphan: false,
        left: event.old,
        errno: 0,
        retransmits_syn: 0,
        retransmits_data: 0,
        first_retransmit_ns: 0,
        resets_sent: 0,
        resets_received: 0,
        reset_reason: None,
        sequence_pair: None,
        measures: None,
        owner: None,
        cgroup: event.cgroup,
    }
}

/// Writes a transition into its connection.
fn note(connection: &mut Connection, event: &Transition) {
    let (old, new) = (event.old, event.new);
    learn(&mut connection.ends, &event.ends);
    connection.last_ns = connection.last_ns.max(event.time_ns);
    connection.fin_received |= event.fin_received;
    connection.orphan = event.orphan;
    if event.cgroup != 0 {
        connection.cgroup = event.cgroup;
    }
    if event.owner_context {
        connection.owner = Some(event.task);
    }
    if event.measures.is_some() {
        connection.measures = event.measures;
    }
    if old == new {
        return; // close() on a socket in FIN_WAIT_2 reports FIN_WAIT_2 → FIN_WAIT_2; nothing is entered or left
    }
    if new != State::Closed {
        let entered = &mut connection.entered_ns[new.index()];
        if *entered == 0 {
            *entered = event.time_ns;
        }
    }
    connection.state = new;
    match (old, new) {
        (_, State::Established) => {
            // Without a role nobody can say which number is the client's.
            connection.sequence_pair = match (connection.role, event.measures) {
                (Some(Role::Client), Some(measures)) => Some((measures.snd_una, measures.rcv_nxt)),
                (Some(Role::Server), Some(measures)) => Some((measures.rcv_nxt, measures.snd_una)),
                _ => None,
            };
        }
        (_, State::CloseWait) => _ = connection.closed_first.get_or_insert(Side::Peer),
        (_, State::FinWait1) => _ = connection.closed_first.get_or_insert(Side::Local),
        (_, State::Closing) => connection.simultaneous = true,
        (_, State::Closed) => {
            connection.left = old;
            connection.errno = event.errno;
            connection.closed_ns = event.time_ns;
            connection.entered_ns[State::Closed.index()] = event.time_ns;
        }
        _ => {}
    }
}

/// Fills in what an event knows and the connection did not; never forgets (at the end the kernel's ports may be gone).
fn learn(known: &mut Ends, event: &Ends) {
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

fn is_unspecified(address: &[u8; 16]) -> bool {
    std::net::Ipv6Addr::from(*address).to_canonical().is_unspecified()
}

#[cfg(test)]
mod tests;
