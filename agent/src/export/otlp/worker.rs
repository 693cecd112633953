//! The thread between a queue and an endpoint: takes batches, sends them, and keeps trying for as long as they live in
//! the queue.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::line::Line;
use super::link::Link;
use super::pause::Pauses;
use super::queue::{Batch, Queue};
use super::words::plain;
use crate::priority;

/// The outlet looks around about so often.
const TICK: Duration = Duration::from_secs(1);

/// What the endpoint says of a request that it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Items in it that it will not keep.
    pub(super) rejected: u64,
    /// Why, or what else it wants to say; mostly empty.
    pub(super) message: String,
}

/// Why a request did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The endpoint is away or overloaded: later it may take the same items.
    Retry {
        /// What happened.
        why: String,
        /// How long it asks to be left alone.
        after: Option<Duration>,
    },
    /// The endpoint will never take it.
    Rejected(String),
}

impl Failure {
    /// There was no answer, because of this.
    pub(super) fn later(error: &dyn Error) -> Self {
        Self::Retry { why: plain(&causes(error)), after: None }
    }
}

/// An error and what caused it: of those of the network, the last link says most.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// So many items, the first of the batch, were in it.
    pub(super) items: usize,
    /// What came of it.
    pub(super) answer: Result<Accepted, Failure>,
}

/// Sends one kind of thing.
pub(super) trait Outlet: Send + 'static {
    /// How what it sends waits.
    type Line: Line + 'static;

    /// Sends as much of a batch as one request may hold, at least one item, blocking until it is answered or timed out.
    fn send(&mut self, batch: &Batch<Self::Line>) -> Sent;

    /// About once a second, whatever happens; the place to look around and offer things to the queue.
    fn tick(&mut self) {}
}

/// Ends the books even if the outlet panics: then all that waits is counted as lost instead of waiting for ever.
struct Finish<L: Line>(Arc<Queue<L>>);

impl<L: Line> Drop for Finish<L> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Starts the thread. Things wait for company for `delay` before they are sent. It ends once the queue is closed and either empty or out of time.
pub(super) fn spawn<O: Outlet>(
    name: &str,
    queue: Arc<Queue<O::Line>>,
    link: Arc<Link>,
    delay: Duration,
    mut outlet: O,
) -> io::Result<()> {
    // Nobody joins the thread: it may hang in a request for as long as the endpoint's time-out, and what it leaves is
    // counted by the queue.
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        priority::lower();
        let finish = Finish(queue);
        run(&finish.0, &link, delay, &mut outlet);
    })?;
    Ok(())
}

fn run<O: Outlet>(queue: &Queue<O::Line>, link: &Link, delay: Duration, outlet: &mut O) {
    let mut batch = Batch::default();
    let mut pauses = Pauses::new();
    loop {
        let mut left = delay;
        while left > TICK && !queue.is_due_within(TICK) {
            outlet.tick();
            queue.expire(Instant::now());
            left -= TICK;
        }
        if !queue.take(&mut batch, left) {
            // What happened last is to be told too.
            outlet.tick();
            if !queue.take(&mut batch, Duration::ZERO) {
                return;
            }
        }
        outlet.tick();
        if batch.is_empty() {
            queue.expire(Instant::now());
        }
        while !batch.is_empty() {
            let Sent { items, answer } = outlet.send(&batch);
            match answer {
                Ok(Accepted { rejected, message }) => {
                    let rejected = usize::try_from(rejected).unwrap_or(usize::MAX).min(items);
                    link.answered(rejected, &message);
                    queue.rejected(&mut batch, rejected);
                    queue.exported(&mut batch, items - rejected);
                    pauses = Pauses::new();
                }
                Err(Failure::Rejected(why)) => {
                    link.refused(&why);
                    queue.rejected(&mut batch, items);
                    pauses = Pauses::new();
                }
                Err(Failure::Retry { why, after }) => {
                    link.failed(&why);
                    queue.put_back(&mut batch);
                    queue.expire(Instant::now());
                    if !back_off(queue, outlet, pauses.next(after)) {
                        return;
                    }
                }
            }
        }
    }
}

