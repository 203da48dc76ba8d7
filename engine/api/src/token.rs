//! Bearer tokens: made once, shown once, kept only as SHA-256 hashes.
//!
//! A token is 32 random bytes, so a plain hash is enough (there is nothing to guess), and a stolen hash file opens
//! nothing. The hash file has one token per line: a name, white space, 64 hexadecimal digits; `#` begins a comment.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::types::Secret;

/// The tokens that open the API. Cheap to clone.
#[derive(Clone, Default)]
pub struct TokenStore {
    tokens: Arc<[Entry]>,
}

#[derive(Clone)]
struct Entry {
    name: Arc<str>,
    sha256: [u8; 32],
}

impl fmt::Debug for TokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tokens.iter().map(|t| &t.name)).finish()
    }
}

/// Why tokens could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A file could not be read or written.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// `read`, `create` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of the hash file is not a name and a hash.
    #[error("{path} line {line} is not `name sha256-in-hexadecimal`; correct or remove it")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(#[source] getrandom::Error),
}

/// SHA-256 of a token, as the hash file keeps it.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.trim().as_bytes()).into()
}

/// A new token: `vmt_` and 64 hexadecimal digits.
///
/// # Errors
/// [`TokenError::Random`].
pub fn generate() -> Result<Secret, TokenError> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
    Ok(Secret::new(format!("vmt_{}", hex::encode(bytes))))
}

impl TokenStore {
    /// A store of these names and hashes (see [`hash`]).
    pub fn new<N: AsRef<str>>(tokens: impl IntoIterator<Item = (N, [u8; 32])>) -> Self {
        let entry = |(name, sha256): (N, _)| Entry { name: name.as_ref().into(), sha256 };
        TokenStore { tokens: tokens.into_iter().map(entry).collect() }
    }

    /// Reads a hash file.
    ///
    /// # Errors
    /// [`TokenError`] when it cannot be read or a line is malformed.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path).map_err(io("read", path))?;
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let entry = line.split_once(char::is_whitespace).and_then(|(name, digits)| {
                let sha256 = hex::decode(digits.trim()).ok()?.try_into().ok()?;
                Some((name, sha256))
            });
            let malformed = || TokenError::Malformed { path: path.to_owned(), line: index + 1 };
            tokens.push(entry.ok_or_else(malformed)?);
        }
        Ok(Self::new(tokens))
    }

    /// Reads the hash file; on the first start (there is none) makes an administrator's token, writes it to `token_file`
    /// and its hash to `hash_file`, both readable by their owner only.
    ///
    /// The token is written before the hash, so that a crash in between leaves a state that the next start repairs.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn load_or_create(hash_file: &Path, token_file: &Path) -> Result<(Self, FirstStart), TokenError> {
        if hash_file.exists() {
            return Ok((Self::load(hash_file)?, FirstStart::No));
        }
        let token = generate()?;
        write_private(token_file, &format!("{}\n", token.expose()))?;
        write_private(hash_file, &format!("admin {}\n", hex::encode(hash(token.expose()))))?;
        Ok((Self::load(hash_file)?, FirstStart::Yes))
    }

    /// The name of a presented token. Takes the same time whatever is presented and whichever matches.
    pub fn identify(&self, token: &str) -> Option<Arc<str>> {
        let presented = hash(token);
        let mut found = None;
        for entry in self.tokens.iter() {
            let difference = presented.iter().zip(&entry.sha256).fold(0u8, |acc, (a, b)| acc | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(&entry.name);
            }
        }
        found.cloned()
    }
}

/// Whether [`TokenStore::load_or_create`] made the first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstStart {
    /// It did; the token file is new.
    Yes,
    /// The tokens were there.
    No,
}

fn io<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> TokenError + 'a {
    move |source| TokenError::Io { verb, path: path.to_owned(), source }
}

/// Writes a file that only its owner may read: under another name first, so that nobody ever sees a part of it.
fn write_private(path: &Path, text: &str) -> Result<(), TokenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // A leftover of a crash may have another mode.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("write", &new)(error)),
        _ => {}
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(io("create", &new))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io("write", &new))?;
    std::fs::rename(&new, path).map_err(io("write", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_known_tokens_are_identified() {
        let store = TokenStore::new([("a", hash("one")), ("b", hash("two"))]);
        assert_eq!(store.identify("two").as_deref(), Some("b"));
        assert_eq!(store.identify("one\n").as_deref(), Some("a"), "a token read from a file may end in a newline");
        assert_eq!(store.identify("three"), None);
        assert_eq!(store.identify(""), None);
        assert_eq!(TokenStore::default().identify(""), None);
    }

    #[test]
    fn the_first_start_makes_one_token_and_the_second_none() {
        let dir = tempfile::tempdir().unwrap();
        let (hashes, token) = (dir.path().join("tokens"), dir.path().join("admin.token"));
        let (store, first) = TokenStore::load_or_create(&hashes, &token).unwrap();
        assert_eq!(first, FirstStart::Yes);
        let text = std::fs::read_to_string(&token).unwrap();
        assert_eq!(store.identify(&text).as_deref(), Some("admin"));
        assert!(!std::fs::read_to_string(&hashes).unwrap().contains(text.trim()), "the token itself must not be kept");
        for file in [&hashes, &token] {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (again, first) = TokenStore::load_or_create(&hashes, &token).unwrap();
        assert_eq!((first, again.identify(&text).as_deref()), (FirstStart::No, Some("admin")));
    }

    #[test]
    fn a_malformed_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "# tokens\n\nadmin xyz\n").unwrap();
        assert!(TokenStore::load(&path).unwrap_err().to_string().contains("line 3"));
    }
}
