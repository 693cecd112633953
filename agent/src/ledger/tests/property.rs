//! Any order and loss of events: the books balance after each of them, nothing dead stays, and where nothing was lost
//! every life is told as it was led. [`Stage`] checks the books; what follows here is about what is left.

use proptest::collection::vec;
use proptest::prelude::*;

use super::scenarios;
use super::script::{AT_ONCE, Life, NETNS, PORT, SECOND, Step, address, stranger};
use super::stage::Stage;
use crate::event::{Destroy, Direction, Ends, Event, Reset, Retransmit, State, Transition};

/// Addresses of sockets as the kernel's slab gives them: the one that was freed last comes first.
#[derive(Default)]
struct Slab {
    free: Vec<u64>,
    made: u64,
}

impl Slab {
    fn take(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.made += 1;
            0xffff_8880_0000_0000 + self.made * 0x1000
        })
    }
}

/// A life on its way.
pub(super) struct Actor {
    life: Life,
    pub(super) sock: Option<u64>,
    /// When its LISTEN → SYN_RECV came.
    born_ns: Option<u64>,
    /// The ledger was told that its socket is no more.
    destroyed: bool,
}

/// One choice of the interleaving: who is next (or that nothing happens for a while), and whether the event is lost.
pub(super) type Choice = (u8, bool);

/// Plays lives at the same time, in an order that `choices` makes. No pause comes between what the kernel does in one call.
pub(super) fn interleave(stage: &mut Stage, lives: Vec<Life>, choices: &[Choice]) -> Vec<Actor> {
    let mut slab = Slab::default();
    let mut actors: Vec<Actor> =
        lives.into_iter().map(|life| Actor { life, sock: None, born_ns: None, destroyed: false }).collect();
    let mut choices = choices.iter().copied().chain(std::iter::repeat((0, false)));
    loop {
        let waiting: Vec<usize> = (0..actors.len()).filter(|at| !actors[*at].life.steps.is_empty()).collect();
        if waiting.is_empty() {
            return actors;
        }
        let (who, lost) = choices.next().unwrap_or_default();
        let glued = |at: &usize| actors[*at].life.steps.front().is_some_and(Step::is_glued);
        if who >= 240 && !waiting.iter().any(glued) {
            stage.pass(SECOND);
            continue;
        }
        let actor = &mut actors[waiting[usize::from(who) % waiting.len()]];
        let sock = *actor.sock.get_or_insert_with(|| slab.take());
        let Some(step) = actor.life.steps.pop_front() else { continue };
        stage.now_ns += AT_ONCE;
        let event = step.at(stage.now_ns, sock);
        if !lost {
            match &event {
                Event::Transition(event) if event.old == State::Listen => actor.born_ns = Some(event.time_ns),
                Event::Destroy(_) => actor.destroyed = true,
                _ => {}
            }
            stage.apply(&event);
        }
        if actor.life.steps.is_empty() {
            slab.free.push(sock);
        }
    }
}

pub(super) fn lives(most: usize) -> impl Strategy<Value = Vec<Life>> {
    vec(0..scenarios::ALL.len(), 1..most).prop_map(|picked| {
        let each = |(id, at): (usize, usize)| scenarios::ALL[at](id as u32 + 1);
        picked.into_iter().enumerate().flat_map(each).collect()
    })
}

pub(super) fn choices(loss: f64) -> impl Strategy<Value = Vec<Choice>> {
    vec((any::<u8>(), prop::bool::weighted(loss)), 0..200)
}

/// Nothing that the ledger was told is over is still tracked.
fn assert_nothing_dead(stage: &Stage, actors: &[Actor]) {
    for actor in actors.iter().filter(|actor| actor.destroyed) {
        assert!(stage.ledger.table.find(actor.life.cookie).is_none(), "{:?}", actor.life.fates);
        let Some(born_ns) = actor.born_ns else { continue };
        assert!(stage.ledger.embryos.values().all(|embryo| embryo.first_ns != born_ns), "{:?}", actor.life.fates);
    }
}

/// Times of ended connections, where the events of each socket came in order.
fn assert_times_in_order(stage: &Stage) {
    for ended in &stage.ended {
        let connection = &ended.connection;
        assert!(connection.first_ns <= connection.last_ns);
        assert!(connection.closed_ns == 0 || connection.first_ns <= connection.closed_ns);
        assert_eq!(connection.closed_ns != 0, ended.end.is_seen(), "{connection:?}");
        let path: Vec<u64> = connection.path().map(|(_, at)| at).collect();
        assert!(path.is_sorted() && path.iter().all(|at| *at >= connection.first_ns), "{path:?}");
    }
}

/// What each owner has is what all have.
fn assert_accounts_add_up(stage: &mut Stage) {
    let mut sum = crate::ledger::Counts::default();
    for shared in &*stage.ledger.accounts(1) {
        sum.add(&shared.value);
    }
    assert_eq!(sum, stage.ledger.totals().counts);
}

