//! Components of policies in the store, each under its digest, where every engine that shares it finds them.
//!
//! A component is cut into parts, because values of the store are bounded and because a claim's commit should never wait for
//! all of 32 MiB. A manifest under the digest says whether the parts are whole. It is written before the first part, and again
//! after the last under the revision of the first time: parts go only together with their manifest, so whoever finds that
//! revision unchanged knows that all parts are there, whatever others did meanwhile.
//!
//! A policy that is declared writes the manifest once more in the very commit that declares it. So a component that is
//! collected is one that no policy refers to: the collector's commit is guarded by a manifest that it has read *before* it
//! looked at the policies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use vmetal_model::{Kind, Policy};
use vmetal_store::{AnyStore, CommitError, Guard, Key, ReadError, Revision, Selector, Store, Stored, Txn, Write};

/// The kind of the manifests in the store.
pub const KIND: &str = "component";
/// The kind of the parts in the store.
pub const PARTS: &str = "component_part";
/// The largest part, in bytes: values of the store are bounded.
const PART: usize = 768 << 10;
/// As many parts as the largest component has.
const MOST_PARTS: u32 = 43;
/// For how long a component is kept that no policy refers to: from a plan to its apply.
const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);
/// For how long one is kept that did not arrive whole.
const ARRIVING: Duration = Duration::from_secs(60 * 60);
/// How often a component is stored anew that was collected in the middle.
const TRIES: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    size: u64,
    parts: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Arriving,
    Whole,
}

