//! The disk inside a source file, whatever its format.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use vmetal_model::image::ImageFormat;

use super::ImportError;
use super::qcow2::{self, Qcow2};
use crate::manifest::SECTOR_BYTES;

/// What a part of the disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// The buffer was filled; it may still be all zero.
    Data,
    /// Nothing is stored there: it reads as zeros. The buffer was not touched.
    Hole,
}

/// An opened source. Reads are positioned, so that all workers share it.
pub(super) enum Source<'a> {
    Raw(Raw<'a>),
    Qcow2(Qcow2<'a>),
}

/// The bytes of the disk as they are.
pub(super) struct Raw<'a> {
    file: &'a File,
    path: &'a Path,
    size: u64,
}

impl<'a> Source<'a> {
    pub(super) fn open(file: &'a File, path: &'a Path, format: Option<ImageFormat>) -> Result<Self, ImportError> {
        let meta = file.metadata().map_err(ImportError::read(path))?;
        let not_image = |found: &str| ImportError::NotAnImage { path: path.to_owned(), found: found.to_owned() };
        if !meta.is_file() {
            return Err(not_image("it is not a regular file"));
        }
        let mut head = vec![0; 64 << 10];
        let got = read_up_to(file, 0, &mut head).map_err(ImportError::read(path))?;
        head.truncate(got);
        if head.is_empty() {
            return Err(not_image("the file is empty"));
        }
        let looks_qcow2 = head.starts_with(&qcow2::MAGIC);
        match format {
            Some(ImageFormat::Qcow2) if !looks_qcow2 => {
                return Err(not_image("it was declared as qcow2 and does not begin like one"));
            }
            // A qcow2 written to a disk as it is never boots; that is never what was meant.
            Some(ImageFormat::Raw) if looks_qcow2 => return Err(not_image("it was declared as raw and is qcow2")),
            None if !looks_qcow2 => {
                if let Some(found) = foreign(&head) {
                    return Err(not_image(found));
                }
            }
            _ => {}
        }
        if looks_qcow2 {
            return Qcow2::open(file, path, meta.len(), &head).map(Source::Qcow2);
        }
        let size = meta.len();
        if !size.is_multiple_of(SECTOR_BYTES) {
            let detail = format!("its {size} bytes are not a whole number of 512-byte sectors");
            return Err(ImportError::Truncated { path: path.to_owned(), detail });
        }
        Ok(Source::Raw(Raw { file, path, size }))
    }

    /// Size of the disk in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Source::Raw(raw) => raw.size,
            Source::Qcow2(qcow2) => qcow2.size(),
        }
    }

    pub(super) fn format(&self) -> ImageFormat {
        match self {
            Source::Raw(_) => ImageFormat::Raw,
            Source::Qcow2(_) => ImageFormat::Qcow2,
        }
    }

    /// Reads a part of the disk that lies within its size.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<Content, ImportError> {
        match self {
            Source::Raw(raw) => raw.read(offset, buffer),
            Source::Qcow2(qcow2) => qcow2.read(offset, buffer),
        }
    }
}

impl Raw<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<Content, ImportError> {
        // The shared file position that lseek moves is used by nobody: every read is positioned.
        match lseek(self.file, offset as i64, Whence::SeekData) {
            Ok(data) if data as u64 >= offset + buffer.len() as u64 => return Ok(Content::Hole),
            Err(Errno::ENXIO) => return Ok(Content::Hole),
            // Data begins within the range, or the file system cannot tell.
            _ => {}
        }
        self.file.read_exact_at(buffer, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => ImportError::Changed { path: self.path.to_owned() },
            _ => ImportError::read(self.path)(e),
        })?;
        Ok(Content::Data)
    }
}

/// Reads until the buffer or the file ends.
pub(super) fn read_up_to(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// Says what a file is when it is no raw disk. A raw disk has a boot sector: the signature 55 AA at byte 510, which also
/// every GUID partition table's protective MBR carries (UEFI 2.10 section 5.2.3).
fn foreign(head: &[u8]) -> Option<&'static str> {
    const KNOWN: [(usize, &[u8], &str); 12] = [
        (0, b"\x1f\x8b", "it is gzip-compressed; unpack it first"),
        (0, b"\xfd7zXZ\0", "it is xz-compressed; unpack it first"),
        (0, b"\x28\xb5\x2f\xfd", "it is zstd-compressed; unpack it first"),
        (0, b"BZh", "it is bzip2-compressed; unpack it first"),
        (0, b"PK\x03\x04", "it is a ZIP archive; unpack it first"),
        (0, b"KDMV", "it is a VMDK; convert it with `qemu-img convert -O qcow2`"),
        (0, b"# Disk DescriptorFile", "it is a VMDK descriptor; convert it with `qemu-img convert -O qcow2`"),
        (0, b"vhdxfile", "it is a VHDX; convert it with `qemu-img convert -O qcow2`"),
        (0, b"conectix", "it is a VHD; convert it with `qemu-img convert -O qcow2`"),
        (0, b"\x7fELF", "it is a program"),
        (0x101, b"ustar", "it is a tar archive; unpack it first"),
        (0x8001, b"CD001", "it is an ISO 9660 image, which is an installer, not an installed disk"),
    ];
    for (at, magic, what) in KNOWN {
        if head.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
            return Some(what);
        }
    }
    if head.get(510..512) == Some(b"\x55\xaa") {
        return None;
    }
    let text = head.iter().take(512).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    Some(if text { "it is text, perhaps an error page" } else { "it has no partition table" })
}
