//! What is counted for each owner apart: rows by cgroup, bounded, cheap to find and cheap to hand on.
//!
//! Knows nothing of what is counted, nor of what a cgroup is.

use std::sync::Arc;

use hashbrown::HashMap;

/// Owners with a row of their own at most. A node runs some hundred containers; beyond this, one row takes what is left.
pub const LIMIT: usize = 1_024;

/// Key of what belongs to no cgroup that is known.
pub const NOBODY: u64 = 0;

/// Key of the row for all that found no room. No cgroup has this id: ids are inode numbers.
pub const OVERFLOW: u64 = u64::MAX;

/// A row as it is handed on.
#[derive(Debug)]
pub struct Shared<T> {
    /// Whose it is.
    pub cgroup: u64,
    /// Which row of this cgroup: one that comes back has a new one, which counts from zero.
    pub row: u64,
    /// What was counted.
    pub value: Arc<T>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { cgroup: self.cgroup, row: self.row, value: Arc::clone(&self.value) }
    }
}

/// One row for each cgroup.
#[derive(Debug)]
pub struct Accounts<T> {
    rows: Vec<Row<T>>,
    index: HashMap<u64, usize>,
    /// Where the last one was: events come in bursts.
    last: usize,
    limit: usize,
    /// Rows that there ever were.
    made: u64,
}

#[derive(Debug)]
struct Row<T> {
    key: u64,
    number: u64,
    value: T,
    touched_ns: u64,
    /// What was handed on last; None when the value is newer.
    shared: Option<Arc<T>>,
}

impl<T: Default + Clone> Accounts<T> {
    /// None yet, and never more than `limit` besides those of [`NOBODY`] and [`OVERFLOW`].
    pub fn new(limit: usize) -> Self {
        Self { rows: Vec::new(), index: HashMap::new(), last: 0, limit, made: 0 }
    }

    /// The row of a cgroup, to count something in. No allocation for one that is known.
    #[inline]
    pub fn of(&mut self, cgroup: u64) -> &mut T {
        if self.rows.get(self.last).is_none_or(|row| row.key != cgroup) {
            self.last = self.find(cgroup);
        }
        let row = &mut self.rows[self.last];
        row.shared = None;
        &mut row.value
    }

    fn find(&mut self, cgroup: u64) -> usize {
        if let Some(at) = self.index.get(&cgroup) {
            return *at;
        }
        let is_special = cgroup == NOBODY || cgroup == OVERFLOW;
        if !is_special && self.rows.len() >= self.limit.saturating_add(2) {
            return self.find(OVERFLOW);
        }
        let at = self.rows.len();
        self.made += 1;
        self.rows.push(Row { key: cgroup, number: self.made, value: T::default(), touched_ns: 0, shared: None });
        self.index.insert(cgroup, at);
        at
    }

    /// Lets go of owners of whom nothing was heard since `before_ns`, and of what has not been handed on never. Whoever reads the rows
    /// must have done so by then.
    pub fn expire(&mut self, before_ns: u64) {
        let before = self.rows.len();
        self.rows.retain(|row| {
            row.touched_ns >= before_ns || row.shared.is_none() || row.key == NOBODY || row.key == OVERFLOW
        });
        if self.rows.len() != before {
            self.last = 0;
            self.index = self.rows.iter().enumerate().map(|(at, row)| (row.key, at)).collect();
        }
    }

    /// All rows as they are at `now_ns`. Those that have not changed since the last call are not copied again.
    pub fn share(&mut self, now_ns: u64) -> Arc<[Shared<T>]> {
        let rows = self.rows.iter_mut();
        rows.map(|row| {
            // What is counted late may be about a time long ago, and is news all the same.
            if row.shared.is_none() {
                row.touched_ns = row.touched_ns.max(now_ns);
            }
            let shared = row.shared.get_or_insert_with(|| Arc::new(row.value.clone()));
            Shared { cgroup: row.key, row: row.number, value: Arc::clone(shared) }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(accounts: &mut Accounts<u64>) -> Vec<(u64, u64)> {
        let mut rows: Vec<_> = accounts.share(1).iter().map(|shared| (shared.cgroup, *shared.value)).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn each_cgroup_has_its_row_and_what_finds_no_room_is_counted_all_the_same() {
        let mut accounts = Accounts::new(2);
        for cgroup in [NOBODY, 7, 8, 9, 7, 10, NOBODY, 9] {
            *accounts.of(cgroup) += 1;
        }
        // Room for two besides the special ones, of which the second has not been needed before.
        assert_eq!(read(&mut accounts), [(NOBODY, 2), (7, 2), (8, 1), (9, 2), (OVERFLOW, 1)]);
    }

    #[test]
    fn a_silent_owner_goes_and_begins_anew() {
        let mut accounts = Accounts::new(4);
        *accounts.of(NOBODY) += 1;
        *accounts.of(7) += 1;
        accounts.expire(u64::MAX);
        drop(accounts.share(10));
        *accounts.of(8) += 1;
        let before = accounts.share(20);
        accounts.expire(20);
        assert_eq!(read(&mut accounts), [(NOBODY, 1), (8, 1)]);
        *accounts.of(7) += 5;
        *accounts.of(8) += 1;
        assert_eq!(read(&mut accounts), [(NOBODY, 1), (7, 5), (8, 2)]);
        let row =
            |all: &[Shared<u64>], cgroup| all.iter().find(|shared| shared.cgroup == cgroup).map(|shared| shared.row);
        let after = accounts.share(30);
        assert_ne!(row(&before, 7), row(&after, 7));
        assert_eq!(row(&before, 8), row(&after, 8));
    }

    #[test]
    fn what_has_not_changed_is_not_copied() {
        let mut accounts = Accounts::<u64>::new(4);
        *accounts.of(7) += 1;
        *accounts.of(8) += 1;
        let first = accounts.share(1);
        *accounts.of(8) += 1;
        let second = accounts.share(2);
        assert!(Arc::ptr_eq(&first[0].value, &second[0].value));
        assert_eq!((*first[1].value, *second[1].value), (1, 2));
    }
}
