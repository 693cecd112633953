//! What a middlebox does to a TCP segment that gives each side other sequence numbers than the other one uses.

/// Adds `own` to the sequence number of a TCP segment, and takes `other` from what it acknowledges.
pub fn shift(segment: &mut [u8], own: u32, other: u32) {
    let acknowledges = segment.get(13).is_some_and(|flags| flags & 1 << 4 != 0);
    add(segment, 4, own);
    if acknowledges {
        add(segment, 8, other.wrapping_neg());
    }
}

/// Adds to the number at `at` of a TCP segment, and mends the checksum (RFC 1624, equation 3).
fn add(segment: &mut [u8], at: usize, difference: u32) {
    let Some(&[a, b, c, d]) = segment.get(at..at + 4) else { return };
    let old = u32::from_be_bytes([a, b, c, d]);
    let new = old.wrapping_add(difference);
    let Some(&[high, low]) = segment.get(16..18) else { return };
    let halves = |number: u32| (number >> 16) + (number & 0xffff);
    let mut sum = u32::from(!u16::from_be_bytes([high, low])) + halves(!old) + halves(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    segment[at..at + 4].copy_from_slice(&new.to_be_bytes());
    segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data of one word; the sum of all 16-bit words is that of a good checksum, whatever the pseudo header adds to it.
    fn segment(flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
        let mut segment = vec![0x0f, 0xa1, 0x1b, 0x58];
        segment.extend(sequence.to_be_bytes());
        segment.extend(acknowledged.to_be_bytes());
        segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0, 0xbe, 0xef]);
        let sum = !folded(&segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    fn folded(segment: &[u8]) -> u16 {
        let mut sum: u32 = segment.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn both_numbers_move_and_the_checksum_holds() {
        for (own, other) in [(1, 0), (0, 1), (0x1234_5678, 0xfedc_ba98), (u32::MAX, 0x8000_0000)] {
            for (sequence, acknowledged) in [(0, 0), (0xffff_ffff, 1), (0x0102_0304, 0xa1a2_a3a4)] {
                let mut got = segment(1 << 4, sequence, acknowledged);
                shift(&mut got, own, other);
                assert_eq!(got[4..8], sequence.wrapping_add(own).to_be_bytes());
                assert_eq!(got[8..12], acknowledged.wrapping_sub(other).to_be_bytes());
                assert_eq!(folded(&got), 0xffff, "{own:x} {other:x} {sequence:x} {acknowledged:x}");
            }
        }
    }

    #[test]
    fn what_is_not_acknowledged_is_left_alone() {
        let mut syn = segment(1 << 1, 7, 0);
        shift(&mut syn, 1, 1);
        assert_eq!((&syn[4..8], &syn[8..12]), (&[0, 0, 0, 8][..], &[0; 4][..]));
        let mut cut = [1, 2, 3];
        shift(&mut cut, 1, 1);
        assert_eq!(cut, [1, 2, 3]);
    }
}
