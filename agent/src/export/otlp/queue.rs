//! Where things wait for export: bounded, shed by policy, and every single one accounted for.
//!
//! At any moment `offered = exported + queue_full + rejected + shutdown + waiting`, where what is being sent just now
//! still counts as waiting. The lock is held for moves only, never while something is sent.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Something that can wait.
pub trait Item {
    /// Worth keeping longer than others: it is shed only when nothing else is left to shed.
    fn is_precious(&self) -> bool;
}

/// What became of all that was offered. Totals, but for `waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Offered to the queue.
    pub offered: u64,
    /// Accepted by the endpoint.
    pub exported: u64,
    /// Shed because the queue was full.
    pub queue_full: u64,
    /// Refused by the endpoint for good.
    pub rejected: u64,
    /// Left over when the agent stopped.
    pub shutdown: u64,
    /// Waiting or being sent now.
    pub waiting: u64,
    /// Of these, being sent now.
    pub in_flight: u64,
    /// The bound of `waiting`.
    pub capacity: u64,
}

impl Counts {
    /// Everything that will never arrive.
    pub const fn dropped(&self) -> u64 {
        self.queue_full + self.rejected + self.shutdown
    }
}

/// A bounded queue with one consumer.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    /// A batch is full, or the queue was closed, or its consumer finished.
    changed: Condvar,
    batch: usize,
}

#[derive(Debug)]
struct State<T> {
    precious: VecDeque<T>,
    plain: VecDeque<T>,
    counts: Counts,
    /// No more waiting: what is there goes out until this moment.
    closed: Option<Instant>,
    /// Nothing is taken any more, whatever is offered is lost.
    finished: bool,
}

impl<T: Item> Queue<T> {
    /// A queue of at most `capacity` items (at least one), handed out in batches of at most `batch`.
    pub fn new(capacity: usize, batch: usize) -> Self {
        let counts = Counts { capacity: capacity.max(1) as u64, ..Counts::default() };
        let state = State { precious: VecDeque::new(), plain: VecDeque::new(), counts, closed: None, finished: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), batch: batch.max(1) }
    }

    /// Adds items. Never blocks on the consumer; what does not fit is shed and counted.
    pub fn offer(&self, items: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        let before = state.ready();
        for item in items {
            state.offer(item);
        }
        // The consumer looks by itself after each pause; waking it for every item would cost more than the item.
        if before < self.batch && state.ready() >= self.batch {
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The next batch into `batch`: at once when one is full, otherwise what is there after `pause`. False at the end.
    pub fn take(&self, batch: &mut Vec<T>, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        while state.closed.is_none() && state.ready() < self.batch {
            let now = Instant::now();
            if now >= until {
                break;
            }
            state = self.wait(state, until - now);
        }
        state.take(self.batch, batch);
        let last = state.closed.is_some() && batch.is_empty();
        !last && !state.finished
    }

    /// The first `items` of the batch arrived: they leave it.
    pub fn exported(&self, batch: &mut Vec<T>, items: usize) {
        let items = batch.drain(..items).len();
        self.lock().settle(items, |counts| &mut counts.exported);
    }

    /// The endpoint refused the first `items` of the batch for good: they leave it.
    pub fn rejected(&self, batch: &mut Vec<T>, items: usize) {
        let items = batch.drain(..items).len();
        self.lock().settle(items, |counts| &mut counts.rejected);
    }

    /// The rest of the batch could not be sent now: it goes back to the front and may be shed like all others.
    pub fn put_back(&self, batch: &mut Vec<T>) {
        let mut state = self.lock();
        let state = &mut *state;
        if state.finished {
            batch.clear(); // counted by `finish`
            return;
        }
        state.counts.in_flight -= batch.len() as u64;
        for item in batch.drain(..).rev() {
            state.line(item.is_precious()).push_front(item);
        }
    }

    /// Waits before the next attempt, less long if the queue is closed meanwhile. False when there is no time left.
    pub fn back_off(&self, pause: Duration) -> bool {
        let mut until = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            // The last attempts come at short intervals: there is no later.
            until = state.closed.map_or(until, |end| until.min(end).min(Instant::now() + LAST_PAUSE));
            let now = Instant::now();
            if state.finished || state.closed.is_some_and(|end| now >= end) {
                return false;
            }
            if now >= until {
                return true;
            }
            let was_open = state.closed.is_none();
            state = self.wait(state, until - now);
            if was_open && state.closed.is_some() {
                return true; // try once more at once
            }
        }
    }

    /// No more waiting: what is there goes out until `end`.
    pub fn close(&self, end: Instant) {
        self.lock().closed = Some(end);
        self.changed.notify_all();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// Waits until the consumer has [`Queue::finish`]ed or the time is up; counts what is left then as lost.
    pub fn wait_finished(&self, end: Instant) -> Counts {
        let mut state = self.lock();
        while !state.finished {
            let now = Instant::now();
            if now >= end {
                break;
            }
            state = self.wait(state, end - now);
        }
        state.finish();
        state.counts
    }

    /// The consumer takes nothing more.
    pub fn finish(&self) {
        self.lock().finish();
        self.changed.notify_all();
    }

    /// What became of everything so far.
    pub fn counts(&self) -> Counts {
        let state = self.lock();
        Counts { waiting: state.waiting() as u64, ..state.counts }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>, pause: Duration) -> MutexGuard<'a, State<T>> {
        self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Pause between attempts once the queue is closed.
const LAST_PAUSE: Duration = Duration::from_millis(200);

impl<T: Item> State<T> {
    fn offer(&mut self, item: T) {
        self.counts.offered += 1;
        if self.finished {
            self.counts.shutdown += 1;
            return;
        }
        let precious = item.is_precious();
        if self.waiting() >= self.counts.capacity as usize {
            self.counts.queue_full += 1;
            // The oldest plain one goes first. A plain newcomer never displaces a precious one; and when all that waits
            // is being sent just now, the newcomer goes.
            if self.plain.pop_front().is_none() && (!precious || self.precious.pop_front().is_none()) {
                return;
            }
        }
        self.line(precious).push_back(item);
    }

    fn take(&mut self, most: usize, batch: &mut Vec<T>) {
        let precious = self.precious.len().min(most);
        batch.extend(self.precious.drain(..precious));
        let plain = self.plain.len().min(most - precious);
        batch.extend(self.plain.drain(..plain));
        self.counts.in_flight += (precious + plain) as u64;
    }

    /// A batch that was sent has got its answer.
    fn settle(&mut self, len: usize, count: impl FnOnce(&mut Counts) -> &mut u64) {
        // After `finish` the items are already counted as lost; the books are closed.
        if !self.finished {
            self.counts.in_flight -= len as u64;
            *count(&mut self.counts) += len as u64;
        }
    }

    fn finish(&mut self) {
        if !self.finished {
            self.counts.shutdown += self.waiting() as u64;
            self.counts.in_flight = 0;
            self.precious.clear();
            self.plain.clear();
            self.finished = true;
        }
    }

    fn line(&mut self, precious: bool) -> &mut VecDeque<T> {
        if precious { &mut self.precious } else { &mut self.plain }
    }

    fn ready(&self) -> usize {
        self.precious.len() + self.plain.len()
    }

    fn waiting(&self) -> usize {
        self.ready() + self.counts.in_flight as usize
    }
}

#[cfg(test)]
mod tests;
