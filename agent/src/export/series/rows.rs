//! Rows by key, in the order in which they are met: each collection meets nearly the same ones in the same order as the one before, so
//! that a row is nearly always found where the last one ended, without a look-up.

use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;

/// Rows, from one collection to the next.
#[derive(Debug)]
pub(super) struct Rows<V> {
    by_key: IndexMap<Box<[u8]>, Row<V>, DefaultHashBuilder>,
    /// Where the next one is expected.
    next: usize,
    /// Rows that were ever met: each has a turn, and later ones a higher one.
    turns: u64,
    /// Turns before this collection.
    began: u64,
    /// Rows of this collection that were not where they were expected.
    misplaced: usize,
}

#[derive(Debug)]
struct Row<V> {
    /// When it was last met.
    turn: u64,
    value: V,
}

impl<V> Rows<V> {
    pub(super) fn new() -> Self {
        Self { by_key: IndexMap::default(), next: 0, turns: 0, began: 0, misplaced: 0 }
    }

    /// Begins a collection.
    pub(super) fn begin(&mut self) {
        (self.next, self.began, self.misplaced) = (0, self.turns, 0);
    }

    /// Meets the row of this key, if there is one: its position, which is good until [`Rows::end`].
    pub(super) fn meet(&mut self, key: &[u8]) -> Option<usize> {
        let is_next = self.by_key.get_index(self.next).is_some_and(|(expected, _)| **expected == *key);
        let position = if is_next {
            self.next
        } else {
            self.misplaced += 1;
            self.by_key.get_index_of(key)?
        };
        self.turns += 1;
        self.by_key[position].turn = self.turns;
        self.next = position + 1;
        Some(position)
    }

    /// Meets a row that was not there.
    pub(super) fn insert(&mut self, key: &[u8], value: V) -> usize {
        self.turns += 1;
        self.by_key.insert_full(key.into(), Row { turn: self.turns, value }).0
    }

    /// The row at this position.
    pub(super) fn get(&mut self, position: usize) -> &mut V {
        &mut self.by_key[position].value
    }

    /// All of them.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.by_key.values_mut().map(|row| &mut row.value)
    }

    /// Ends a collection: rows that it has not met are `gone`.
    pub(super) fn end(&mut self, mut gone: impl FnMut(&V)) {
        let Self { by_key: rows, began, .. } = self;
        if self.turns - *began < rows.len() as u64 {
            rows.retain(|_, row| {
                let stays = row.turn > *began;
                if !stays {
                    gone(&row.value);
                }
                stays
            });
        }
        // A few cost less than putting all in order.
        if self.misplaced > rows.len() / 16 {
            rows.sort_unstable_by(|_, one, _, other| one.turn.cmp(&other.turn));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Meets these, making those that are not there.
    fn collect(rows: &mut Rows<u8>, keys: &[u8]) -> Vec<u8> {
        rows.begin();
        for key in keys {
            let position = rows.meet(&[*key]).unwrap_or_else(|| rows.insert(&[*key], *key));
            assert_eq!(rows.get(position), key);
        }
        let mut left = Vec::new();
        rows.end(|value| left.push(*value));
        left
    }

    #[test]
    fn each_row_is_found_wherever_it_is() {
        let mut rows = Rows::new();
        assert!(collect(&mut rows, &[1, 2, 3, 4]).is_empty());
        assert!(collect(&mut rows, &[1, 2, 3, 4]).is_empty());
        assert_eq!(rows.misplaced, 0, "it is the same order");
        assert!(collect(&mut rows, &[4, 3, 9, 2, 1]).is_empty());
        assert!(collect(&mut rows, &[4, 3, 9, 2, 1]).is_empty());
        assert_eq!(rows.misplaced, 0, "the order of the last time");
    }

    #[test]
    fn what_is_not_met_goes() {
        let mut rows = Rows::new();
        assert!(collect(&mut rows, &[1, 2, 3, 4]).is_empty());
        assert_eq!(collect(&mut rows, &[2, 4, 5]), [1, 3]);
        assert_eq!(collect(&mut rows, &[]), [2, 4, 5]);
        assert!(collect(&mut rows, &[1]).is_empty());
        assert_eq!(rows.values_mut().count(), 1);
    }

    #[test]
    fn a_newcomer_does_not_put_the_others_out_of_order() {
        let mut rows = Rows::new();
        let keys: Vec<u8> = (0..100).collect();
        assert!(collect(&mut rows, &keys).is_empty());
        let mut more = keys;
        more.insert(50, 200);
        assert!(collect(&mut rows, &more).is_empty());
        assert_eq!(rows.misplaced, 1);
        assert!(collect(&mut rows, &more).is_empty());
        assert_eq!(rows.misplaced, 2, "there and back");
    }
}
