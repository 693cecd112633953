//! Plays events into a ledger, and checks after each of them what holds whatever comes.

use super::script::{Fate, Life, SOON};
use crate::event::{Destroy, Event, State};
use crate::ledger::embryo::EMBRYOS;
use crate::ledger::{Connection, End, Ended, Ledger, Role, Totals};

/// A ledger with its clock.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) ledger: Ledger,
    pub(super) now_ns: u64,
    /// Everything that ended, in the order of its end.
    pub(super) ended: Vec<Ended>,
    transitions: u64,
}

impl Stage {
    /// A stage with room for this many connections.
    pub(super) fn new(limit: usize) -> Self {
        Self { ledger: Ledger::new(limit), now_ns: 1000 * SOON, ended: Vec::new(), transitions: 0 }
    }

    /// Takes in an event as it is. Answers what it meant.
    pub(super) fn apply(&mut self, event: &Event) -> (Option<Connection>, Option<u64>) {
        self.transitions += u64::from(matches!(event, Event::Transition(_)));
        let applied = self.ledger.apply(event);
        let answer = (applied.connection.copied(), applied.in_state_ns);
        self.check();
        answer
    }

    /// Plays the next step of a life.
    pub(super) fn step(&mut self, life: &mut Life) -> (Option<Connection>, Option<u64>) {
        let Some(step) = life.steps.pop_front() else { return (None, None) };
        self.now_ns += step.after_ns;
        self.apply(&step.at(self.now_ns, life.sock()))
    }

    /// Plays a life up to its entry into a state.
    pub(super) fn play_to(&mut self, life: &mut Life, state: State) -> Connection {
        while let Some(step) = life.steps.front() {
            let there = matches!(&step.event, Event::Transition(event) if event.new == state);
            let (connection, _) = self.step(life);
            if there {
                return connection.expect("a tracked connection");
            }
        }
        panic!("the life does not come to {state:?}");
    }

    /// Plays a life, or what is left of it.
    pub(super) fn play(&mut self, mut life: Life) {
        while !life.steps.is_empty() {
            self.step(&mut life);
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        self.ledger.tick(self.now_ns);
        self.check();
    }

    /// Ends what has been closed.
    pub(super) fn settle(&mut self) {
        self.ledger.settle();
        self.check();
    }

    /// Destroys a socket, whatever it does.
    pub(super) fn destroy(&mut self, cookie: u64, sock: u64) {
        let netns = super::script::NETNS;
        self.apply(&Event::Destroy(Destroy { time_ns: self.now_ns, cookie, sock, netns }));
    }

    /// Connections that ended on this socket.
    pub(super) fn ended_on(&self, cookie: u64) -> Vec<&Ended> {
        self.ended.iter().filter(|ended| ended.connection.ends.cookie == cookie).collect()
    }

    /// The only connection that has ended on this socket.
    pub(super) fn only(&self, cookie: u64) -> &Ended {
        let ended = self.ended_on(cookie);
        assert_eq!(ended.len(), 1);
        ended[0]
    }

    /// How many connections ended in this way.
    pub(super) fn count(&self, end: End) -> u64 {
        self.ledger.totals().counts.ended[end.index()]
    }

    /// Connections (and listeners) in this state.
    pub(super) fn tracked(&self, state: State) -> u64 {
        self.ledger.tracked()[state.index()]
    }

    /// Asserts that a life was told as it was led.
    pub(super) fn assert_told(&self, life: &Life) {
        let ended = self.ended_on(life.cookie);
        let told: Vec<Option<Fate>> = ended.iter().map(|ended| fate(ended)).collect();
        assert_eq!(told, life.fates.iter().copied().map(Some).collect::<Vec<_>>());
        for Ended { connection, .. } in ended {
            assert!(connection.birth_seen);
            assert_eq!((connection.ends.peer_address(), connection.ends.peer_port), life.peer());
        }
    }

    /// What holds at every moment.
    pub(super) fn check(&mut self) {
        self.ledger.take_ended(&mut self.ended);
        let totals = self.ledger.totals();
        let tracked = self.ledger.tracked();
        let all: u64 = tracked.iter().sum();
        let live = all - tracked[State::Listen.index()];

        // Every connection that was begun has ended once or is there.
        assert_eq!(totals.counts.opened[Role::Client.index()], transitions(totals, State::Closed, State::SynSent));
        assert!(totals.counts.opened[Role::Server.index()] >= transitions(totals, State::Listen, State::SynReceived));
        let begun: u64 = totals.counts.opened.iter().sum::<u64>() + totals.unknown_connections + totals.adopted;
        assert_eq!(
            begun,
            totals.counts.ended.iter().sum::<u64>() + live,
            "begun = ended + tracked\n{totals:?}\n{tracked:?}"
        );
        for end in End::ALL {
            let count = self.ended.iter().filter(|ended| ended.end == end).count() as u64;
            assert_eq!(totals.counts.ended[end.index()], count, "{end:?} is counted as often as it is told");
        }
        assert_eq!(all, self.ledger.len() as u64, "every connection is in one state");
        assert_eq!(totals.counts.transitions_sum(), self.transitions);
        assert!(self.ledger.len() - self.ledger.embryos.len() <= self.ledger.limit());
        assert!(self.ledger.embryos.len() <= EMBRYOS);

        // A listener that was lost is counted there too.
        assert!(totals.counts.ended[End::Lost.index()] <= totals.missed_closes);
        assert_eq!(totals.counts.ended[End::Folded.index()], totals.folded);
        assert_eq!(totals.counts.time_wait.iter().sum::<u64>(), totals.counts.ended[End::TimeWait.index()]);

        let rows = self.ledger.listeners();
        let accepted = totals.counts.opened[Role::Server.index()];
        assert_eq!(rows.iter().map(|row| row.opened).sum::<u64>(), accepted);
        let is_open = |connection: &&Connection| connection.role == Some(Role::Server) && !connection.is_closed();
        let open = self.ledger.table.all().filter(is_open).count() + self.ledger.embryos.len();
        assert_eq!(rows.iter().map(|row| row.open).sum::<u64>(), open as u64, "{rows:?}");
    }
}

fn transitions(totals: &Totals, old: State, new: State) -> u64 {
    totals.counts.transitions[old.index()][new.index()]
}

/// What was told of a connection, where its part in the handshake is known.
pub(super) fn fate(ended: &Ended) -> Option<Fate> {
    let Ended { connection, end } = ended;
    let (closed_first, simultaneous) = (connection.closed_first, connection.simultaneous);
    Some(Fate { role: connection.role?, end: *end, closed_first, simultaneous })
}
