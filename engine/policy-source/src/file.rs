//! Components in files, with their signatures beside them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::MOST_BYTES;
use crate::error::SourceError;
use crate::keys::{self, PublicKey, Trust};

/// What is put behind a file's name to name its signature.
pub const SIGNATURE_SUFFIX: &str = ".sig";

/// Where the signature of a file is unless it is said: `FILE.sig`.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SIGNATURE_SUFFIX);
    name.into()
}

/// Reads a whole file of no more than so many bytes. They are counted while they are read: a size that was asked for before may
/// have changed, and that of a pipe or a device says nothing.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than the {most} bytes that are allowed"),
        ));
    }
    Ok(bytes)
}

/// Reads a component's file; nothing in it is looked at.
///
/// # Errors
/// When it cannot be read or is too large.
pub fn read_component(path: &Path) -> Result<Arc<[u8]>, SourceError> {
    match read(path, MOST_BYTES) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let size = std::fs::metadata(path).map_or(0, |found| found.len()).max(MOST_BYTES + 1);
            Err(SourceError::TooLarge { what: path.display().to_string(), size, limit: MOST_BYTES })
        }
        Err(source) => Err(SourceError::Unreadable { path: path.to_owned(), source }),
    }
}

/// Who signed these bytes of a file: one of the keys that are trusted, or nobody where nothing has to be signed.
pub(crate) fn signer(
    path: &Path,
    bytes: &[u8],
    signature: Option<&Path>,
    trust: &Trust,
) -> Result<Option<PublicKey>, SourceError> {
    if trust.keys().is_empty() {
        return Ok(None);
    }
    let place = signature.map_or_else(|| beside(path), Path::to_owned);
    let what = path.display().to_string();
    let made = match read(&place, keys::MOST_BYTES) {
        Ok(made) => Some(made),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(SourceError::UnreadableSignature { path: place, source }),
    };
    trust.signer(&what, &place.display().to_string(), made.as_deref(), bytes)
}

/// The signature of a file in base64, as the API wants it; none when there is none at the usual place. Whether it holds is not
/// looked at.
///
/// # Errors
/// When one that is named is not there, or it cannot be read.
pub fn signature_beside(path: &Path, signature: Option<&Path>) -> Result<Option<String>, SourceError> {
    let place = signature.map_or_else(|| beside(path), Path::to_owned);
    match read(&place, keys::MOST_BYTES) {
        Ok(made) => Ok(Some(keys::in_base64(&made))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && signature.is_none() => Ok(None),
        Err(source) => Err(SourceError::UnreadableSignature { path: place, source }),
    }
}

/// Keys as a message has them.
pub(crate) fn names(keys: &[PublicKey]) -> String {
    keys.iter().map(PublicKey::to_string).collect::<Vec<_>>().join(", ")
}
