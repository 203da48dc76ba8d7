//! Erasing disks: exactly as thoroughly as ordered, or a failure; never silently less.
//!
//! | level | what is done | what proves it |
//! |---|---|---|
//! | `metadata` | both ends of the disk and of every partition zeroed | read back |
//! | `discard` | every block discarded, then `metadata` | sampled blocks read back as zeros (or ones) |
//! | `overwrite` | every block written with zeros | sampled blocks read back as zeros |
//!
//! A disk that cannot discard, or that still shows content afterwards (the command is advisory), is overwritten under
//! level `discard`: that is more than was ordered, takes longer, and is said in the record. All disks are worked on at
//! once, since each has its own speed; one failing disk fails the order after all have finished.

use std::path::Path;
use std::thread;

use vmetal_model::agent::{EraseLevel, ErasedDisk};
use vmetal_model::inventory::Disk;

use crate::error::{AgentError, DiskError, chain};
use crate::gpt::{self, Span};
use crate::target::{Discarded, Target, Unmap};
use crate::work::Progress;

/// What is cleared at both ends of disks and partitions: every superblock of file systems, LVM and MD lies within
/// (the farthest, btrfs's second copy and ZFS's labels, within 512 KiB of an end or after a first label that is gone).
const EDGE_BYTES: u64 = 1 << 20;

const SAMPLES: usize = 64;
const SAMPLE_BYTES: usize = 4096;

/// Why one disk could not be erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The disk fails.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It took the order and still has content.
    #[error("still has content at byte {0} after erasing")]
    StillThere(u64),
    /// The thread ended without a result.
    #[error("erasing was interrupted")]
    Interrupted,
}

/// Erases every disk at once. `dev` is where the device nodes are; `salt` (the order's id) chooses the sampled blocks.
///
/// # Errors
/// [`AgentError::Erase`] names each disk that failed and each that was erased; [`AgentError::NothingToErase`] when
/// there is no disk, because then nothing is proven.
pub fn erase_all(
    disks: &[Disk],
    dev: &Path,
    level: EraseLevel,
    salt: &str,
    progress: &Progress,
) -> Result<Vec<ErasedDisk>, AgentError> {
    if disks.is_empty() {
        return Err(AgentError::NothingToErase);
    }
    progress.begin("erasing disks", disks.iter().map(|disk| disk.size_bytes).sum());
    let results: Vec<(&Disk, Result<String, EraseError>)> = thread::scope(|scope| {
        let threads: Vec<_> = disks
            .iter()
            .map(|disk| (disk, scope.spawn(move || erase(&dev.join(&disk.name), level, salt, progress))))
            .collect();
        threads
            .into_iter()
            .map(|(disk, thread)| (disk, thread.join().unwrap_or(Err(EraseError::Interrupted))))
            .collect()
    });
    let mut erased = Vec::new();
    let mut failed = Vec::new();
    for (disk, result) in results {
        match result {
            Ok(method) => erased.push(ErasedDisk {
                name: disk.name.clone(),
                serial: disk.serial.clone(),
                size_bytes: disk.size_bytes,
                method,
            }),
            Err(error) => {
                let serial = disk.serial.as_deref().unwrap_or("none");
                failed.push(format!("{} (serial {serial}): {}", disk.name, chain(&error)));
            }
        }
    }
    if failed.is_empty() {
        return Ok(erased);
    }
    let mut text = failed.join("; ");
    if !erased.is_empty() {
        let names: Vec<&str> = erased.iter().map(|disk| disk.name.as_str()).collect();
        text.push_str(&format!("; erased: {}", names.join(", ")));
    }
    Err(AgentError::Erase(text))
}

