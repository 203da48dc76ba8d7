//! The files that machines boot: kernel, initramfs, boot loaders.
//!
//! [`build`] makes a directory of them from Debian's packages and the installer; this module reads such a directory, checks
//! every digest, keeps the loaders in memory (TFTP resends) and the big files open.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::http::files::OpenFile;
use crate::tftp::server::Loaders;

pub mod build;
pub mod cpio;
pub mod modules;

/// The kernel's file name.
pub const KERNEL: &str = "vmlinuz";
/// The initramfs' file name.
pub const INITRD: &str = "initrd.img";
/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// Boot loaders: BIOS PXE, UEFI PXE, UEFI HTTP boot.
pub const LOADERS: [&str; 3] = ["undionly.kpxe", "snponly.efi", "ipxe.efi"];

/// What is in an assets directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Digest of everything it was built from: equal inputs give equal files.
    pub inputs: String,
    /// The kernel's release, as `uname -r` says it.
    pub kernel_release: String,
    /// Modules in the initramfs, in the order in which the installer loads them.
    pub modules: Vec<String>,
    /// Drivers the installer would like to have that this kernel does not have at all.
    #[serde(default)]
    pub absent: Vec<String>,
    /// By file name.
    pub files: BTreeMap<String, FileEntry>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
}

/// An assets directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AssetsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}; build the boot assets with `vmetal-netboot assets build`")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("{path} is not a manifest of boot assets: {source}; build them again with `vmetal-netboot assets build`")]
    Manifest {
        /// Which one.
        path: PathBuf,
        /// Where it stops making sense.
        #[source]
        source: serde_json::Error,
    },
    /// A file is not what the manifest says.
    #[error("{path} has SHA-256 {found}, but the manifest says {expected}; build the boot assets again")]
    Digest {
        /// Which one.
        path: PathBuf,
        /// The manifest's digest.
        expected: String,
        /// The file's digest.
        found: String,
    },
    /// The manifest does not list a file.
    #[error("the manifest in {dir} does not list {name}; build the boot assets again")]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// The file.
        name: &'static str,
    },
}

/// An assets directory, checked and open.
#[derive(Debug)]
pub struct Assets {
    /// What is in it.
    pub manifest: Manifest,
    /// The kernel.
    pub kernel: OpenFile,
    /// The initramfs.
    pub initrd: OpenFile,
    loaders: BTreeMap<&'static str, (Bytes, OpenFile)>,
}

impl Assets {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`AssetsError`] with the file that is missing or wrong.
    pub fn load(dir: &Path) -> Result<Self, AssetsError> {
        let manifest = read_manifest(dir)?;
        let kernel = open(dir, KERNEL, &manifest)?.0;
        let initrd = open(dir, INITRD, &manifest)?.0;
        let mut loaders = BTreeMap::new();
        for name in LOADERS {
            let (file, contents) = open(dir, name, &manifest)?;
            loaders.insert(name, (Bytes::from(contents), file));
        }
        Ok(Assets { manifest, kernel, initrd, loaders })
    }

    /// A loader for HTTP.
    pub fn loader_file(&self, name: &str) -> Option<&OpenFile> {
        self.loaders.get(name).map(|(_, file)| file)
    }

    /// The loaders for TFTP.
    pub fn loaders(&self) -> Loaders {
        self.loaders.iter().map(|(&name, (contents, _))| (name, contents.clone())).collect()
    }
}

/// Reads a directory's manifest.
///
/// # Errors
/// [`AssetsError`].
pub fn read_manifest(dir: &Path) -> Result<Manifest, AssetsError> {
    let path = dir.join(MANIFEST);
    let text = std::fs::read(&path).map_err(|source| AssetsError::Read { path: path.clone(), source })?;
    serde_json::from_slice(&text).map_err(|source| AssetsError::Manifest { path, source })
}

fn open(dir: &Path, name: &'static str, manifest: &Manifest) -> Result<(OpenFile, Vec<u8>), AssetsError> {
    let path = dir.join(name);
    let entry = manifest.files.get(name).ok_or_else(|| AssetsError::Missing { dir: dir.to_owned(), name })?;
    let read = |source| AssetsError::Read { path: path.clone(), source };
    let mut file = File::open(&path).map_err(read)?;
    let mut contents = Vec::new();
    io::Read::read_to_end(&mut file, &mut contents).map_err(read)?;
    let found = sha256(&contents);
    if found != entry.sha256 {
        return Err(AssetsError::Digest { path, expected: entry.sha256.clone(), found });
    }
    let file = OpenFile::new(file, &entry.sha256, "application/octet-stream").map_err(read)?;
    Ok((file, contents))
}

/// SHA-256, hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
