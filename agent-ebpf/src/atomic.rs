//! Additions that an interrupt cannot come between.

use core::arch::asm;

/// Adds `value` to `*word` in one step. In assembly because the target has no `fetch_add`, and because the instruction that
/// answers the old value, which a compiler might choose, is not there before 5.12.
///
/// # Safety
/// `word` is an aligned word in an element of a live map.
#[inline(always)]
pub(crate) unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: the caller's promise; whoever shares the word lives with its value at any time.
    unsafe { asm!("lock *(u64 *)({word} + 0) += {value}", word = in(reg) word, value = in(reg) value) };
}