/// An event as no kernel would send it: few sockets, any transition, all fields at random.
fn anything() -> impl Strategy<Value = Event> {
    let ends = (0..4_u64, 0..4_u64, 0..3_u16, prop_oneof![Just(0), 0..3_u16], 0..2_u32);
    let ends = ends.prop_map(|(cookie, sock, local, peer_port, id)| Ends {
        cookie,
        sock,
        netns: NETNS,
        local_port: PORT + local,
        peer_port,
        local: address(id, 1),
        peer: address(id, 2),
    });
    let state = || prop::sample::select(State::ALL.to_vec());
    // None, EPERM, ECONNABORTED, ECONNRESET, ETIMEDOUT
    let errno = prop::sample::select(vec![0_u16, 1, 103, 104, 110]);
    let flags = any::<[bool; 4]>();
    let time = prop_oneof![0..4_u64, 0..(u64::MAX / 2)];
    (0..12_u8, ends, (state(), state()), errno, flags, time).prop_map(
        |(kind, ends, (old, new), errno, flags, time_ns)| {
            let [fin_received, orphan, owner_context, other] = flags;
            match kind {
                0 => {
                    let direction = if other { Direction::Receive } else { Direction::Transmit };
                    Event::Reset(Reset { time_ns, ends, direction, reason: None, state: old })
                }
                1 => {
                    let (segments, total) = (u32::MAX, 0);
                    Event::Retransmit(Retransmit {
                        time_ns,
                        ends,
                        segments,
                        total,
                        state: old,
                        syn: other,
                        ca_state: 9,
                    })
                }
                2 => Event::Destroy(Destroy { time_ns, cookie: ends.cookie, sock: ends.sock, netns: ends.netns }),
                _ => Event::Transition(Transition {
                    time_ns,
                    ends,
                    old,
                    new,
                    errno,
                    fin_received,
                    orphan,
                    blind: other,
                    owner_context,
                    task: stranger(),
                    cgroup: 0,
                    measures: None,
                }),
            }
        },
    )
}

/// What happens to a ledger.
#[derive(Clone, Debug)]
enum Act {
    Event(Event),
    Tick(u64),
    Expire(u64),
    Settle,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        40 => anything().prop_map(Act::Event),
        2 => any::<u64>().prop_map(Act::Tick),
        1 => any::<u64>().prop_map(Act::Expire),
        1 => Just(Act::Settle),
    ]
}

proptest! {
    #[test]
    fn without_loss_every_life_is_told_as_it_was_led(lives in lives(12), choices in choices(0.0)) {
        let mut stage = Stage::new(1000);
        let told = lives.clone();
        let actors = interleave(&mut stage, lives, &choices);
        stage.settle();
        for life in &told {
            stage.assert_told(life);
        }
        assert!(stage.ledger.is_empty());
        assert_nothing_dead(&stage, &actors);
        assert_times_in_order(&stage);
        assert_accounts_add_up(&mut stage);
        let totals = stage.ledger.totals();
        assert_eq!((totals.unknown_connections, totals.missed_closes, totals.gaps, totals.folded), (0, 0, 0, 0));
        for role in crate::ledger::Role::ALL {
            let fates = told.iter().flat_map(|life| &life.fates).filter(|fate| fate.role == role).count() as u64;
            assert_eq!(totals.counts.opened[role.index()], fates);
            assert!(totals.established(role) + totals.counts.failures[role.index()].values().sum::<u64>() <= fates);
        }
    }

    #[test]
    fn whatever_is_lost_nothing_dead_stays(
        lives in lives(12),
        choices in prop_oneof![choices(0.05), choices(0.3), choices(0.8)],
        limit in prop_oneof![1..8_usize, Just(1000)],
    ) {
        let mut stage = Stage::new(limit);
        let actors = interleave(&mut stage, lives, &choices);
        stage.settle();
        assert_nothing_dead(&stage, &actors);
        assert_times_in_order(&stage);
        assert_accounts_add_up(&mut stage);
        for actor in &actors {
            stage.destroy(actor.life.cookie, actor.sock.unwrap_or_default());
        }
        stage.settle();
        assert!(stage.ledger.is_empty(), "{:?}", stage.ledger.tracked());
    }

    #[test]
    fn the_events_of_a_socket_may_come_in_any_order(
        events in lives(6).prop_flat_map(|lives| {
            let all = lives.into_iter().flat_map(|life| {
                let sock = life.sock();
                life.steps.into_iter().enumerate().map(move |(at, step)| step.at(at as u64 * AT_ONCE, sock))
            });
            Just(all.collect::<Vec<Event>>()).prop_shuffle()
        }),
        limit in 1..20_usize,
    ) {
        let mut stage = Stage::new(limit);
        for event in &events {
            stage.apply(event);
        }
        for event in &events {
            if let Event::Transition(Transition { ends, .. }) = event {
                stage.destroy(ends.cookie, ends.sock);
            }
        }
        stage.settle();
        assert!(stage.ledger.is_empty(), "{:?}", stage.ledger.tracked());
    }

    #[test]
    fn no_sequence_of_events_breaks_the_books(acts in vec(act(), 0..80), limit in 1..6_usize) {
        let mut stage = Stage::new(limit);
        for act in &acts {
            match act {
                Act::Event(event) => _ = stage.apply(event),
                Act::Tick(now_ns) => {
                    stage.ledger.tick(*now_ns);
                    stage.pass(0);
                }
                Act::Expire(now_ns) => {
                    stage.ledger.expire_embryos(*now_ns);
                    stage.pass(0);
                }
                Act::Settle => stage.settle(),
            }
        }
        for at in 0..4 {
            stage.destroy(at, at);
        }
        stage.settle();
        assert!(stage.ledger.is_empty(), "{:?}", stage.ledger.tracked());
    }
}
