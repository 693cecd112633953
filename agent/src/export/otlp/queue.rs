//! Where things wait for export: bounded, shed by policy, and every single one accounted for.
//!
//! At any moment `offered = exported + queue_full + rejected + expired + shutdown + waiting`, where what is being sent just
//! now still counts as waiting. The lock is held for moves only, never while something is sent.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ages::Ages;
use super::line::Line;

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
    /// Waited for too long.
    pub expired: u64,
    /// Left over when the agent stopped.
    pub shutdown: u64,
    /// Waiting or being sent now.
    pub waiting: u64,
    /// Of these, being sent now.
    pub in_flight: u64,
    /// The bound of `waiting`.
    pub capacity: u64,
    /// Memory of what waits, bytes.
    pub bytes: u64,
    /// The bound of `bytes`.
    pub bytes_capacity: u64,
}

impl Counts {
    /// Everything that will never arrive.
    pub const fn dropped(&self) -> u64 {
        self.queue_full + self.rejected + self.expired + self.shutdown
    }
}

/// What a queue may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Items, at least one.
    pub items: usize,
    /// Bytes of memory.
    pub bytes: usize,
    /// Items in a batch, at least one.
    pub batch: usize,
    /// How long an item may wait.
    pub age: Duration,
}

/// How much an item is worth, when not all can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Kept longest: what somebody must hear of.
    Most,
    /// What is out of the ordinary.
    More,
    /// The rest.
    Least,
}

impl Worth {
    const ALL: [Self; 3] = [Self::Most, Self::More, Self::Least];
}

/// One line for each [`Worth`], the worthiest first.
type Lines<L> = [L; Worth::ALL.len()];

/// A bounded queue with one consumer.
#[derive(Debug)]
pub struct Queue<L> {
    state: Mutex<State<L>>,
    /// A batch is full, or the queue was closed, or its consumer finished.
    changed: Condvar,
    batch: usize,
}

/// What is being sent. Made empty, and used again and again.
#[derive(Debug, Default)]
pub struct Batch<L> {
    lines: Lines<L>,
}

impl<L: Line> Batch<L> {
    /// In the order in which they are sent.
    pub const fn lines(&self) -> &Lines<L> {
        &self.lines
    }

