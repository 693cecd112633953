//! What this process costs.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU and memory so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Of all threads.
    pub(super) process_cpu: Duration,
    /// Of the calling thread.
    pub(super) thread_cpu: Duration,
    /// Resident bytes.
    pub(super) memory: u64,
}

pub(super) fn read() -> Usage {
    Usage {
        process_cpu: cpu(ClockId::ProcessCPUTime),
        thread_cpu: cpu(ClockId::ThreadCPUTime),
        memory: resident().unwrap_or(0),
    }
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// The second field of /proc/self/statm, in pages.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
