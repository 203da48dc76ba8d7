//! Reads the guest disk out of a qcow2 file (QEMU's `docs/interop/qcow2.rst`, versions 2 and 3).
//!
//! Written for files from anywhere: it opens no other file whatever the header says, allocates only what limits below
//! allow, follows two levels of tables and nothing else, and checks every offset against the file's length. Snapshots,
//! refcounts, bitmaps and dirty bits do not matter to a reader of the active disk. There is no cache: the entries that
//! one chunk needs are a few hundred bytes, read with one positioned read per second-level table.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::ImportError;
use super::source::{Content, read_up_to};
use crate::manifest::SECTOR_BYTES;

/// First bytes of every version.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// QEMU's own limits: clusters of 512 bytes to 2 MiB and a first-level table of at most 32 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
const MAX_L1_BYTES: u64 = 32 << 20;
/// No server disk is larger; a header that says so is damaged or hostile.
const MAX_DISK_BYTES: u64 = 64 << 40;

/// Bits 9 to 55 of a table entry: a cluster's offset in the file.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const READS_AS_ZERO: u64 = 1;

/// Incompatible feature bits (version 3).
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
/// Dirty only says that refcounts may be wrong.
const HARMLESS: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Deflate,
    Zstd,
}

/// An opened qcow2 file.
pub(super) struct Qcow2<'a> {
    file: &'a File,
    path: &'a Path,
    file_bytes: u64,
    size: u64,
    version: u32,
    cluster_bits: u32,
    compression: Compression,
    l1: Vec<u64>,
}

/// Where a guest cluster's content is.
enum Mapping {
    Zero,
    At(u64),
    Compressed { offset: u64, bytes: u64 },
}

