//! The BPF Type Format, read in place (kernel: Documentation/bpf/btf.rst).
//!
//! A reader of our own, because the library that answers these questions (`btf-rs`) is under the LGPL, which a static
//! binary under MIT or Apache cannot take in, and aya keeps its own to itself. It reads little-endian and big-endian
//! files of this machine's order, and trusts no number in them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

const MAGIC: u16 = 0xeb9f;

/// `struct btf_type` without what follows it.
const TYPE_SIZE: usize = 12;

/// The kinds that are looked at (`BTF_KIND_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Typedef,
    /// const, volatile, restrict, type tag: they change nothing about the layout.
    Qualifier,
    FuncProto,
    Other,
}

/// A type as its place in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    pub(super) kind: Kind,
    name: u32,
    /// `BTF_INFO_KFLAG`: members have bit-field sizes.
    kflag: bool,
    len: u16,
    /// Size in bytes, or the type that is referred to: the kind says which.
    pub(super) size_or_target: u32,
    /// Where its details start.
    details: usize,
}

impl Type {
    /// Number of parameters of a function.
    pub(super) fn parameters(self) -> Option<usize> {
        (self.kind == Kind::FuncProto).then_some(usize::from(self.len))
    }
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    pub(super) type_id: u32,
    pub(super) bit_offset: u32,
    /// Bits of a bit-field.
    pub(super) bits: Option<u32>,
}

/// Why a file is no BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it does not start with the magic number of this machine's byte order")]
    Magic,
    #[error("it is cut off at byte {0}")]
    Short(usize),
    #[error("it has a type of unknown kind {0}")]
    Kind(u32),
}

/// A file with an index of its types.
pub(super) struct Reader {
    bytes: Vec<u8>,
    strings: Range<usize>,
    types: Vec<Type>,
    /// Ids by the hash of their name, of the kinds that are looked up by name.
    by_name: HashMap<u64, Vec<u32>>,
}

