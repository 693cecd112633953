//! Zstandard, as both protocols want it.

use std::io;

use bytes::BytesMut;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

/// The lowest of the usual levels: what shrinks in a request, the names of attributes, shrinks at any.
const LEVEL: i32 = 1;

/// A compressor, whose tables of some hundred KiB serve one request after the other.
pub(super) fn compressor() -> io::Result<Compressor<'static>> {
    Compressor::new(LEVEL)
}

/// Appends `plain` to `out`, compressed.
pub(super) fn compress(compressor: &mut Compressor<'_>, plain: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let before = out.len();
    out.resize(before + compress_bound(plain.len()), 0);
    let length = compressor.compress_to_buffer(plain, &mut out[before..])?;
    out.truncate(before + length);
    Ok(())
}

/// What was compressed, an error if it is more than `most` bytes. In one piece: a decoder of streams would take a window
/// of as many MiB as the endpoint demands.
pub(super) fn decompress(packed: &[u8], most: usize) -> io::Result<Vec<u8>> {
    Decompressor::new()?.decompress(packed, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_never_more_than_is_asked_for() {
        let mut compressor = compressor().unwrap();
        for byte in [b'a', b'b'] {
            let plain = vec![byte; 1 << 20];
            let mut packed = BytesMut::from(&[1, 2, 3][..]);
            compress(&mut compressor, &plain, &mut packed).unwrap();
            assert_eq!(packed[..3], [1, 2, 3]);
            assert!(packed.len() < 1_000);
            assert_eq!(decompress(&packed[3..], 1 << 20).unwrap(), plain);
            assert!(decompress(&packed[3..], (1 << 20) - 1).is_err());
        }
        assert!(decompress(b"no zstd", 1_000).is_err());
        assert!(decompress(b"", 1_000).is_ok_and(|plain| plain.is_empty()));
    }
}
