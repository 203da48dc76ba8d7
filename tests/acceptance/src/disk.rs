//! The smallest disk image that can be imported and installed.

use std::path::{Path, PathBuf};

/// A disk image with nothing but a protective MBR and a GUID partition table with one partition (UEFI 2.10, section 5.3).
///
/// # Errors
/// When it cannot be written.
pub fn image(directory: &Path, name: &str) -> std::io::Result<PathBuf> {
    const SECTOR: usize = 512;
    const SECTORS: u64 = 16 << 11;
    let mut disk = vec![0_u8; SECTORS as usize * SECTOR];
    disk[446 + 4] = 0xee;
    disk[446 + 8..446 + 12].copy_from_slice(&1_u32.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&(SECTORS as u32 - 1).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut entries = vec![0_u8; 128 * 128];
    entries[0..16].copy_from_slice(&[
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
    ]);
    entries[16..32].copy_from_slice(&[7; 16]);
    entries[32..40].copy_from_slice(&2048_u64.to_le_bytes());
    entries[40..48].copy_from_slice(&(SECTORS - 2048).to_le_bytes());
    let header = |own: u64, other: u64, table: u64| {
        let mut header = vec![0_u8; 92];
        header[0..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        for (at, value) in [(24, own), (32, other), (40, 34), (48, SECTORS - 34), (72, table)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[56..72].copy_from_slice(&[9; 16]);
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let sum = crc32(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        header
    };
    let mut put = |sector: u64, bytes: &[u8]| {
        let at = sector as usize * SECTOR;
        disk[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(1, &header(1, SECTORS - 1, 2));
    put(2, &entries);
    put(SECTORS - 33, &entries);
    put(SECTORS - 1, &header(SECTORS - 1, 1, SECTORS - 33));
    put(2048, name.as_bytes());
    let path = directory.join(format!("{name}.raw"));
    std::fs::write(&path, disk)?;
    Ok(path)
}

/// CRC-32 as the UEFI specification wants it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}
