#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use vmetal_model::{PolicySpec, PolicyStatus, Timestamp};
use vmetal_store::{SqliteOptions, StoreClock, StoreTime};

/// A store whose clock shows the hour that it is told.
fn store() -> (AnyStore, Arc<AtomicU64>) {
    let hour = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&hour);
    let clock = StoreClock::from_fn(move || StoreTime(1_000_000 + told.load(Ordering::Relaxed) * 3_600_000));
    (AnyStore::memory(clock), hour)
}

/// Bytes of which no two parts are alike.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at / 7 + at / PART) % 251).unwrap()).collect()
}

fn refer(sha256: &str) -> Txn {
    let spec: PolicySpec = serde_json::from_value(serde_json::json!({ "kind": "cost", "sha256": sha256 })).unwrap();
    let metadata = crate::ledger::new_metadata("p", [1; 16], Timestamp::UNIX_EPOCH);
    let policy: Policy = crate::ledger::new_object(metadata, spec, PolicyStatus::default());
    Txn::new().put(Key::new("policy", "p"), serde_json::to_vec(&policy).unwrap())
}

#[tokio::test]
async fn what_is_kept_comes_back_whatever_its_size_and_only_under_its_own_digest() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = AnyStore::open(directory.path().join("store.db"), SqliteOptions::default()).unwrap();
    for store in [store().0, sqlite] {
        for length in [0, 1, PART, PART + 1, 3 * PART] {
            let bytes = bytes(length);
            let sha256 = digest(&bytes);
            assert!(!has(&store, &sha256).await.unwrap());
            let missing = read(&store, &sha256).await.unwrap_err();
            assert!(matches!(&missing, ComponentError::Missing { .. }), "{missing}");
            keep(&store, &sha256, &bytes).await.unwrap();
            assert!(has(&store, &sha256).await.unwrap());
            assert_eq!(&*read(&store, &sha256).await.unwrap(), &*bytes);
            // Once more is no harm.
            keep(&store, &sha256, &bytes).await.unwrap();
        }
        let before = store.revision().await.unwrap();
        let error = keep(&store, &"0".repeat(64), b"something else").await.unwrap_err();
        assert!(matches!(&error, ComponentError::Digest { .. }), "{error}");
        assert_eq!(store.revision().await.unwrap(), before, "nothing of it is kept");
    }
}

#[tokio::test]
async fn a_damaged_part_is_noticed_and_can_be_mended() {
    let (store, _) = store();
    let bytes = bytes(2 * PART);
    let sha256 = digest(&bytes);
    keep(&store, &sha256, &bytes).await.unwrap();
    store.commit(Txn::new().put(part_key(&sha256, 1), b"x".to_vec())).await.unwrap();
    let error = read(&store, &sha256).await.unwrap_err();
    assert!(matches!(&error, ComponentError::Damaged { .. }), "{error}");
    keep(&store, &sha256, &bytes).await.unwrap();
    assert_eq!(&*read(&store, &sha256).await.unwrap(), &*bytes, "handed over again, it is whole again");
}

#[test]
fn the_largest_component_has_no_more_parts_than_are_given_up() {
    let largest = usize::try_from(vmetal_model::policy::LARGEST_COMPONENT).unwrap();
    assert_eq!(largest.div_ceil(PART), MOST_PARTS as usize);
}

#[tokio::test]
async fn what_nobody_refers_to_goes_after_a_day_and_half_of_one_after_an_hour() {
    let (store, hour) = store();
    let (used, unused, half) = (bytes(10), bytes(PART + 1), bytes(2 * PART));
    for bytes in [&used, &unused] {
        keep(&store, &digest(bytes), bytes).await.unwrap();
    }
    store.commit(refer(&digest(&used))).await.unwrap();
    let arriving = Manifest { size: 2 * PART as u64, parts: 2, state: State::Arriving };
    commit(&store, write(&digest(&half), &arriving, None)).await.unwrap();
    store.commit(Txn::new().put(part_key(&digest(&half), 0), &half[..PART])).await.unwrap();
    assert_eq!(collect(&store).await.unwrap(), 0, "everything is new");
    hour.store(2, Ordering::Relaxed);
    assert_eq!(collect(&store).await.unwrap(), 1, "the half one");
    hour.store(26, Ordering::Relaxed);
    assert_eq!(collect(&store).await.unwrap(), 1, "the unused one");
    assert!(has(&store, &digest(&used)).await.unwrap());
    let parts = store.list_all(&Selector::Kind(PARTS.into())).await.unwrap().items;
    assert_eq!(parts.len(), 1, "their parts are gone with them");
    hour.store(1000, Ordering::Relaxed);
    assert_eq!(collect(&store).await.unwrap(), 0, "what a policy refers to stays");
}

#[tokio::test]
async fn what_goes_on_deciding_is_referred_to_although_the_declaration_names_another() {
    let (store, hour) = store();
    let (old, new) = (bytes(10), bytes(20));
    for bytes in [&old, &new] {
        keep(&store, &digest(bytes), bytes).await.unwrap();
    }
    let spec = |bytes: &[u8]| serde_json::json!({ "kind": "cost", "sha256": digest(bytes) });
    let metadata = crate::ledger::new_metadata("p", [1; 16], Timestamp::UNIX_EPOCH);
    let status = serde_json::json!({ "phase": "failed", "in_force": { "generation": 1, "spec": spec(&old) } });
    let policy = serde_json::json!({ "metadata": metadata, "spec": spec(&new), "status": status });
    store.commit(Txn::new().put(Key::new("policy", "p"), policy.to_string())).await.unwrap();
    hour.store(1000, Ordering::Relaxed);
    assert_eq!(collect(&store).await.unwrap(), 0);
}

#[tokio::test]
async fn a_policy_that_comes_while_its_component_is_collected_either_has_it_or_is_not_declared() {
    let (store, hour) = store();
    let bytes = bytes(10);
    let sha256 = digest(&bytes);
    keep(&store, &sha256, &bytes).await.unwrap();
    hour.store(1000, Ordering::Relaxed);
    // Declared first: the collector, whose look at the manifests is older, loses.
    let read_before = store.get(&manifest_key(&sha256)).await.unwrap().unwrap().revision;
    let (guard, write) = hold(&store, &sha256).await.unwrap();
    store.commit(refer(&sha256).guard(guard.clone()).write(write.clone())).await.unwrap();
    let late = Txn::new().guard(Guard::Revision(manifest_key(&sha256), read_before)).delete(manifest_key(&sha256));
    assert!(matches!(store.commit(late).await, Err(CommitError::Conflict { .. })));
    assert_eq!(collect(&store).await.unwrap(), 0);
    // Collected first: the declaration, which saw the component, loses.
    store.commit(Txn::new().delete(Key::new("policy", "p"))).await.unwrap();
    let (guard, write) = hold(&store, &sha256).await.unwrap();
    hour.store(2000, Ordering::Relaxed);
    assert_eq!(collect(&store).await.unwrap(), 1);
    let declared = store.commit(refer(&sha256).guard(guard).write(write)).await;
    assert!(matches!(declared, Err(CommitError::Conflict { .. })), "{declared:?}");
    assert!(matches!(hold(&store, &sha256).await, Err(ComponentError::Missing { .. })));
}
