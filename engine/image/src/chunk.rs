//! From compressed chunk to verified content.

use std::io;

use crate::manifest::{CHUNK_BYTES, ChunkEntry, Digest, Manifest};

/// Why a chunk is refused. None of its content has been handed out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// It does not have the length that the manifest promises.
    #[error("chunk {index} came with {actual} bytes, expected {expected}")]
    Length {
        /// Which chunk.
        index: u64,
        /// Bytes promised.
        expected: u64,
        /// Bytes seen.
        actual: u64,
    },
    /// It is not zstd, or unpacks to more than a chunk.
    #[error("chunk {index} cannot be decompressed")]
    Compression {
        /// Which chunk.
        index: u64,
        /// What the decompressor says.
        #[source]
        source: io::Error,
    },
    /// It unpacks to something else than the manifest promises.
    #[error("chunk {index} has digest {actual}, expected {expected}")]
    Digest {
        /// Which chunk.
        index: u64,
        /// Digest promised.
        expected: Digest,
        /// Digest seen.
        actual: Digest,
    },
}

/// Unpacks and verifies chunks, one after the other, in one buffer of [`CHUNK_BYTES`]. One per thread.
pub struct ChunkDecoder {
    zstd: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
}

impl ChunkDecoder {
    /// A decoder with its buffer.
    ///
    /// # Errors
    /// When there is no memory for the decompressor.
    pub fn new() -> io::Result<Self> {
        Ok(ChunkDecoder { zstd: zstd::bulk::Decompressor::new()?, raw: vec![0; CHUNK_BYTES as usize] })
    }

    /// The raw content of `entry`, of which `stored` is the compressed form. Never returns content that does not have
    /// the promised digest.
    ///
    /// # Errors
    /// [`ChunkError`]; fetch the chunk again, from elsewhere if there is an elsewhere.
    pub fn decode(&mut self, manifest: &Manifest, entry: &ChunkEntry, stored: &[u8]) -> Result<&[u8], ChunkError> {
        let index = entry.index;
        let length = |expected: u64, actual: u64| ChunkError::Length { index, expected, actual };
        if stored.len() as u64 != u64::from(entry.stored_bytes) {
            return Err(length(u64::from(entry.stored_bytes), stored.len() as u64));
        }
        let raw_len = manifest.raw_len(entry);
        let out = &mut self.raw[..raw_len];
        let written =
            self.zstd.decompress_to_buffer(stored, out).map_err(|source| ChunkError::Compression { index, source })?;
        if written != raw_len {
            return Err(length(raw_len as u64, written as u64));
        }
        let actual = Digest::of(out);
        if actual != entry.digest {
            return Err(ChunkError::Digest { index, expected: entry.digest, actual });
        }
        Ok(out)
    }
}

/// True when every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Blocks of 4 KiB: the inner loop is branch-free (and so vectorised), and data is usually found in the first.
    bytes.chunks(4096).all(|block| block.iter().fold(0, |seen, byte| seen | byte) == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn pack(raw: &[u8]) -> (Manifest, Vec<u8>) {
        let stored = zstd::bulk::compress(raw, 3).unwrap();
        let entry = ChunkEntry { index: 0, digest: Digest::of(raw), stored_bytes: stored.len() as u32 };
        (Manifest::new(raw.len() as u64, vec![entry]).unwrap(), stored)
    }

    #[test]
    fn zero_is_zero_at_every_position() {
        assert!(is_zero(&[]));
        let mut bytes = vec![0; 3 * 4096 + 7];
        assert!(is_zero(&bytes));
        for at in [0, 4095, 4096, bytes.len() - 1] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "byte {at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn a_chunk_that_unpacks_to_more_than_its_place_is_refused() {
        let (_, stored) = pack(&[7; 1024]);
        let entry = ChunkEntry { index: 0, digest: Digest::of(&[7; 512]), stored_bytes: stored.len() as u32 };
        let manifest = Manifest::new(512, vec![entry.clone()]).unwrap();
        let mut decoder = ChunkDecoder::new().unwrap();
        assert!(matches!(decoder.decode(&manifest, &entry, &stored), Err(ChunkError::Compression { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn only_the_true_content_comes_out(sectors in 1usize..64, seed in any::<u8>(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let raw: Vec<u8> = (0..sectors * 512).map(|i| (i as u8).wrapping_mul(seed) ^ (i >> 8) as u8).collect();
            let (manifest, stored) = pack(&raw);
            let entry = manifest.chunks()[0].clone();
            let mut decoder = ChunkDecoder::new().unwrap();
            prop_assert_eq!(decoder.decode(&manifest, &entry, &stored).unwrap(), &raw[..]);

            let mut bad = stored.clone();
            let at = at.index(bad.len());
            bad[at] ^= flip;
            // zstd ignores some header bits; whatever is accepted must be the true content.
            if let Ok(content) = decoder.decode(&manifest, &entry, &bad) {
                prop_assert_eq!(content, &raw[..]);
            }
            prop_assert!(matches!(decoder.decode(&manifest, &entry, &stored[1..]), Err(ChunkError::Length { .. })), "length is checked first");
        }
    }
}