fn erase(path: &Path, level: EraseLevel, salt: &str, progress: &Progress) -> Result<String, EraseError> {
    let target = Target::open(path)?;
    let step = |bytes| progress.add(bytes);
    match level {
        EraseLevel::Metadata => {
            let partitions = clear_metadata(&target)?;
            progress.add(target.size());
            Ok(format!("both ends of the disk and of {partitions} partitions zeroed"))
        }
        EraseLevel::Discard => {
            // Found before the discard, which takes the tables away.
            let partitions = clear_metadata(&target)?;
            match target.discard(&step)? {
                Discarded::Yes => {
                    clear_metadata(&target)?;
                    target.sync_and_forget()?;
                    let samples = sample(&target, salt, Expect::Blank)?;
                    match samples {
                        Ok(count) => Ok(format!(
                            "BLKDISCARD, both ends of {partitions} partitions zeroed, {count} blocks sampled"
                        )),
                        Err(_) => {
                            let method = overwrite(&target, salt, &|_| {})?;
                            Ok(format!("{method} (content was still readable after BLKDISCARD)"))
                        }
                    }
                }
                Discarded::Unsupported => {
                    let method = overwrite(&target, salt, &step)?;
                    Ok(format!("{method} (the disk cannot discard)"))
                }
            }
        }
        EraseLevel::Overwrite => overwrite(&target, salt, &step),
    }
}

fn overwrite(target: &Target, salt: &str, progress: &dyn Fn(u64)) -> Result<String, EraseError> {
    target.zero(0, target.size(), Unmap::Forbidden, progress)?;
    target.sync_and_forget()?;
    match sample(target, salt, Expect::Zero)? {
        Ok(count) => Ok(format!("overwritten with zeros, {count} blocks sampled")),
        Err(offset) => Err(EraseError::StillThere(offset)),
    }
}

/// Zeroes both ends of the disk and of every partition that a table on it names, and reads the disk's ends back.
/// Returns how many partitions there were.
///
/// # Errors
/// [`EraseError`].
pub fn clear_metadata(target: &Target) -> Result<usize, EraseError> {
    let partitions = gpt::partitions(target)?;
    let disk = Span { offset: 0, length: target.size() };
    // The disk itself last: with its tables gone a second try would not find the partitions.
    for span in partitions.iter().chain([&disk]) {
        let edge = EDGE_BYTES.min(span.length);
        for offset in [span.offset, span.offset + span.length - edge] {
            // Written by us, not by the device: these are the bytes that make a disk look used.
            let sector = u64::from(target.sector_bytes());
            let start = offset / sector * sector;
            target.write_at(start, &vec![0; (offset + edge - start) as usize])?;
        }
    }
    target.sync_and_forget()?;
    let mut buffer = vec![0; EDGE_BYTES.min(target.size()) as usize];
    for offset in [0, target.size() - buffer.len() as u64] {
        target.read_at(offset, &mut buffer)?;
        if !vmetal_image::is_zero(&buffer) {
            return Err(EraseError::StillThere(offset));
        }
    }
    Ok(partitions.len())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Zero,
    /// Zeros, or ones: what flash shows where nothing is stored.
    Blank,
}

