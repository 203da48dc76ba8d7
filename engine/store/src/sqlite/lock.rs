//! One process per store file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::OpenError;

/// An exclusive `flock(2)` on `<store>.lock`, which the kernel gives up when the process ends, however it ends. The
/// file itself stays: removing it would let two processes lock two files of the same name.
#[derive(Debug)]
pub(super) struct FileLock {
    /// Unlocks when closed.
    _file: File,
}

impl FileLock {
    /// Takes the lock and writes this process's id into the file, for the message that the next one gets.
    pub(super) fn take(store: &Path) -> Result<Self, OpenError> {
        let path = sidecar(store);
        let failed = |source| OpenError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let pid = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
                return Err(OpenError::Locked { path: store.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// The name of the lock file.
pub(super) fn sidecar(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}
