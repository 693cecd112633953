//! Comparing the ledger with a listing of the kernel's sockets.
//!
//! A listing is no snapshot: each socket is looked at at its own moment, and events have gone on since. So a socket says
//! something only if nothing has been heard of it since shortly before that moment; what left the ledger meanwhile is remembered, so
//! that it is not adopted from the dead. All events up to the end of a part of the listing must have been applied before the
//! part is compared.

use hashbrown::{HashMap, HashSet};

use super::connection::{Connection, Role};
use super::course::{closer, continues, learn};
use super::table::{self, Slot};
use super::tuple::{Addresses, Match, Tuple};
use super::{Ledger, may_share_socket};
use crate::census::{Form, Socket};
use crate::event::{Ends, State, Task};

/// A program notes the time of a transition before the kernel makes it. A listing that looks in between, or shortly after,
/// may still find the old state.
const SETTLE_NS: u64 = 10_000_000;

/// How long the ledger may be ahead of the kernel: between the note and the state that it tells of, a task in its own context (close,
/// shutdown) can be preempted.
const AHEAD_NS: u64 = 1_000_000_000;

/// What a comparison has put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Corrections {
    /// Connections and listeners that the ledger did not know.
    pub adopted: u64,
    /// Those in another state than the ledger believed.
    pub stale: u64,
    /// Those that the kernel no longer has.
    pub missed_closes: u64,
    /// Those that the kernel did not list this time: gone if it does not list them the next time either.
    pub suspects: u64,
}

/// A comparison under way.
#[derive(Debug)]
pub(super) struct Comparison {
    began_ns: u64,
    corrections: Corrections,
    gone: Gone,
    /// Embryos that were met without an address.
    embryos: HashSet<u64>,
}

/// Sockets whose connections have left the ledger since the comparison began.
#[derive(Debug, Default)]
struct Gone {
    /// Their cookies, and the addresses of all.
    keys: HashSet<u64>,
    /// Addresses of those that were known by nothing else. The kernel may have listed them under a cookie.
    addresses: HashSet<u64>,
    /// Their ends: inet_diag tells no address.
    tuples: HashSet<Tuple>,
}

/// What is known of a connection beside itself: for comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sighting {
    /// The last comparison that met its socket.
    pub(super) generation: u32,
    /// The last complete comparison did not.
    pub(super) missing: bool,
}

/// Processes that hold sockets, by the inode of the socket file.
pub type Owners = HashMap<u64, Task>;

impl Comparison {
    pub(super) fn note_gone(&mut self, ends: &Ends) {
        let Gone { keys, addresses, tuples } = &mut self.gone;
        // A listing may know the socket by either.
        keys.insert(table::address(ends.sock));
        if ends.cookie == 0 {
            addresses.insert(ends.sock);
            tuples.insert(Tuple::of(ends));
        } else {
            keys.insert(ends.cookie);
        }
    }

    pub(super) fn has_met(&self, embryo: u64) -> bool {
        self.embryos.contains(&embryo)
    }

    fn is_gone(&self, ends: &Ends) -> bool {
        let Gone { keys, addresses, tuples } = &self.gone;
        match (ends.cookie, ends.sock) {
            (0, sock) => keys.contains(&table::address(sock)),
            (cookie, 0) => keys.contains(&cookie) || tuples.contains(&Tuple::of(ends)),
            (cookie, sock) => keys.contains(&cookie) || addresses.contains(&sock),
        }
    }
}

/// Whether a connection in this state has got the peer's FIN.
const fn has_fin(state: State) -> bool {
    matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait)
}

impl Ledger {
    /// Begins a comparison with a listing that begins after `now_ns`. A comparison that is under way is given up.
    pub fn begin_comparison(&mut self, now_ns: u64) {
        self.generation = self.generation.wrapping_add(1);
        self.comparison = Some(Comparison {
            began_ns: now_ns,
            corrections: Corrections::default(),
            gone: Gone::default(),
            embryos: HashSet::new(),
        });
    }

