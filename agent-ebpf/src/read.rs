//! How kernel memory is read: by typed loads where the verifier knows the types, by a helper elsewhere.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use synfin_common::knobs::ABSENT;

/// A way to read fields behind a kernel pointer. A field that the kernel does not have ([`ABSENT`]) reads as 0 bits.
pub(crate) trait Read {
    /// A number.
    fn load<T: Copy + Default>(base: *const u8, offset: u32) -> T;

    /// A pointer, to be read by the same way again.
    fn follow(base: *const u8, offset: u32) -> *const u8;

    /// A `struct in6_addr`.
    fn in6(base: *const u8, offset: u32) -> [u32; 4];

    /// A `char [16]`.
    fn comm(base: *const u8, offset: u32) -> [u64; 2];
}

/// Typed loads at constant offsets. In a `tp_btf` program the verifier knows the type behind a pointer and accepts
/// `pointer + offset` as a load of the field that lies there, if offset and size match one. Such a load cannot fault: the
/// kernel turns a bad address into 0.
pub(crate) struct Typed;

impl Read for Typed {
    /// The load is volatile so that LLVM neither merges two fields into one load nor splits one: the verifier compares
    /// offset and size with real fields.
    #[inline(always)]
    fn load<T: Copy + Default>(base: *const u8, offset: u32) -> T {
        if offset == ABSENT {
            return T::default();
        }
        // SAFETY: the verifier has checked that a field of this size lies at this offset of the struct that `base` points
        // to; the kernel catches faults of typed loads.
        unsafe { base.add(offset as usize).cast::<T>().read_volatile() }
    }

    /// What it answers for an absent field must not be followed: the verifier sees a number there.
    #[inline(always)]
    fn follow(base: *const u8, offset: u32) -> *const u8 {
        if offset == ABSENT {
            return core::ptr::null();
        }
        // SAFETY: as in `load`; a pointer field is 8 bytes, and what it points to keeps its type for the verifier.
        unsafe { base.add(offset as usize).cast::<*const u8>().read_volatile() }
    }

    #[inline(always)]
    fn in6(base: *const u8, offset: u32) -> [u32; 4] {
        if offset == ABSENT {
            return [0; 4];
        }
        let word = |at| Self::load(base, offset + at);
        [word(0), word(4), word(8), word(12)]
    }

    #[inline(always)]
    fn comm(base: *const u8, offset: u32) -> [u64; 2] {
        if offset == ABSENT {
            return [0; 2];
        }
        [Self::load(base, offset), Self::load(base, offset + 8)]
    }
}

/// Reads by `bpf_probe_read_kernel`, which takes any number for an address and fails where nothing is mapped: for pointers
/// without a type.
pub(crate) struct Probed;

impl Probed {
    #[inline(always)]
    fn read<T: Copy>(base: *const u8, offset: u32, none: T) -> T {
        if offset == ABSENT {
            return none;
        }
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.unwrap_or(none)
    }
}

impl Read for Probed {
    #[inline(always)]
    fn load<T: Copy + Default>(base: *const u8, offset: u32) -> T {
        Self::read(base, offset, T::default())
    }

    #[inline(always)]
    fn follow(base: *const u8, offset: u32) -> *const u8 {
        Self::read(base, offset, 0_u64) as *const u8
    }

    #[inline(always)]
    fn in6(base: *const u8, offset: u32) -> [u32; 4] {
        Self::read(base, offset, [0; 4])
    }

    #[inline(always)]
    fn comm(base: *const u8, offset: u32) -> [u64; 2] {
        Self::read(base, offset, [0; 2])
    }
}