impl Reader {
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let word = |at| word(&bytes, at).ok_or(Malformed::Short(at));
        if bytes.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(Malformed::Magic);
        }
        let header = word(4)? as usize;
        let section = |offset: u32, len: u32| {
            let start = header.saturating_add(offset as usize);
            let end = start.saturating_add(len as usize);
            if end > bytes.len() { Err(Malformed::Short(bytes.len())) } else { Ok(start..end) }
        };
        let types_at = section(word(8)?, word(12)?)?;
        let strings = section(word(16)?, word(20)?)?;
        let mut types = Vec::new();
        let mut at = types_at.start;
        while at < types_at.end {
            let info = word(at + 4)?;
            let number = info >> 24 & 0x1f;
            let len = info as u16;
            let (kind, each, once) = shape(number)?;
            let found = Type {
                kind,
                name: word(at)?,
                kflag: info >> 31 == 1,
                len,
                size_or_target: word(at + 8)?,
                details: at + TYPE_SIZE,
            };
            types.push(found);
            at += TYPE_SIZE + each * usize::from(len) + once;
        }
        if at != types_at.end {
            return Err(Malformed::Short(at));
        }
        let mut reader = Self { bytes, strings, types, by_name: HashMap::new() };
        let mut by_name: HashMap<u64, Vec<u32>> = HashMap::new();
        for (index, found) in reader.types.iter().enumerate() {
            if matches!(found.kind, Kind::Struct | Kind::Enum | Kind::Typedef) {
                // Ids count from 1; 0 is void.
                by_name.entry(hash(reader.string(found.name))).or_default().push(index as u32 + 1);
            }
        }
        reader.by_name = by_name;
        Ok(reader)
    }

    /// The type with this id; none for void and for ids that do not exist.
    pub(super) fn get(&self, id: u32) -> Option<Type> {
        self.types.get((id as usize).checked_sub(1)?).copied()
    }

    /// The type with this id, typedefs and qualifiers taken off.
    pub(super) fn resolve(&self, mut id: u32) -> Option<Type> {
        // A chain is short; a longer one is a loop in a broken file.
        for _ in 0..32 {
            let found = self.get(id)?;
            match found.kind {
                Kind::Typedef | Kind::Qualifier => id = found.size_or_target,
                _ => return Some(found),
            }
        }
        None
    }

    /// The first struct, enum or typedef of this name.
    pub(super) fn find(&self, kind: Kind, name: &str) -> Option<Type> {
        let mut found = self.by_name.get(&hash(name))?.iter().filter_map(|id| self.get(*id));
        found.find(|found| found.kind == kind && self.string(found.name) == name)
    }

    /// Members of a struct or union.
    pub(super) fn members(&self, of: Type) -> impl Iterator<Item = Member<'_>> {
        let len = if matches!(of.kind, Kind::Struct | Kind::Union) { usize::from(of.len) } else { 0 };
        (0..len).map_while(move |index| {
            let at = of.details + index * 12;
            let offset = word(&self.bytes, at + 8)?;
            let (bit_offset, bits) = if of.kflag { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            Some(Member {
                name: self.string(word(&self.bytes, at)?),
                type_id: word(&self.bytes, at + 4)?,
                bit_offset,
                bits: (bits != 0).then_some(bits),
            })
        })
    }

    /// Names and values of an enum.
    pub(super) fn enumerators(&self, of: Type) -> impl Iterator<Item = (&str, u32)> {
        let len = if of.kind == Kind::Enum { usize::from(of.len) } else { 0 };
        (0..len).map_while(move |index| {
            let at = of.details + index * 8;
            Some((self.string(word(&self.bytes, at)?), word(&self.bytes, at + 4)?))
        })
    }

    /// Element type and length of an array.
    pub(super) fn array(&self, of: Type) -> Option<(u32, u32)> {
        (of.kind == Kind::Array)
            .then(|| Some((word(&self.bytes, of.details)?, word(&self.bytes, of.details + 8)?)))
            .flatten()
    }

    fn string(&self, offset: u32) -> &str {
        let start = self.strings.start.saturating_add(offset as usize);
        let rest = self.bytes.get(start..self.strings.end).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

/// What follows the fixed part of a kind (`BTF_KIND_*`): bytes for each element, and bytes once.
const fn shape(number: u32) -> Result<(Kind, usize, usize), Malformed> {
    Ok(match number {
        1 => (Kind::Int, 0, 4),
        2 => (Kind::Ptr, 0, 0),
        3 => (Kind::Array, 0, 12),
        4 => (Kind::Struct, 12, 0),
        5 => (Kind::Union, 12, 0),
        6 => (Kind::Enum, 8, 0),
        8 => (Kind::Typedef, 0, 0),
        // volatile, const, restrict, type tag
        9 | 10 | 11 | 18 => (Kind::Qualifier, 0, 0),
        13 => (Kind::FuncProto, 8, 0),
        // forward, function, float
        7 | 12 | 16 => (Kind::Other, 0, 0),
        // variable, declaration tag
        14 | 17 => (Kind::Other, 0, 4),
        // data section, 64-bit enum
        15 | 19 => (Kind::Other, 12, 0),
        other => return Err(Malformed::Kind(other)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with these types (already encoded) and strings.
    fn file(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        let len = types.len() as u32 * 4;
        for word in [24, 0, len, len, strings.len() as u32] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_struct_is_found_with_its_members() {
        let types = [
            1,
            1 << 24,
            4,
            32, // int "int", 4 bytes
            5,
            4 << 24 | 1,
            8,
            7,
            1,
            32, // struct "s" { int x at bit 32 }
        ];
        let reader = Reader::new(file(&types, b"\0int\0s\0x\0")).expect("a good file");
        let found = reader.find(Kind::Struct, "s").expect("struct s");
        let members: Vec<Member<'_>> = reader.members(found).collect();
        assert_eq!((members[0].name, members[0].type_id, members[0].bit_offset), ("x", 1, 32));
        assert_eq!(reader.resolve(1).map(|int| int.size_or_target), Some(4));
        assert!(reader.find(Kind::Union, "s").is_none() && reader.get(0).is_none() && reader.get(3).is_none());
    }

    #[test]
    fn a_broken_file_says_what_is_wrong() {
        assert_eq!(Reader::new(Vec::new()).err(), Some(Malformed::Magic));
        let good = file(&[1, 1 << 24, 4, 32], b"\0int\0");
        assert!(matches!(Reader::new(good[..30].to_vec()).err(), Some(Malformed::Short(_))));
        assert_eq!(Reader::new(file(&[0, 31 << 24, 0], b"\0")).err(), Some(Malformed::Kind(31)));
        // A typedef of itself.
        let looped = Reader::new(file(&[0, 8 << 24, 1], b"\0")).expect("well-formed");
        assert!(looped.resolve(1).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(words in proptest::collection::vec(any::<u32>(), 0..40)) {
            if let Ok(reader) = Reader::new(file(&words, b"\0a\0")) {
                for id in 0..50 {
                    if let Some(found) = reader.resolve(id) {
                        let _counts = (reader.members(found).count(), reader.enumerators(found).count());
                    }
                }
            }
        }
    }
}
