//! The thread between a queue and an endpoint: takes batches, sends them, and keeps trying for as long as they live in
//! the queue.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::link::Link;
use super::queue::{Item, Queue};

/// How long things wait for company before they are sent.
const FLUSH: Duration = Duration::from_secs(1);
/// Pauses after a failed attempt: from this, doubled each time,
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a batch did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The endpoint is away or overloaded: later it may take the same batch.
    Retry(String),
    /// The endpoint will never take it.
    Rejected(String),
}

/// Sends one kind of thing.
pub(super) trait Outlet: Send + 'static {
    /// What it sends.
    type Item: Item + Send + 'static;

    /// Sends a batch, blocking until it is answered or timed out.
    fn send(&mut self, batch: &[Self::Item]) -> Result<(), Failure>;

    /// About once a second, whatever happens; the place to look around and offer things to the queue.
    fn tick(&mut self) {}
}

/// Ends the books even if the outlet panics: then all that waits is counted as lost instead of waiting for ever.
struct Finish<T: Item>(Arc<Queue<T>>);

impl<T: Item> Drop for Finish<T> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Starts the thread. It ends once the queue is closed and either empty or out of time.
pub(super) fn spawn<O: Outlet>(
    name: &str,
    queue: Arc<Queue<O::Item>>,
    link: Arc<Link>,
    mut outlet: O,
) -> io::Result<()> {
    // Nobody joins the thread: it may hang in a request for as long as the endpoint's time-out, and what it leaves is
    // counted by the queue.
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let finish = Finish(queue);
        run(&finish.0, &link, &mut outlet);
    })?;
    Ok(())
}

fn run<O: Outlet>(queue: &Queue<O::Item>, link: &Link, outlet: &mut O) {
    let mut batch = Vec::new();
    let mut pause = FIRST_PAUSE;
    while queue.take(&mut batch, FLUSH) {
        outlet.tick();
        if batch.is_empty() {
            continue;
        }
        match outlet.send(&batch) {
            Ok(()) => {
                link.answered();
                queue.exported(&mut batch);
                pause = FIRST_PAUSE;
            }
            Err(Failure::Rejected(why)) => {
                link.refused(&why);
                queue.rejected(&mut batch);
                pause = FIRST_PAUSE;
            }
            Err(Failure::Retry(why)) => {
                link.failed(&why);
                queue.put_back(&mut batch);
                if !back_off(queue, outlet, pause) {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Waits in steps, so that the outlet keeps looking around. False when there is no time for another attempt.
fn back_off<O: Outlet>(queue: &Queue<O::Item>, outlet: &mut O, pause: Duration) -> bool {
    let mut left = pause;
    while !left.is_zero() {
        let step = left.min(FLUSH);
        if !queue.back_off(step) {
            return false;
        }
        if queue.is_closed() {
            return true;
        }
        outlet.tick();
        left -= step;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Number(u32);

    impl Item for Number {
        fn is_precious(&self) -> bool {
            false
        }
    }

    /// Answers as told, then accepts; notes what it accepted.
    struct Scripted {
        answers: Vec<Failure>,
        accepted: Arc<Mutex<Vec<u32>>>,
    }

    impl Outlet for Scripted {
        type Item = Number;

        fn send(&mut self, batch: &[Number]) -> Result<(), Failure> {
            if let Some(failure) = self.answers.pop() {
                return Err(failure);
            }
            self.accepted.lock().unwrap().extend(batch.iter().map(|number| number.0));
            Ok(())
        }
    }

    fn start(answers: Vec<Failure>) -> (Arc<Queue<Number>>, Arc<Mutex<Vec<u32>>>) {
        let queue = Arc::new(Queue::new(100, 2));
        let accepted = Arc::default();
        let outlet = Scripted { answers, accepted: Arc::clone(&accepted) };
        spawn("test", Arc::clone(&queue), Arc::new(Link::new("spans", "http://[::1]:1")), outlet).unwrap();
        (queue, accepted)
    }

    fn end(queue: &Queue<Number>) -> super::super::queue::Counts {
        let end = Instant::now() + Duration::from_secs(20);
        queue.close(end);
        queue.wait_finished(end)
    }

    #[test]
    fn a_batch_survives_an_outage_and_arrives_once() {
        let (queue, accepted) = start(vec![Failure::Retry("away".into()), Failure::Retry("away".into())]);
        queue.offer([Number(1), Number(2), Number(3)]);
        let counts = end(&queue);
        assert_eq!((counts.exported, counts.dropped()), (3, 0));
        assert_eq!(*accepted.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn what_is_refused_does_not_block_what_follows() {
        let (queue, accepted) = start(vec![Failure::Rejected("InvalidArgument".into())]);
        queue.offer([Number(1), Number(2)]);
        while queue.counts().rejected == 0 {
            std::thread::yield_now();
        }
        queue.offer([Number(3)]);
        let counts = end(&queue);
        assert_eq!((counts.exported, counts.rejected, counts.shutdown), (1, 2, 0));
        assert_eq!(*accepted.lock().unwrap(), [3]);
    }

    #[test]
    fn a_panic_in_the_outlet_closes_the_books() {
        struct Broken;
        impl Outlet for Broken {
            type Item = Number;
            fn send(&mut self, _: &[Number]) -> Result<(), Failure> {
                panic!("staged by a test");
            }
        }
        let queue = Arc::new(Queue::new(10, 1));
        spawn("test", Arc::clone(&queue), Arc::new(Link::new("spans", "")), Broken).unwrap();
        queue.offer([Number(1), Number(2)]);
        let counts = queue.wait_finished(Instant::now() + Duration::from_secs(20));
        assert_eq!((counts.offered, counts.shutdown, counts.waiting), (2, 2, 0));
    }
}