/// Waits in steps, so that the outlet keeps looking around. False when there is no time for another attempt. At the end
/// of the agent there is no later: then it is tried at short intervals, whatever the endpoint asked for.
fn back_off<O: Outlet>(queue: &Queue<O::Line>, outlet: &mut O, pause: Duration) -> bool {
    let mut left = pause;
    while !left.is_zero() {
        let step = left.min(TICK);
        if !queue.back_off(step) {
            return false;
        }
        if queue.is_closed() {
            return true;
        }
        outlet.tick();
        queue.expire(Instant::now());
        left -= step;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::super::queue::{Bounds, Worth};
    use super::*;

    type Numbers = VecDeque<u32>;

    fn offer(queue: &Queue<Numbers>, numbers: impl IntoIterator<Item = u32>) {
        queue.offer(numbers, |_| Worth::Least, |number, line| line.push_back(number));
    }

    fn queue(batch: usize) -> Arc<Queue<Numbers>> {
        aging(batch, Duration::from_hours(1))
    }

    fn aging(batch: usize, age: Duration) -> Arc<Queue<Numbers>> {
        Arc::new(Queue::new(Bounds { items: 100, bytes: usize::MAX, batch, age }))
    }

    /// Answers as told, then accepts; notes what it accepted.
    struct Scripted {
        answers: Vec<Result<Accepted, Failure>>,
        /// Items in one request.
        fits: usize,
        accepted: Arc<Mutex<Vec<u32>>>,
    }

    impl Outlet for Scripted {
        type Line = Numbers;

        fn send(&mut self, batch: &Batch<Numbers>) -> Sent {
            let items = batch.len().min(self.fits);
            let answer = self.answers.pop().unwrap_or_else(|| Ok(Accepted::default()));
            if answer.is_ok() {
                self.accepted.lock().unwrap().extend(batch.lines()[2].iter().take(items));
            }
            Sent { items, answer }
        }
    }

    fn away(after: Option<Duration>) -> Result<Accepted, Failure> {
        Err(Failure::Retry { why: "away".to_owned(), after })
    }

    fn link() -> Link {
        Link::new("spans", "http://[::1]:1", crate::config::Protocol::Grpc)
    }

    fn start(
        batch: usize,
        fits: usize,
        answers: Vec<Result<Accepted, Failure>>,
    ) -> (Arc<Queue<Numbers>>, Arc<Mutex<Vec<u32>>>) {
        let queue = queue(batch);
        let accepted = Arc::default();
        let outlet = Scripted { answers, fits, accepted: Arc::clone(&accepted) };
        spawn("test", Arc::clone(&queue), Arc::new(link()), TICK, outlet).unwrap();
        (queue, accepted)
    }

    fn end(queue: &Queue<Numbers>) -> super::super::queue::Counts {
        let end = Instant::now() + Duration::from_secs(20);
        queue.close(end);
        queue.wait_finished(end)
    }

    #[test]
    fn a_batch_survives_an_outage_and_arrives_once() {
        let (queue, accepted) = start(2, 2, vec![away(None), away(None)]);
        offer(&queue, [1, 2, 3]);
        let counts = end(&queue);
        assert_eq!((counts.exported, counts.dropped()), (3, 0));
        assert_eq!(*accepted.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn what_is_refused_does_not_block_what_follows() {
        let (queue, accepted) = start(2, 2, vec![Err(Failure::Rejected("InvalidArgument".into()))]);
        offer(&queue, [1, 2]);
        while queue.counts().rejected == 0 {
            std::thread::yield_now();
        }
        offer(&queue, [3]);
        let counts = end(&queue);
        assert_eq!((counts.exported, counts.rejected, counts.shutdown), (1, 2, 0));
        assert_eq!(*accepted.lock().unwrap(), [3]);
    }

    #[test]
    fn a_batch_that_one_request_does_not_hold_takes_several() {
        let (queue, accepted) = start(5, 2, vec![away(None)]);
        offer(&queue, [1, 2, 3, 4, 5]);
        let counts = end(&queue);
        assert_eq!((counts.exported, counts.dropped()), (5, 0));
        assert_eq!(*accepted.lock().unwrap(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_a_partial_success_rejects_is_not_exported() {
        let partly = |rejected| Ok(Accepted { rejected, message: "too old".to_owned() });
        let (queue, _) = start(2, 2, vec![partly(u64::MAX), partly(1)]);
        offer(&queue, [1, 2, 3, 4, 5]);
        let counts = end(&queue);
        assert_eq!((counts.exported, counts.rejected, counts.shutdown), (2, 3, 0));
    }

    #[test]
    fn an_endpoint_is_left_alone_for_as_long_as_it_asks() {
        let asked = Duration::from_secs(2);
        let (queue, accepted) = start(1, 1, vec![away(Some(asked))]);
        let begin = Instant::now();
        offer(&queue, [1]);
        while accepted.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(begin.elapsed() >= asked, "{:?}", begin.elapsed());
        assert_eq!(end(&queue).exported, 1);
    }

    /// Counts how often it looked around, and what came when.
    struct Watchful {
        ticks: Arc<Mutex<u32>>,
        sent: Arc<Mutex<Vec<(Instant, usize)>>>,
    }

    impl Outlet for Watchful {
        type Line = Numbers;

        fn send(&mut self, batch: &Batch<Numbers>) -> Sent {
            self.sent.lock().unwrap().push((Instant::now(), batch.len()));
            Sent { items: batch.len(), answer: Ok(Accepted::default()) }
        }

        fn tick(&mut self) {
            *self.ticks.lock().unwrap() += 1;
        }
    }

    #[test]
    fn things_wait_for_company_as_long_as_is_wanted_while_the_outlet_looks_around() {
        let queue = queue(3);
        let (ticks, sent) = (Arc::<Mutex<u32>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let outlet = Watchful { ticks: Arc::clone(&ticks), sent: Arc::clone(&sent) };
        let begin = Instant::now();
        spawn("test", Arc::clone(&queue), Arc::new(link()), TICK * 5 / 2, outlet).unwrap();
        offer(&queue, [1]);
        while sent.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (at, items) = sent.lock().unwrap()[0];
        assert!(at - begin >= TICK * 5 / 2 && items == 1, "{items} after {:?}", at - begin);
        assert!(*ticks.lock().unwrap() >= 3, "two on the way, one at the end");
        // A full batch waits for nobody; at the end nothing does.
        offer(&queue, [2, 3, 4]);
        offer(&queue, [5]);
        let counts = end(&queue);
        assert_eq!(counts.exported, 5);
        let sent: Vec<usize> = sent.lock().unwrap().iter().map(|(_, items)| *items).collect();
        assert_eq!(sent.iter().sum::<usize>(), 5);
        assert!(sent.iter().all(|items| *items <= 3), "{sent:?}");
        assert!(begin.elapsed() < TICK * 4, "{:?}", begin.elapsed());
    }

    #[test]
    fn what_an_outage_outlasts_is_dropped_and_counted() {
        let queue = aging(4, Duration::from_millis(50));
        let accepted = Arc::default();
        let outlet = Scripted { answers: vec![away(None)], fits: 4, accepted: Arc::clone(&accepted) };
        spawn("test", Arc::clone(&queue), Arc::new(link()), TICK, outlet).unwrap();
        offer(&queue, [1, 2, 3, 4]);
        while queue.counts().expired == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        offer(&queue, [5]);
        let counts = end(&queue);
        assert_eq!((counts.offered, counts.expired, counts.exported, counts.dropped()), (5, 4, 1, 4));
        assert_eq!(*accepted.lock().unwrap(), [5]);
    }

    #[test]
    fn a_panic_in_the_outlet_closes_the_books() {
        struct Broken;
        impl Outlet for Broken {
            type Line = Numbers;
            fn send(&mut self, _: &Batch<Numbers>) -> Sent {
                panic!("staged by a test");
            }
        }
        let queue = queue(1);
        spawn("test", Arc::clone(&queue), Arc::new(link()), TICK, Broken).unwrap();
        offer(&queue, [1, 2]);
        let counts = queue.wait_finished(Instant::now() + Duration::from_secs(20));
        assert_eq!((counts.offered, counts.shutdown, counts.waiting), (2, 2, 0));
    }
}
