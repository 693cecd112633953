//! All maps and globals. Their names and types are the contract with the agent's loader.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use synfin_common::census::{Group, GroupKey, Listener, PortBits, PortKey, limit, stray};
use synfin_common::knobs::{Knobs, Offsets};
use synfin_common::lane::{Lane, SLOT};
use synfin_common::layout::Layouts;
use synfin_common::tally::{TALLY_ROWS, TallyKey, lost};

/// Heads of the lanes, by CPU. The loader sets the number. `BPF_F_MMAPABLE`: the agent reads without system calls.
#[map]
pub(crate) static LANES: Array<Lane> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Slots of the lanes: `knobs.lane_slots` for each CPU, one CPU after the other. The loader sets the number.
#[map]
pub(crate) static SLOTS: Array<MaybeUninit<[u8; SLOT]>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Records of [`synfin_common::event`] that the lanes did not take. The loader sets the size.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// What could not be told, see [`lost`]. Indexed by record kind first: a reservation in EVENTS that failed.
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(lost::SLOTS, 0);

/// Facts at the rate of packets. A key is an unbounded product (namespaces × ports), hence a hash; full, it counts into
/// its overflow row. Rows are never removed here: the agent reads sums.
#[map]
pub(crate) static TALLY: PerCpuHashMap<TallyKey, u64> = PerCpuHashMap::with_max_entries(TALLY_ROWS, 0);

/// Namespaces (inode numbers) to watch, see `filter::NETNS`.
#[map]
pub(crate) static FILTER_NETNS: HashMap<u32, u32> = HashMap::with_max_entries(1024, 0);

/// The one namespace to watch, see `filter::ONE_NETNS`. No constant: the name may come to mean another namespace.
#[map]
pub(crate) static FILTER_ONE_NETNS: Array<u32> = Array::with_max_entries(1, 0);

/// Ports to watch, see `filter::PORTS`.
#[map]
pub(crate) static FILTER_PORTS: HashMap<u16, u32> = HashMap::with_max_entries(1024, 0);

/// Networks of peers to watch, see `filter::PEERS`. `BPF_F_NO_PREALLOC` (1) is what the kernel demands of a trie.
#[map]
pub(crate) static FILTER_PEERS: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1024, 1);

/// Networks of peers to leave out, see `filter::EXCLUDED`.
#[map]
pub(crate) static FILTER_EXCLUDED: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1024, 1);

/// Sums of a walk (`iter/census.rs`). `BPF_F_NO_PREALLOC` (1): most hosts have few groups.
#[map]
pub(crate) static GROUPS: HashMap<GroupKey, Group> = HashMap::with_max_entries(limit::GROUPS, 1);

/// Listening sockets of a walk, by the address of `struct sock`.
#[map]
pub(crate) static LISTENERS: HashMap<u64, Listener> = HashMap::with_max_entries(limit::LISTENERS, 1);

/// Ports of these listeners.
#[map]
pub(crate) static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(limit::LISTENERS, 1);

/// One element: the local ports that a walk of one namespace has met, of any socket. The agent clears it before each.
#[map]
pub(crate) static TAKEN: Array<PortBits> = Array::with_max_entries(1, 0);

/// Sockets of a walk that could not be told, see [`synfin_common::census::stray`].
#[map]
pub(crate) static STRAY: Array<u64> = Array::with_max_entries(stray::SLOTS, 0);

/// One word: a bit for each state (`1 << state`) whose sockets a listing is to contain.
#[map]
pub(crate) static WANTED: Array<u32> = Array::with_max_entries(1, 0);

/// Field offsets of the running kernel.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::NONE;

/// Switches.
#[unsafe(no_mangle)]
pub(crate) static KNOBS: Knobs = Knobs::NONE;

/// Layouts of the classic tracepoints' records.
#[unsafe(no_mangle)]
pub(crate) static LAYOUTS: Layouts = Layouts::NONE;

/// A switch of [`KNOBS`]. The read is volatile because the loader changes the value after the compiler has seen it; to
/// the verifier it is a constant, since the map that holds it is frozen.
macro_rules! knob {
    ($name:ident) => {
        $crate::maps::read(&raw const $crate::maps::KNOBS.$name)
    };
}

/// A word of a global, for [`knob`], `field` and `record`: `global` points into one of these statics.
#[inline(always)]
pub(crate) fn read(global: *const u32) -> u32 {
    // SAFETY: the callers pass the address of a field of a live static.
    unsafe { global.read_volatile() }
}

pub(crate) use knob;
