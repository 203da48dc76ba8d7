//! The directory of an import under way, and its publication.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ImportError;
use crate::manifest::{Digest, Manifest};
use crate::store::{ImageStore, TEMPORARY};

/// A directory `.import-…` beside the images. It is locked while the import runs, so that another import can tell a
/// running one from the remains of a crash.
pub(super) struct Workspace {
    store: ImageStore,
    dir: PathBuf,
    chunks: PathBuf,
    _lock: File,
}

static COUNTER: AtomicU64 = AtomicU64::new(0);

impl Workspace {
    pub(super) fn create(images: &Path) -> Result<Self, ImportError> {
        fs::create_dir_all(images).map_err(ImportError::write(images))?;
        sweep(images)?;
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let dir = images.join(format!("{TEMPORARY}{}-{number}", process::id()));
            match fs::create_dir(&dir) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(ImportError::write(&dir))?,
            }
            // Between the two lines another import may take the directory for remains: then make another one.
            let Ok(lock) = File::open(&dir) else { continue };
            if lock.try_lock().is_err() || !dir.is_dir() {
                continue;
            }
            let chunks = dir.join("chunks");
            let workspace = Workspace { store: ImageStore::new(images), dir, chunks, _lock: lock };
            fs::create_dir(&workspace.chunks).map_err(ImportError::write(&workspace.chunks))?;
            return Ok(workspace);
        }
    }

    /// Stores a chunk and syncs it. False when it is there already: another part of the disk has the same content.
    pub(super) fn store(&self, digest: &Digest, packed: &[u8]) -> Result<bool, ImportError> {
        let path = self.chunks.join(digest.to_string());
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            other => other.map_err(ImportError::write(&path))?,
        };
        file.write_all(packed).and_then(|()| file.sync_data()).map_err(|e| self.full_or(&path, e))?;
        Ok(true)
    }

    /// Writes the manifest, syncs everything and renames the directory to its digest.
    pub(super) fn publish(self, manifest: &Manifest) -> Result<Digest, ImportError> {
        let bytes = manifest.to_bytes()?;
        let digest = Digest::of(&bytes);
        if self.store.contains(&digest) {
            return Ok(digest);
        }
        let path = self.dir.join("manifest.json");
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            File::open(&self.chunks)?.sync_all()?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| self.full_or(&path, e))?;
        let target = self.store.image_dir(&digest);
        match fs::rename(&self.dir, &target) {
            // Someone else published the same image a moment ago.
            Err(_) if self.store.contains(&digest) => return Ok(digest),
            other => other.map_err(ImportError::write(&target))?,
        }
        let root = self.store.root();
        File::open(root).and_then(|dir| dir.sync_all()).map_err(ImportError::write(root))?;
        Ok(digest)
    }

    /// A full disk is told by the images' directory, not by the name of a temporary file.
    fn full_or(&self, path: &Path, error: io::Error) -> ImportError {
        match ImportError::write(path)(error) {
            ImportError::DiskFull { .. } => ImportError::DiskFull { path: self.store.root().to_owned() },
            other => other,
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // After publication the directory has another name and there is nothing to remove. A failure leaves remains
        // for the next import's sweep.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes what crashed imports left behind.
fn sweep(images: &Path) -> Result<(), ImportError> {
    for entry in fs::read_dir(images).map_err(ImportError::read(images))? {
        let entry = entry.map_err(ImportError::read(images))?;
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        let Ok(dir) = File::open(entry.path()) else { continue };
        match dir.try_lock() {
            Ok(()) => drop(fs::remove_dir_all(entry.path())),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
    Ok(())
}
