//! What spans are about, in few bytes: how connections that ended, and stretches of others, wait for export. A quarter of what the ledger needs to work with them, so that an
//! outage of a minute fits in memory; what a span tells is all there.

mod record;

use std::collections::VecDeque;

use super::line::Line;
use super::span::Subject;
use record::Base;

/// Memory is taken and given back in pieces of this size: some 500 connections.
const CHUNK: usize = 64 << 10;

/// A record is shorter; a chunk with less room is full.
const LONGEST: usize = 512;

/// Subjects of spans, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Packed {
    chunks: VecDeque<Chunk>,
    len: usize,
    bytes: usize,
}

/// Those that came one after the other. Each is written as its length and what differs from the base.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// Where the first that is still there begins.
    head: usize,
    len: usize,
    base: Base,
}

impl Chunk {
    fn new(base: Base) -> Self {
        Self { bytes: Vec::with_capacity(CHUNK), head: 0, len: 0, base }
    }

    /// The records that are there.
    fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[self.head..];
        std::iter::from_fn(move || {
            let (record, behind) = split(rest)?;
            rest = behind;
            Some(record)
        })
    }
}

/// The first record and what comes behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_ne_bytes(*length)))
}

impl Packed {
    /// Adds one at the end.
    pub(super) fn push(&mut self, subject: &Subject) {
        if self.chunks.back().is_none_or(|last| last.bytes.len() + LONGEST > CHUNK) {
            self.chunks.push_back(Chunk::new(Base::of(subject)));
        }
        let Some(last) = self.chunks.back_mut() else { return };
        let before = last.bytes.len();
        last.bytes.extend_from_slice(&[0; 2]);
        record::write(subject, last.base, &mut last.bytes);
        let length = last.bytes.len() - before - 2;
        debug_assert!(length + 2 <= LONGEST, "a record of {length} bytes");
        last.bytes[before..before + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        last.len += 1;
        self.len += 1;
        self.bytes += length + 2;
    }

    /// All of them, from the head on.
    pub(super) fn iter(&self) -> impl Iterator<Item = Subject> {
        self.chunks.iter().flat_map(|chunk| chunk.records().filter_map(|record| record::read(record, chunk.base)))
    }

    fn add(&mut self, chunk: &Chunk) {
        self.len += chunk.len;
        self.bytes += chunk.bytes.len() - chunk.head;
    }
}

impl Line for Packed {
    fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn drop_first(&mut self, mut items: usize) {
        while items > 0
            && let Some(first) = self.chunks.front_mut()
        {
            if first.len <= items {
                items -= first.len;
                self.len -= first.len;
                self.bytes -= first.bytes.len() - first.head;
                self.chunks.pop_front();
                continue;
            }
            let length: usize = first.records().take(items).map(|record| record.len() + 2).sum();
            first.head += length;
            first.len -= items;
            self.len -= items;
            self.bytes -= length;
            return;
        }
    }

    /// Whole chunks: nothing is copied.
    fn take(&mut self, most: usize, batch: &mut Self) {
        let mut taken = 0;
        while let Some(first) = self.chunks.front()
            && (taken == 0 || taken + first.len <= most)
            && let Some(first) = self.chunks.pop_front()
        {
            taken += first.len;
            self.len -= first.len;
            self.bytes -= first.bytes.len() - first.head;
            batch.add(&first);
            batch.chunks.push_back(first);
        }
    }

    fn put_back(&mut self, batch: &mut Self) {
        for chunk in std::mem::take(batch).chunks.into_iter().rev() {
            self.add(&chunk);
            self.chunks.push_front(chunk);
        }
    }
}

#[cfg(test)]
mod tests;
