//! The ledger: every connection from its first event to its end.
//!
//! Synchronous, without a clock of its own, without allocation for an event in steady state. Events of one socket come
//! in the kernel's order (the socket's lock orders them and the ring keeps it), but any of them may be missing: each is
//! taken at its word, and what it contradicts is counted.
//!
//! A connection is found by its socket's cookie, or by its address as long as the socket has none: only `tp_btf` programs
//! can make cookies, elsewhere most sockets live without. One socket may carry several connections, so that a birth always
//! starts a new one. A child has no settled cookie at LISTEN → SYN_RECV and waits among the embryos, by address, for its
//! next event.

mod books;
mod connection;
mod counts;
mod course;
mod embryo;
mod end;
mod listeners;
mod oldest;
mod reconcile;
mod sweep;
mod table;
mod totals;
mod tuple;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use books::Books;
pub use connection::{Checkpoint, Connection, End, Role, Side, seconds};
pub use counts::Counts;
use counts::carried;
use course::{begin, continues, learn, note};
pub use listeners::{LISTENERS, Listener};
pub use oldest::{CloseWaits, Oldest};
use reconcile::Comparison;
pub use reconcile::{Corrections, Owners};
use sweep::Sweep;
pub use sweep::Visit;
use table::{Slot, Table};
pub use totals::Totals;

use crate::accounts::{self, Shared};
use crate::event::{Cause, Destroy, Direction, Ends, Event, Measures, Reset, Retransmit, State, Transition};

/// How long a closed connection waits for its last words, in event time. The kernel sends the RST of an abort some
/// microseconds after it has reported CLOSED; a preempted task may take a time slice or two.
const GRACE_NS: u64 = 100_000_000;

/// Connections whose grace is over that are fetched together: as many misses as a processor waits for at once.
const BATCH: usize = 16;

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

impl Applied<'_> {
    const NOTHING: Self = Self { connection: None, in_state_ns: None };
}

/// Every connection, bounded.
#[derive(Debug)]
pub struct Ledger {
    table: Table,
    /// Children between LISTEN → SYN_RECV and their next event, by the address of their socket.
    embryos: HashMap<u64, Connection>,
    /// Closed connections that a RST may still explain, in the order of their close: (time of close, what their socket is known by).
    closing: VecDeque<(u64, u64)>,
    tracked: [u64; State::LIMIT],
    books: Books,
    sweep: Sweep,
    comparison: Option<Comparison>,
    /// Comparisons begun.
    generation: u32,
    /// When the last complete comparison began.
    compared_ns: u64,
}

impl Ledger {
    /// A ledger that holds at most `limit` connections.
    pub fn new(limit: usize) -> Self {
        Self {
            table: Table::new(limit),
            embryos: HashMap::new(),
            closing: VecDeque::new(),
            tracked: [0; State::LIMIT],
            books: Books::new(),
            sweep: Sweep::default(),
            comparison: None,
            generation: 0,
            compared_ns: 0,
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
        let is_over = |closed_ns: u64| now_ns.saturating_sub(closed_ns) >= GRACE_NS;
        loop {
            let due = self.closing.iter().take(BATCH).take_while(|(closed_ns, _)| is_over(*closed_ns)).count();
            if due == 0 {
                break;
            }
            // What has been closed for so long has left the caches: fetched together, they are waited for once.
            for (_, key) in self.closing.range(..due) {
                self.table.fetch(*key);
            }
            for _ in 0..due {
                let Some((closed_ns, key)) = self.closing.pop_front() else { break };
                self.end_closed(closed_ns, key);
            }
        }
    }

    /// Ends every connection that has been closed, whatever its grace: for the last moment of a run.
    pub fn settle(&mut self) {
        while let Some((closed_ns, key)) = self.closing.pop_front() {
            self.end_closed(closed_ns, key);
        }
    }

    fn end_closed(&mut self, closed_ns: u64, key: u64) {
        // A socket that was connected again has another time of close, or none.
        let Some(slot) = self.table.find(key) else { return };
        let connection = self.table.get(slot);
        if connection.is_closed() && connection.closed_ns == closed_ns {
            self.finish(slot, None);
        }
    }

    /// Connections that ended since the last call, moved into `into`.
    pub fn take_ended(&mut self, into: &mut Vec<Ended>) {
        if into.is_empty() {
            std::mem::swap(into, &mut self.books.ended); // without a copy
        } else {
            into.append(&mut self.books.ended);
        }
    }

    /// What was counted since start.
    pub const fn totals(&self) -> &Totals {
        &self.books.totals
    }

    /// The same by the cgroup of sockets: the sum over all is what the totals count, as long as none was let go.
    pub fn accounts(&mut self, now_ns: u64) -> Arc<[Shared<Counts>]> {
        self.books.accounts.share(now_ns)
    }

    /// Lets go of cgroups of whom nothing was heard since `before_ns`.
    pub fn expire_accounts(&mut self, before_ns: u64) {
        self.books.accounts.expire(before_ns);
    }

    /// For what is tallied in the kernel.
    pub const fn totals_mut(&mut self) -> &mut Totals {
        &mut self.books.totals
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
        self.books.listeners.top()
    }

    fn transition(&mut self, event: &Transition) -> Applied<'_> {
        let (old, new) = (event.old, event.new);
        self.books.count(event.cgroup, |counts| counts.transitions[old.index()][new.index()] += 1);
        if old == State::Listen && new == State::SynReceived {
            return self.embryo(event);
        }
        let Some(slot) = self.slot_for(event) else { return Applied::NOTHING };
        self.carry(slot, event.measures, event.fin_received);
        let connection = self.table.get_mut(slot);
        let before = connection.state;
        let entered = connection.entered_ns[old.index()];
        let in_state_ns = (entered != 0 && new != old).then(|| event.time_ns.saturating_sub(entered));
        note(connection, event);
        if new != before {
            self.tracked[before.index()] -= 1;
            self.tracked[new.index()] += 1;
        }
        if before == State::Listen && new == State::Closed {
            self.finish(slot, None); // a listener: no RST will explain its end
            return Applied::NOTHING;
        }
        if new == State::Established
            && old != State::Established
            && let Some(role) = self.table.get(slot).role
        {
            self.books.count(event.cgroup, |counts| counts.established[role.index()] += 1);
        }
        if new == State::Closed && before != State::Closed {
            self.books.leave_listener(self.table.get(slot));
        }
        if new == State::Closed && old != State::Closed {
            if end::is_final(self.table.get(slot), event) {
                self.finish(slot, None);
                return Applied { connection: self.books.ended.last().map(|ended| &ended.connection), in_state_ns };
            }
            self.closing.push_back((event.time_ns, table::key(&event.ends)));
        }
        self.table.touch(slot);
        Applied { connection: Some(self.table.get(slot)), in_state_ns }
    }

