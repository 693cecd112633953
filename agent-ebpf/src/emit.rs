//! All writing: records into the ring, counts into the tally. What finds no room is counted where it is lost.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use synfin_common::event::{Header, WIRE_VERSION};
use synfin_common::tally::{TallyKey, lost};

use crate::maps::{EVENTS, LOST, TALLY};

/// `BPF_RB_NO_WAKEUP`: the reader polls; waking it for each record would cost eight times the program.
const NO_WAKEUP: u64 = 1;

/// Writes a record of `kind` to the ring: its header here, the rest by `fill`, which must write every byte behind the
/// header. Without room it is counted as lost.
///
/// The fields go straight from the kernel's structs into the ring; a record built on the stack first costs a third more.
#[inline(always)]
pub(crate) fn record<T: 'static>(kind: u16, flags: u16, fill: impl FnOnce(*mut T)) {
    // SAFETY: a helper without arguments.
    record_at(kind, flags, || unsafe { bpf_ktime_get_ns() }, fill);
}

/// The same without a time, for a record by which nothing is measured: the clock is half of a small record's cost.
#[inline(always)]
pub(crate) fn record_untimed<T: 'static>(kind: u16, flags: u16, fill: impl FnOnce(*mut T)) {
    record_at(kind, flags, || 0, fill);
}

#[inline(always)]
fn record_at<T: 'static>(kind: u16, flags: u16, time: impl FnOnce() -> u64, fill: impl FnOnce(*mut T)) {
    let Some(mut slot) = EVENTS.reserve::<T>(0) else {
        count(u32::from(kind));
        return;
    };
    let to = slot.as_mut_ptr();
    let header = to.cast::<Header>();
    // SAFETY: every record starts with its header.
    unsafe {
        (&raw mut (*header).time_ns).write(time());
        (&raw mut (*header).kind).write(kind);
        (&raw mut (*header).flags).write(flags);
        (&raw mut (*header).version).write(WIRE_VERSION);
        (&raw mut (*header).pad).write(0);
        (&raw mut (*header).cpu).write(bpf_get_smp_processor_id() as u16);
    }
    fill(to);
    slot.submit(NO_WAKEUP);
}

/// Counts in a slot of LOST.
#[inline(always)]
pub(crate) fn count(slot: u32) {
    if let Some(counter) = LOST.get_ptr_mut(slot) {
        // SAFETY: the element of this CPU; the kernel does not let this program run twice on one CPU, and a second
        // program that interrupts it counts in another slot.
        unsafe { *counter += 1 };
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
    // SAFETY: the value of this CPU, which only the program that owns this kind of key writes.
    unsafe { *value += 1 };
    true
}
