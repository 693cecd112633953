//! All writing: records into lanes and ring, counts into the tally. What finds no room is counted where it is lost.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ringbuf_reserve, bpf_ringbuf_submit};
use synfin_common::event::{Header, WIRE_VERSION};
use synfin_common::tally::{TallyKey, lost};

use crate::atomic;
use crate::lane;
pub(crate) use crate::lane::{is_end_known, note_end};
use crate::maps::{EVENTS, LOST, TALLY};

/// `BPF_RB_NO_WAKEUP`: the reader polls; waking it for each record would cost eight times the program.
const NO_WAKEUP: u64 = 1;

/// Writes a record of `kind`: its header here, the rest by `fill`, which must write every byte behind the header. It goes into
/// this CPU's lane, else into the shared ring; without room in both it is counted as lost.
///
/// The fields go straight from the kernel's structs to their place; a record built on the stack first costs a third more.
#[inline(always)]
pub(crate) fn record<T: 'static>(kind: u16, flags: u16, fill: impl FnOnce(*mut T)) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // One place that writes, for two kinds of slots: two would make LLVM move the writing into a function of its own, and
    // all that it writes onto the stack first.
    let claim = lane::claim(cpu);
    let to: *mut T = if claim.is_none() {
        // SAFETY: a live map; the size is that of the record.
        unsafe { bpf_ringbuf_reserve((&raw const EVENTS).cast_mut().cast(), size_of::<T>() as u64, 0).cast() }
    } else {
        claim.slot()
    };
    if to.is_null() {
        // It may have been the close of a socket that is connected again: what was noted of its last end is no longer the end.
        note_end(0);
        count(u32::from(kind));
        return;
    }
    let header = to.cast::<Header>();
    // SAFETY: every record starts with its header; `to` is a slot for the whole record.
    unsafe {
        (&raw mut (*header).time_ns).write(bpf_ktime_get_ns());
        (&raw mut (*header).kind).write(kind);
        (&raw mut (*header).flags).write(flags);
        (&raw mut (*header).version).write(WIRE_VERSION);
        (&raw mut (*header).pad).write(0);
        (&raw mut (*header).cpu).write(cpu as u16);
    }
    fill(to);
    if claim.is_none() {
        // SAFETY: reserved above.
        unsafe { bpf_ringbuf_submit(to.cast(), NO_WAKEUP) };
    } else {
        claim.commit();
    }
}

/// Counts in a slot of LOST.
#[inline(always)]
pub(crate) fn count(slot: u32) {
    if let Some(counter) = LOST.get_ptr_mut(slot) {
        // SAFETY: the element of this CPU. In one step, because on older kernels (5.10) nothing keeps a raw tracepoint's or
        // `tp_btf` program from running again in an interrupt of itself.
        unsafe { atomic::add(counter, 1) };
    }
}

/// Adds one to a row of the tally, or to the overflow row of the same kind when the map is full.
#[inline(always)]
pub(crate) fn tally(key: &TallyKey) {
    if add(key) || TALLY.insert(key, 1, 0).is_ok() {
        return;
    }
    count(lost::TALLY_OVERFLOW);
    // The loader has made this row, so it is there however full the map is.
    add(&TallyKey { netns: 0, reason: 0, what: key.what, port: 0, family: 0, pad: 0 });
}

#[inline(always)]
fn add(key: &TallyKey) -> bool {
    let Some(value) = TALLY.get_ptr_mut(key) else { return false };
    // SAFETY: the value of this CPU; in one step as in `count`.
    unsafe { atomic::add(value, 1) };
    true
}
