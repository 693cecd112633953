//! What a transition costs in user space without the kernel: records as two ends on one host write them, drained in passes of
//! `ring.poll`, through decoder, ledger and distributions. Prints the nanoseconds of CPU for a transition, those of the median pass. The
//! caches are swept between two passes, as whatever makes the connections does it.

use std::hint::black_box;
use std::io::{self, Write as _};

use anyhow::{Result, ensure};
use synfin::clock::Offset;
use synfin::distribution::{Distributions, Shape};
use synfin::event::Event;
use synfin::ledger::{Ended, Ledger, seconds};
use synfin::ring::{Drain, Records};
use synfin_common::event::{Endpoints, Measures, Transition, TransitionDetail, WIRE_VERSION, flag, kind, state};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Nanoseconds between two connections: 25,000 in a second.
const EACH_NS: u64 = 40_000;
const PASS_NS: u64 = 20_000_000;
const PASSES: u64 = 400;
const TRANSITIONS: u64 = 10;
const SWEPT: usize = 2 << 20;

/// The states of the end that opens and closes first, then those of the other.
const LIVES: [[u8; 6]; 2] = [
    [state::CLOSE, state::SYN_SENT, state::ESTABLISHED, state::FIN_WAIT1, state::FIN_WAIT2, state::CLOSE],
    [state::LISTEN, state::SYN_RECV, state::ESTABLISHED, state::CLOSE_WAIT, state::LAST_ACK, state::CLOSE],
];

/// In this order they happen: (end, step).
const ORDER: [(usize, usize); TRANSITIONS as usize] =
    [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2), (0, 3), (0, 4), (1, 3), (1, 4)];

/// The records of one pass.
struct Batch {
    records: Vec<TransitionDetail>,
    next: usize,
}

impl Records for Batch {
    fn next_record(&mut self, each: &mut dyn FnMut(&[u8])) -> bool {
        let Some(record) = self.records.get(self.next) else { return false };
        self.next += 1;
        let detail = record.transition.header.kind == kind::TRANSITION_DETAIL;
        each(if detail { record.as_bytes() } else { record.transition.as_bytes() });
        true
    }
}

fn record(number: u64, turn: usize) -> TransitionDetail {
    let (end, step) = ORDER[turn];
    let (old, new) = (LIVES[end][step], LIVES[end][step + 1]);
    let mut record = TransitionDetail::new_zeroed();
    let Transition { header, ends, cgroup, old: from, new: to, .. } = &mut record.transition;
    header.time_ns = 1_000_000_000 + number * EACH_NS + turn as u64 * 1_000;
    header.version = WIRE_VERSION;
    header.kind =
        if matches!(new, state::ESTABLISHED | state::CLOSE) { kind::TRANSITION_DETAIL } else { kind::TRANSITION };
    let done = new == state::CLOSE_WAIT || (end, step) == (1, 3) || (end, step) == (1, 4);
    let orphan = end == 0 && step >= 2;
    header.flags = if done { flag::FIN_RECEIVED } else { 0 } | if orphan { flag::ORPHAN } else { 0 };
    let id = 2 * number + end as u64 + 1;
    let is_embryo = new == state::SYN_RECV;
    if !is_embryo {
        header.flags |= flag::COOKIE;
    }
    let mut address = [0; 16];
    address[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
    let port = 10_000 + (number % 50_000) as u16;
    *ends = Endpoints {
        id: if is_embryo { 0 } else { id },
        sock: 0xffff_8880_0000_0000 | ((id % 4_096) << 12),
        local: address,
        peer: address,
        local_port: if end == 0 { port } else { 80 },
        peer_port: if end == 0 { 80 } else { port },
        netns: 1,
        family: 2,
        pad: [0; 6],
    };
    (*cgroup, *from, *to) = (77, old, new);
    record.measures =
        Measures { bytes_acked: 201, bytes_received: 1_000, bytes_sent: 200, srtt_us: 25, ..Measures::default() };
    record
}

/// CPU time of this thread, nanoseconds.
fn cpu() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).unsigned_abs()
}

fn main() -> Result<()> {
    let mut ledger = Ledger::new(250_000);
    let mut distributions = Distributions::new(Shape::Explicit);
    let mut swept = vec![1_u8; SWEPT];
    let mut ended: Vec<Ended> = Vec::new();
    let (mut number, mut gone, mut costs) = (0, 0, Vec::new());
    for pass in 0..PASSES {
        let horizon_ns = 1_000_000_000 + (pass + 1) * PASS_NS;
        let mut records = Vec::new();
        while 1_000_000_000 + (number + 1) * EACH_NS <= horizon_ns {
            records.extend((0..TRANSITIONS as usize).map(|turn| record(number, turn)));
            number += 1;
        }
        let count = records.len() as u64;
        for byte in &mut swept {
            *byte = byte.wrapping_add(1);
        }
        black_box(&swept);
        let mut drain = Drain::new(Batch { records, next: 0 }, 0);
        let before = cpu();
        let read = drain.pass(horizon_ns, u64::MAX, |event| {
            let applied = ledger.apply(event);
            if let (Event::Transition(transition), Some(in_state_ns)) = (event, applied.in_state_ns) {
                distributions.left(transition.cgroup, transition.old, seconds(in_state_ns));
            }
        });
        ledger.tick(horizon_ns);
        ledger.take_ended(&mut ended);
        for Ended { connection, end } in &ended {
            distributions.add(connection, *end, Offset::default(), || None);
        }
        gone += ended.len();
        ended.clear();
        let spent = cpu() - before;
        ensure!(read.records == count, "{} of {count} records read", read.records);
        costs.push(spent / count.max(1));
    }
    let totals = ledger.totals();
    ensure!(totals.gaps == 0 && totals.missed_closes == 0 && totals.unknown_connections == 0, "{totals:?}");
    // All but those of the last passes, whose grace is not over.
    ensure!(gone as u64 + 2 * 10 * PASS_NS / EACH_NS > 2 * number, "{gone} of {} ended", 2 * number);
    costs.sort_unstable();
    writeln!(io::stdout(), "{}", costs[costs.len() / 2])?;
    Ok(())
}
