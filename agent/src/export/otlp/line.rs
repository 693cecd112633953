//! How things lie in memory while they wait.

use std::collections::VecDeque;
use std::fmt;

/// Things in a line: they come at its end and leave at its head.
pub trait Line: Default + fmt::Debug + Send {
    /// How many they are.
    fn len(&self) -> usize;

    /// Memory that they take, bytes.
    fn bytes(&self) -> usize;

    /// Lets the first `items` go.
    fn drop_first(&mut self, items: usize);

    /// Moves things from the head to the end of `batch`: about `most`, and never none if there are any.
    fn take(&mut self, most: usize, batch: &mut Self);

    /// Takes a batch back at the head, in its order.
    fn put_back(&mut self, batch: &mut Self);

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets all go, and their memory.
    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Each thing as it is: for those that are few.
impl<T: fmt::Debug + Send> Line for VecDeque<T> {
    fn len(&self) -> usize {
        Self::len(self)
    }

    fn bytes(&self) -> usize {
        self.capacity() * size_of::<T>()
    }

    fn drop_first(&mut self, items: usize) {
        self.drain(..items.min(Self::len(self)));
    }

    fn take(&mut self, most: usize, batch: &mut Self) {
        batch.extend(self.drain(..most.min(Self::len(self))));
    }

    fn put_back(&mut self, batch: &mut Self) {
        batch.append(self);
        std::mem::swap(self, batch);
    }
}
