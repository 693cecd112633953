//! Compression of bodies, by the names that HTTP and gRPC give it.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use zstd::bulk::Compressor;

use super::{gzip, zstd as zstandard};
use crate::config::Compression;

/// Compresses one body after the other in the same memory.
pub(super) struct Packer {
    compression: Compression,
    /// Without contention: each signal has a packer, and sends one request at a time.
    room: Mutex<Room>,
}

#[derive(Default)]
struct Room {
    buffer: BytesMut,
    /// Size of the largest body so far.
    largest: usize,
    zstd: Option<Compressor<'static>>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Packer {
    pub(super) fn new(compression: Compression) -> Self {
        Self { compression, room: Mutex::default() }
    }

    /// What a header says of its bodies; None where they are as they were.
    pub(super) fn encoding(&self) -> Option<HeaderValue> {
        (self.compression != Compression::None).then(|| HeaderValue::from_static(self.compression.name()))
    }

    /// What may be said of the answers to them. Some servers answer as they were asked, allowed or not.
    pub(super) fn accepts(&self) -> Option<HeaderValue> {
        match self.compression {
            Compression::None => None,
            Compression::Gzip => Some(HeaderValue::from_static("gzip")),
            Compression::Zstd => Some(HeaderValue::from_static("zstd,gzip")),
        }
    }

    /// `plain` compressed, after as many bytes as `head` makes of its length.
    pub(super) fn pack<const HEAD: usize>(
        &self,
        plain: &[u8],
        head: impl FnOnce(usize) -> [u8; HEAD],
    ) -> io::Result<Bytes> {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let Room { buffer, largest, zstd } = &mut *room;
        buffer.clear();
        // Takes back the memory of the last body, which has been sent (or given up) and dropped.
        buffer.reserve(*largest);
        buffer.resize(HEAD, 0);
        match self.compression {
            Compression::None => buffer.extend_from_slice(plain),
            Compression::Gzip => gzip::compress(plain, buffer)?,
            Compression::Zstd => {
                let compressor = match zstd {
                    Some(compressor) => compressor,
                    None => zstd.insert(zstandard::compressor()?),
                };
                zstandard::compress(compressor, plain, buffer)?;
            }
        }
        *largest = (*largest).max(buffer.capacity());
        let head = head(buffer.len() - HEAD);
        buffer[..HEAD].copy_from_slice(&head);
        Ok(buffer.split().freeze())
    }
}

/// At most `most` bytes of what came in this encoding; None if that is not known, or is not what came.
pub(super) fn unpack(encoding: Option<&HeaderValue>, packed: &[u8], most: usize) -> Option<Vec<u8>> {
    match encoding?.as_bytes() {
        b"gzip" => gzip::decompress(packed, most).ok(),
        b"zstd" => zstandard::decompress(packed, most).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

    #[test]
    fn what_is_packed_comes_back_after_its_head() {
        for compression in ALL {
            let packer = Packer::new(compression);
            for plain in [&b""[..], b"one", &vec![7; 100_000]] {
                let packed = packer.pack(plain, |length| (length as u32).to_be_bytes()).unwrap();
                let (length, packed) = packed.split_first_chunk().unwrap();
                assert_eq!(u32::from_be_bytes(*length) as usize, packed.len());
                match packer.encoding() {
                    Some(encoding) => assert_eq!(unpack(Some(&encoding), packed, 1 << 20).as_deref(), Some(plain)),
                    None => assert_eq!(packed, plain),
                }
            }
        }
        assert_eq!(unpack(None, b"one", 10), None);
        assert_eq!(unpack(Some(&HeaderValue::from_static("br")), b"one", 10), None);
    }

    #[test]
    fn the_memory_is_used_again() {
        let plain: Vec<u8> = (0..100_000_u32).map(|number| (number.wrapping_mul(number) >> 3) as u8).collect();
        for compression in ALL {
            let packer = Packer::new(compression);
            let place = || packer.pack(&plain, |_| [0; 5]).unwrap().as_ptr();
            for _ in 0..3 {
                place();
            }
            let places: HashSet<_> = (0..100).map(|_| place()).collect();
            assert_eq!(places.len(), 1, "{compression:?}");
        }
    }
}
