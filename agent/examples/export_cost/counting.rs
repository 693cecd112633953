//! The system's allocator, counted where that is asked for: otherwise it costs a look at a flag.

#![expect(unsafe_code, reason = "an allocator that counts is still an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

struct Counting;

static IS_ON: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Begins to count.
pub(crate) fn begin() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Allocations since then.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

// SAFETY: every call goes to `System` unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the same contract as `GlobalAlloc::alloc`: the size of `layout` is not zero.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_ON.load(Ordering::Relaxed) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are those that `System` needs.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the same contract as `GlobalAlloc::dealloc`: `pointer` came from `alloc` with this `layout`, and goes now.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; what `alloc` gave came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
