//! What was fetched, kept by its digest: an engine starts also while the registry does not answer.
//!
//! Nothing in here is trusted for being here: each file is held against its digest, and signatures against the keys, each time.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// A directory of files that are named by what is in them.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    directory: PathBuf,
}

impl Kept {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Kept { directory }
    }

    /// The bytes with this digest, if they are here and whole.
    pub(crate) fn get(&self, digest: Digest, most: u64) -> Option<Vec<u8>> {
        let bytes = crate::file::read(&self.directory.join(digest.hex()), most).ok()?;
        (Digest::of(&bytes) == digest).then_some(bytes)
    }

    /// Keeps bytes under their digest.
    pub(crate) fn put(&self, digest: Digest, bytes: &[u8]) {
        self.write(&digest.hex(), bytes);
    }

    /// What is kept beside the artifact of this digest.
    pub(crate) fn note(&self, digest: Digest, what: &str, most: u64) -> Option<Vec<u8>> {
        crate::file::read(&self.directory.join(format!("{}.{what}", digest.hex())), most).ok()
    }

    /// Keeps something beside the artifact of this digest.
    pub(crate) fn put_note(&self, digest: Digest, what: &str, bytes: &[u8]) {
        self.write(&format!("{}.{what}", digest.hex()), bytes);
    }

    /// That something cannot be kept costs a question more at the next start and nothing else.
    fn write(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = replace(&self.directory, name, bytes) {
            let directory = self.directory.display();
            tracing::warn!(%directory, %error, "a policy that was fetched cannot be kept; the next start needs its registry");
        }
    }
}

/// Writes a file that is there whole or not at all.
fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let temporary = directory.join(format!("{name}.{}.new", std::process::id()));
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, directory.join(name)).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}
