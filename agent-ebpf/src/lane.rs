//! Writing into this CPU's lane, see [`synfin_common::lane`].

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use synfin_common::lane::{Lane, SLOT};

use crate::atomic;
use crate::maps::{LANES, SLOTS, knob};

/// A slot that nobody else writes until it is committed. No `Option` around it: LLVM would leave fields of the missing
/// one undefined, and carry them through registers that the verifier then finds unset.
pub(crate) struct Claim {
    /// NULL for none.
    lane: *mut Lane,
    slot: *mut MaybeUninit<[u8; SLOT]>,
    head: u64,
}

const NONE: Claim = Claim { lane: ptr::null_mut(), slot: ptr::null_mut(), head: 0 };

/// Notes that the end of a connection is being recorded, so that [`is_end_known`] can say so.
#[inline(always)]
pub(crate) fn note_end(cookie: u64) {
    if knob!(lane_slots) == 0 {
        return;
    }
    // SAFETY: a helper without arguments.
    if let Some(lane) = LANES.get_ptr_mut(unsafe { bpf_get_smp_processor_id() }) {
        // SAFETY: the element of a live map. A program that interrupts this one notes another socket: then a record more is
        // written, which harms nobody.
        unsafe { (&raw mut (*lane).closed).write_volatile(cookie) };
    }
}

/// Whether the last end that was recorded on this CPU is that of the socket with this cookie. If so, counts it as destroyed.
#[inline(always)]
pub(crate) fn is_end_known(cookie: u64) -> bool {
    if knob!(lane_slots) == 0 || cookie == 0 {
        return false;
    }
    // SAFETY: a helper without arguments.
    let Some(lane) = LANES.get_ptr_mut(unsafe { bpf_get_smp_processor_id() }) else { return false };
    // SAFETY: as in `note_end`. Cookies are never given twice.
    if unsafe { (&raw const (*lane).closed).read_volatile() } != cookie {
        return false;
    }
    // SAFETY: an aligned word of a live map.
    unsafe { atomic::add(&raw mut (*lane).destroyed, 1) };
    true
}

/// The next slot of the lane of `cpu`, on which the program runs. None if the lane is full, if this program has interrupted
/// another one at work there, or if this machine has no lanes.
#[inline(always)]
pub(crate) fn claim(cpu: u32) -> Claim {
    let slots = knob!(lane_slots);
    if slots == 0 {
        return NONE;
    }
    let Some(lane) = LANES.get_ptr_mut(cpu) else { return NONE };
    // SAFETY: an aligned word of a live map, shared with nobody but programs on this CPU.
    unsafe { atomic::add(&raw mut (*lane).writers, 1) };
    // SAFETY: the element of a live map; the loads are volatile because interrupts and the agent change what they read.
    let (alone, head, tail) = unsafe {
        (
            (&raw const (*lane).writers).read_volatile() == 1,
            (&raw const (*lane).head).read_volatile(),
            (&raw const (*lane).tail).read_volatile(),
        )
    };
    if alone
        && head.wrapping_sub(tail) < u64::from(slots)
        && let Some(slot) = SLOTS.get_ptr_mut(cpu * slots + (head as u32 & (slots - 1)))
    {
        return Claim { lane, slot, head };
    }
    leave(lane);
    NONE
}

impl Claim {
    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.lane.is_null()
    }

    /// Where the record goes.
    #[inline(always)]
    pub(crate) fn slot<T>(&self) -> *mut T {
        const { assert!(size_of::<T>() <= SLOT) };
        self.slot.cast()
    }

    /// Shows the record to the agent.
    #[inline(always)]
    pub(crate) fn commit(self) {
        // The record must be there before the head says so. The CPUs that have lanes keep the order of their stores
        // (`agent/src/arch.rs`), so only the compiler needs to be told: by assembly, because it has no `compiler_fence` here.
        // SAFETY: no instruction at all.
        unsafe { asm!("") };
        // SAFETY: as in `claim`.
        unsafe { (&raw mut (*self.lane).head).write_volatile(self.head + 1) };
        leave(self.lane);
    }
}

#[inline(always)]
fn leave(lane: *mut Lane) {
    // SAFETY: as in `claim`. An addition, because there is no instruction that subtracts.
    unsafe { atomic::add(&raw mut (*lane).writers, u64::MAX) };
}