    /// Gives up the comparison that is under way, e.g. because the listing failed. What was put right stays.
    pub fn abandon_comparison(&mut self) {
        self.comparison = None;
    }

    /// Compares a part of the listing. Every event up to the latest `time_ns` of the sockets has been applied.
    pub fn compare(&mut self, sockets: &[Socket], owners: &Owners) {
        let mut addresses = None;
        for socket in sockets {
            if socket.ends.sock != 0 || self.table.find(socket.ends.cookie).is_some() {
                self.compare_one(socket, owners);
                continue;
            }
            match self.match_ends(socket, &mut addresses) {
                Some(Match::Alike(sock)) => {
                    if let Some(slot) = self.table.find_address(sock) {
                        self.sight(slot);
                    }
                }
                Some(Match::Embryo(sock)) => {
                    if let Some(embryo) = self.embryos.get_mut(&sock) {
                        embryo.last_ns = embryo.last_ns.max(socket.time_ns);
                    }
                    if let Some(comparison) = &mut self.comparison {
                        comparison.embryos.insert(sock);
                    }
                }
                Some(Match::Address(sock)) => {
                    let ends = Ends { sock, ..socket.ends };
                    self.compare_one(&Socket { ends, ..*socket }, owners);
                }
                None => self.compare_one(socket, owners),
            }
        }
    }

    /// Finds a socket without address among those of which nothing but the address is known.
    fn match_ends(&self, socket: &Socket, addresses: &mut Option<Addresses>) -> Option<Match> {
        if !self.table.has_addressed() && self.embryos.is_empty() {
            return None;
        }
        addresses.get_or_insert_with(|| Addresses::of(self)).take(&socket.ends, socket.state)
    }

    fn compare_one(&mut self, socket: &Socket, owners: &Owners) {
        if self.comparison.is_none() || socket.form != Form::Full || socket.state == State::Closed {
            return;
        }
        if let Some(slot) = self.listed(&socket.ends).or_else(|| self.hatch_listed(socket)) {
            self.meet(slot, socket, owners);
        } else if self.comparison.as_ref().is_some_and(|comparison| !comparison.is_gone(&socket.ends))
            && !self.embryos.contains_key(&socket.ends.sock)
        {
            self.adopt(socket, owners);
        }
    }

    /// Ends the comparison: the listing has met every socket of the namespaces `walked`. Answers what was put right.
    pub fn end_comparison(&mut self, walked: &[u32]) -> Corrections {
        let Some(comparison) = self.comparison.take() else { return Corrections::default() };
        let Comparison { began_ns, mut corrections, .. } = comparison;
        let generation = self.generation;
        let unmet: Vec<Slot> = self
            .table
            .slots()
            .filter(|slot| {
                let connection = self.table.get(*slot);
                self.table.sighting(*slot).generation != generation
                    && !connection.is_closed()
                    && connection.last_ns.saturating_add(SETTLE_NS) < began_ns
                    && walked.contains(&connection.ends.netns)
            })
            .collect();
        for slot in unmet {
            let sighting = self.table.sighting_mut(slot);
            if sighting.missing {
                corrections.missed_closes += 1;
                self.lose(slot);
            } else {
                // Iterators may skip a socket when a bucket changes under them.
                sighting.missing = true;
                corrections.suspects += 1;
            }
        }
        // An embryo that is met hatches; one that two listings did not meet is gone.
        let gone: Vec<u64> = self
            .embryos
            .iter()
            .filter(|(_, embryo)| {
                embryo.last_ns.saturating_add(SETTLE_NS) < self.compared_ns && walked.contains(&embryo.ends.netns)
            })
            .map(|(sock, _)| *sock)
            .collect();
        corrections.missed_closes += gone.len() as u64;
        for sock in gone {
            self.lose_embryo(sock);
        }
        self.compared_ns = began_ns;
        corrections
    }

    /// The connection on a listed socket. Unlike `find`, it believes the ledger where the two contradict each other: the listing may be
    /// the older one.
    fn listed(&self, ends: &Ends) -> Option<Slot> {
        let by_cookie = (ends.cookie != 0).then(|| self.table.find(ends.cookie)).flatten();
        by_cookie.or_else(|| self.table.find_address(ends.sock))
    }

