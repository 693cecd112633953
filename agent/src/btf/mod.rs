//! What the running kernel's types look like, out of its BTF: field offsets, arguments of tracepoints, enums.
//!
//! Offsets move with version and configuration, so that nothing is looked up by version.

mod reader;

use std::path::{Path, PathBuf};

use synfin_common::knobs::{ABSENT, FIELDS, Field, Knobs, Offsets};
use zerocopy::FromBytes as _;

use self::reader::{Kind, Reader, Type};

/// Where kernels publish their BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's types are not known.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is missing or not readable.
    #[error(
        "cannot read the kernel's BTF at {path}: {source}; use a kernel with CONFIG_DEBUG_INFO_BTF=y, or give its BTF by \
         --btf PATH; in a container, mount the host's /sys",
        path = path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no BTF.
    #[error(
        "cannot parse the kernel's BTF at {path}: {why}; it must be the raw .BTF section of this kernel's vmlinux",
        path = path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        why: String,
    },
}

/// The kernel's types. Drop it after use: it is megabytes.
pub struct Types {
    reader: Reader,
}

impl std::fmt::Debug for Types {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Types").finish_non_exhaustive()
    }
}

/// Anonymous structs and unions within each other at most: the kernel has three or four, a broken file a loop.
const NESTING: u32 = 16;

/// The control buffer of an skb.
const SKB_CB: &Field = &FIELDS[std::mem::offset_of!(Offsets, skb_cb) / size_of::<u32>()];

/// What a lookup of a field can end in.
enum Lookup {
    Found { bytes: u32, size: u32 },
    Missing(String),
}

impl Types {
    /// Parses a BTF file.
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let bytes = std::fs::read(path).map_err(|source| BtfError::Unreadable { path: path.to_owned(), source })?;
        let reader =
            Reader::new(bytes).map_err(|err| BtfError::Malformed { path: path.to_owned(), why: err.to_string() })?;
        Ok(Self { reader })
    }

    /// Offsets of the fields that the programs read, [`ABSENT`] for those that this kernel does not have.
    pub fn offsets(&self) -> Offsets {
        let mut offsets = [ABSENT; FIELDS.len()];
        for (offset, field) in offsets.iter_mut().zip(FIELDS) {
            *offset = self.offset(field).unwrap_or(ABSENT);
        }
        // `struct tcp_skb_cb` lies in the control buffer of an skb.
        let cb = self.offset(SKB_CB).ok();
        for (offset, _) in offsets.iter_mut().zip(FIELDS).filter(|(_, field)| field.root == "tcp_skb_cb") {
            *offset = cb.filter(|_| *offset != ABSENT).map_or(ABSENT, |cb| cb + *offset);
        }
        let bytes: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_ne_bytes()).collect();
        // The lengths agree: both come from the same table, see the assertion in `knobs`.
        Offsets::read_from_bytes(&bytes).unwrap_or(Offsets::NONE)
    }

    /// The first field that the programs need and this kernel does not have, with what was found instead.
    pub fn lacking(&self) -> Option<String> {
        FIELDS.iter().filter(|field| field.required).find_map(|field| {
            let why = self.offset(field).err()?;
            Some(format!("the kernel's BTF has no field {}.{} ({why})", field.root, field.path))
        })
    }

    fn offset(&self, field: &Field) -> Result<u32, String> {
        match self.find(field.root, field.path) {
            // A field of any size, of which the programs read the lowest byte.
            Lookup::Found { bytes, size } if field.size == 0 => {
                Ok(if cfg!(target_endian = "big") { bytes + size - 1 } else { bytes })
            }
            Lookup::Found { bytes, size } if size == field.size => Ok(bytes),
            Lookup::Found { size, .. } => Err(format!("it has {size} bytes, not {}", field.size)),
            Lookup::Missing(why) => Err(why),
        }
    }

    /// Number of arguments of a tracepoint (`btf_trace_NAME`), None where the kernel has no such tracepoint.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        let typedef = self.reader.find(Kind::Typedef, &format!("btf_trace_{tracepoint}"))?;
        let pointer = self.reader.get(typedef.size_or_target)?;
        let function = self.reader.get(pointer.size_or_target)?;
        // The first parameter is the tracepoint's private data.
        function.parameters().map(|count| count.saturating_sub(1))
    }

    /// Names of an enum by number, `prefix` removed, in lower case; empty where the kernel has no such enum.
    pub fn enum_names(&self, name: &str, prefix: &str) -> Vec<String> {
        let mut names = Vec::new();
        let Some(found) = self.reader.find(Kind::Enum, name) else { return names };
        for (name, value) in self.reader.enumerators(found) {
            let value = value as usize;
            // Names are for small numbers; a broken file must not make a long list.
            if let (Some(name), true) = (name.strip_prefix(prefix), value < 256) {
                if names.len() <= value {
                    names.resize(value + 1, String::new());
                }
                names[value] = name.to_ascii_lowercase();
            }
        }
        names
    }

    /// Switches of the programs that depend on the kernel alone.
    pub fn knobs(&self) -> Knobs {
        let bit = |name: &str| {
            let names = self.enum_names("sock_flags", "SOCK_");
            names.iter().position(|found| found == name).map_or(0, |bit| 1 << bit)
        };
        Knobs {
            reset_has_reason: u32::from(self.tracepoint_arguments("tcp_send_reset").is_some_and(|count| count >= 3)),
            sock_dead: bit("dead"),
            sock_done: bit("done"),
            ..Knobs::NONE
        }
    }

    fn find(&self, root: &str, path: &str) -> Lookup {
        let Some(mut at) = self.reader.find(Kind::Struct, root) else {
            return Lookup::Missing(format!("there is no struct {root}"));
        };
        let (mut bits, mut width) = (0, None);
        for name in path.split('.') {
            match self.member(at, name, NESTING) {
                Some((offset, bitfield, found)) => {
                    bits += offset;
                    width = bitfield;
                    at = found;
                }
                None => return Lookup::Missing(format!("there is no member {name}")),
            }
        }
        match (bits % 8, width) {
            (0, Some(width)) => Lookup::Found { bytes: bits / 8, size: width.div_ceil(8) },
            (0, None) => match self.size(at) {
                Some(size) => Lookup::Found { bytes: bits / 8, size },
                None => Lookup::Missing("its size is not known".to_owned()),
            },
            _ => Lookup::Missing("it does not start at a byte".to_owned()),
        }
    }

    /// A member of a struct or union, looked for in anonymous ones inside it too: (bit offset, bits if it is a
    /// bit-field, type).
    fn member(&self, of: Type, name: &str, depth: u32) -> Option<(u32, Option<u32>, Type)> {
        self.reader.members(of).find_map(|member| {
            let found = self.reader.resolve(member.type_id)?;
            if member.name == name {
                return Some((member.bit_offset, member.bits, found));
            }
            if !member.name.is_empty() {
                return None;
            }
            let (offset, bits, found) = self.member(found, name, depth.checked_sub(1)?)?;
            Some((member.bit_offset + offset, bits, found))
        })
    }

    fn size(&self, of: Type) -> Option<u32> {
        match of.kind {
            Kind::Int | Kind::Struct | Kind::Union | Kind::Enum => Some(of.size_or_target),
            Kind::Ptr => Some(8), // kernels with BPF programs of this kind are 64-bit
            Kind::Array => {
                let (element, len) = self.reader.array(of)?;
                self.size(self.reader.resolve(element)?)?.checked_mul(len)
            }
            _ => None,
        }
    }
}
