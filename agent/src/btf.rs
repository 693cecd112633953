//! What the running kernel's types look like, out of its BTF: field offsets, arguments of tracepoints, enums.
//!
//! Offsets move with version and configuration, so that nothing is looked up by version.

use std::path::{Path, PathBuf};

use btf_rs::{Btf, BtfType, Type};
use synfin_common::knobs::{ABSENT, FIELDS, Field, Knobs, Offsets};
use zerocopy::FromBytes as _;

/// Where kernels publish their BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's types are not known.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is missing or not readable.
    #[error("cannot read the kernel's BTF at {path}: {source}; synfin needs a kernel built with CONFIG_DEBUG_INFO_BTF=y", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no BTF.
    #[error("cannot parse the kernel's BTF at {path}: {why}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        why: String,
    },
    /// A field that the programs cannot do without.
    #[error("the kernel's BTF has no field {root}.{path} ({why}); please report this kernel")]
    Field {
        /// Struct.
        root: &'static str,
        /// Members.
        path: &'static str,
        /// What was found instead.
        why: String,
    },
}

/// The kernel's types, parsed. Drop it after use: it is tens of megabytes.
pub struct Types {
    btf: Btf,
}

impl std::fmt::Debug for Types {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Types").finish_non_exhaustive()
    }
}

/// What a lookup of a field can end in.
enum Lookup {
    Found { bytes: u32, size: u32 },
    Missing(String),
}

impl Types {
    /// Parses a BTF file.
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let bytes =
            std::fs::read(path).map_err(|source| BtfError::Unreadable { path: path.to_owned(), source })?;
        let btf = Btf::from_bytes(&bytes)
            .map_err(|err| BtfError::Malformed { path: path.to_owned(), why: err.to_string() })?;
        Ok(Self { btf })
    }

    /// Offsets of every field that the programs read.
    pub fn offsets(&self) -> Result<Offsets, BtfError> {
        let mut offsets = [ABSENT; FIELDS.len()];
        for (slot, field) in offsets.iter_mut().zip(FIELDS) {
            *slot = self.offset(field)?;
        }
        let bytes: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_ne_bytes()).collect();
        // The lengths agree: both come from the same table, see the assertion in `knobs`.
        Ok(Offsets::read_from_bytes(&bytes).unwrap_or(Offsets::NONE))
    }

    fn offset(&self, field: &Field) -> Result<u32, BtfError> {
        let missing = |why: String| {
            if field.required {
                Err(BtfError::Field { root: field.root, path: field.path, why })
            } else {
                Ok(ABSENT)
            }
        };
        match self.find(field.root, field.path) {
            // A field of any size, of which the programs read the lowest byte.
            Lookup::Found { bytes, size } if field.size == 0 => {
                Ok(if cfg!(target_endian = "big") { bytes + size - 1 } else { bytes })
            }
            Lookup::Found { bytes, size } if size == field.size => Ok(bytes),
            Lookup::Found { size, .. } => missing(format!("it has {size} bytes, not {}", field.size)),
            Lookup::Missing(why) => missing(why),
        }
    }

    /// Number of arguments of a tracepoint (`btf_trace_NAME`), None where the kernel has no such tracepoint.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        let types = self.btf.resolve_types_by_name(&format!("btf_trace_{tracepoint}")).ok()?;
        let typedef = types.into_iter().find(|found| matches!(found, Type::Typedef(_)))?;
        let pointer = self.target(&typedef)?;
        match self.target(&pointer)? {
            // The first parameter is the tracepoint's private data.
            Type::FuncProto(proto) => Some(proto.parameters.len().saturating_sub(1)),
            _ => None,
        }
    }

    /// Names of an enum by number, `prefix` removed, in lower case; empty where the kernel has no such enum.
    pub fn enum_names(&self, name: &str, prefix: &str) -> Vec<String> {
        let mut names = Vec::new();
        for found in self.btf.resolve_types_by_name(name).unwrap_or_default() {
            let Type::Enum(found) = found else { continue };
            for member in &found.members {
                let (Ok(name), value) = (self.btf.resolve_name(member), member.val() as usize) else { continue };
                if value < 256 && name.starts_with(prefix) {
                    if names.len() <= value {
                        names.resize(value + 1, String::new());
                    }
                    names[value] = name[prefix.len()..].to_ascii_lowercase();
                }
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
            filters: 0,
            reset_has_reason: u32::from(self.tracepoint_arguments("tcp_send_reset").is_some_and(|count| count >= 3)),
            sock_dead: bit("dead"),
            sock_done: bit("done"),
        }
    }

    fn find(&self, root: &str, path: &str) -> Lookup {
        let types = self.btf.resolve_types_by_name(root).unwrap_or_default();
        let Some(mut at) = types.into_iter().find(|found| matches!(found, Type::Struct(_))) else {
            return Lookup::Missing(format!("there is no struct {root}"));
        };
        let (mut bits, mut width) = (0, None);
        for name in path.split('.') {
            match self.member(&at, name) {
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
            (0, None) => match self.size(&at) {
                Some(size) => Lookup::Found { bytes: bits / 8, size },
                None => Lookup::Missing("its size is not known".to_owned()),
            },
            _ => Lookup::Missing("it does not start at a byte".to_owned()),
        }
    }

    /// A member of a struct or union, looked for in anonymous ones inside it too: (bit offset, bits if it is a
    /// bitfield, type).
    fn member(&self, of: &Type, name: &str) -> Option<(u32, Option<u32>, Type)> {
        let (Type::Struct(of) | Type::Union(of)) = of else { return None };
        for member in &of.members {
            let found = self.resolved(member)?;
            if self.btf.resolve_name(member).is_ok_and(|found| found == name) {
                let bitfield = member.bitfield_size().filter(|bits| *bits != 0);
                return Some((member.bit_offset(), bitfield, found));
            }
            if member.get_name_offset() == Some(0)
                && let Some((offset, bitfield, found)) = self.member(&found, name)
            {
                return Some((member.bit_offset() + offset, bitfield, found));
            }
        }
        None
    }

    /// What a type refers to, one step.
    fn target(&self, of: &Type) -> Option<Type> {
        self.btf.resolve_chained_type(of.as_btf_type()?).ok()
    }

    /// The type of a member without typedefs and qualifiers.
    fn resolved(&self, of: &dyn BtfType) -> Option<Type> {
        let mut at = self.btf.resolve_chained_type(of).ok()?;
        while matches!(at, Type::Typedef(_) | Type::Volatile(_) | Type::Const(_) | Type::Restrict(_) | Type::TypeTag(_)) {
            at = self.target(&at)?;
        }
        Some(at)
    }

    fn size(&self, of: &Type) -> Option<u32> {
        Some(match of {
            Type::Int(int) => int.size() as u32,
            Type::Ptr(_) => 8, // kernels with BPF programs of this kind are 64-bit
            Type::Struct(found) | Type::Union(found) => found.size() as u32,
            Type::Enum(found) => found.size() as u32,
            Type::Array(array) => {
                let element = self.resolved(array)?;
                array.len() as u32 * self.size(&element)?
            }
            _ => return None,
        })
    }
}
