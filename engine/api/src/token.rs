//! Bearer tokens: made once, shown once, kept only as SHA-256 hashes.
//!
//! A token is 32 random bytes, so a plain hash is enough (there is nothing to guess), and a stolen hash file opens
//! nothing. The hash file has one token per line: a name, white space, 64 hexadecimal digits, and perhaps white space and a
//! role (`operator`, the default, or `reader`); `#` begins a comment.
//!
//! Beside those that stand in the file there are tokens that were granted for a while, to a workload that showed who it is.
//! They live in this process only: whoever holds one can ask for another, here or at the engine that took over. So do those that
//! a token makes for somebody else (`made`).

use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::types::Secret;

mod made;

/// The most granted tokens at one time. Beyond, the one that would expire first goes.
const MOST_GRANTED: usize = 10_000;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything that can be looked at, and ask what would be decided.
    Reader,
    /// Everything.
    Operator,
}

impl Role {
    /// Its name in the hash file and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
        }
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::Reader, Self::Operator].into_iter().find(|role| role.as_str() == name).ok_or(())
    }
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The name that stands on the record of what is done with it.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
}

/// The tokens that open the API. Cheap to clone; clones are the same store.
#[derive(Clone, Default)]
pub struct TokenStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// From the hash file.
    listed: RwLock<Arc<[Entry]>>,
    /// By hash. What is looked up is the hash of what was presented, so that the time it takes tells nothing about a token.
    granted: Mutex<HashMap<[u8; 32], Granted>>,
    /// By what a token asked for.
    made: Mutex<Vec<made::Made>>,
}

#[derive(Clone)]
struct Entry {
    holder: Holder,
    sha256: [u8; 32],
}

struct Granted {
    holder: Holder,
    expires: Instant,
}

impl fmt::Debug for TokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.listed().iter().map(|t| &t.holder)).finish()
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
    #[error(
        "{path} line {line} is not `name sha256-in-hexadecimal`, with or without `reader` or `operator` after it; correct or remove it"
    )]
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
    /// A store of these names and hashes (see [`hash`]), which may do everything.
    pub fn new<N: AsRef<str>>(tokens: impl IntoIterator<Item = (N, [u8; 32])>) -> Self {
        let entry = |(name, sha256): (N, _)| Entry {
            holder: Holder { name: name.as_ref().into(), role: Role::Operator },
            sha256,
        };
        Self::of(tokens.into_iter().map(entry).collect())
    }

    fn of(listed: Arc<[Entry]>) -> Self {
        let listed = RwLock::new(listed);
        TokenStore { shared: Arc::new(Shared { listed, granted: Mutex::default(), made: Mutex::default() }) }
    }

    fn listed(&self) -> Arc<[Entry]> {
        Arc::clone(&self.shared.listed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads a hash file.
    ///
    /// # Errors
    /// [`TokenError`] when it cannot be read or a line is malformed.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        Ok(Self::of(entries(path)?))
    }

    /// Reads the hash file again: from now on its tokens count, and no others but granted ones. When it cannot be read, nothing
    /// changes.
    ///
    /// # Errors
    /// [`TokenError`] when it cannot be read or a line is malformed.
    pub fn reload(&self, path: &Path) -> Result<(), TokenError> {
        let entries = entries(path)?;
        *self.shared.listed.write().unwrap_or_else(PoisonError::into_inner) = entries;
        Ok(())
    }

    /// A new token for this holder, good for so long.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn grant(&self, holder: Holder, lifetime: Duration) -> Result<Secret, TokenError> {
        let token = generate()?;
        let now = Instant::now();
        let mut granted = self.shared.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if granted.len() >= MOST_GRANTED {
            granted.retain(|_, one| one.expires > now);
        }
        if granted.len() >= MOST_GRANTED {
            let first = granted.iter().min_by_key(|(_, one)| one.expires).map(|(hash, _)| *hash);
            if let Some(hash) = first {
                granted.remove(&hash);
            }
        }
        granted.insert(hash(token.expose()), Granted { holder, expires: now + lifetime });
        Ok(token)
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

    /// Whose token was presented. For listed tokens it takes the same time whatever is presented and whichever matches.
    pub fn identify(&self, token: &str) -> Option<Holder> {
        let presented = hash(token);
        let mut found = None;
        for entry in self.listed().iter() {
            let difference = presented.iter().zip(&entry.sha256).fold(0u8, |acc, (a, b)| acc | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(entry.holder.clone());
            }
        }
        let granted = || {
            let granted = self.shared.granted.lock().unwrap_or_else(PoisonError::into_inner);
            granted.get(&presented).filter(|one| one.expires > Instant::now()).map(|one| one.holder.clone())
        };
        found.or_else(granted).or_else(|| self.holder_of_made(&presented))
    }
}

