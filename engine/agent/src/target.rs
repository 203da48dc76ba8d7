//! A disk that is written to: a block device, or in tests a file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};

use crate::error::DiskError;
use crate::sys;

/// Largest piece of one discard, zeroing or explicit write, so that progress is seen.
const STEP: u64 = 1 << 30;
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// An opened disk. All access is positioned; several threads may share it.
#[derive(Debug)]
pub struct Target {
    file: File,
    path: PathBuf,
    size: u64,
    sector_bytes: u32,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    File,
}

/// Whether zeroing may give blocks back to the device, as long as they read as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmap {
    /// Preferred where the device guarantees zeros: fast, and kind to flash.
    Allowed,
    /// Every block is really written, by the device or by us.
    Forbidden,
}

/// What a device says to a discard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// It took it. What is read afterwards must be looked at.
    Yes,
    /// It cannot.
    Unsupported,
}

impl Target {
    /// Opens a disk for reading and writing. A block device that is mounted or otherwise in use is refused by the
    /// kernel (`O_EXCL`).
    ///
    /// # Errors
    /// [`DiskError`] with the path and what the system says.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let fail = |doing| DiskError::at(path, doing);
        let kind = std::fs::metadata(path).map_err(fail("find"))?.file_type();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if kind.is_block_device() {
            let file = options.custom_flags(libc::O_EXCL).open(path).map_err(fail("open"))?;
            let size = sys::block_size(&file).map_err(fail("read the size of"))?;
            let sector_bytes = sys::sector_size(&file).map_err(fail("read the sector size of"))?;
            Ok(Target { file, path: path.to_owned(), size, sector_bytes, kind: Kind::Block })
        } else {
            let file = options.open(path).map_err(fail("open"))?;
            let size = file.metadata().map_err(fail("read the size of"))?.len();
            Ok(Target { file, path: path.to_owned(), size, sector_bytes: 512, kind: Kind::File })
        }
    }

    /// The device's or file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Capacity in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Logical sector size in bytes.
    pub fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    /// Fills a buffer from the disk.
    ///
    /// # Errors
    /// [`DiskError`], also when the range does not lie on the disk.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_exact_at(buffer, offset).map_err(|e| self.failed("read", offset, buffer.len() as u64, e))
    }

    /// Writes to the disk.
    ///
    /// # Errors
    /// [`DiskError`], also when the range does not lie on the disk.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        // A file would grow.
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            let error = io::Error::from(io::ErrorKind::StorageFull);
            return Err(self.failed("write", offset, bytes.len() as u64, error));
        }
        self.file.write_all_at(bytes, offset).map_err(|e| self.failed("write", offset, bytes.len() as u64, e))
    }

    /// Makes a range read as zeros, by the fastest way that guarantees it. `progress` hears of each piece's bytes.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn zero(&self, offset: u64, length: u64, unmap: Unmap, progress: &dyn Fn(u64)) -> Result<(), DiskError> {
        // The kernel's promise for both (fallocate(2), block/fops.c): zeros, or an error; never "perhaps".
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let mut ways = match unmap {
            Unmap::Allowed => vec![punch, zero],
            Unmap::Forbidden => vec![zero],
        };
        let end = offset.saturating_add(length).min(self.size);
        let mut at = offset;
        while at < end {
            let step = STEP.min(end - at);
            // A way that failed once (usually: not supported) is not tried again; the last resort is plain writing.
            while let Some(way) = ways.first() {
                if fallocate(&self.file, *way, at as i64, step as i64).is_ok() {
                    break;
                }
                ways.remove(0);
            }
            if ways.is_empty() {
                let mut done = 0;
                while done < step {
                    let piece = (ZEROS.len() as u64).min(step - done);
                    self.write_at(at + done, &ZEROS[..piece as usize])?;
                    done += piece;
                }
            }
            progress(step);
            at += step;
        }
        Ok(())
    }

    /// Tells the device that no block is needed any more.
    ///
    /// # Errors
    /// [`DiskError`] when the device can discard and fails.
    pub fn discard(&self, progress: &dyn Fn(u64)) -> Result<Discarded, DiskError> {
        let mut at = 0;
        while at < self.size {
            let step = STEP.min(self.size - at);
            let result = match self.kind {
                Kind::Block => sys::discard(&self.file, at, step),
                Kind::File => {
                    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                    fallocate(&self.file, punch, at as i64, step as i64).map_err(io::Error::from)
                }
            };
            match result {
                Ok(()) => progress(step),
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Discarded::Unsupported),
                Err(e) => return Err(self.failed("discard", at, step, e)),
            }
            at += step;
        }
        Ok(Discarded::Yes)
    }

    /// Waits until everything is on the medium, its cache flushed.
    ///
    /// # Errors
    /// [`DiskError`]; data that could not be written back is told here.
    pub fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(DiskError::at(&self.path, "flush"))
    }

    /// Like [`Target::sync`], and forgets what is cached: what is read next comes from the medium.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn sync_and_forget(&self) -> Result<(), DiskError> {
        self.sync()?;
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|e| DiskError::at(&self.path, "drop the cache of")(e.into()))
    }

    /// Makes the kernel read the partition table again. Nothing to do for a file.
    ///
    /// # Errors
    /// [`DiskError`], for example when a partition is in use.
    pub fn reread_partitions(&self) -> Result<(), DiskError> {
        match self.kind {
            Kind::Block => {
                sys::reread_partitions(&self.file).map_err(DiskError::at(&self.path, "read the partitions of"))
            }
            Kind::File => Ok(()),
        }
    }

    fn failed(&self, doing: &'static str, offset: u64, length: u64, source: io::Error) -> DiskError {
        DiskError::Range { path: self.path.clone(), doing, offset, length, source }
    }
}