    /// The slot of a transition's connection, with everything before this event in it.
    fn slot_for(&mut self, event: &Transition) -> Option<Slot> {
        let (old, new) = (event.old, event.new);
        let found = self.find(&event.ends);
        if let Some(slot) = found {
            let connection = self.table.get(slot);
            if continues(connection.state, old, new) {
                if connection.state != old {
                    self.books.totals.gaps += 1;
                }
                self.learn_cookie(slot, &event.ends);
                return Some(slot);
            }
            self.supersede(slot);
        }
        match (old, new) {
            (State::Closed, State::SynSent) => {
                self.lose_embryo(event.ends.sock); // whatever was at this address is no more
                self.books.count(event.cgroup, |counts| counts.opened[Role::Client.index()] += 1);
                return Some(self.insert(&begin(event, Some(Role::Client), true)));
            }
            (_, State::Listen) => {
                self.lose_embryo(event.ends.sock);
                self.books.listeners.opened(event.ends.netns, event.ends.local_port, 0);
                return Some(self.insert(&begin(event, None, old == State::Closed)));
            }
            // CLOSED → CLOSED, or a listener that is older than the agent: nothing to track.
            (State::Closed, _) | (State::Listen, State::Closed) => return None,
            _ => {}
        }
        // A cookie that was known is no child's: children have new ones.
        if found.is_none() {
            if let Some(slot) = self.hatch(&event.ends) {
                if old != State::SynReceived {
                    self.books.totals.gaps += 1;
                }
                return Some(slot);
            }
            if old == State::SynReceived {
                // Its birth was lost or filtered out; it lies microseconds back.
                self.books.opened_server(event);
                return Some(self.insert(&begin(event, Some(Role::Server), true)));
            }
        }
        self.books.totals.unknown_connections += 1;
        Some(self.insert(&begin(event, None, false)))
    }

    /// The connection on a socket.
    fn find(&mut self, ends: &Ends) -> Option<Slot> {
        if ends.cookie != 0
            && let Some(slot) = self.table.find(ends.cookie)
        {
            return Some(slot);
        }
        let slot = self.table.find_address(ends.sock)?;
        if may_share_socket(&self.table.get(slot).ends, ends) {
            return Some(slot);
        }
        self.supersede(slot); // another socket at this address
        None
    }

    /// A socket known by its address may get a cookie at any time: whoever asks for it first (`ss`, a classic tracepoint)
    /// makes it.
    fn learn_cookie(&mut self, slot: Slot, ends: &Ends) {
        let connection = self.table.get(slot);
        if ends.cookie == 0 || connection.ends.cookie != 0 {
            return;
        }
        if connection.is_closed() {
            self.closing.push_back((connection.closed_ns, ends.cookie));
        }
        self.table.give_cookie(slot, ends.cookie);
    }

