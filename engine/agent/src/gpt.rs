//! Partition tables: adding the seed partition behind an image that was made for a smaller disk, and finding what a disk
//! holds before it is erased.
//!
//! GUID partition tables follow UEFI 2.10 section 5.3. An image carries its backup table at its own end; here it is
//! moved to the disk's end, so that the space between belongs to the table, and the seed goes to the very end of it:
//! the image's last partition can then still be grown by the installed system, up to the seed. Images with only an MBR
//! get the seed as a primary entry.
//!
//! Written here rather than taken from a crate because a table read from a disk may hold anything: sizes are bounded and
//! nothing panics.

use crate::error::DiskError;
use crate::target::{Target, Unmap};

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_BYTES: usize = 92;
/// More than any tool writes; bounds what a table read from a disk can ask for.
const MAX_ENTRIES: u32 = 4096;
const MAX_ENTRY_BYTES: u32 = 1024;
const ALIGNMENT: u64 = 1 << 20;

/// Type of the EFI system partition, as stored (mixed endian): C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
const ESP_TYPE: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// Type "basic data", which FAT file systems have: EBD0A0A2-B9E5-4433-87C0-68B6B72699C7.
const DATA_TYPE: [u8; 16] =
    [0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7];

const MBR_EMPTY: u8 = 0;
const MBR_PROTECTIVE: u8 = 0xee;
const MBR_FAT16_LBA: u8 = 0x0e;

/// Why a partition table cannot be extended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GptError {
    /// The disk fails.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No table of a known kind.
    #[error("the image has neither a GUID partition table for {sector_bytes}-byte sectors nor an MBR")]
    NoTable {
        /// Logical sector size of the disk.
        sector_bytes: u32,
    },
    /// The table contradicts itself.
    #[error("the GUID partition table is damaged: {0}")]
    Damaged(&'static str),
    /// No room.
    #[error("no room for {needed} bytes between the last partition's end and the disk's end ({free} bytes are free)")]
    NoRoom {
        /// Bytes asked for.
        needed: u64,
        /// Bytes left.
        free: u64,
    },
    /// No free entry.
    #[error("every entry of the partition table is in use")]
    NoEntry,
}

/// A range of bytes on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// The EFI system partition, as a boot entry names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Esp {
    /// Partition number, from 1.
    pub number: u32,
    /// First sector.
    pub first_lba: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// The partition's own GUID, as stored.
    pub guid: [u8; 16],
}

/// Little-endian fields of a byte slice that is long enough by construction.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn guid_at(bytes: &[u8], at: usize) -> [u8; 16] {
    bytes.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or([0; 16])
}

/// A GUID partition table in memory.
struct Gpt {
    sector: u64,
    header: [u8; HEADER_BYTES],
    entries: Vec<u8>,
    entry_bytes: usize,
}

impl Gpt {
    /// Reads the table whose header is in sector `lba`. `None` when there is none.
    fn read(target: &Target, lba: u64) -> Result<Option<Self>, GptError> {
        let sector = u64::from(target.sector_bytes());
        let mut header = [0; HEADER_BYTES];
        target.read_at(lba * sector, &mut header)?;
        if !header.starts_with(SIGNATURE) {
            return Ok(None);
        }
        let mut blank = header;
        blank[16..20].fill(0);
        if u32_at(&header, 12) as usize != HEADER_BYTES || u32_at(&header, 16) != crc32fast::hash(&blank) {
            return Err(GptError::Damaged("its header has the wrong checksum"));
        }
        let (count, entry_bytes) = (u32_at(&header, 80), u32_at(&header, 84));
        if count == 0 || count > MAX_ENTRIES || !(128..=MAX_ENTRY_BYTES).contains(&entry_bytes) {
            return Err(GptError::Damaged("its entries have an impossible number or size"));
        }
        let mut entries = vec![0; count as usize * entry_bytes as usize];
        let at = u64_at(&header, 72).checked_mul(sector);
        let fits = |at: &u64| at.checked_add(entries.len() as u64).is_some_and(|end| end <= target.size());
        let at = at.filter(fits).ok_or(GptError::Damaged("its entries lie beyond the disk"))?;
        target.read_at(at, &mut entries)?;
        if u32_at(&header, 88) != crc32fast::hash(&entries) {
            return Err(GptError::Damaged("its entries have the wrong checksum"));
        }
        Ok(Some(Gpt { sector, header, entries, entry_bytes: entry_bytes as usize }))
    }

    /// First and last sector of each partition, with its place in the table.
    fn partitions(&self) -> impl Iterator<Item = (u32, &[u8], u64, u64)> {
        self.entries
            .chunks_exact(self.entry_bytes)
            .zip(1u32..)
            .filter(|(entry, _)| guid_at(entry, 0) != [0; 16])
            .map(|(entry, number)| (number, entry, u64_at(entry, 32), u64_at(entry, 40)))
    }

    fn array_sectors(&self) -> u64 {
        (self.entries.len() as u64).div_ceil(self.sector)
    }