impl<'a> Qcow2<'a> {
    /// `head` is the beginning of the file, at least as much of it as the header.
    pub(super) fn open(file: &'a File, path: &'a Path, file_bytes: u64, head: &[u8]) -> Result<Self, ImportError> {
        let header = Header { path, head };
        let version = header.u32(4)?;
        if !(2..=3).contains(&version) {
            return Err(header.unsupported(format!("qcow2 version {version}")));
        }
        let cluster_bits = header.u32(20)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(header.damaged(format!("cluster size 2^{cluster_bits} bytes is not allowed")));
        }
        let compression = header.check_features(version)?;
        let size = header.u64(24)?;
        if size == 0 || size > MAX_DISK_BYTES {
            return Err(header.damaged(format!("a disk of {size} bytes is not plausible")));
        }
        if !size.is_multiple_of(SECTOR_BYTES) {
            return Err(header.damaged(format!("a disk of {size} bytes is not a whole number of sectors")));
        }
        // One first-level entry points to one cluster of second-level entries of 8 bytes each.
        let l1_covers = 1u64 << (2 * cluster_bits - 3);
        let l1_needed = size.div_ceil(l1_covers);
        let l1_entries = u64::from(header.u32(36)?);
        let l1_offset = header.u64(40)?;
        if l1_entries < l1_needed || l1_needed * 8 > MAX_L1_BYTES {
            return Err(
                header.damaged(format!("its first-level table has {l1_entries} entries, {l1_needed} are needed"))
            );
        }
        if l1_offset.checked_add(l1_needed * 8).is_none_or(|end| end > file_bytes) {
            let detail = format!("its first-level table at {l1_offset} lies beyond the file's {file_bytes} bytes");
            return Err(ImportError::Truncated { path: path.to_owned(), detail });
        }
        // At most MAX_L1_BYTES, so it fits.
        let mut bytes = vec![0; (l1_needed * 8) as usize];
        file.read_exact_at(&mut bytes, l1_offset).map_err(ImportError::read(path))?;
        let l1 = entries(&bytes).collect();
        Ok(Qcow2 { file, path, file_bytes, size, version, cluster_bits, compression, l1 })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads a range of the disk. `buffer` must end on a cluster or on the disk's end, which chunks of 4 MiB do.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<Content, ImportError> {
        let cluster = 1u64 << self.cluster_bits;
        let mappings = self.mappings(offset >> self.cluster_bits, (buffer.len() as u64).div_ceil(cluster))?;
        if mappings.iter().all(|mapping| matches!(mapping, Mapping::Zero)) {
            return Ok(Content::Hole);
        }
        // A cluster is at most 2 MiB, so it fits.
        for (part, mapping) in buffer.chunks_mut(cluster as usize).zip(mappings) {
            match mapping {
                Mapping::Zero => part.fill(0),
                Mapping::At(at) => self.read_stored(at, part)?,
                Mapping::Compressed { offset, bytes } => self.read_compressed(offset, bytes, part)?,
            }
        }
        Ok(Content::Data)
    }

    /// The mappings of `count` guest clusters from `first` on.
    fn mappings(&self, first: u64, count: u64) -> Result<Vec<Mapping>, ImportError> {
        let l2_bits = self.cluster_bits - 3;
        let mut mappings = Vec::new();
        let mut guest = first;
        let end = first + count;
        while guest < end {
            let in_table = guest & ((1 << l2_bits) - 1);
            let run = (end - guest).min((1 << l2_bits) - in_table);
            // Guest clusters lie within the size, for which the first-level table is long enough.
            let l1 = usize::try_from(guest >> l2_bits).ok().and_then(|at| self.l1.get(at)).copied().unwrap_or(0);
            let table = l1 & OFFSET_MASK;
            if table == 0 {
                mappings.extend((0..run).map(|_| Mapping::Zero));
            } else {
                let mut bytes = vec![0; run as usize * 8];
                self.read_stored(table + in_table * 8, &mut bytes)?;
                for entry in entries(&bytes) {
                    mappings.push(self.mapping(entry)?);
                }
            }
            guest += run;
        }
        Ok(mappings)
    }

    fn mapping(&self, entry: u64) -> Result<Mapping, ImportError> {
        if entry & COMPRESSED != 0 {
            // Low bits: offset in bytes; above it up to bit 61: further sectors that hold a part of the data.
            let split = 62 - (self.cluster_bits - 8);
            let offset = entry & ((1 << split) - 1);
            let sectors = (entry & (COMPRESSED - 1)) >> split;
            let bytes = (sectors + 1) * SECTOR_BYTES - (offset & (SECTOR_BYTES - 1));
            return Ok(Mapping::Compressed { offset, bytes });
        }
        let offset = entry & OFFSET_MASK;
        if offset == 0 || (self.version >= 3 && entry & READS_AS_ZERO != 0) {
            return Ok(Mapping::Zero);
        }
        if !offset.is_multiple_of(1 << self.cluster_bits) {
            return Err(self.damaged(format!("a table points to {offset}, which is not the beginning of a cluster")));
        }
        Ok(Mapping::At(offset))
    }

    fn read_stored(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ImportError> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.file_bytes) {
            let detail = format!("{} bytes at {offset} lie beyond its {} bytes", buffer.len(), self.file_bytes);
            return Err(ImportError::Truncated { path: self.path.to_owned(), detail });
        }
        self.file.read_exact_at(buffer, offset).map_err(ImportError::read(self.path))
    }

    fn read_compressed(&self, offset: u64, bytes: u64, out: &mut [u8]) -> Result<(), ImportError> {
        if offset >= self.file_bytes {
            let detail = format!("a compressed cluster at {offset} lies beyond its {} bytes", self.file_bytes);
            return Err(ImportError::Truncated { path: self.path.to_owned(), detail });
        }
        // Data ends somewhere in its last sector, and the file may end with the data.
        let bytes = bytes.min(self.file_bytes - offset);
        // At most a little more than a cluster by the number of bits that hold it.
        let mut packed = vec![0; bytes as usize];
        let got = read_up_to(self.file, offset, &mut packed).map_err(ImportError::read(self.path))?;
        let packed = &packed[..got];
        // The packed form is a whole cluster, also where the disk ends within it.
        let mut cluster = vec![0; 1 << self.cluster_bits];
        let unpacked = match self.compression {
            Compression::Deflate => inflate(packed, &mut cluster),
            Compression::Zstd => {
                zstd::stream::read::Decoder::with_buffer(packed).and_then(|mut d| d.read_exact(&mut cluster))
            }
        };
        unpacked.map_err(|e| self.damaged(format!("the compressed cluster at {offset} cannot be unpacked: {e}")))?;
        out.copy_from_slice(&cluster[..out.len()]);
        Ok(())
    }

    fn damaged(&self, detail: String) -> ImportError {
        ImportError::Damaged { path: self.path.to_owned(), detail }
    }
}

