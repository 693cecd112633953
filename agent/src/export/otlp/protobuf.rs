//! Writes protobuf: messages straight into bytes, without structs in between.
//!
//! The length of a nested message comes before its content. It is written afterwards, into room that was left for it; a
//! content that turns out longer than the room allows for is moved, so that every length has its shortest form.

#![expect(
    clippy::inline_always,
    reason = "a span has some 150 fields: with their numbers known on the spot, a tag is one byte stored, not three calls"
)]

use bytes::{BufMut as _, BytesMut};

/// Ways in which a field's value is written.
const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED_32: u32 = 5;

/// Seven bits of 64 in each byte.
const LONGEST_VARINT: usize = 10;

/// Bytes that the length of a nested message will probably take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Below 128 bytes: attributes, events.
    Small = 1,
    /// Below 16 KiB: spans.
    Middle = 2,
    /// Below 2 MiB: whole requests.
    Large = 3,
}

/// A nested message that is not ended yet.
#[derive(Debug)]
#[must_use]
pub(super) struct Open {
    start: usize,
    room: Room,
}

/// A buffer with messages in it. Writing cannot fail.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) buffer: BytesMut,
}

impl Writer {
    /// A field of an integer type, an enum, or a bool.
    #[inline(always)]
    pub(super) fn varint(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        self.put_varint(value);
    }

    /// A field `fixed64`.
    #[inline(always)]
    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, FIXED_64);
        self.buffer.put_u64_le(value);
    }

    /// A field `fixed32`.
    #[inline(always)]
    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, FIXED_32);
        self.buffer.put_u32_le(value);
    }

    /// A field `double`.
    #[inline(always)]
    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    /// A field `string` or `bytes`, or a message that is already encoded.
    #[inline(always)]
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, LENGTH_DELIMITED);
        self.put_varint(value.len() as u64);
        self.buffer.put_slice(value);
    }

    /// Fields that are already encoded.
    pub(super) fn fields(&mut self, encoded: &[u8]) {
        self.buffer.put_slice(encoded);
    }

    /// A nested message of what `write` writes.
    #[inline(always)]
    pub(super) fn message(&mut self, field: u32, room: Room, write: impl FnOnce(&mut Self)) {
        self.tag(field, LENGTH_DELIMITED);
        let room = room as usize;
        self.buffer.put_bytes(0, room);
        let start = self.buffer.len();
        write(self);
        let length = self.buffer.len() - start;
        if room == 1 && length < 0x80 {
            self.buffer[start - 1] = length as u8;
        } else {
            self.close(start, room, length);
        }
    }

    /// Begins a nested message that [`Writer::seal`] ends: for those whose content comes from several callers.
    pub(super) fn open(&mut self, field: u32, room: Room) -> Open {
        self.tag(field, LENGTH_DELIMITED);
        self.buffer.put_bytes(0, room as usize);
        Open { start: self.buffer.len(), room }
    }

    /// Ends a message that was opened last.
    pub(super) fn seal(&mut self, Open { start, room }: Open) {
        let length = self.buffer.len() - start;
        self.close(start, room as usize, length);
    }

    /// Fields `repeated fixed64` (or `double`, by its bits), packed.
    pub(super) fn packed64(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        self.tag(field, LENGTH_DELIMITED);
        self.put_varint(values.len() as u64 * 8);
        values.for_each(|value| self.buffer.put_u64_le(value));
    }

    /// Fields `repeated uint64`, packed.
    pub(super) fn packed(&mut self, field: u32, values: impl Iterator<Item = u64>) {
        let open = self.open(field, Room::Small);
        values.for_each(|value| self.put_varint(value));
        self.seal(open);
    }

    /// A field `sint32`.
    pub(super) fn zigzag(&mut self, field: u32, value: i32) {
        self.varint(field, u64::from((value << 1 ^ value >> 31).cast_unsigned()));
    }

    /// Writes the length of a message whose content begins at `start`.
    fn close(&mut self, start: usize, room: usize, length: usize) {
        let (digits, used) = varint(length as u64);
        if used > room {
            self.buffer.put_bytes(0, used - room);
        }
        let content = start - room + used;
        if used != room {
            self.buffer.copy_within(start..start + length, content);
        }
        self.buffer[start - room..content].copy_from_slice(&digits[..used]);
        self.buffer.truncate(content + length);
    }

    #[inline(always)]
    fn tag(&mut self, field: u32, kind: u32) {
        self.put_varint(u64::from(field << 3 | kind));
    }

    #[inline(always)]
    fn put_varint(&mut self, value: u64) {
        if value < 0x80 {
            self.buffer.put_u8(value as u8);
        } else {
            let (digits, used) = varint(value);
            self.buffer.put_slice(&digits[..used]);
        }
    }
}