    /// Moves the end of the table to the end of a disk of `sectors` sectors.
    fn relocate(&mut self, sectors: u64) -> Result<(), GptError> {
        let last_usable = sectors.saturating_sub(2 + self.array_sectors());
        let end = self.partitions().map(|(_, _, _, last)| last).max().unwrap_or(0);
        if end > last_usable {
            return Err(GptError::NoRoom { needed: (end - last_usable) * self.sector, free: 0 });
        }
        self.header[32..40].copy_from_slice(&(sectors - 1).to_le_bytes());
        self.header[48..56].copy_from_slice(&last_usable.to_le_bytes());
        Ok(())
    }

    /// Adds a partition as far back as it goes, aligned.
    fn add_last(&mut self, length: u64, guid: [u8; 16], name: &str) -> Result<Span, GptError> {
        let end = (u64_at(&self.header, 48) + 1) * self.sector;
        let used = self.partitions().map(|(_, _, _, last)| last + 1).max().unwrap_or(0);
        let floor = used.max(u64_at(&self.header, 40)) * self.sector;
        let start = end.saturating_sub(length) / ALIGNMENT * ALIGNMENT;
        if start < floor {
            return Err(GptError::NoRoom { needed: length + ALIGNMENT, free: end.saturating_sub(floor) });
        }
        let sector = self.sector;
        let entry = self
            .entries
            .chunks_exact_mut(self.entry_bytes)
            .find(|entry| guid_at(entry, 0) == [0; 16])
            .ok_or(GptError::NoEntry)?;
        entry.fill(0);
        entry[..16].copy_from_slice(&DATA_TYPE);
        entry[16..32].copy_from_slice(&guid);
        entry[32..40].copy_from_slice(&(start / sector).to_le_bytes());
        entry[40..48].copy_from_slice(&((start + length) / sector - 1).to_le_bytes());
        for (unit, place) in name.encode_utf16().zip(entry[56..128].chunks_exact_mut(2)) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
        Ok(Span { offset: start, length })
    }

    /// Writes backup first, then primary: whoever reads in between finds one whole table.
    fn write(&mut self, target: &Target) -> Result<(), GptError> {
        self.header[88..92].copy_from_slice(&crc32fast::hash(&self.entries).to_le_bytes());
        let backup_lba = u64_at(&self.header, 32);
        let primary_entries = u64_at(&self.header, 72);
        let backup_entries = backup_lba - self.array_sectors();
        for (own, other, entries) in [(backup_lba, 1, backup_entries), (1, backup_lba, primary_entries)] {
            let mut header = self.header;
            header[24..32].copy_from_slice(&own.to_le_bytes());
            header[32..40].copy_from_slice(&other.to_le_bytes());
            header[72..80].copy_from_slice(&entries.to_le_bytes());
            header[16..20].fill(0);
            let crc = crc32fast::hash(&header);
            header[16..20].copy_from_slice(&crc.to_le_bytes());
            let mut sector = vec![0; self.sector as usize];
            sector[..HEADER_BYTES].copy_from_slice(&header);
            target.write_at(entries * self.sector, &self.entries)?;
            target.write_at(own * self.sector, &sector)?;
        }
        Ok(())
    }
}

/// Adds a partition of `length` bytes at the end of the disk, for the seed, and moves the table's end there.
///
/// # Errors
/// [`GptError`].
pub fn add_seed_partition(target: &Target, length: u64, guid: [u8; 16]) -> Result<Span, GptError> {
    let sector = u64::from(target.sector_bytes());
    let sectors = target.size() / sector;
    let mut mbr = [0; 512];
    target.read_at(0, &mut mbr)?;
    let Some(mut gpt) = Gpt::read(target, 1)? else {
        return add_to_mbr(target, &mut mbr, length);
    };
    let old_end = u64_at(&gpt.header, 32);
    gpt.relocate(sectors)?;
    let span = gpt.add_last(length, guid, "CIDATA")?;
    // The image's own backup table is now in the middle of free space, where repair tools would find it.
    let stale = old_end.saturating_sub(gpt.array_sectors());
    let overlaps = gpt.partitions().any(|(_, _, first, last)| first <= old_end && last >= stale);
    if old_end + 1 < sectors && !overlaps {
        target.zero(stale * sector, (old_end + 1 - stale) * sector, Unmap::Allowed, &|_| {})?;
    }
    gpt.write(target)?;
    for entry in mbr[446..510].chunks_exact_mut(16) {
        if entry[4] == MBR_PROTECTIVE && u32_at(entry, 8) == 1 {
            let covered = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
            entry[12..16].copy_from_slice(&covered.to_le_bytes());
        }
    }
    target.write_at(0, &mbr)?;
    Ok(span)
}

