//! Fields of kernel structs, whose offsets are known only when the programs are loaded.

#![expect(clippy::unused_self, reason = "a field is a value, so that who takes one infers its index")]

use core::arch::asm;

use synfin_common::knobs::{FIELD_SHIFT, FIELDS, MAGIC_OFFSET, MAGIC_PRESENCE};

use crate::maps::{OFFSETS, read};

/// A kernel field, by the name of its offset in [`synfin_common::knobs::Offsets`].
macro_rules! field {
    ($name:ident) => {
        $crate::field::Field::<{ core::mem::offset_of!(synfin_common::knobs::Offsets, $name) / 4 }>
    };
}

pub(crate) use field;

/// The field with this index in [`FIELDS`].
#[derive(Clone, Copy)]
pub(crate) struct Field<const INDEX: usize>;

impl<const INDEX: usize> Field<INDEX> {
    /// Whether this kernel has it: a move of a mark, which the loader replaces by 1 or 0.
    #[inline(always)]
    pub(crate) fn is_present(self) -> bool {
        const { assert!(INDEX < FIELDS.len()) };
        let present: u64;
        // SAFETY: it sets one register.
        unsafe {
            asm!(
                "{present} = {mark}",
                present = lateout(reg) present,
                mark = const MAGIC_PRESENCE + INDEX as i32,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        present != 0
    }

    /// Its offset, [`ABSENT`](synfin_common::knobs::ABSENT) where this kernel does not have it. A load from a global: for those
    /// who must compute an address.
    #[inline(always)]
    pub(crate) fn offset(self) -> u32 {
        const { assert!(INDEX < FIELDS.len()) };
        read((&raw const OFFSETS).cast::<u32>().wrapping_add(INDEX))
    }

    /// Loads the field, or the part of it that starts `DELTA` bytes on; 0 bits where this kernel does not have it.
    ///
    /// One instruction with a mark for an offset, which the loader replaces: the verifier sees `pointer + constant`, accepts it
    /// as a typed load, and the CPU executes no more than that.
    #[inline(always)]
    pub(crate) fn load<T: Scalar, const DELTA: usize>(self, base: *const u8) -> T {
        const { assert!(INDEX < FIELDS.len() && DELTA < 1 << FIELD_SHIFT) };
        T::load::<INDEX, DELTA>(base)
    }
}

/// What one instruction loads.
pub(crate) trait Scalar: Copy + Default {
    fn load<const INDEX: usize, const DELTA: usize>(base: *const u8) -> Self;
}

macro_rules! scalar {
    ($type:ty, $size:literal) => {
        impl Scalar for $type {
            #[inline(always)]
            fn load<const INDEX: usize, const DELTA: usize>(base: *const u8) -> Self {
                let value: u64;
                // SAFETY: the verifier has checked that a field of this size lies there; the kernel catches faults of typed loads.
                unsafe {
                    asm!(
                        concat!("{value} = *(", $size, " *)({base} + {offset})"),
                        value = lateout(reg) value,
                        base = in(reg) base,
                        offset = const MAGIC_OFFSET + (INDEX << FIELD_SHIFT) + DELTA,
                        options(pure, readonly, nostack, preserves_flags),
                    );
                }
                value as $type
            }
        }
    };
}

scalar!(u8, "u8");
scalar!(u16, "u16");
scalar!(u32, "u32");
scalar!(u64, "u64");