    /// Counts the bytes that a socket has carried since it was last heard of.
    fn carry(&mut self, slot: Slot, now: Option<Measures>, fin_received: bool) {
        let Some(now) = now else { return };
        let connection = self.table.get(slot);
        let before = match connection.measures {
            Some(before) => carried(&before, connection.fin_measured),
            None if connection.birth_seen => [0; 2],
            None => return, // what it carried before it was known is not this agent's to count
        };
        let now = carried(&now, fin_received || connection.fin_received);
        let cgroup = connection.cgroup;
        let bytes = [now[0].saturating_sub(before[0]), now[1].saturating_sub(before[1])];
        if bytes != [0; 2] {
            self.books.count(cgroup, |counts| {
                for (sum, bytes) in counts.bytes.iter_mut().zip(bytes) {
                    *sum += bytes;
                }
            });
        }
    }

    fn retransmit(&mut self, event: &Retransmit) -> Applied<'_> {
        let segments = u64::from(event.segments);
        let cause = event.cause().map_or(Cause::ALL.len(), Cause::index);
        let slot = self.known(&event.ends);
        self.books.count(self.cgroup_of(slot), |counts| {
            if event.syn {
                counts.retransmits_syn += segments;
            } else {
                counts.retransmits_data[cause] += segments;
            }
        });
        self.touch_with(slot, &event.ends, event.time_ns, |connection| {
            let count = if event.syn { &mut connection.retransmits_syn } else { &mut connection.retransmits_data };
            *count = count.saturating_add(event.segments);
            if connection.first_retransmit_ns == 0 {
                connection.first_retransmit_ns = event.time_ns;
            }
            learn(&mut connection.ends, &event.ends);
        })
    }

    fn reset(&mut self, event: &Reset) -> Applied<'_> {
        let slot = self.known(&event.ends);
        self.books.count(self.cgroup_of(slot), |counts| match event.direction {
            Direction::Receive => counts.resets_received += 1,
            Direction::Transmit => {
                let reason = event.reason.unwrap_or(synfin_common::event::NO_REASON);
                *counts.resets_sent.entry(reason).or_default() += 1;
            }
        });
        self.touch_with(slot, &event.ends, event.time_ns, |connection| match event.direction {
            Direction::Receive => connection.resets_received = connection.resets_received.saturating_add(1),
            Direction::Transmit => {
                connection.resets_sent = connection.resets_sent.saturating_add(1);
                connection.reset_reason = event.reason;
            }
        })
    }

    /// The connection on a socket, an embryo included.
    fn known(&mut self, ends: &Ends) -> Option<Slot> {
        self.find(ends).or_else(|| self.hatch(ends))
    }

    fn cgroup_of(&self, slot: Option<Slot>) -> u64 {
        slot.map_or(accounts::NOBODY, |slot| self.table.get(slot).cgroup)
    }

    fn touch_with(
        &mut self,
        slot: Option<Slot>,
        ends: &Ends,
        time_ns: u64,
        change: impl FnOnce(&mut Connection),
    ) -> Applied<'_> {
        let connection = slot.map(|slot| {
            self.learn_cookie(slot, ends);
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
        let by_cookie = (event.cookie != 0).then(|| self.table.find(event.cookie)).flatten();
        let by_address = self.table.find_address(event.sock);
        for slot in [by_cookie, by_address].into_iter().flatten() {
            if !self.table.get(slot).is_closed() {
                self.lose(slot);
            }
        }
        // A closed one waits for its grace: its RST may still come.
        Applied::NOTHING
    }

    /// Another connection begins on the socket: this one is over.
    fn supersede(&mut self, slot: Slot) {
        if self.table.get(slot).is_closed() {
            self.finish(slot, None);
        } else {
            self.lose(slot);
        }
    }

    fn lose(&mut self, slot: Slot) {
        self.books.totals.missed_closes += 1;
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
        let oldest = self.table.get(slot);
        if oldest.is_closed() || oldest.is_listener() {
            self.finish(slot, None); // it has ended and only its grace is cut short; or it is no connection
        } else {
            self.books.totals.folded += 1;
            self.finish(slot, Some(End::Folded));
        }
    }

    fn finish(&mut self, slot: Slot, end: Option<End>) {
        let connection = self.table.get(slot);
        if let Some(comparison) = &mut self.comparison {
            comparison.note_gone(&connection.ends);
        }
        self.tracked[connection.state.index()] -= 1;
        self.books.end(connection, end.unwrap_or_else(|| end::classify(connection)));
        self.table.remove(slot);
    }
}

/// Whether what is known of a socket fits what is said of the one at the same address. A port of 0 is not known.
fn may_share_socket(known: &Ends, said: &Ends) -> bool {
    let ports = (known.local_port, said.local_port);
    known.netns == said.netns && (ports.0 == 0 || ports.1 == 0 || ports.0 == ports.1)
}

#[cfg(test)]
mod tests;