fn add_to_mbr(target: &Target, mbr: &mut [u8; 512], length: u64) -> Result<Span, GptError> {
    let no_table = GptError::NoTable { sector_bytes: target.sector_bytes() };
    // A file system's boot sector has the signature too, but not four sane entries with one in use.
    let table = &mbr[446..510];
    let sane = table.chunks_exact(16).all(|entry| entry[0] & 0x7f == 0) && table.chunks_exact(16).any(|e| e[4] != 0);
    if mbr[510..] != [0x55, 0xaa] || !sane || table.chunks_exact(16).any(|e| e[4] == MBR_PROTECTIVE) {
        return Err(no_table);
    }
    let sector = u64::from(target.sector_bytes());
    // Sector numbers have 32 bits; what lies beyond cannot be named.
    let end = target.size().min(u64::from(u32::MAX) * sector);
    let used = table.chunks_exact(16).map(|e| u64::from(u32_at(e, 8)) + u64::from(u32_at(e, 12))).max().unwrap_or(0);
    let start = end.saturating_sub(length) / ALIGNMENT * ALIGNMENT;
    if start < used * sector {
        return Err(GptError::NoRoom { needed: length + ALIGNMENT, free: end.saturating_sub(used * sector) });
    }
    let entry = mbr[446..510].chunks_exact_mut(16).find(|entry| entry[4] == MBR_EMPTY).ok_or(GptError::NoEntry)?;
    // Cylinder, head and sector are "too large to say".
    entry[..8].copy_from_slice(&[0, 0xfe, 0xff, 0xff, MBR_FAT16_LBA, 0xfe, 0xff, 0xff]);
    // Both below 2^32 by the bound on `end`.
    entry[8..12].copy_from_slice(&((start / sector) as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&((length / sector) as u32).to_le_bytes());
    target.write_at(0, mbr)?;
    Ok(Span { offset: start, length })
}

/// The disk's EFI system partition, if its GUID partition table has one.
///
/// # Errors
/// [`GptError`] when the table cannot be read.
pub fn find_esp(target: &Target) -> Result<Option<Esp>, GptError> {
    let Some(gpt) = Gpt::read(target, 1)? else { return Ok(None) };
    Ok(gpt.partitions().find(|(_, entry, ..)| guid_at(entry, 0) == ESP_TYPE).map(|(number, entry, first, last)| Esp {
        number,
        first_lba: first,
        sectors: (last + 1).saturating_sub(first),
        guid: guid_at(entry, 16),
    }))
}

/// Where the partitions are that any table on the disk names: primary, backup or MBR. Damaged tables name none.
///
/// # Errors
/// [`DiskError`] when the disk cannot be read.
pub fn partitions(target: &Target) -> Result<Vec<Span>, DiskError> {
    let sector = u64::from(target.sector_bytes());
    let mut spans = Vec::new();
    let mut add = |first: u64, sectors: u64| {
        let span = Span { offset: first.saturating_mul(sector), length: sectors.saturating_mul(sector) };
        let inside = span.offset.checked_add(span.length).is_some_and(|end| end <= target.size());
        if inside && span.length > 0 && !spans.contains(&span) {
            spans.push(span);
        }
    };
    for lba in [1, (target.size() / sector).saturating_sub(1)] {
        match Gpt::read(target, lba) {
            Ok(Some(gpt)) => gpt
                .partitions()
                .filter(|(_, _, first, last)| last >= first)
                .for_each(|(_, _, first, last)| add(first, last - first + 1)),
            Err(GptError::Disk(error @ DiskError::Range { .. })) if lba == 1 => return Err(error),
            _ => {}
        }
    }
    let mut mbr = [0; 512];
    target.read_at(0, &mut mbr)?;
    if mbr[510..] == [0x55, 0xaa] {
        for entry in mbr[446..510].chunks_exact(16).filter(|e| e[4] != MBR_EMPTY && e[4] != MBR_PROTECTIVE) {
            add(u64::from(u32_at(entry, 8)), u64::from(u32_at(entry, 12)));
        }
    }
    Ok(spans)
}

/// What an image's first bytes tell about its GUID partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageTable {
    /// The sector size that it is laid out for.
    pub sector_bytes: u32,
    /// Whether it has an EFI system partition.
    pub esp: bool,
}

/// Looks at an image's first chunk, before anything is written. `None` without a GUID partition table.
pub fn table_of(head: &[u8]) -> Option<ImageTable> {
    let at = |sector: u32| head.get(sector as usize..).filter(|rest| rest.starts_with(SIGNATURE));
    let (sector_bytes, header) = [512, 4096].into_iter().find_map(|sector| Some((sector, at(sector)?)))?;
    let entries = usize::try_from(u64_at(header, 72)).ok()?.checked_mul(sector_bytes as usize)?;
    let entry_bytes = u32_at(header, 84).clamp(128, MAX_ENTRY_BYTES) as usize;
    let count = u32_at(header, 80).min(MAX_ENTRIES) as usize;
    let table = head.get(entries..).unwrap_or_default();
    let esp = table.chunks_exact(entry_bytes).take(count).any(|entry| guid_at(entry, 0) == ESP_TYPE);
    Some(ImageTable { sector_bytes, esp })
}

#[cfg(test)]
mod tests;
