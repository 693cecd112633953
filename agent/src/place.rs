//! Puts the running kernel's field offsets into the programs' instructions, see [`synfin_common::knobs::MAGIC_OFFSET`] and
//! [`synfin_common::knobs::MAGIC_PRESENCE`].
//!
//! What C programs get by CO-RE relocations, for which rustc emits nothing: a field costs one load at a constant offset,
//! not a look-up of where it lies.

use object::{Object as _, ObjectSection as _, SectionKind};
use synfin_common::knobs::{ABSENT, FIELD_SHIFT, FIELDS, MAGIC_OFFSET, MAGIC_PRESENCE};

/// Bytes of an instruction (`struct bpf_insn`): code, registers, offset, immediate.
const INSTRUCTION: usize = 8;

/// `BPF_LDX`, the class of instructions that load from memory, and the bits of the code that hold the class.
const LDX: u8 = 0x01;
const CLASS: u8 = 0x07;

/// `BPF_ALU64 | BPF_MOV | BPF_K`: a constant into a register.
const MOVE: u8 = 0xb7;

/// The object cannot be what the build made.
#[derive(Debug, thiserror::Error)]
#[error("the eBPF object inside this binary is damaged: {0}")]
pub struct PlaceError(String);

/// Replaces the marks in every program of an ELF object. `offsets` are in the order of [`FIELDS`].
pub fn place(object: &mut [u8], offsets: &[u32]) -> Result<(), PlaceError> {
    let ranges: Vec<(u64, u64)> = object::File::parse(&*object)
        .map_err(|error| PlaceError(error.to_string()))?
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .filter_map(|section| section.file_range())
        .collect();
    for (start, len) in ranges {
        let code = object
            .get_mut(start as usize..(start + len) as usize)
            .ok_or_else(|| PlaceError("a section lies beyond its end".to_owned()))?;
        for instruction in code.as_chunks_mut::<INSTRUCTION>().0 {
            place_one(instruction, offsets)?;
        }
    }
    Ok(())
}

fn place_one(instruction: &mut [u8; INSTRUCTION], offsets: &[u32]) -> Result<(), PlaceError> {
    let [code, registers, low, high, immediate @ ..] = *instruction;
    if code == MOVE {
        let index =
            i32::from_ne_bytes(immediate).checked_sub(MAGIC_PRESENCE).and_then(|index| usize::try_from(index).ok());
        if let Some(offset) = index.and_then(|index| offsets.get(index)) {
            instruction[4..].copy_from_slice(&i32::from(*offset != ABSENT).to_ne_bytes());
        }
        return Ok(());
    }
    // A negative offset reaches into the stack.
    let mark = usize::from(u16::from_ne_bytes([low, high]));
    // The second half of a 16-byte instruction has code 0, which is of another class.
    if code & CLASS != LDX || !(MAGIC_OFFSET..0x8000).contains(&mark) {
        return Ok(());
    }
    let mark = mark - MAGIC_OFFSET;
    let (index, delta) = (mark >> FIELD_SHIFT, mark & ((1 << FIELD_SHIFT) - 1));
    let offset = match offsets.get(index) {
        Some(&ABSENT) => {
            // The target is the low half of the byte with the registers, in the byte order of the object.
            let target = if cfg!(target_endian = "big") { registers & 0xf0 } else { registers & 0x0f };
            *instruction = [MOVE, target, 0, 0, 0, 0, 0, 0];
            return Ok(());
        }
        Some(offset) => *offset as usize + delta,
        None => return Err(PlaceError(format!("a load of field {index}, of {}", FIELDS.len()))),
    };
    let offset = i16::try_from(offset).map_err(|_err| {
        let name = FIELDS.get(index).map_or("?", |field| field.path);
        PlaceError(format!("{name} lies {offset} bytes into its struct, farther than an instruction reaches"))
    })?;
    [instruction[2], instruction[3]] = offset.to_ne_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(mark: usize) -> [u8; INSTRUCTION] {
        let [low, high] = (mark as u16).to_ne_bytes();
        // r3 = *(u32 *)(r6 + mark)
        [0x61, 0x63, low, high, 0, 0, 0, 0]
    }

    #[test]
    fn a_mark_becomes_the_offset() {
        let mut instruction = load(MAGIC_OFFSET + (2 << FIELD_SHIFT) + 4);
        place_one(&mut instruction, &[0, 8, 1000]).unwrap();
        assert_eq!(instruction, load(1004));
    }

    #[test]
    fn what_the_kernel_lacks_becomes_zero() {
        let mut instruction = load(MAGIC_OFFSET + 4);
        place_one(&mut instruction, &[ABSENT]).unwrap();
        let target = if cfg!(target_endian = "big") { 0x60 } else { 0x03 };
        assert_eq!(instruction, [MOVE, target, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn whether_the_kernel_has_a_field_is_one_or_zero() {
        let move_of = |value: i32| {
            let [a, b, c, d] = value.to_ne_bytes();
            [MOVE, 0x03, 0, 0, a, b, c, d]
        };
        for (value, placed) in
            [(MAGIC_PRESENCE, 1), (MAGIC_PRESENCE + 1, 0), (MAGIC_PRESENCE + 2, MAGIC_PRESENCE + 2), (-1, -1), (7, 7)]
        {
            let mut instruction = move_of(value);
            place_one(&mut instruction, &[0, ABSENT]).unwrap();
            assert_eq!(instruction, move_of(placed));
        }
    }

    #[test]
    fn other_instructions_stay() {
        let mut stack = load(0);
        [stack[2], stack[3]] = (-8_i16).to_ne_bytes();
        let mut store = load(MAGIC_OFFSET);
        store[0] = 0x63;
        for instruction in [load(8), stack, store, [0; INSTRUCTION]] {
            let mut placed = instruction;
            place_one(&mut placed, &[]).unwrap();
            assert_eq!(placed, instruction);
        }
    }

    #[test]
    fn impossible_marks_are_errors() {
        assert!(place_one(&mut load(MAGIC_OFFSET + (1 << FIELD_SHIFT)), &[0]).is_err());
        assert!(place_one(&mut load(MAGIC_OFFSET), &[40_000]).is_err());
        assert!(place(&mut [0; 64], &[]).is_err());
    }
}
