//! The rungs of the ladder: how a program is attached decides how it may read and which helpers it may ask. A probe has
//! one body, written over [`Rung`], and a thin entry point for each of these types.

use crate::field::Field;
use crate::read::{Probed, Read, Typed};
use crate::record::Record;

/// What a program may do on its rung.
pub(crate) trait Rung: Copy {
    /// How the sockets and segments are read that the tracepoint hands over.
    type Kernel: Read;
    /// How the current task is read.
    type Task: Read;
    /// The verifier follows types: the kernel's own cast makes a TCP socket of a socket (`bpf_skc_to_tcp_sock`).
    const TYPED: bool;
    /// The helpers of 5.11 and 5.12 are there: the current task with its type, and cookies for sockets that have none.
    const HELPERS: bool;

    /// The tracepoint's own record, where it must stand in for this field.
    #[inline(always)]
    fn record_for<const INDEX: usize>(self, _field: Field<INDEX>) -> Option<Record> {
        None
    }
}

/// `tp_btf` with every helper.
#[derive(Clone, Copy)]
pub(crate) struct TpBtf;

impl Rung for TpBtf {
    type Kernel = Typed;
    type Task = Typed;
    const TYPED: bool = true;
    const HELPERS: bool = true;
}

/// `tp_btf` with the helpers of 5.10.
#[derive(Clone, Copy)]
pub(crate) struct TpBtfLean;

impl Rung for TpBtfLean {
    type Kernel = Typed;
    type Task = Probed;
    const TYPED: bool = true;
    const HELPERS: bool = false;
}

/// Raw tracepoint: the arguments of the tracepoint, without their types.
#[derive(Clone, Copy)]
pub(crate) struct Raw;

impl Rung for Raw {
    type Kernel = Probed;
    type Task = Probed;
    const TYPED: bool = false;
    const HELPERS: bool = false;
}

/// Classic tracepoint: its record.
#[derive(Clone, Copy)]
pub(crate) struct Classic(pub(crate) Record);

impl Rung for Classic {
    type Kernel = Probed;
    type Task = Probed;
    const TYPED: bool = false;
    const HELPERS: bool = false;

    #[inline(always)]
    fn record_for<const INDEX: usize>(self, field: Field<INDEX>) -> Option<Record> {
        (!field.is_present()).then_some(self.0)
    }
}
