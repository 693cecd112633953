//! The lanes: a ring of records for each CPU, in memory that programs and agent share. `agent-ebpf/src/lane.rs` writes,
//! `agent/src/lanes.rs` reads.
//!
//! The kernel's own ring buffer takes a lock for each record, which costs more than all fields of the record together and
//! grows with the CPUs that want it. A lane has one writer at a time by construction: programs do not leave their CPU, and one
//! that interrupts another finds `writers` above one and takes the shared ring instead. So a lane needs no lock, no
//! compare-and-swap, and nothing that a 5.10 kernel lacks.

/// Bytes of a slot. Each record has a slot to itself and starts at the slot's beginning; three cache lines, of which
/// a small record touches one.
pub const SLOT: usize = 192;

/// The head of a lane: one element of the array LANES, indexed by CPU. Two cache lines, so that the agent's writing does not
/// take the line from the programs.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct Lane {
    /// Programs that are between entering and leaving the lane. Only the one that finds itself alone may write.
    pub writers: u64,
    /// Records written since the start, by the programs. Slot `head & (slots - 1)` is the next.
    pub head: u64,
    /// Cookie of the socket whose transition to CLOSE was recorded last on this CPU.
    pub closed: u64,
    /// Sockets that were destroyed right after: their record would say nothing new, so they are only counted.
    pub destroyed: u64,
    /// Zero.
    pub pad: [u64; 4],
    /// Records read since the start, by the agent.
    pub tail: u64,
    /// Zero.
    pub pad_tail: [u64; 7],
}

const _: () = {
    assert!(size_of::<Lane>() == 128);
    assert!(core::mem::offset_of!(Lane, tail) == 64);
    assert!(SLOT >= size_of::<crate::event::TransitionDetail>() && SLOT.is_multiple_of(64));
};
