//! The reading end of the lanes, see [`synfin_common::lane`].
#![expect(unsafe_code, reason = "memory that the kernel writes is reached through pointers")]

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use synfin_common::lane::{Lane, SLOT};

/// Most slots that a lane has: 384 KiB, which stay in the CPU's cache.
const MOST_SLOTS: u32 = 2048;

/// Fewest slots that a lane has, however small the ring.
const FEWEST_SLOTS: u32 = 8;

/// All lanes together take at most this many times the memory of the shared ring.
const SHARE: u64 = 4;

/// Records read before their slots are given back.
const GIVE_BACK: u64 = 256;

/// Slots of each of `cpus` lanes beside a shared ring of `ring_size` bytes: a power of two.
pub fn slots(ring_size: u32, cpus: u32) -> u32 {
    let most = SHARE * u64::from(ring_size) / SLOT as u64 / u64::from(cpus.max(1));
    let most = u32::try_from(most).unwrap_or(MOST_SLOTS).clamp(FEWEST_SLOTS, MOST_SLOTS);
    // The power of two below, or at it.
    1 << most.ilog2()
}

/// Memory shared with the kernel.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to this value alone; nothing about it is bound to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a map that was made with `BPF_F_MMAPABLE`.
    fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping, placed by the kernel.
        let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let start: *mut c_void = self.start.as_ptr().cast();
        // SAFETY: mapped in `new`, and nothing borrows it any more. A failure leaves it mapped, which harms nobody.
        let _unmapped = unsafe { munmap(start, self.len) };
    }
}

/// How far one lane has been read.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// Records that were there when the pass began.
    head: u64,
    /// Records read.
    tail: u64,
}

/// Every lane.
#[derive(Debug)]
pub struct Lanes {
    heads: Mapping,
    slots: Mapping,
    slots_per_lane: u64,
    cursors: Vec<Cursor>,
}

impl Lanes {
    /// Maps the arrays LANES and SLOTS, made for `cpus` lanes of `slots_per_lane` slots.
    pub fn new(heads: BorrowedFd<'_>, slots: BorrowedFd<'_>, cpus: u32, slots_per_lane: u32) -> io::Result<Self> {
        let cpus = cpus as usize;
        Ok(Self {
            heads: Mapping::new(heads, cpus * size_of::<Lane>())?,
            slots: Mapping::new(slots, cpus * slots_per_lane as usize * SLOT)?,
            slots_per_lane: u64::from(slots_per_lane),
            cursors: vec![Cursor::default(); cpus],
        })
    }

    /// Bytes of all slots.
    pub fn size(&self) -> u64 {
        self.slots.len as u64
    }

    /// Sockets that the programs only counted as destroyed, because their close was recorded just before.
    pub(crate) fn destroyed(&self) -> u64 {
        let of = |index| {
            // SAFETY: as in `look`.
            unsafe { AtomicU64::from_ptr(&raw mut (*self.lane(index)).destroyed) }.load(Ordering::Relaxed)
        };
        self.indexes().map(of).sum()
    }

    /// Indexes of all lanes.
    pub(crate) fn indexes(&self) -> std::ops::Range<usize> {
        0..self.cursors.len()
    }

    /// Looks how far the programs have come. What they write from now on is for the next time.
    pub(crate) fn look(&mut self) {
        for index in 0..self.cursors.len() {
            let lane = self.lane(index);
            // SAFETY: a live, aligned u64 of the mapping; the kernel writes it as one word.
            let head = unsafe { AtomicU64::from_ptr(&raw mut (*lane).head) }.load(Ordering::Acquire);
            self.cursors[index].head = head;
        }
    }

    /// The oldest record of a lane that has not been read.
    pub(crate) fn front(&self, index: usize) -> Option<&[u8; SLOT]> {
        let Cursor { head, tail } = self.cursors[index];
        if head == tail {
            return None;
        }
        let slot = index as u64 * self.slots_per_lane + (tail & (self.slots_per_lane - 1));
        // SAFETY: `slot` is within the mapping, because `index` is that of a cursor. Between tail and head no program writes,
        // so that nobody changes the bytes while they are borrowed; `advance` needs the borrow to have ended.
        Some(unsafe { self.slots.start.add(slot as usize * SLOT).cast().as_ref() })
    }

