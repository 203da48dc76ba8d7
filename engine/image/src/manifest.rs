//! The list of an image's chunks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Raw bytes per chunk: 4 MiB. Large enough that request and hash overhead vanish, small enough that a dozen fit in an
/// installer's memory.
pub const CHUNK_BYTES: u32 = 4 << 20;

/// The largest manifest that is read: room for about 600,000 chunks (2.4 TB without a hole).
pub const MAX_MANIFEST_BYTES: usize = 64 << 20;

/// Disks are addressed in sectors; an image is a whole number of the smallest.
pub(crate) const SECTOR_BYTES: u64 = 512;

const VERSION: u32 = 1;

/// A BLAKE3-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest; expected 64 lower-case hexadecimal digits")]
pub struct DigestError(String);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        // Upper case is refused: one content, one name, one file.
        let mut bytes = [0; 32];
        let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if lower && hex::decode_to_slice(text, &mut bytes).is_ok() {
            Ok(Digest(bytes))
        } else {
            Err(DigestError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// One chunk that is not all zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkEntry {
    /// Which part of the disk: bytes `index * chunk_bytes` and on.
    pub index: u64,
    /// Digest of the raw content; names the chunk.
    pub digest: Digest,
    /// Size of the compressed chunk: what is fetched.
    pub stored_bytes: u32,
}

/// What an image consists of. Chunks that are not listed are holes: they read as zeros.
///
/// The canonical form is the compact JSON that [`Manifest::to_bytes`] makes; the image's digest is over exactly those
/// bytes. `stored_bytes` is part of it, so importing the same disk with another version of the compressor can give
/// another digest: the digest names one stored form of the content, never two contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    size_bytes: u64,
    chunk_bytes: u32,
    compression: Compression,
    chunks: Vec<ChunkEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Compression {
    Zstd,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is not the one that was asked for.
    #[error("manifest has digest {actual}, expected {expected}: it was changed or is another image's")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Larger than any manifest.
    #[error("manifest of {0} bytes is too large; at most {MAX_MANIFEST_BYTES} bytes are read")]
    TooLarge(usize),
    /// Not the JSON of a manifest.
    #[error("manifest cannot be read")]
    Syntax(#[source] serde_json::Error),
    /// A field contradicts the format or another field.
    #[error("manifest is not valid: {0}")]
    Invalid(String),
}

impl Manifest {
    /// A manifest over chunks in ascending order.
    ///
    /// # Errors
    /// [`ManifestError::Invalid`] when size or chunks break the format's rules.
    pub fn new(size_bytes: u64, chunks: Vec<ChunkEntry>) -> Result<Self, ManifestError> {
        let manifest =
            Manifest { version: VERSION, size_bytes, chunk_bytes: CHUNK_BYTES, compression: Compression::Zstd, chunks };
        manifest.validate()?;
        Ok(manifest)
    }

    /// Reads a manifest, checking first that its bytes are the ones that `expected` names.
    ///
    /// # Errors
    /// [`ManifestError`]; nothing of an unverified manifest is looked at.
    pub fn parse(bytes: &[u8], expected: &Digest) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let actual = Digest::of(bytes);
        if actual != *expected {
            return Err(ManifestError::Digest { expected: *expected, actual });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(ManifestError::Syntax)?;
        manifest.validate()?;
        Ok(manifest)
    }

    fn validate(&self) -> Result<(), ManifestError> {
        let invalid = |what: String| Err(ManifestError::Invalid(what));
        if self.version != VERSION {
            return invalid(format!("version {}; this program reads version {VERSION}", self.version));
        }
        if self.chunk_bytes != CHUNK_BYTES {
            return invalid(format!("chunks of {} bytes; version {VERSION} has {CHUNK_BYTES}", self.chunk_bytes));
        }
        if self.size_bytes == 0 || !self.size_bytes.is_multiple_of(SECTOR_BYTES) {
            return invalid(format!("a disk of {} bytes is not a whole number of sectors", self.size_bytes));
        }
        let count = self.size_bytes.div_ceil(u64::from(CHUNK_BYTES));
        let mut next = 0;
        for chunk in &self.chunks {
            if chunk.index < next || chunk.index >= count {
                return invalid(format!("chunk {} is out of order or beyond the disk's {count} chunks", chunk.index));
            }
            // zstd grows incompressible input by less than 1/128.
            if chunk.stored_bytes == 0 || chunk.stored_bytes > CHUNK_BYTES + CHUNK_BYTES / 128 {
                return invalid(format!("chunk {} cannot be stored in {} bytes", chunk.index, chunk.stored_bytes));
            }
            next = chunk.index + 1;
        }
        Ok(())
    }

    /// The canonical bytes.
    ///
    /// # Errors
    /// [`ManifestError::Syntax`] when serialising fails (out of memory).
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        serde_json::to_vec(self).map_err(ManifestError::Syntax)
    }

    /// Size of the disk in bytes, a multiple of 512.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The chunks that hold data, in disk order.
    pub fn chunks(&self) -> &[ChunkEntry] {
        &self.chunks
    }

    /// Compressed bytes to fetch for the whole image.
    pub fn stored_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.stored_bytes)).sum()
    }

    /// Raw bytes of all chunks: what is written to a disk.
    pub fn data_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| self.raw_len(chunk) as u64).sum()
    }

    /// Where a chunk's raw content begins on the disk.
    pub fn offset(&self, chunk: &ChunkEntry) -> u64 {
        chunk.index * u64::from(self.chunk_bytes)
    }

    /// Length of a chunk's raw content; only the disk's last chunk may be shorter than [`CHUNK_BYTES`].
    pub fn raw_len(&self, chunk: &ChunkEntry) -> usize {
        // At most CHUNK_BYTES, so it fits.
        u64::from(self.chunk_bytes).min(self.size_bytes - self.offset(chunk)) as usize
    }

    /// The ranges (offset, length) of the disk that no chunk covers, neighbours joined.
    pub fn holes(&self) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut end = 0;
        for chunk in &self.chunks {
            let start = self.offset(chunk);
            if start > end {
                holes.push((end, start - end));
            }
            end = start + self.raw_len(chunk) as u64;
        }
        if end < self.size_bytes {
            holes.push((end, self.size_bytes - end));
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn entry(index: u64) -> ChunkEntry {
        ChunkEntry { index, digest: Digest::of(&index.to_le_bytes()), stored_bytes: 100 }
    }

    #[test]
    fn a_manifest_round_trips_and_is_named_by_its_bytes() {
        let manifest = Manifest::new(18 * MIB + 512, vec![entry(0), entry(2), entry(4)]).unwrap();
        let bytes = manifest.to_bytes().unwrap();
        let digest = Digest::of(&bytes);
        assert_eq!(Manifest::parse(&bytes, &digest).unwrap(), manifest);
        assert_eq!(manifest.holes(), [(4 * MIB, 4 * MIB), (12 * MIB, 4 * MIB)]);
        assert_eq!(manifest.raw_len(&entry(4)) as u64, 2 * MIB + 512);
        assert_eq!(manifest.data_bytes(), 10 * MIB + 512);
        assert_eq!(manifest.stored_bytes(), 300);

        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(matches!(Manifest::parse(&bad, &digest), Err(ManifestError::Digest { .. })), "byte {at}");
        }
    }

    #[test]
    fn contradictions_are_refused_even_under_the_right_digest() {
        for (size, chunks) in [
            (0, vec![]),
            (1000, vec![]),
            (8 * MIB, vec![entry(2)]),
            (8 * MIB, vec![entry(1), entry(0)]),
            (8 * MIB, vec![entry(1), entry(1)]),
            (8 * MIB, vec![ChunkEntry { stored_bytes: 0, ..entry(0) }]),
            (8 * MIB, vec![ChunkEntry { stored_bytes: u32::MAX, ..entry(0) }]),
        ] {
            assert!(matches!(Manifest::new(size, chunks), Err(ManifestError::Invalid(_))), "{size}");
        }
        let good = String::from_utf8(Manifest::new(8 * MIB, vec![entry(1)]).unwrap().to_bytes().unwrap()).unwrap();
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("4194304", "4096"),
            ("\"zstd\"", "\"lz4\""),
            ("\"index\"", "\"more\":1,\"index\""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(Manifest::parse(bad.as_bytes(), &Digest::of(bad.as_bytes())).is_err(), "{to}");
        }
    }

    #[test]
    fn a_digest_has_one_spelling() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        for bad in ["", "../../etc/passwd", &digest.to_string().to_uppercase(), &digest.to_string()[1..]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