/// Raw deflate without header; bytes after the end are padding.
fn inflate(packed: &[u8], out: &mut [u8]) -> io::Result<()> {
    let mut inflater = flate2::Decompress::new(false);
    inflater.decompress(packed, out, flate2::FlushDecompress::Finish).map_err(io::Error::other)?;
    if inflater.total_out() == out.len() as u64 {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} of {} bytes", inflater.total_out(), out.len())))
    }
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry))
}

/// The fixed part of the header.
struct Header<'a> {
    path: &'a Path,
    head: &'a [u8],
}

impl Header<'_> {
    /// Refuses what is not read and finds the compression method.
    fn check_features(&self, version: u32) -> Result<Compression, ImportError> {
        if self.u64(8)? != 0 {
            return Err(self.dependent(format!("the backing file {}", self.backing_name()?)));
        }
        match self.u32(32)? {
            0 => {}
            1 => return Err(self.unsupported("AES encryption".to_owned())),
            2 => return Err(self.unsupported("LUKS encryption".to_owned())),
            n => return Err(self.damaged(format!("encryption method {n} does not exist"))),
        }
        if version < 3 {
            return Ok(Compression::Deflate);
        }
        let features = self.u64(72)?;
        if features & EXTERNAL_DATA != 0 {
            return Err(self.dependent("an external data file".to_owned()));
        }
        if features & CORRUPT != 0 {
            return Err(self.damaged("QEMU has marked it as corrupt".to_owned()));
        }
        if features & EXTENDED_L2 != 0 {
            return Err(self.unsupported("subclusters (extended L2 entries)".to_owned()));
        }
        let unknown = features & !(HARMLESS | COMPRESSION_TYPE);
        if unknown != 0 {
            return Err(self.unsupported(format!("unknown incompatible features {unknown:#x}")));
        }
        if features & COMPRESSION_TYPE == 0 {
            return Ok(Compression::Deflate);
        }
        match self.u8(104)? {
            0 => Ok(Compression::Deflate),
            1 => Ok(Compression::Zstd),
            n => Err(self.unsupported(format!("compression method {n}"))),
        }
    }

    /// For the error text only: bounded, and with odd characters replaced.
    fn backing_name(&self) -> Result<String, ImportError> {
        let (offset, length) = (self.u64(8)?, self.u32(16)? as usize);
        let name = usize::try_from(offset).ok().and_then(|at| self.head.get(at..)).unwrap_or_default();
        Ok(format!("{:?}", String::from_utf8_lossy(&name[..length.min(name.len()).min(255)])))
    }

    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], ImportError> {
        match self.head.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => Ok(*bytes),
            None => Err(ImportError::Truncated {
                path: self.path.to_owned(),
                detail: format!("its {} bytes do not hold a qcow2 header", self.head.len()),
            }),
        }
    }

    fn u8(&self, at: usize) -> Result<u8, ImportError> {
        self.bytes::<1>(at).map(|[b]| b)
    }

    fn u32(&self, at: usize) -> Result<u32, ImportError> {
        self.bytes(at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, ImportError> {
        self.bytes(at).map(u64::from_be_bytes)
    }

    fn damaged(&self, detail: String) -> ImportError {
        ImportError::Damaged { path: self.path.to_owned(), detail }
    }

    fn dependent(&self, needs: String) -> ImportError {
        ImportError::Dependent { path: self.path.to_owned(), needs }
    }

    fn unsupported(&self, feature: String) -> ImportError {
        ImportError::Unsupported { path: self.path.to_owned(), feature }
    }
}