/// Reads blocks at places that nobody can foresee but everybody can repeat. `Ok(count)`, or the offset of a block that
/// still has content.
fn sample(target: &Target, salt: &str, expect: Expect) -> Result<Result<usize, u64>, DiskError> {
    let blocks = target.size() / SAMPLE_BYTES as u64;
    let mut seed = blake3::Hasher::new();
    seed.update(salt.as_bytes());
    seed.update(target.path().as_os_str().as_encoded_bytes());
    let mut random = seed.finalize_xof();
    let mut buffer = vec![0; SAMPLE_BYTES];
    for _ in 0..SAMPLES {
        let mut number = [0; 8];
        random.fill(&mut number);
        let offset = u64::from_le_bytes(number) % blocks.max(1) * SAMPLE_BYTES as u64;
        let length = SAMPLE_BYTES.min((target.size() - offset) as usize);
        target.read_at(offset, &mut buffer[..length])?;
        let blank = match expect {
            Expect::Zero => vmetal_image::is_zero(&buffer[..length]),
            Expect::Blank => {
                vmetal_image::is_zero(&buffer[..length]) || buffer[..length].iter().all(|byte| *byte == 0xff)
            }
        };
        if !blank {
            return Ok(Err(offset));
        }
    }
    Ok(Ok(SAMPLES))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn run(program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A partitioned disk full of content with an ext4 file system in its second partition.
    fn used_disk(dir: &TempDir, name: &str) -> Disk {
        let path = dir.path().join(name);
        let size = 64 * MIB;
        fs::write(&path, vec![0xa5; size as usize]).unwrap();
        let text = path.display().to_string();
        run("sgdisk", &["-Z", "-n1:1M:+8M", "-n2:16M:+32M", &text]);
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-E", &format!("offset={}", 16 * MIB), &text, "32m"]);
        Disk { name: name.to_owned(), size_bytes: size, serial: Some(format!("S-{name}")), ..Disk::default() }
    }

    fn signatures(dir: &TempDir, name: &str) -> String {
        let path = dir.path().join(name);
        let whole = run("wipefs", &["-n", &path.display().to_string()]);
        // The partition's file system, looked for where it was.
        let part = dir.path().join("part");
        let bytes = fs::read(&path).unwrap();
        fs::write(&part, &bytes[16 << 20..48 << 20]).unwrap();
        whole + &run("wipefs", &["-n", &part.display().to_string()])
    }

    #[test]
    fn no_level_leaves_a_signature_and_each_says_what_it_did() {
        for (level, method, all_zero) in [
            (EraseLevel::Metadata, "2 partitions zeroed", false),
            (EraseLevel::Discard, "BLKDISCARD", true),
            (EraseLevel::Overwrite, "overwritten with zeros", true),
        ] {
            let dir = TempDir::new().unwrap();
            let disks = [used_disk(&dir, "sda"), used_disk(&dir, "sdb")];
            let before = signatures(&dir, "sda");
            assert!(before.contains("gpt") && before.contains("ext4"), "{before}");
            let progress = Progress::default();
            let erased = erase_all(&disks, dir.path(), level, "order-1", &progress).unwrap();
            assert_eq!(erased.len(), 2);
            assert!(erased[0].method.contains(method), "{}", erased[0].method);
            assert_eq!(erased[0].serial.as_deref(), Some("S-sda"));
            let state = progress.get();
            assert_eq!((state.done, state.total), (128 * MIB, 128 * MIB), "{level:?}");
            for name in ["sda", "sdb"] {
                assert_eq!(signatures(&dir, name), "", "{level:?}");
                let bytes = fs::read(dir.path().join(name)).unwrap();
                assert_eq!(bytes.len() as u64, 64 * MIB);
                assert_eq!(vmetal_image::is_zero(&bytes), all_zero, "{level:?}");
            }
        }
    }

    #[test]
    fn one_failing_disk_fails_the_order_and_both_kinds_are_named() {
        let dir = TempDir::new().unwrap();
        let good = used_disk(&dir, "sda");
        let missing =
            Disk { name: "sdx".to_owned(), size_bytes: MIB, serial: Some("GONE".to_owned()), ..Disk::default() };
        let error =
            erase_all(&[good, missing], dir.path(), EraseLevel::Discard, "o", &Progress::default()).unwrap_err();
        let text = error.to_string();
        for part in ["sdx (serial GONE)", "cannot find", "erased: sda"] {
            assert!(text.contains(part), "{text}");
        }
        let none = erase_all(&[], dir.path(), EraseLevel::Discard, "o", &Progress::default());
        assert!(matches!(none, Err(AgentError::NothingToErase)));
    }

    #[test]
    fn samples_are_repeatable_depend_on_the_order_and_see_content() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(MIB).unwrap();
        let target = Target::open(&path).unwrap();
        assert_eq!(sample(&target, "a", Expect::Zero).unwrap(), Ok(SAMPLES));
        for block in 0..MIB / 4096 {
            file.write_all_at(&[block as u8 | 1], block * 4096 + 4095).unwrap();
        }
        let first = sample(&target, "a", Expect::Zero).unwrap().unwrap_err();
        assert_eq!(sample(&target, "a", Expect::Zero).unwrap(), Err(first));
        let other: Vec<u64> =
            ["b", "c", "d"].iter().map(|salt| sample(&target, salt, Expect::Blank).unwrap().unwrap_err()).collect();
        assert!(other.iter().any(|offset| *offset != first));
        fs::write(&path, vec![0xff; MIB as usize]).unwrap();
        assert_eq!(sample(&target, "a", Expect::Blank).unwrap(), Ok(SAMPLES));
        assert!(sample(&target, "a", Expect::Zero).unwrap().is_err());
    }
}
