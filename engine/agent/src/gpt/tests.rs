#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

fn sgdisk(args: &[&str], disk: &Path) -> String {
    let output = Command::new("sgdisk").args(args).arg(disk).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// An image of 64 MiB with an ESP and a root partition, on a disk of `size`.
fn disk(dir: &TempDir, size: u64) -> PathBuf {
    let path = dir.path().join("disk");
    let file = File::create(&path).unwrap();
    file.set_len(64 * MIB).unwrap();
    sgdisk(&["-n1:1M:+8M", "-t1:ef00", "-n2:16M:0", "-t2:8300"], &path);
    file.set_len(size).unwrap();
    path
}

#[test]
fn the_seed_goes_to_the_end_and_sgdisk_finds_no_fault() {
    let dir = TempDir::new().unwrap();
    let path = disk(&dir, 200 * MIB);
    let target = Target::open(&path).unwrap();
    let span = add_seed_partition(&target, 16 * MIB, [7; 16]).unwrap();
    assert_eq!(span, Span { offset: 183 * MIB, length: 16 * MIB });

    let verdict = sgdisk(&["-v"], &path);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let listing = sgdisk(&["-i3"], &path);
    assert!(listing.contains("CIDATA") && listing.contains("Microsoft basic data"), "{listing}");
    let listing = sgdisk(&["-p"], &path);
    assert!(listing.contains("   2 "), "root is still there: {listing}");

    let esp = find_esp(&target).unwrap().unwrap();
    assert_eq!((esp.number, esp.first_lba, esp.sectors), (1, 2048, 8 * MIB / 512));
    assert_ne!(esp.guid, [0; 16]);
    let mut end_of_image = [0; 512];
    target.read_at(64 * MIB - 512, &mut end_of_image).unwrap();
    assert_eq!(end_of_image, [0; 512], "the image's own backup header is gone");
    assert_eq!(partitions(&target).unwrap().len(), 3);
}

#[test]
fn a_disk_without_room_is_refused_untouched() {
    let dir = TempDir::new().unwrap();
    for size in [64 * MIB, 72 * MIB] {
        let path = disk(&dir, size);
        let before = std::fs::read(&path).unwrap();
        let target = Target::open(&path).unwrap();
        assert!(matches!(add_seed_partition(&target, 16 * MIB, [7; 16]), Err(GptError::NoRoom { .. })), "{size}");
        assert!(std::fs::read(&path).unwrap() == before);
    }
}

#[test]
fn an_mbr_gets_a_primary_entry() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("disk");
    let mut mbr = [0u8; 512];
    mbr[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0]);
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = OpenOptions::new().create(true).truncate(true).write(true).read(true).open(&path).unwrap();
    file.set_len(100 * MIB).unwrap();
    file.write_all_at(&mbr, 0).unwrap();
    let target = Target::open(&path).unwrap();
    assert_eq!(add_seed_partition(&target, 16 * MIB, [7; 16]).unwrap().offset, 84 * MIB);
    let spans = partitions(&target).unwrap();
    assert_eq!(spans[1], Span { offset: 84 * MIB, length: 16 * MIB });
    let listing = Command::new("sfdisk").arg("-d").arg(&path).output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert!(listing.contains("start=      172032, size=       32768, type=e"), "{listing}");
    assert_eq!(find_esp(&target).unwrap(), None);

    // A bare file system is not an MBR.
    let mut fat = [0xeb; 512];
    fat[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&fat, 0).unwrap();
    assert!(matches!(add_seed_partition(&target, MIB, [7; 16]), Err(GptError::NoTable { .. })));
}

#[test]
fn damage_is_told_and_never_a_panic() {
    let dir = TempDir::new().unwrap();
    let path = disk(&dir, 200 * MIB);
    let file = OpenOptions::new().write(true).read(true).open(&path).unwrap();
    let mut good = [0; 512];
    file.read_exact_at(&mut good, 512).unwrap();
    for at in 8..92 {
        for fix in [false, true] {
            let mut bad = good;
            bad[at] ^= 0xff;
            if fix {
                bad[16..20].fill(0);
                let crc = crc32fast::hash(&bad[..92]);
                bad[16..20].copy_from_slice(&crc.to_le_bytes());
            }
            file.write_all_at(&bad, 512).unwrap();
            let target = Target::open(&path).unwrap();
            let _ = find_esp(&target);
            let _ = partitions(&target).unwrap();
            if !fix && at != 16 {
                assert!(add_seed_partition(&target, MIB, [7; 16]).is_err(), "byte {at}");
            }
        }
    }
}

#[test]
fn an_image_is_judged_by_its_first_bytes() {
    let dir = TempDir::new().unwrap();
    let path = disk(&dir, 64 * MIB);
    let head = std::fs::read(&path).unwrap()[..4 << 20].to_vec();
    assert_eq!(table_of(&head), Some(ImageTable { sector_bytes: 512, esp: true }));
    sgdisk(&["-t1:8300"], &path);
    let other = std::fs::read(&path).unwrap()[..4 << 20].to_vec();
    assert_eq!(table_of(&other), Some(ImageTable { sector_bytes: 512, esp: false }));
    // The same table moved to where 4096-byte sectors would have it.
    let mut wide = vec![0; 4 << 20];
    wide[4096..4608].copy_from_slice(&head[512..1024]);
    wide[8192..8192 + 128 * 128].copy_from_slice(&head[1024..1024 + 128 * 128]);
    assert_eq!(table_of(&wide), Some(ImageTable { sector_bytes: 4096, esp: true }));
    for length in [0, 511, 512, 520, 600, 1024, 1100] {
        let _ = table_of(&head[..length]);
    }
    assert_eq!(table_of(&[0; 8192]), None);
}
