use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Numbers, precious when odd.
type Things = VecDeque<u64>;

/// How long things may wait.
const AGE: Duration = Duration::from_hours(1);

type Settle = fn(&Queue<Things>, &mut Batch<Things>, usize);

fn queue(items: usize, batch: usize) -> Queue<Things> {
    Queue::new(Bounds { items, bytes: usize::MAX, batch, age: AGE })
}

fn offer(queue: &Queue<Things>, things: impl IntoIterator<Item = u64>) {
    queue.offer(
        things,
        |thing| if thing % 2 == 1 { Worth::More } else { Worth::Least },
        |thing, line| line.push_back(thing),
    );
}

/// The whole batch got its answer.
fn settle(queue: &Queue<Things>, batch: &mut Batch<Things>, how: Settle) {
    how(queue, batch, batch.len());
    assert!(batch.is_empty());
}

const NOW: Duration = Duration::ZERO;

fn taken(queue: &Queue<Things>) -> Vec<u64> {
    let mut batch = Batch::default();
    queue.take(&mut batch, NOW);
    let numbers = batch.lines().iter().flatten().copied().collect();
    settle(queue, &mut batch, Queue::exported);
    numbers
}

#[test]
fn a_full_queue_sheds_the_oldest_plain_ones_and_keeps_the_precious() {
    let queue = queue(4, 8);
    offer(&queue, [1, 2, 3, 4]);
    offer(&queue, [5, 6]); // 2 and 4 go
    assert_eq!(queue.counts().queue_full, 2);
    offer(&queue, [7]); // 6 goes
    offer(&queue, [8]); // nothing plain is left: the newcomer goes
    offer(&queue, [9]); // the oldest precious one goes
    assert_eq!(taken(&queue), [3, 5, 7, 9]);
    let counts = queue.counts();
    assert_eq!((counts.offered, counts.exported, counts.queue_full, counts.waiting), (9, 4, 5, 0));
}

#[test]
fn what_is_worth_most_outlasts_all_else() {
    let queue = queue(3, 8);
    let offer = |thing: u64, worth| queue.offer([thing], |_| worth, |thing, line: &mut Things| line.push_back(thing));
    for (thing, worth) in [(1, Worth::Least), (2, Worth::Most), (3, Worth::More), (4, Worth::Most)] {
        offer(thing, worth);
    }
    offer(5, Worth::More); // displaces 3, the older one of the same worth
    offer(6, Worth::Least); // finds nothing that is worth as little
    offer(7, Worth::Most); // displaces 5
    offer(8, Worth::More);
    assert_eq!(taken(&queue), [2, 4, 7]);
    assert_eq!(queue.counts().queue_full, 5);
}

#[test]
fn what_is_being_sent_counts_against_the_bound() {
    let queue = queue(2, 2);
    offer(&queue, [1, 2]);
    let mut batch = Batch::default();
    assert!(queue.take(&mut batch, NOW));
    offer(&queue, [3]);
    assert_eq!(queue.counts().queue_full, 1);
    queue.put_back(&mut batch);
    offer(&queue, [5]); // 2 goes
    assert_eq!(taken(&queue), [1, 5]);
}

#[test]
fn a_batch_put_back_comes_first_and_in_order() {
    let queue = queue(8, 2);
    offer(&queue, [2, 4, 6]);
    let mut batch = Batch::default();
    queue.take(&mut batch, NOW);
    queue.put_back(&mut batch);
    assert_eq!(taken(&queue), [2, 4]);
    assert_eq!(taken(&queue), [6]);
}

#[test]
fn a_closed_queue_gives_what_it_has_and_ends() {
    let queue = queue(8, 2);
    offer(&queue, [2, 4, 6]);
    queue.close(Instant::now() + Duration::from_mins(1));
    let mut batch = Batch::default();
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
    let queue = queue(8, 2);
    offer(&queue, [2, 4, 6]);
    let mut batch = Batch::default();
    queue.take(&mut batch, NOW);
    queue.close(Instant::now());
    assert!(!queue.back_off(Duration::from_mins(1)), "no time is left");
    assert_eq!(queue.wait_finished(Instant::now()).shutdown, 3);
    settle(&queue, &mut batch, Queue::exported); // the answer comes after the books were closed
    offer(&queue, [8]);
    let counts = queue.counts();
    assert_eq!((counts.offered, counts.exported, counts.shutdown, counts.waiting), (4, 0, 4, 0));
}

