use proptest::prelude::*;

use super::*;

/// A number, precious when odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thing(u64);

impl Item for Thing {
    fn is_precious(&self) -> bool {
        self.0 % 2 == 1
    }
}

type Settle = fn(&Queue<Thing>, &mut Vec<Thing>, usize);

/// The whole batch got its answer.
fn settle(queue: &Queue<Thing>, batch: &mut Vec<Thing>, how: Settle) {
    how(queue, batch, batch.len());
    assert!(batch.is_empty());
}

const NOW: Duration = Duration::ZERO;

fn taken(queue: &Queue<Thing>) -> Vec<u64> {
    let mut batch = Vec::new();
    queue.take(&mut batch, NOW);
    let numbers = batch.iter().map(|thing| thing.0).collect();
    settle(queue, &mut batch, Queue::exported);
    numbers
}

#[test]
fn a_full_queue_sheds_the_oldest_plain_ones_and_keeps_the_precious() {
    let queue = Queue::new(4, 8);
    queue.offer([1, 2, 3, 4].map(Thing));
    queue.offer([5, 6].map(Thing)); // 2 and 4 go
    assert_eq!(queue.counts().queue_full, 2);
    queue.offer([7].map(Thing)); // 6 goes
    queue.offer([8].map(Thing)); // nothing plain is left: the newcomer goes
    queue.offer([9].map(Thing)); // the oldest precious one goes
    assert_eq!(taken(&queue), [3, 5, 7, 9]);
    let counts = queue.counts();
    assert_eq!((counts.offered, counts.exported, counts.queue_full, counts.waiting), (9, 4, 5, 0));
}

#[test]
fn what_is_being_sent_counts_against_the_bound() {
    let queue = Queue::new(2, 2);
    queue.offer([1, 2].map(Thing));
    let mut batch = Vec::new();
    assert!(queue.take(&mut batch, NOW));
    queue.offer([3].map(Thing));
    assert_eq!(queue.counts().queue_full, 1);
    queue.put_back(&mut batch);
    queue.offer([5].map(Thing)); // 2 goes
    assert_eq!(taken(&queue), [1, 5]);
}

#[test]
fn a_batch_put_back_comes_first_and_in_order() {
    let queue = Queue::new(8, 2);
    queue.offer([2, 4, 6].map(Thing));
    let mut batch = Vec::new();
    queue.take(&mut batch, NOW);
    queue.put_back(&mut batch);
    assert_eq!(taken(&queue), [2, 4]);
    assert_eq!(taken(&queue), [6]);
}

#[test]
fn a_closed_queue_gives_what_it_has_and_ends() {
    let queue = Queue::new(8, 2);
    queue.offer([2, 4, 6].map(Thing));
    queue.close(Instant::now() + Duration::from_mins(1));
    let mut batch = Vec::new();
    for left in [2, 1] {
        assert!(queue.take(&mut batch, Duration::from_mins(1)));
        assert_eq!(batch.len(), left);
        settle(&queue, &mut batch, Queue::exported);
    }
    assert!(!queue.take(&mut batch, Duration::from_mins(1)));
    queue.finish();
    assert_eq!(queue.wait_finished(Instant::now()).exported, 3);
}

#[test]
fn without_an_answer_in_time_the_rest_is_lost_and_counted() {
    let queue = Queue::new(8, 2);
    queue.offer([2, 4, 6].map(Thing));
    let mut batch = Vec::new();
    queue.take(&mut batch, NOW);
    queue.close(Instant::now());
    assert!(!queue.back_off(Duration::from_mins(1)), "no time is left");
    assert_eq!(queue.wait_finished(Instant::now()).shutdown, 3);
    settle(&queue, &mut batch, Queue::exported); // the answer comes after the books were closed
    queue.offer([8].map(Thing));
    let counts = queue.counts();
    assert_eq!((counts.offered, counts.exported, counts.shutdown, counts.waiting), (4, 0, 4, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Offer(u8),
    Take,
    Exported(usize),
    Rejected(usize),
    PutBack,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..12).prop_map(Step::Offer),
        Just(Step::Take),
        (0usize..8).prop_map(Step::Exported),
        (0usize..8).prop_map(Step::Rejected),
        Just(Step::PutBack),
    ]
}

proptest! {
    #[test]
    fn nothing_vanishes_and_the_bound_holds(
        capacity in 1usize..20,
        most in 1usize..8,
        steps in prop::collection::vec(step(), 0..200),
        end in any::<bool>(),
    ) {
        let queue = Queue::new(capacity, most);
        let (mut next, mut batch) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Offer(count) => queue.offer((0..count).map(|_| { next += 1; Thing(next) })),
                Step::Take if batch.is_empty() => { queue.take(&mut batch, NOW); }
                Step::Take => {}
                Step::Exported(some) => { let some = some.min(batch.len()); queue.exported(&mut batch, some); }
                Step::Rejected(some) => { let some = some.min(batch.len()); queue.rejected(&mut batch, some); }
                Step::PutBack => queue.put_back(&mut batch),
            }
            let counts = queue.counts();
            prop_assert!(counts.waiting <= capacity as u64);
            prop_assert_eq!(counts.in_flight, batch.len() as u64);
            prop_assert_eq!(counts.offered, counts.exported + counts.dropped() + counts.waiting);
        }
        if end {
            queue.finish();
            let counts = queue.counts();
            prop_assert_eq!(counts.offered, counts.exported + counts.dropped());
            prop_assert_eq!(counts.waiting, 0);
        }
    }
}