/// Why a component cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// Nobody has handed it over, or it was collected since.
    #[error("the engine does not have the component with sha256 {sha256}")]
    Missing {
        /// Its digest.
        sha256: String,
    },
    /// The bytes are not those that the digest promises.
    #[error("the component has sha256 {seen}, but {expected} was promised: it was damaged on its way")]
    Digest {
        /// The promise.
        expected: String,
        /// What came.
        seen: String,
    },
    /// What the store has is not what was put there.
    #[error("the component with sha256 {sha256} is damaged in the store: {detail}; hand it over again")]
    Damaged {
        /// Its digest.
        sha256: String,
        /// What was expected and seen.
        detail: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store does not take it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

fn manifest_key(sha256: &str) -> Key {
    Key::new(KIND, sha256)
}

fn part_key(sha256: &str, part: usize) -> Key {
    Key::new(PARTS, format!("{sha256}/{part:04}"))
}

fn parts_of(sha256: &str) -> Selector {
    Selector::Prefix(PARTS.into(), format!("{sha256}/"))
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn manifest(stored: &Stored) -> Result<Manifest, ComponentError> {
    serde_json::from_slice(&stored.value).map_err(|error| ComponentError::Damaged {
        sha256: stored.key.name.clone(),
        detail: format!("its manifest does not read: {error}"),
    })
}

/// A write of the manifest that wins only if nothing happened to it since it was read.
fn write(sha256: &str, manifest: &Manifest, found: Option<Revision>) -> (Guard, Write) {
    let key = manifest_key(sha256);
    let guard = match found {
        Some(revision) => Guard::Revision(key.clone(), revision),
        None => Guard::Absent(key.clone()),
    };
    // Plain data with string keys: it always serialises.
    (guard, Write::put(key, serde_json::to_vec(manifest).unwrap_or_default()))
}

async fn commit(store: &AnyStore, (guard, write): (Guard, Write)) -> Result<Revision, CommitError> {
    store.commit(Txn::new().guard(guard).write(write)).await
}

/// Keeps a component. One that is there already is kept for longer.
///
/// # Errors
/// When the bytes are not what the digest promises, or the store does not take them.
pub async fn keep(store: &AnyStore, sha256: &str, bytes: &[u8]) -> Result<(), ComponentError> {
    let seen = digest(bytes);
    if seen != sha256 {
        return Err(ComponentError::Digest { expected: sha256.to_owned(), seen });
    }
    let (size, parts) = (bytes.len() as u64, u32::try_from(bytes.chunks(PART).len()).unwrap_or(u32::MAX));
    let mut tries = TRIES;
    loop {
        match arrive(store, sha256, bytes, Manifest { size, parts, state: State::Arriving }).await {
            // Somebody else has completed it, or it was collected: the next look tells.
            Err(ComponentError::Commit(CommitError::Conflict { .. })) if tries > 1 => tries -= 1,
            other => return other,
        }
    }
}

async fn arrive(store: &AnyStore, sha256: &str, bytes: &[u8], arriving: Manifest) -> Result<(), ComponentError> {
    let whole = Manifest { state: State::Whole, ..arriving };
    let begun = match store.get(&manifest_key(sha256)).await? {
        Some(stored) => {
            let sound = read(store, sha256).await;
            if sound.is_ok() {
                commit(store, write(sha256, &whole, Some(stored.revision))).await?;
                return Ok(());
            }
            // Left behind, damaged, or on its way to another engine: the same bytes go to the same places.
            stored.revision
        }
        None => commit(store, write(sha256, &arriving, None)).await?,
    };
    for (part, bytes) in bytes.chunks(PART).enumerate() {
        store.commit(Txn::new().put(part_key(sha256, part), bytes)).await?;
    }
    commit(store, write(sha256, &whole, Some(begun))).await?;
    Ok(())
}

/// Whether a component is there, whole.
///
/// # Errors
/// When the store cannot be read.
pub async fn has(store: &AnyStore, sha256: &str) -> Result<bool, ComponentError> {
    let stored = store.get(&manifest_key(sha256)).await?;
    Ok(stored.map(|stored| manifest(&stored)).transpose()?.is_some_and(|manifest| manifest.state == State::Whole))
}

/// What a commit needs that declares a policy with this component: that the component is there and stays.
///
/// # Errors
/// When it is not there.
pub async fn hold(store: &AnyStore, sha256: &str) -> Result<(Guard, Write), ComponentError> {
    let missing = || ComponentError::Missing { sha256: sha256.to_owned() };
    let stored = store.get(&manifest_key(sha256)).await?.ok_or_else(missing)?;
    let found = manifest(&stored)?;
    match found.state {
        State::Whole => Ok(write(sha256, &found, Some(stored.revision))),
        State::Arriving => Err(missing()),
    }
}

/// A component's bytes, checked.
///
/// # Errors
/// When it is not there, or not what it was.
pub async fn read(store: &AnyStore, sha256: &str) -> Result<Arc<[u8]>, ComponentError> {
    if !has(store, sha256).await? {
        return Err(ComponentError::Missing { sha256: sha256.to_owned() });
    }
    let mut parts = store.list_all(&parts_of(sha256)).await?.items;
    parts.sort_by(|a, b| a.key.name.cmp(&b.key.name));
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.value.iter().copied()).collect();
    let seen = digest(&bytes);
    if seen != sha256 {
        let detail = format!("its {} parts have sha256 {seen}", parts.len());
        return Err(ComponentError::Damaged { sha256: sha256.to_owned(), detail });
    }
    Ok(bytes.into())
}

/// Gives up components that no policy refers to and that nobody has handed over lately. Returns how many.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn collect(store: &AnyStore) -> Result<usize, ComponentError> {
    // In this order: a policy that came after the manifests were read has changed the one that it refers to.
    let manifests = store.list_all(&Selector::Kind(KIND.into())).await?.items;
    if manifests.is_empty() {
        return Ok(0);
    }
    let used = used(store).await?;
    let now = store.now().await?;
    let mut collected = 0;
    for stored in manifests {
        let (keep, parts) = match manifest(&stored) {
            Ok(Manifest { state: State::Whole, parts, .. }) => (UNUSED, parts),
            Ok(Manifest { state: State::Arriving, parts, .. }) => (ARRIVING, parts),
            Err(_) => (ARRIVING, MOST_PARTS),
        };
        if used.contains(&stored.key.name) || now.duration_since(stored.written_at) <= keep {
            continue;
        }
        let part = |part| Write::Delete(part_key(&stored.key.name, part as usize));
        let mut txn = Txn::new().guard(Guard::Revision(stored.key.clone(), stored.revision));
        txn.writes.extend((0..parts).map(part));
        let txn = txn.delete(stored.key);
        match store.commit(txn).await {
            Ok(_) => collected += 1,
            // Somebody wants it after all, or another engine was faster.
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(collected)
}

/// The digests that policies refer to: what is declared, and what goes on deciding where that is refused.
async fn used(store: &AnyStore) -> Result<BTreeSet<String>, ComponentError> {
    let mut used = BTreeSet::new();
    for stored in store.list_all(&Selector::Kind(Kind::Policy.as_str().into())).await?.items {
        let policy: Policy = crate::ledger::decode(&stored)?;
        used.insert(policy.spec.sha256);
        used.extend(policy.status.in_force.map(|in_force| in_force.spec.sha256));
    }
    Ok(used)
}

#[cfg(test)]
#[path = "components/tests.rs"]
mod tests;
