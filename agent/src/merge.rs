//! One stream, by time, out of the lanes and the shared ring.
//!
//! Two records of one socket are in order, wherever they were written: the socket's lock lets the second program begin only when
//! the first is done. So if the second was there at a moment, the first was; a pass that takes nothing younger than
//! a moment before it looked therefore finds all that comes before what it takes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use synfin_common::lane::SLOT;

use crate::lanes::Lanes;
use crate::ring::Records;

/// Lanes (none where the machine has none) and shared ring.
pub struct Merge<R> {
    lanes: Option<Lanes>,
    shared: R,
    /// The next record of the shared ring, taken out because the ring cannot be peeked into.
    front: Option<Front>,
    horizon_ns: u64,
    /// The source whose next record is the oldest, if that is known; it is not in `order`.
    current: Option<Source>,
    /// Time of the next record of each other source that has one within the horizon.
    order: BinaryHeap<Reverse<(u64, Source)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// By index, which is the CPU.
    Lane(usize),
    Shared,
}

#[derive(Debug)]
struct Front {
    bytes: [u8; SLOT],
    len: usize,
}

impl<R> std::fmt::Debug for Merge<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merge")
            .field("lanes", &self.lanes)
            .field("horizon_ns", &self.horizon_ns)
            .finish_non_exhaustive()
    }
}

/// Every record starts with its time, see [`synfin_common::event::Header`].
fn time(record: &[u8]) -> u64 {
    record.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

impl<R: Records> Merge<R> {
    /// Reads from both.
    pub const fn new(lanes: Option<Lanes>, shared: R) -> Self {
        Self { lanes, shared, front: None, horizon_ns: 0, current: None, order: BinaryHeap::new() }
    }

    /// Time of the next record of a source, if it is within the horizon.
    fn next_time(&mut self, source: Source) -> Option<u64> {
        let time = match source {
            Source::Lane(index) => self.lanes.as_ref()?.front(index).map(|record| time(record)),
            Source::Shared => {
                let Self { shared, front, .. } = self;
                if front.is_none() {
                    shared.next_record(&mut |record| {
                        let len = record.len().min(SLOT);
                        let mut bytes = [0; SLOT];
                        bytes[..len].copy_from_slice(&record[..len]);
                        *front = Some(Front { bytes, len });
                    });
                }
                front.as_ref().map(|front| time(&front.bytes))
            }
        };
        time.filter(|time| *time <= self.horizon_ns)
    }

    fn hand_over(&mut self, source: Source, each: &mut dyn FnMut(&[u8])) {
        match (source, &mut self.lanes) {
            (Source::Lane(index), Some(lanes)) => {
                if let Some(record) = lanes.front(index) {
                    each(record);
                    lanes.advance(index);
                }
            }
            _ => {
                if let Some(front) = self.front.take() {
                    each(&front.bytes[..front.len]);
                }
            }
        }
    }
}

impl<R: Records> Records for Merge<R> {
    fn begin(&mut self, horizon_ns: u64) {
        self.horizon_ns = horizon_ns;
        self.order.clear();
        self.current = None;
        let mut lanes = 0..0;
        if let Some(all) = &mut self.lanes {
            all.look();
            lanes = all.indexes();
        }
        for source in lanes.map(Source::Lane).chain([Source::Shared]) {
            if let Some(time) = self.next_time(source) {
                self.order.push(Reverse((time, source)));
            }
        }
    }

    fn next_record(&mut self, each: &mut dyn FnMut(&[u8])) -> bool {
        let Some(source) = self.current.take().or_else(|| Some(self.order.pop()?.0.1)) else { return false };
        self.hand_over(source, each);
        if let Some(time) = self.next_time(source) {
            // Events come in bursts from one CPU: as long as its next one is the oldest, nothing needs to be sorted.
            if self.order.peek().is_none_or(|Reverse(other)| (time, source) < *other) {
                self.current = Some(source);
            } else {
                self.order.push(Reverse((time, source)));
            }
        }
        true
    }

    fn end(&mut self) {
        if let Some(lanes) = &mut self.lanes {
            lanes.give_all_back();
        }
    }

    fn destroyed(&self) -> u64 {
        self.lanes.as_ref().map_or(0, Lanes::destroyed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    impl Records for VecDeque<u64> {
        fn next_record(&mut self, each: &mut dyn FnMut(&[u8])) -> bool {
            self.pop_front().map(|time| each(&time.to_ne_bytes())).is_some()
        }
    }

    fn pass(merge: &mut Merge<VecDeque<u64>>, horizon_ns: u64) -> Vec<u64> {
        let mut times = Vec::new();
        merge.begin(horizon_ns);
        while merge.next_record(&mut |record| times.push(time(record))) {}
        merge.end();
        times
    }

    #[test]
    fn nothing_beyond_the_horizon() {
        let lanes = Lanes::stand_in(2, 8);
        for (lane, time) in [(0, 1_u64), (1, 2), (0, 4), (1, 9), (0, 10)] {
            assert!(lanes.write(lane, &time.to_ne_bytes()));
        }
        let mut merge = Merge::new(Some(lanes), VecDeque::from([3, 7, 8]));
        assert_eq!(pass(&mut merge, 7), [1, 2, 3, 4, 7]);
        assert_eq!(pass(&mut merge, 7), [] as [u64; 0]);
        assert_eq!(pass(&mut merge, 10), [8, 9, 10]);
    }

    #[test]
    fn sockets_that_were_only_counted_are_seen_too() {
        let lanes = Lanes::stand_in(2, 8);
        lanes.count_destroyed(0);
        lanes.count_destroyed(1);
        assert_eq!(Merge::new(Some(lanes), VecDeque::new()).destroyed(), 2);
        assert_eq!(Merge::new(None, VecDeque::new()).destroyed(), 0);
    }

    #[test]
    fn a_machine_without_lanes_has_the_ring() {
        let mut merge = Merge::new(None, VecDeque::from([1, 5]));
        assert_eq!(pass(&mut merge, 4), [1]);
        assert_eq!(pass(&mut merge, 5), [5]);
    }

    proptest! {
        #[test]
        fn every_record_once_and_in_order(
            steps in proptest::collection::vec((0_usize..4, 0_u64..3, prop::bool::weighted(0.1)), 0..300),
        ) {
            const CPUS: usize = 3;
            let mut merge = Merge::new(Some(Lanes::stand_in(CPUS, 16)), VecDeque::new());
            let (mut now, mut written, mut read) = (0, Vec::new(), Vec::new());
            for (place, pause, look) in steps {
                now += pause;
                // What a lane does not take goes to the shared ring, as in the programs.
                let fits = merge.lanes.as_ref().is_some_and(|lanes| place < CPUS && lanes.write(place, &now.to_ne_bytes()));
                if !fits {
                    merge.shared.push_back(now);
                }
                written.push(now);
                if look {
                    read.extend(pass(&mut merge, now.saturating_sub(2)));
                }
            }
            read.extend(pass(&mut merge, u64::MAX));
            prop_assert_eq!(read, written);
        }
    }
}
