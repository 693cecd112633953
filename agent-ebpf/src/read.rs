//! How kernel memory is read: by typed loads where the verifier knows the types, by a helper elsewhere.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use synfin_common::knobs::ABSENT;

use crate::field::{Field, Scalar};

/// A way to read fields behind a kernel pointer. A field that the kernel does not have reads as 0 bits.
pub(crate) trait Read {
    /// A number.
    fn load<T: Scalar, const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> T;

    /// A pointer, to be read by the same way again. To be asked of a field that is present: verifiers refuse to follow a 0.
    fn follow<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> *const u8;

    /// Two bytes out of an array.
    fn pair<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u8; 2];

    /// A `struct in6_addr`.
    fn in6<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u32; 4];

    /// A `char [16]`.
    fn comm<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u64; 2];
}

/// Typed loads. In a `tp_btf` program the verifier knows the type behind a pointer and accepts `pointer + constant` as a load of
/// the field that lies there, if offset and size match one. Such a load cannot fault. Through the pointer that the
/// tracepoint hands over it is a plain load; through any other the kernel guards it by seven instructions more.
pub(crate) struct Typed;

impl Read for Typed {
    #[inline(always)]
    fn load<T: Scalar, const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> T {
        field.load::<T, 0>(base)
    }

    #[inline(always)]
    fn follow<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> *const u8 {
        field.load::<u64, 0>(base) as *const u8
    }

    #[inline(always)]
    fn pair<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u8; 2] {
        // Byte by byte: the verifier knows an array of char.
        [field.load::<_, 0>(base), field.load::<_, 1>(base)]
    }

    #[inline(always)]
    fn in6<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u32; 4] {
        [field.load::<_, 0>(base), field.load::<_, 4>(base), field.load::<_, 8>(base), field.load::<_, 12>(base)]
    }

    #[inline(always)]
    fn comm<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u64; 2] {
        [field.load::<_, 0>(base), field.load::<_, 8>(base)]
    }
}

/// Reads by `bpf_probe_read_kernel`, which takes any number for an address and fails where nothing is mapped: for pointers
/// without a type.
pub(crate) struct Probed;

impl Probed {
    /// What lies at an offset; 0 bits if the offset is [`ABSENT`] or nothing is mapped there.
    #[inline(always)]
    pub(crate) fn at<T: Copy + Default>(base: *const u8, offset: u32) -> T {
        if offset == ABSENT {
            return T::default();
        }
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.unwrap_or_default()
    }

    /// A pointer that lies at an offset.
    #[inline(always)]
    pub(crate) fn pointer_at(base: *const u8, offset: u32) -> *const u8 {
        Self::at::<u64>(base, offset) as *const u8
    }
}

impl Read for Probed {
    #[inline(always)]
    fn load<T: Scalar, const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> T {
        Self::at(base, field.offset())
    }

    #[inline(always)]
    fn follow<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> *const u8 {
        Self::pointer_at(base, field.offset())
    }

    #[inline(always)]
    fn pair<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u8; 2] {
        Self::at(base, field.offset())
    }

    #[inline(always)]
    fn in6<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u32; 4] {
        Self::at(base, field.offset())
    }

    #[inline(always)]
    fn comm<const INDEX: usize>(base: *const u8, field: Field<INDEX>) -> [u64; 2] {
        Self::at(base, field.offset())
    }
}