/// Seven bits a byte, the low ones first; the top bit says that more follows.
fn varint(mut value: u64) -> ([u8; LONGEST_VARINT], usize) {
    let mut digits = [0; LONGEST_VARINT];
    let mut used = 0;
    loop {
        digits[used] = value as u8 & 0x7f;
        value >>= 7;
        used += 1;
        if value == 0 {
            return (digits, used);
        }
        digits[used - 1] |= 0x80;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// What the writer can write, as prost sees it.
    #[derive(Clone, PartialEq, Message)]
    struct Sample {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(int64, tag = "2")]
        signed: i64,
        #[prost(fixed64, tag = "3")]
        wide: u64,
        #[prost(fixed32, tag = "4")]
        narrow: u32,
        #[prost(double, tag = "5")]
        real: f64,
        #[prost(bytes = "vec", tag = "17")]
        bytes: Vec<u8>,
        #[prost(message, repeated, tag = "2000")]
        nested: Vec<Self>,
    }

    fn write(sample: &Sample, room: Room, to: &mut Writer) {
        to.varint(1, sample.number);
        to.varint(2, sample.signed.cast_unsigned());
        to.fixed64(3, sample.wide);
        to.fixed32(4, sample.narrow);
        to.double(5, sample.real);
        to.bytes(17, &sample.bytes);
        for nested in &sample.nested {
            to.message(2000, room, |to| write(nested, room, to));
        }
    }

    fn leaf() -> impl Strategy<Value = Sample> {
        let size = prop_oneof![0..20usize, 100..160usize, 16_300..16_500usize];
        (any::<u64>(), any::<i64>(), any::<u64>(), any::<u32>(), -1e9..1e9, size).prop_map(
            |(number, signed, wide, narrow, real, size)| Sample {
                number,
                signed,
                wide,
                narrow,
                real,
                bytes: vec![0xab; size],
                nested: Vec::new(),
            },
        )
    }

    fn sample() -> impl Strategy<Value = Sample> {
        leaf().prop_recursive(3, 12, 3, |inner| {
            (leaf(), prop::collection::vec(inner, 0..3)).prop_map(|(leaf, nested)| Sample { nested, ..leaf })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_what_prost_reads(sample in sample()) {
            for room in [Room::Small, Room::Middle, Room::Large] {
                let mut writer = Writer::default();
                write(&sample, room, &mut writer);
                prop_assert_eq!(&Sample::decode(&writer.buffer[..]).unwrap(), &sample);
                let shortest = sample.encoded_len();
                // prost leaves zeroes out, six fields at most in each message.
                prop_assert!(writer.buffer.len() >= shortest);
            }
        }
    }

    #[test]
    fn a_length_has_its_shortest_form_whatever_room_was_left() {
        for room in [Room::Small, Room::Middle, Room::Large] {
            for (length, used) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_152, 4)] {
                let mut writer = Writer::default();
                writer.message(1, room, |to| to.buffer.put_bytes(7, length));
                assert_eq!(writer.buffer.len(), 1 + used + length, "{room:?} {length}");
                assert!(writer.buffer[1 + used..].iter().all(|byte| *byte == 7), "{room:?} {length}");
            }
        }
    }
}