#[test]
fn memory_is_bounded_too() {
    /// Each takes as many bytes as it says.
    #[derive(Debug, Default)]
    struct Heavy(VecDeque<u64>);

    impl Line for Heavy {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn bytes(&self) -> usize {
            self.0.iter().sum::<u64>() as usize
        }
        fn drop_first(&mut self, items: usize) {
            self.0.drop_first(items);
        }
        fn take(&mut self, most: usize, batch: &mut Self) {
            self.0.take(most, &mut batch.0);
        }
        fn put_back(&mut self, batch: &mut Self) {
            self.0.put_back(&mut batch.0);
        }
    }

    let queue = Queue::new(Bounds { items: 1000, bytes: 1000, batch: 4, age: AGE });
    let offer = |sizes: &[u64]| {
        queue.offer(sizes.iter().copied(), |_| Worth::Least, |size, line: &mut Heavy| line.0.push_back(size));
    };
    offer(&[10; 120]);
    let counts = queue.counts();
    assert_eq!((counts.waiting, counts.bytes, counts.queue_full), (100, 1000, 20));
    // Those that come are larger: the bound holds, but for the last one.
    offer(&[100; 50]);
    let counts = queue.counts();
    assert!(counts.bytes < 1000 + 100, "{counts:?}");
    assert_eq!(counts.waiting + counts.queue_full, counts.offered);
    let mut batch = Batch::default();
    queue.take(&mut batch, NOW);
    offer(&[100]);
    assert!(queue.counts().bytes < 1000 + 100, "what is being sent takes memory");
    let before = queue.counts().bytes;
    queue.exported(&mut batch, 1);
    assert_eq!(queue.counts().bytes, before - 100);
    queue.put_back(&mut batch);
    assert_eq!(queue.counts().bytes, before - 100);
}

#[test]
fn what_is_too_old_goes_whatever_it_is_worth() {
    let queue = queue(8, 3);
    let start = Instant::now();
    offer(&queue, [1, 2, 3]);
    queue.expire(start);
    offer(&queue, [4, 5]);
    let mut batch = Batch::default();
    queue.take(&mut batch, NOW);
    queue.expire(start + AGE);
    assert_eq!(queue.counts().expired, 0, "what is being sent may arrive");
    queue.put_back(&mut batch);
    queue.expire(start + AGE);
    assert_eq!((queue.counts().expired, queue.counts().waiting), (3, 2));
    assert_eq!(taken(&queue), [5, 4]);
    let counts = queue.counts();
    assert_eq!((counts.offered, counts.exported, counts.expired, counts.waiting), (5, 2, 3, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Offer(u8),
    Take,
    Exported(usize),
    Rejected(usize),
    PutBack,
    Expire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..12).prop_map(Step::Offer),
        Just(Step::Take),
        (0usize..8).prop_map(Step::Exported),
        (0usize..8).prop_map(Step::Rejected),
        Just(Step::PutBack),
        (0u64..90).prop_map(Step::Expire),
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
        let queue = queue(capacity, most);
        let (mut next, mut batch) = (0, Batch::default());
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Offer(count) => offer(&queue, (0..count).map(|_| { next += 1; next })),
                Step::Take if batch.is_empty() => { queue.take(&mut batch, NOW); }
                Step::Take => {}
                Step::Exported(some) => { let some = some.min(batch.len()); queue.exported(&mut batch, some); }
                Step::Rejected(some) => { let some = some.min(batch.len()); queue.rejected(&mut batch, some); }
                Step::PutBack => queue.put_back(&mut batch),
                Step::Expire(minutes) => { now += Duration::from_mins(minutes); queue.expire(now); }
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