fn entries(path: &Path) -> Result<Arc<[Entry]>, TokenError> {
    let text = std::fs::read_to_string(path).map_err(io("read", path))?;
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(name) = words.next() else { continue };
        let mut entry = || {
            let sha256 = hex::decode(words.next()?).ok()?.try_into().ok()?;
            let role = words.next().map_or(Ok(Role::Operator), str::parse).ok()?;
            words.next().is_none().then(|| Entry { holder: Holder { name: name.into(), role }, sha256 })
        };
        tokens.push(entry().ok_or_else(|| TokenError::Malformed { path: path.to_owned(), line: index + 1 })?);
    }
    Ok(tokens.into())
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

    fn name(store: &TokenStore, token: &str) -> Option<String> {
        store.identify(token).map(|holder| holder.name.to_string())
    }

    #[test]
    fn only_known_tokens_are_identified() {
        let store = TokenStore::new([("a", hash("one")), ("b", hash("two"))]);
        assert_eq!(name(&store, "two").as_deref(), Some("b"));
        assert_eq!(name(&store, "one\n").as_deref(), Some("a"), "a token read from a file may end in a newline");
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
        assert_eq!(name(&store, &text).as_deref(), Some("admin"));
        assert!(!std::fs::read_to_string(&hashes).unwrap().contains(text.trim()), "the token itself must not be kept");
        for file in [&hashes, &token] {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (again, first) = TokenStore::load_or_create(&hashes, &token).unwrap();
        assert_eq!((first, name(&again, &text).as_deref()), (FirstStart::No, Some("admin")));
    }

    #[test]
    fn a_malformed_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let sum = hex::encode(hash("one"));
        for wrong in ["admin xyz", "admin", &format!("admin {sum} king"), &format!("admin {sum} reader x")] {
            std::fs::write(&path, format!("# tokens\n\n{wrong}\n")).unwrap();
            assert!(TokenStore::load(&path).unwrap_err().to_string().contains("line 3"), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_read_again_gives_takes_away_and_says_who_may_what() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let line = |name: &str, token: &str, role: &str| format!("{name} {} {role}\n", hex::encode(hash(token)));
        std::fs::write(&path, line("a", "one", "")).unwrap();
        let store = TokenStore::load(&path).unwrap();
        let shared = store.clone();
        std::fs::write(&path, line("b", "two", "reader # looks only") + &line("c", "three", "operator")).unwrap();
        store.reload(&path).unwrap();
        let who = |token: &str| shared.identify(token).map(|holder| (holder.name.to_string(), holder.role));
        assert_eq!(who("one"), None);
        assert_eq!(who("two"), Some(("b".into(), Role::Reader)));
        assert_eq!(who("three"), Some(("c".into(), Role::Operator)));
        std::fs::write(&path, "half a li").unwrap();
        assert!(store.reload(&path).is_err());
        assert_eq!(who("two"), Some(("b".into(), Role::Reader)), "what cannot be read changes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_granted_token_runs_out() {
        let store = TokenStore::default();
        let holder = Holder { name: "ci".into(), role: Role::Reader };
        let token = store.grant(holder.clone(), Duration::from_secs(60)).unwrap();
        assert_eq!(store.identify(token.expose()), Some(holder));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(store.identify(token.expose()).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(store.identify(token.expose()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn granted_tokens_are_bounded() {
        let store = TokenStore::default();
        let grant = |seconds| {
            store.grant(Holder { name: "ci".into(), role: Role::Reader }, Duration::from_secs(seconds)).unwrap()
        };
        let first = grant(60);
        let others: Vec<_> = (0..MOST_GRANTED).map(|_| grant(61)).collect();
        assert_eq!(store.identify(first.expose()), None, "the one that would have expired first made room");
        assert!(others.iter().all(|token| store.identify(token.expose()).is_some()));
    }
}
