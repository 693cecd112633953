//! Draining what the programs wrote: in passes with a budget, by polling. The programs never wake the reader, because a
//! wake-up for each record costs eight times the program.

use std::borrow::Borrow;

use aya::maps::{MapData, RingBuf};

use crate::decode::{DecodeError, decode};
use crate::event::{Event, EventKind};

/// Records that were read and not understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Too short, or with an impossible value.
    pub decode: u64,
    /// Of an unknown kind.
    pub unknown_kind: u64,
    /// Of another version of the programs.
    pub version: u64,
}

/// What one pass brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Records read.
    pub records: u64,
    /// Bytes that they took.
    pub bytes: u64,
    /// Time of the first event of the pass, the oldest.
    pub oldest_ns: Option<u64>,
    /// Time of the newest event of the pass.
    pub newest_ns: Option<u64>,
    /// Nothing was left at its end.
    pub emptied: bool,
}

/// The reading end of the ring.
pub struct Drain<R> {
    ring: R,
    size: u64,
    seen: [u64; EventKind::ALL.len()],
    rejected: Rejected,
}

impl<R> std::fmt::Debug for Drain<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ring: _, size, seen, rejected } = self;
        f.debug_struct("Drain")
            .field("size", size)
            .field("seen", seen)
            .field("rejected", rejected)
            .finish_non_exhaustive()
    }
}

/// Where records come from: the kernel, or whatever a test or a recording puts in its place.
pub trait Records {
    /// Begins a pass over the records up to a time, `CLOCK_MONOTONIC` nanoseconds.
    fn begin(&mut self, _horizon_ns: u64) {}

    /// Hands the next record to `each`; false when there is none now.
    fn next_record(&mut self, each: &mut dyn FnMut(&[u8])) -> bool;

    /// Ends the pass: what was read may be overwritten.
    fn end(&mut self) {}

    /// Ends of sockets that the programs counted instead of writing a record.
    fn destroyed(&self) -> u64 {
        0
    }
}

impl<T: Borrow<MapData>> Records for RingBuf<T> {
    fn next_record(&mut self, each: &mut dyn FnMut(&[u8])) -> bool {
        match self.next() {
            Some(record) => {
                each(&record);
                true
            }
            None => false,
        }
    }
}

impl<R: Records> Drain<R> {
    /// Reads from `ring`, which has room for `size` bytes.
    pub const fn new(ring: R, size: u64) -> Self {
        Self {
            ring,
            size,
            seen: [0; EventKind::ALL.len()],
            rejected: Rejected { decode: 0, unknown_kind: 0, version: 0 },
        }
    }

    /// Reads at most `budget` records that are not younger than `horizon_ns`, and hands the events to `each`. The records of
    /// a socket come in the kernel's order if the caller has read `horizon_ns` from the clock before this call.
    pub fn pass(&mut self, horizon_ns: u64, budget: u64, mut each: impl FnMut(&Event)) -> Pass {
        let mut pass = Pass::default();
        let Self { ring, seen, rejected, .. } = self;
        ring.begin(horizon_ns);
        while pass.records < budget {
            let more = ring.next_record(&mut |record| {
                pass.records += 1;
                pass.bytes += record.len() as u64;
                match &decode(record) {
                    Ok(event) => {
                        seen[event.kind().index()] += 1;
                        pass.oldest_ns = pass.oldest_ns.or(Some(event.time_ns()));
                        pass.newest_ns = pass.newest_ns.max(Some(event.time_ns()));
                        each(event);
                    }
                    Err(error) => reject(rejected, *error),
                }
            });
            if !more {
                pass.emptied = true;
                break;
            }
        }
        ring.end();
        pass
    }

    /// Events read, by [`EventKind::index`], and those that the programs only counted.
    pub fn seen(&self) -> [u64; EventKind::ALL.len()] {
        let mut seen = self.seen;
        seen[EventKind::Destroy.index()] += self.ring.destroyed();
        seen
    }

    /// Records not understood.
    pub const fn rejected(&self) -> Rejected {
        self.rejected
    }

    /// Room in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }
}

fn reject(rejected: &mut Rejected, error: DecodeError) {
    let count = match error {
        DecodeError::Short(_) | DecodeError::State(_) => &mut rejected.decode,
        DecodeError::Kind(_) => &mut rejected.unknown_kind,
        DecodeError::Version(_) => &mut rejected.version,
    };
    *count += 1;
    if *count == 1 {
        // Once: the rest is counted and exported.
        tracing::error!(%error, "a record of the ring was not understood and is counted as lost");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use synfin_common::event::{Destroy, WIRE_VERSION, kind};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    struct Queue(VecDeque<Destroy>);

    impl Records for Queue {
        fn next_record(&mut self, each: &mut dyn FnMut(&[u8])) -> bool {
            self.0.pop_front().map(|record| each(record.as_bytes())).is_some()
        }
    }

    fn record(time_ns: u64, kind: u16, version: u8) -> Destroy {
        let mut record = Destroy::new_zeroed();
        (record.header.time_ns, record.header.kind, record.header.version) = (time_ns, kind, version);
        record
    }

    #[test]
    fn a_pass_keeps_its_budget_and_counts_every_record() {
        let good = |time| record(time, kind::DESTROY, WIRE_VERSION);
        let queue = [
            good(5),
            good(3),
            record(0, 63, WIRE_VERSION),
            record(0, kind::DESTROY, 0),
            record(0, kind::RESET_SENT, WIRE_VERSION),
        ];
        let mut drain = Drain::new(Queue(queue.into()), 4096);
        let first = drain.pass(9, 2, |_| {});
        assert_eq!((first.records, first.emptied, first.bytes), (2, false, 2 * 40));
        assert_eq!((first.oldest_ns, first.newest_ns), (Some(5), Some(5)));
        let rest = drain.pass(9, 100, |_| {});
        assert_eq!((rest.records, rest.emptied), (3, true));
        // produced = seen + rejected
        assert_eq!(drain.seen(), [0, 0, 0, 2]);
        assert_eq!(drain.rejected(), Rejected { decode: 1, unknown_kind: 1, version: 1 });
    }
}