    /// An embryo that has been silent for longer than children are, although its socket lives: its next event was lost.
    fn hatch_listed(&mut self, socket: &Socket) -> Option<Slot> {
        let embryo = self.embryos.get(&socket.ends.sock)?;
        if embryo.last_ns.saturating_add(SETTLE_NS) >= socket.time_ns || !may_share_socket(&embryo.ends, &socket.ends) {
            return None;
        }
        self.hatch(&socket.ends)
    }

    fn meet(&mut self, slot: Slot, socket: &Socket, owners: &Owners) {
        self.sight(slot);
        let connection = self.table.get(slot);
        let (from, to) = (connection.state, socket.state);
        let ahead = from != to && (connection.is_closed() || continues(to, from, from));
        let settle = if ahead { AHEAD_NS } else { SETTLE_NS };
        if connection.last_ns.saturating_add(settle) >= socket.time_ns {
            return; // the ledger knows better
        }
        let same_socket = may_share_socket(&connection.ends, &socket.ends);
        if !same_socket || connection.is_closed() || !(from == to || continues(from, to, to)) {
            // Another connection: its birth was lost, and the end of this one if it has not closed.
            self.supersede(slot);
            self.adopt(socket, owners);
            return;
        }
        self.learn_cookie(slot, &socket.ends);
        if from != to {
            self.tracked[from.index()] -= 1;
            self.tracked[to.index()] += 1;
            self.books.totals.stale_states += 1;
            self.correct(|corrections| corrections.stale += 1);
        }
        self.carry(slot, socket.measures, has_fin(to));
        let connection = self.table.get_mut(slot);
        connection.state = to;
        connection.fin_received |= has_fin(to);
        learn(&mut connection.ends, &socket.ends);
        connection.closed_first = connection.closed_first.or(closer(to));
        if socket.measures.is_some() {
            connection.measures = socket.measures;
            connection.fin_measured = connection.fin_received;
        }
        connection.owner = connection.owner.or_else(|| owners.get(&socket.inode).copied());
        if connection.cgroup == 0 {
            connection.cgroup = socket.cgroup;
        }
    }

    /// Takes in a socket that no event has told of, or none that arrived.
    fn adopt(&mut self, socket: &Socket, owners: &Owners) {
        let is_listener = socket.state == State::Listen;
        let ends = socket.ends;
        // Listeners are listed first. A client on a listener's port is possible and rare.
        let accepted = !is_listener && self.books.listeners.knows(ends.netns, ends.local_port);
        if is_listener {
            self.books.listeners.opened(ends.netns, ends.local_port, 0);
        } else {
            self.books.totals.adopted += 1;
            if accepted {
                self.books.listeners.adopted(ends.netns, ends.local_port);
            }
        }
        // It was there when it last sent or received something.
        let quiet = socket.established_ago_ns().unwrap_or(0);
        let mut connection = Connection::new(ends, socket.state, socket.time_ns);
        connection.role = accepted.then_some(Role::Server);
        connection.first_ns = socket.time_ns.saturating_sub(quiet);
        connection.fin_received = has_fin(socket.state);
        connection.closed_first = closer(socket.state);
        connection.measures = socket.measures;
        connection.fin_measured = connection.fin_received;
        connection.owner = owners.get(&socket.inode).copied();
        connection.cgroup = socket.cgroup;
        let slot = self.insert(&connection);
        self.sight(slot);
        self.correct(|corrections| corrections.adopted += 1);
    }

    /// The comparison under way has met its socket.
    fn sight(&mut self, slot: Slot) {
        *self.table.sighting_mut(slot) = Sighting { generation: self.generation, missing: false };
    }

    fn correct(&mut self, change: impl FnOnce(&mut Corrections)) {
        if let Some(comparison) = &mut self.comparison {
            change(&mut comparison.corrections);
        }
    }
}
