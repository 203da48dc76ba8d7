//! The directory of published images, which is also what is served under `/images/`.
//!
//! ```text
//! <images>/<image digest>/manifest.json
//! <images>/<image digest>/chunks/<chunk digest>
//! ```
//! One directory per image: it appears whole, by one rename, and is removed whole. Chunks are not shared between images;
//! sharing would save space for variants of one image and cost reference counting for every removal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::{Digest, DigestError, MAX_MANIFEST_BYTES, Manifest, ManifestError};

/// Why a published image cannot be read or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system says no.
    #[error("cannot access {}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it says.
        #[source]
        source: io::Error,
    },
    /// The manifest is not the one that the directory is named after.
    #[error("image {digest} is damaged; remove it and import it again")]
    Damaged {
        /// Which image.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
}

/// The images under one directory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    root: PathBuf,
}

impl ImageStore {
    /// The images under `root`; the directory is made by the first import.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        ImageStore { root: root.into() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether an image is published.
    pub fn contains(&self, image: &Digest) -> bool {
        self.manifest_path(image).is_file()
    }

    /// Where an image's manifest is.
    pub fn manifest_path(&self, image: &Digest) -> PathBuf {
        self.image_dir(image).join("manifest.json")
    }

    /// Where a chunk is.
    pub fn chunk_path(&self, image: &Digest, chunk: &Digest) -> PathBuf {
        self.image_dir(image).join("chunks").join(chunk.to_string())
    }

    /// The file behind a request path below `/images/`: `DIGEST/manifest.json` or `DIGEST/chunks/DIGEST`. `None` for
    /// everything else, so that no path can lead out of the directory.
    pub fn resolve(&self, path: &str) -> Option<PathBuf> {
        let parse = |text: &str| -> Option<Digest> { Result::<Digest, DigestError>::ok(text.parse()) };
        match path.split('/').collect::<Vec<_>>()[..] {
            [image, "manifest.json"] => Some(self.manifest_path(&parse(image)?)),
            [image, "chunks", chunk] => Some(self.chunk_path(&parse(image)?, &parse(chunk)?)),
            _ => None,
        }
    }

    /// Reads and verifies an image's manifest.
    ///
    /// # Errors
    /// [`StoreError`]; a missing image is `Io` with [`io::ErrorKind::NotFound`].
    pub fn manifest(&self, image: &Digest) -> Result<Manifest, StoreError> {
        let path = self.manifest_path(image);
        let size = fs::metadata(&path).map_err(io_error(&path))?.len();
        if size > MAX_MANIFEST_BYTES as u64 {
            let source = ManifestError::TooLarge(usize::try_from(size).unwrap_or(usize::MAX));
            return Err(StoreError::Damaged { digest: *image, source });
        }
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        Manifest::parse(&bytes, image).map_err(|source| StoreError::Damaged { digest: *image, source })
    }

    /// Removes an image. It is first renamed away, so that it is never seen in part.
    ///
    /// # Errors
    /// [`StoreError::Io`]; removing an image that is not there is no error.
    pub fn remove(&self, image: &Digest) -> Result<(), StoreError> {
        let path = self.image_dir(image);
        // The name is one that the next import clears away, should this process die now.
        let doomed = self.root.join(format!("{TEMPORARY}removed-{image}"));
        let gone = |result: io::Result<()>, path: &Path| match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(path)(e)),
            _ => Ok(()),
        };
        gone(fs::remove_dir_all(&doomed), &doomed)?;
        gone(fs::rename(&path, &doomed), &path)?;
        gone(fs::remove_dir_all(&doomed), &doomed)
    }

    pub(crate) fn image_dir(&self, image: &Digest) -> PathBuf {
        self.root.join(image.to_string())
    }
}

/// Directories of unfinished imports and removals begin with this.
pub(crate) const TEMPORARY: &str = ".import-";

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_become_paths() {
        let store = ImageStore::new("/images");
        let d = Digest::of(b"x").to_string();
        assert_eq!(store.resolve(&format!("{d}/manifest.json")), Some(format!("/images/{d}/manifest.json").into()));
        assert_eq!(store.resolve(&format!("{d}/chunks/{d}")), Some(format!("/images/{d}/chunks/{d}").into()));
        for path in [
            "",
            "..",
            "../manifest.json",
            "x/chunks/y",
            &format!("{d}/chunks/.."),
            &format!("{d}/../{d}/manifest.json"),
        ] {
            assert_eq!(store.resolve(path), None, "{path}");
        }
    }
}