    /// Goes to the next record of a lane.
    pub(crate) fn advance(&mut self, index: usize) {
        self.cursors[index].tail += 1;
        if self.cursors[index].tail.is_multiple_of(GIVE_BACK) {
            self.give_back(index);
        }
    }

    /// Gives the slots that were read back to the programs.
    pub(crate) fn give_all_back(&mut self) {
        for index in 0..self.cursors.len() {
            self.give_back(index);
        }
    }

    fn give_back(&mut self, index: usize) {
        let lane = self.lane(index);
        // SAFETY: as in `look`; only this reader writes it.
        let tail = unsafe { AtomicU64::from_ptr(&raw mut (*lane).tail) };
        // Not for nothing: the line is the programs' to read.
        if tail.load(Ordering::Relaxed) != self.cursors[index].tail {
            tail.store(self.cursors[index].tail, Ordering::Release);
        }
    }

    fn lane(&self, index: usize) -> *mut Lane {
        assert!(index < self.cursors.len(), "no such lane");
        // SAFETY: within the mapping, which has a Lane for each cursor.
        unsafe { self.heads.start.cast::<Lane>().add(index).as_ptr() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rustix::mm::mmap_anonymous;

    use super::*;

    fn anonymous(len: usize) -> Mapping {
        // SAFETY: a new mapping, placed by the kernel.
        let start = unsafe {
            mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE).unwrap()
        };
        Mapping { start: NonNull::new(start.cast()).unwrap(), len }
    }

    impl Lanes {
        /// Lanes without a kernel.
        pub(crate) fn stand_in(cpus: usize, slots_per_lane: u64) -> Self {
            Self {
                heads: anonymous(cpus * size_of::<Lane>()),
                slots: anonymous(cpus * slots_per_lane as usize * SLOT),
                slots_per_lane,
                cursors: vec![Cursor::default(); cpus],
            }
        }

        /// Counts a destroyed socket as the programs do.
        pub(crate) fn count_destroyed(&self, index: usize) {
            // SAFETY: one thread in a test.
            unsafe { (*self.lane(index)).destroyed += 1 };
        }

        /// Writes a record as the programs do; false if the lane is full.
        pub(crate) fn write(&self, index: usize, record: &[u8]) -> bool {
            let lane = self.lane(index);
            // SAFETY: one thread in a test; the slot is within the mapping, and the reader borrows none beyond head.
            unsafe {
                let (head, tail) = ((*lane).head, (*lane).tail);
                if head - tail >= self.slots_per_lane {
                    return false;
                }
                let slot = index as u64 * self.slots_per_lane + head % self.slots_per_lane;
                let to = self.slots.start.add(slot as usize * SLOT);
                ptr::copy_nonoverlapping(record.as_ptr(), to.as_ptr(), record.len());
                (*lane).head = head + 1;
            }
            true
        }
    }

    #[test]
    fn lanes_fit_the_machine() {
        assert_eq!(slots(8 << 20, 2), 2048);
        assert_eq!(slots(8 << 20, 256), 512, "at most four times the ring: 24 MiB");
        assert_eq!(slots(4096, 2), 32);
        assert_eq!(slots(4096, 256), FEWEST_SLOTS);
        assert_eq!(slots(1 << 30, 1), 2048);
    }

    #[test]
    fn what_was_read_gives_room() {
        let mut lanes = Lanes::stand_in(2, 4);
        for value in 0..4_u8 {
            assert!(lanes.write(1, &[value]));
        }
        assert!(!lanes.write(1, &[4]), "full");
        assert!(lanes.front(1).is_none(), "nobody has looked");
        lanes.look();
        assert!(lanes.front(0).is_none());
        assert_eq!(lanes.front(1).unwrap()[0], 0);
        lanes.advance(1);
        assert!(!lanes.write(1, &[4]), "not given back yet");
        lanes.give_all_back();
        assert!(lanes.write(1, &[4]), "over the end, to the first slot");
        assert!(!lanes.write(1, &[5]));
        for value in 1..4 {
            assert_eq!(lanes.front(1).unwrap()[0], value);
            lanes.advance(1);
        }
        assert!(lanes.front(1).is_none(), "written after the look");
        lanes.look();
        assert_eq!(lanes.front(1).unwrap()[0], 4);
    }
}