    /// Items.
    pub fn len(&self) -> usize {
        self.lines.iter().map(L::len).sum()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bytes(&self) -> usize {
        self.lines.iter().map(L::bytes).sum()
    }

    fn drop_first(&mut self, mut items: usize) {
        for line in &mut self.lines {
            let of_line = items.min(line.len());
            line.drop_first(of_line);
            items -= of_line;
        }
    }
}

#[derive(Debug)]
struct State<L> {
    lines: Lines<L>,
    /// Of each line.
    ages: [Ages; Worth::ALL.len()],
    /// Memory of what is being sent.
    in_flight: u64,
    counts: Counts,
    /// No more waiting: what is there goes out until this moment.
    closed: Option<Instant>,
    /// Nothing is taken any more, whatever is offered is lost.
    finished: bool,
}

impl<L: Line> Queue<L> {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        let (items, bytes) = (bounds.items.max(1) as u64, bounds.bytes as u64);
        let counts = Counts { capacity: items, bytes_capacity: bytes, ..Counts::default() };
        let ages = Worth::ALL.map(|_| Ages::new(bounds.age));
        let state = State { lines: Lines::default(), ages, in_flight: 0, counts, closed: None, finished: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), batch: bounds.batch.max(1) }
    }

    /// Adds items: `push` puts one into the line that it is given. An item is shed only when nothing that is worth less, or as little, is
    /// left to shed. Never blocks on the consumer; what does not fit is shed and counted.
    pub fn offer<T>(&self, items: impl IntoIterator<Item = T>, worth: impl Fn(&T) -> Worth, push: impl Fn(T, &mut L)) {
        let mut state = self.lock();
        let before = state.ready();
        for item in items {
            if let Some(line) = state.place(worth(&item)) {
                push(item, line);
            }
        }
        // The consumer looks by itself after each pause; waking it for every item would cost more than the item.
        if before < self.batch && state.ready() >= self.batch {
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Whether there is something to do before this pause is over: a batch is full, or the queue was closed. Waits until then.
    pub fn is_due_within(&self, pause: Duration) -> bool {
        self.await_due(pause).is_due(self.batch)
    }

    /// The next batch into `batch`: at once when one is full, otherwise what is there after `pause`. False at the end.
    pub fn take(&self, batch: &mut Batch<L>, pause: Duration) -> bool {
        let mut state = self.await_due(pause);
        state.take(self.batch, batch);
        let last = state.closed.is_some() && batch.is_empty();
        !last && !state.finished
    }

    /// The first `items` of the batch arrived: they leave it.
    pub fn exported(&self, batch: &mut Batch<L>, items: usize) {
        batch.drop_first(items);
        self.lock().settle(items, batch.bytes(), |counts| &mut counts.exported);
    }

    /// The endpoint refused the first `items` of the batch for good: they leave it.
    pub fn rejected(&self, batch: &mut Batch<L>, items: usize) {
        batch.drop_first(items);
        self.lock().settle(items, batch.bytes(), |counts| &mut counts.rejected);
    }

    /// The rest of the batch could not be sent now: it goes back to the front and may be shed like all others.
    pub fn put_back(&self, batch: &mut Batch<L>) {
        let mut state = self.lock();
        let state = &mut *state;
        if state.finished {
            *batch = Batch::default(); // counted by `finish`
            return;
        }
        (state.counts.in_flight, state.in_flight) = (0, 0);
        for (line, sent) in state.lines.iter_mut().zip(&mut batch.lines) {
            line.put_back(sent);
        }
    }

    /// Drops what has waited for too long at `now`. For the consumer, between attempts, about once a second: how old things are is
    /// known no better than that.
    pub fn expire(&self, now: Instant) {
        self.lock().expire(now);
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
        Counts { waiting: state.waiting() as u64, bytes: state.bytes(), ..state.counts }
    }

    fn await_due(&self, pause: Duration) -> MutexGuard<'_, State<L>> {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        while !state.is_due(self.batch) {
            let now = Instant::now();
            if now >= until {
                break;
            }
            state = self.wait(state, until - now);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<L>>, pause: Duration) -> MutexGuard<'a, State<L>> {
        self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Pause between attempts once the queue is closed.
const LAST_PAUSE: Duration = Duration::from_millis(200);

impl<L: Line> State<L> {
    /// Makes room for one item. None where there is none for it: it is lost and counted.
    fn place(&mut self, worth: Worth) -> Option<&mut L> {
        self.counts.offered += 1;
        if self.finished {
            self.counts.shutdown += 1;
            return None;
        }
        // Several small ones may have to go for a large one.
        while self.waiting() >= self.counts.capacity as usize || self.bytes() >= self.counts.bytes_capacity {
            self.counts.queue_full += 1;
            // The oldest one of those that are worth least goes first. A newcomer never displaces what is worth more; and when all that
            // waits is being sent just now, the newcomer goes.
            let victim = self.lines[worth as usize..].iter_mut().rev().find(|line| !line.is_empty())?;
            victim.drop_first(1);
        }
        Some(self.enter(worth))
    }

    fn take(&mut self, most: usize, batch: &mut Batch<L>) {
        for (at, line) in self.lines.iter_mut().enumerate() {
            let room = most.saturating_sub(batch.len());
            if room > 0 {
                line.take(room, &mut batch.lines[at]);
            }
        }
        self.counts.in_flight = batch.len() as u64;
        self.in_flight = batch.bytes() as u64;
    }

    /// A batch that was sent has got its answer; what is left of it takes `bytes`.
    fn settle(&mut self, items: usize, bytes: usize, count: impl FnOnce(&mut Counts) -> &mut u64) {
        // After `finish` the items are already counted as lost; the books are closed.
        if !self.finished {
            self.counts.in_flight -= items as u64;
            self.in_flight = bytes as u64;
            *count(&mut self.counts) += items as u64;
        }
    }

    fn finish(&mut self) {
        if !self.finished {
            self.counts.shutdown += self.waiting() as u64;
            self.counts.in_flight = 0;
            self.in_flight = 0;
            self.lines.iter_mut().for_each(L::clear);
            self.finished = true;
        }
    }

    fn enter(&mut self, worth: Worth) -> &mut L {
        self.ages[worth as usize].entered();
        &mut self.lines[worth as usize]
    }

    fn expire(&mut self, now: Instant) {
        // What is being sent will be put back or be gone.
        if self.finished || self.counts.in_flight != 0 {
            return;
        }
        for (line, ages) in self.lines.iter_mut().zip(&mut self.ages) {
            let expired = ages.expired(line.len(), now);
            line.drop_first(expired);
            self.counts.expired += expired as u64;
        }
    }

    /// Whether a batch is full, or nothing more is waited for.
    fn is_due(&self, batch: usize) -> bool {
        self.closed.is_some() || self.ready() >= batch
    }

    fn ready(&self) -> usize {
        self.lines.iter().map(L::len).sum()
    }

    fn waiting(&self) -> usize {
        self.ready() + self.counts.in_flight as usize
    }

    fn bytes(&self) -> u64 {
        self.lines.iter().map(L::bytes).sum::<usize>() as u64 + self.in_flight
    }
}

#[cfg(test)]
mod tests;
