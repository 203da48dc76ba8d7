//! Nothing is kept for ever.
//!
//! The store keeps every value that was replaced, so that watches can go on where they were; those values include tokens and
//! passwords that are out of use. They are given up after a while. Events are what operators look back on, and are kept for
//! long.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use vmetal_api::TokenStore;
use vmetal_store::{AnyStore, Revision, Selector, Store};

use crate::components;

/// Replaced values are kept for one to two of these: longer than any watch is behind.
const PERIOD: Duration = Duration::from_secs(15 * 60);
/// The first time. Engines that share the store, and watches from before a restart, may be some commits behind at the start.
const FIRST: Duration = Duration::from_secs(60);
/// How long events are kept.
const EVENTS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many events are looked at at a time.
const PAGE: usize = 1000;

/// Tidies the store from time to time, for ever. `from` is a revision that nobody will ask for what was before.
pub async fn keep_house(store: &AnyStore, from: u64) {
    let mut before = Revision(from);
    tokio::time::sleep(FIRST).await;
    loop {
        match tidy(store, before, EVENTS).await {
            Ok(now) => before = now,
            Err(error) => tracing::warn!(%error, "the store could not be tidied; trying again"),
        }
        match components::collect(store).await {
            Ok(0) => {}
            Ok(components) => tracing::info!(components, "gave up components that no policy refers to"),
            Err(error) => tracing::warn!(%error, "unused components could not be given up; trying again"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Gives up what was replaced at or before `before` and events that are older than `keep`; returns the present revision.
async fn tidy(
    store: &AnyStore,
    before: Revision,
    keep: Duration,
) -> Result<Revision, Box<dyn std::error::Error + Send + Sync>> {
    store.compact(before).await?;
    let now = store.now().await?;
    loop {
        let page = store.events(&Selector::All, Revision::ZERO, PAGE).await?;
        let old = page.events.iter().take_while(|event| now.duration_since(event.at) > keep).last();
        let Some(old) = old.map(|event| event.revision) else { break };
        // No further than what was given up above: a watch could still need it.
        if store.forget_events(old).await? < old || page.events.len() < PAGE {
            break;
        }
    }
    Ok(store.revision().await?)
}

/// How soon a change of the tokens' file counts.
const TOKENS: Duration = Duration::from_secs(2);

/// Reads the file of the API's tokens again whenever it changed: a token is added, replaced or taken away without a restart.
/// A file that cannot be read changes nothing, and is said once. Runs until dropped.
pub async fn follow_tokens(tokens: &TokenStore, path: &Path) {
    // What changes when a file is written or replaced, whatever the clock says.
    let look = || {
        let seen = std::fs::metadata(path).ok()?;
        Some((seen.ino(), seen.len(), seen.mtime(), seen.mtime_nsec()))
    };
    // Read once more at the beginning: it may have changed since the start.
    let mut known = None;
    loop {
        let seen = look();
        if known != Some(seen) {
            match tokens.reload(path) {
                Ok(()) if known.is_some() => tracing::info!(file = %path.display(), "the API's tokens were read again"),
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "the API's tokens stay as they were"),
            }
            known = Some(seen);
        }
        tokio::time::sleep(TOKENS).await;
    }
}

/// How long the way to a BMC is kept without a call.
const GATEWAY_IDLE: Duration = Duration::from_secs(15);

/// Gives back the memory and the connections of BMCs that nothing is asked of: most hosts rest most of the time. Runs until
/// dropped.
pub async fn drop_idle_gateways(gateways: &vmetal_bmc::Gateways) {
    loop {
        tokio::time::sleep(GATEWAY_IDLE).await;
        gateways.drop_idle(GATEWAY_IDLE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use vmetal_store::{EventRecord, Key, StoreClock, StoreTime, Txn, Write};

    /// The file's own clock is the machine's, so every change here has another length.
    #[tokio::test(start_paused = true)]
    async fn a_changed_file_of_tokens_counts_soon_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let line = |name: &str, token: &str| format!("{name} {}\n", hex::encode(vmetal_api::token::hash(token)));
        std::fs::write(&path, line("a", "one")).unwrap();
        let tokens = TokenStore::load(&path).unwrap();
        let (followed, file) = (tokens.clone(), path.clone());
        let following = tokio::spawn(async move { follow_tokens(&followed, &file).await });
        let knows = async |token: &str| {
            tokio::time::sleep(TOKENS * 2).await;
            tokens.identify(token).is_some()
        };
        assert!(knows("one").await);
        std::fs::write(&path, line("a", "one") + &line("bee", "two")).unwrap();
        assert!(knows("two").await && knows("one").await);
        std::fs::write(&path, "half a li").unwrap();
        assert!(knows("two").await);
        std::fs::remove_file(&path).unwrap();
        assert!(knows("two").await, "a file that is gone for a moment locks nobody out");
        std::fs::write(&path, line("see", "three")).unwrap();
        assert!(knows("three").await && !knows("one").await);
        following.abort();
    }

    #[tokio::test]
    async fn old_events_go_and_recent_ones_stay() {
        let minutes = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&minutes);
        let start = StoreTime(1_000_000);
        let clock =
            StoreClock::from_fn(move || start.saturating_add(Duration::from_secs(60 * time.load(Ordering::Relaxed))));
        let store = AnyStore::memory(clock);
        for minute in 0..10 {
            minutes.store(minute, Ordering::Relaxed);
            let at = Key::new("host", "h");
            let mut txn = Txn::default();
            txn.writes.push(Write::put(at.clone(), format!("{minute}")));
            txn.events.push(EventRecord::new(at, b"{}".to_vec()));
            store.commit(txn).await.unwrap();
        }
        let left = async || store.events(&Selector::All, Revision::ZERO, PAGE).await.unwrap().events.len();
        let keep = Duration::from_secs(150);
        let head = tidy(&store, Revision(2), keep).await.unwrap();
        assert_eq!((head, left().await), (Revision(10), 8), "what a watch may still need stays");
        tidy(&store, head, keep).await.unwrap();
        assert_eq!(left().await, 3);
        assert!(store.get(&Key::new("host", "h")).await.unwrap().is_some());
    }
}
