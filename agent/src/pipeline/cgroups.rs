//! Cgroups that events are of, noted while they are there: one that has been noted in this second costs no more than a comparison.

use crate::owner::Directory;

/// Places for cgroups that have been noted, a power of two.
const PLACES: usize = 1_024;

/// Notes each cgroup once a second.
#[derive(Debug)]
pub(super) struct Cgroups {
    directory: Directory,
    noted: Box<[u64; PLACES]>,
}

impl Cgroups {
    pub(super) fn new(directory: Directory) -> Self {
        Self { directory, noted: Box::new([0; PLACES]) }
    }

    /// Notes a cgroup; zero is none.
    pub(super) fn note(&mut self, cgroup: u64) {
        // Ids are numbers in a row, on some kernels with a generation above.
        let place = &mut self.noted[cgroup as usize % PLACES];
        if *place != cgroup && self.directory.note(cgroup) {
            *place = cgroup;
        }
    }

    /// Notes all of them again from now on, so that the directory knows what is in use.
    pub(super) fn forget(&mut self) {
        self.noted.fill(0);
    }
}
