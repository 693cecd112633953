//! Items of one request that are not the agent's: each owner's apart, until the request is put together.

use std::sync::Arc;

use super::protobuf::Writer;
use super::request::LONGEST;

/// Memory that is kept for the next request.
const KEPT: usize = 2 * LONGEST;

/// Groups by resource, in the order in which they were opened.
#[derive(Debug)]
pub(super) struct Groups {
    all: Vec<Group>,
    /// So many of them are of this request.
    open: usize,
    /// What they take in the request, envelopes included.
    bytes: usize,
    /// What the envelope of one takes, beside its resource.
    envelope: usize,
}

#[derive(Debug)]
struct Group {
    resource: Arc<[u8]>,
    items: Writer,
}

impl Groups {
    pub(super) const fn new(envelope: usize) -> Self {
        Self { all: Vec::new(), open: 0, bytes: 0, envelope }
    }

    /// Opens a group of a resource that has none in this request yet.
    pub(super) fn open(&mut self, resource: Arc<[u8]>) -> usize {
        self.bytes += self.envelope + resource.len();
        match self.all.get_mut(self.open) {
            Some(group) => group.resource = resource,
            None => self.all.push(Group { resource, items: Writer::default() }),
        }
        self.open += 1;
        self.open - 1
    }

    /// Begins another request. Buffers stay, unless they have grown large: any group may have been the large one.
    pub(super) fn clear(&mut self) {
        if self.all.iter().map(|group| group.items.buffer.capacity()).sum::<usize>() > KEPT {
            self.all.clear();
        }
        for group in self.all.iter_mut().take(self.open) {
            group.items.buffer.clear();
        }
        (self.open, self.bytes) = (0, 0);
    }

    /// Where the items of a group go.
    pub(super) fn writer(&mut self, group: usize) -> &mut Writer {
        &mut self.all[group].items
    }

    /// An item of so many bytes was added to one of them.
    pub(super) const fn add(&mut self, length: usize) {
        self.bytes += length;
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Resources and items of those that have any.
    pub(super) fn filled(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let open = self.all[..self.open].iter();
        open.filter(|group| !group.items.buffer.is_empty()).map(|group| (&*group.resource, &*group.items.buffer))
    }
}

#[cfg(test)]
mod tests;
