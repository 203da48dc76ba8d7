//! What can go wrong with an import, told so that an operator can act on it.

use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::ManifestError;

/// Why an image was not imported. Nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The source cannot be opened or read.
    #[error("cannot read the image file {}: {source}", path.display())]
    Read {
        /// The source.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The checksum is not one.
    #[error("{0:?} is not a checksum; expected sha256: and 64 hexadecimal digits")]
    ChecksumSyntax(String),
    /// The file is not the one that was declared.
    #[error(
        "{} has SHA-256 {actual}, expected {expected}; the file was changed, cut short or is another version: \
         fetch it again or correct the checksum", path.display()
    )]
    Checksum {
        /// The source.
        path: PathBuf,
        /// Declared, hexadecimal.
        expected: String,
        /// Seen, hexadecimal.
        actual: String,
    },
    /// The file was written to while it was read.
    #[error("{} was changed while it was imported; import it again when nothing writes to it", path.display())]
    Changed {
        /// The source.
        path: PathBuf,
    },
    /// Not a disk image, or one in a format that is not read.
    #[error("{} is not a disk image that can be imported: {found}; expected a raw disk with a partition table, or qcow2", path.display())]
    NotAnImage {
        /// The source.
        path: PathBuf,
        /// What it looks like, and what to do with it.
        found: String,
    },
    /// The file ends before the image does.
    #[error("{} is cut short: {detail}; fetch it again", path.display())]
    Truncated {
        /// The source.
        path: PathBuf,
        /// Where.
        detail: String,
    },
    /// The image needs another file.
    #[error(
        "{} needs {needs}, which is not opened on an image's word; make it self-contained with \
         `qemu-img convert -O qcow2 IN OUT`", path.display()
    )]
    Dependent {
        /// The source.
        path: PathBuf,
        /// What it needs.
        needs: String,
    },
    /// A qcow2 feature that is not read.
    #[error("{} uses {feature}, which is not supported; write it anew with `qemu-img convert -O qcow2 IN OUT`", path.display())]
    Unsupported {
        /// The source.
        path: PathBuf,
        /// Which.
        feature: String,
    },
    /// The qcow2 structure contradicts itself.
    #[error("{} is damaged: {detail}; check it with `qemu-img check`", path.display())]
    Damaged {
        /// The source.
        path: PathBuf,
        /// What.
        detail: String,
    },
    /// The images' file system is full.
    #[error("no space left under {} for the image's chunks; free some or move the image directory", path.display())]
    DiskFull {
        /// The image directory.
        path: PathBuf,
    },
    /// The images' directory cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The compressor failed.
    #[error("cannot compress a chunk: {0}")]
    Compressor(#[source] io::Error),
    /// The disk cannot be described by a manifest.
    #[error("the disk cannot be described")]
    Manifest(#[from] ManifestError),
    /// A thread of the import ended without a result.
    #[error("the import was interrupted; import it again")]
    Interrupted,
}

impl ImportError {
    /// Whether a wrong checksum would explain the error.
    pub(super) fn is_about_source(&self) -> bool {
        matches!(
            self,
            ImportError::NotAnImage { .. }
                | ImportError::Truncated { .. }
                | ImportError::Dependent { .. }
                | ImportError::Unsupported { .. }
                | ImportError::Damaged { .. }
        )
    }

    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> ImportError {
        move |source| ImportError::Read { path: path.to_owned(), source }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> ImportError {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ImportError::DiskFull { path: path.to_owned() }
            }
            _ => ImportError::Write { path: path.to_owned(), source },
        }
    }
}
