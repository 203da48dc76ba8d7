//! Commits, reads and leases.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::Bench;
use crate::{
    AnyStore, BackupError, CommitError, Epoch, Guard, Key, LeaseError, Page, ReadError, RequestId, Revision, Selector,
    Shard, SqliteOptions, Store, Stored, Txn, UniqueKey, Write,
};

pub(super) fn host(name: &str) -> Key {
    Key::new("host", name)
}

fn with_mac(name: &str, mac: &str) -> Write {
    Write::Put { key: host(name), value: name.into(), unique: vec![UniqueKey::new("boot-mac", mac)] }
}

async fn put(store: &AnyStore, name: &str, value: &str) -> Revision {
    store.commit(Txn::new().put(host(name), value)).await.unwrap()
}

async fn value(store: &AnyStore, name: &str) -> Option<String> {
    let stored = store.get(&host(name)).await.unwrap()?;
    Some(String::from_utf8(stored.value.to_vec()).unwrap())
}

fn names(items: &[Stored]) -> Vec<&str> {
    items.iter().map(|item| item.key.name.as_str()).collect()
}

fn limit(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit).unwrap()
}

pub(super) async fn revisions_are_dense(bench: Bench) {
    let store = &bench.store;
    assert_eq!(store.revision().await.unwrap(), Revision::ZERO);
    assert_eq!(put(store, "a", "1").await, Revision(1));
    let two = Txn::new().put(host("a"), "2").put(host("b"), "2").event(host("a"), "changed");
    assert_eq!(store.commit(two).await.unwrap(), Revision(2));
    assert_eq!(store.commit(Txn::new().event(host("c"), "seen")).await.unwrap(), Revision(3));
    assert_eq!(store.commit(Txn::new().delete(host("nobody"))).await.unwrap(), Revision(4));
    assert_eq!(store.revision().await.unwrap(), Revision(4));

    let a = store.get(&host("a")).await.unwrap().unwrap();
    assert_eq!((a.revision, a.created, a.written_at), (Revision(2), Revision(1), bench.time.now()));
    assert_eq!(value(store, "b").await.as_deref(), Some("2"));
    assert_eq!(store.get(&host("c")).await.unwrap(), None);
}

pub(super) async fn a_lost_guard_changes_nothing(bench: Bench) {
    let store = &bench.store;
    put(store, "a", "1").await;
    put(store, "b", "1").await;
    let claim = |at| {
        Txn::new()
            .guard(Guard::Revision(host("a"), at))
            .guard(Guard::Absent(host("c")))
            .put(host("a"), "2")
            .put(host("c"), "2")
    };
    match store.commit(claim(Revision(2)).event(host("a"), "claimed")).await {
        Err(CommitError::Conflict { key, found }) => assert_eq!((key, found), (host("a"), Some(Revision(1)))),
        other => panic!("{other:?}"),
    }
    assert_eq!(value(store, "a").await.as_deref(), Some("1"));
    assert_eq!(store.revision().await.unwrap(), Revision(2));
    assert_eq!(store.events(&Selector::All, Revision::ZERO, 10).await.unwrap().events, []);

    store.commit(claim(Revision(1))).await.unwrap();
    match store.commit(claim(Revision(3))).await {
        Err(CommitError::Conflict { key, found }) => assert_eq!((key, found), (host("c"), Some(Revision(3)))),
        other => panic!("{other:?}"),
    }
    store.commit(Txn::new().delete(host("b"))).await.unwrap();
    match store.commit(Txn::new().guard(Guard::Revision(host("b"), Revision(2))).put(host("b"), "2")).await {
        Err(CommitError::Conflict { key, found }) => assert_eq!((key, found), (host("b"), None)),
        other => panic!("{other:?}"),
    }
    store.commit(Txn::new().guard(Guard::Absent(host("b"))).put(host("b"), "3")).await.unwrap();
    assert_eq!(value(store, "b").await.as_deref(), Some("3"));
}

pub(super) async fn a_unique_entry_has_one_holder(bench: Bench) {
    let store = &bench.store;
    store.commit(Txn::new().write(with_mac("a", "52:54:00:00:00:01"))).await.unwrap();
    match store.commit(Txn::new().put(host("c"), "1").write(with_mac("b", "52:54:00:00:00:01"))).await {
        Err(CommitError::Unique { index, key, held_by }) => {
            assert_eq!((index.as_str(), key.as_str(), held_by), ("boot-mac", "52:54:00:00:00:01", host("a")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(value(store, "c").await, None, "the other write of the refused transaction must be undone");

    // Both in one transaction: the first one holds it.
    match store
        .commit(Txn::new().write(with_mac("d", "52:54:00:00:00:02")).write(with_mac("e", "52:54:00:00:00:02")))
        .await
    {
        Err(CommitError::Unique { held_by, .. }) => assert_eq!(held_by, host("d")),
        other => panic!("{other:?}"),
    }
    // Writing it again with its entry is fine; writing it without releases it; so does deleting it.
    store.commit(Txn::new().write(with_mac("a", "52:54:00:00:00:01"))).await.unwrap();
    put(store, "a", "no mac").await;
    store.commit(Txn::new().write(with_mac("b", "52:54:00:00:00:01"))).await.unwrap();
    store.commit(Txn::new().delete(host("b"))).await.unwrap();
    store.commit(Txn::new().write(with_mac("a", "52:54:00:00:00:01"))).await.unwrap();
    // Another index is another space.
    let bmc = Write::Put { key: host("b"), value: vec![], unique: vec![UniqueKey::new("bmc", "52:54:00:00:00:01")] };
    store.commit(Txn::new().write(bmc)).await.unwrap();
}

pub(super) async fn unique_entries_can_be_swapped(bench: Bench) {
    let store = &bench.store;
    store.commit(Txn::new().write(with_mac("a", "1")).write(with_mac("b", "2"))).await.unwrap();
    store.commit(Txn::new().write(with_mac("a", "2")).write(with_mac("b", "1"))).await.unwrap();
    match store.commit(Txn::new().write(with_mac("c", "1"))).await {
        Err(CommitError::Unique { held_by, .. }) => assert_eq!(held_by, host("b")),
        other => panic!("{other:?}"),
    }
    store.commit(Txn::new().delete(host("b")).write(with_mac("c", "1"))).await.unwrap();
    // Who keeps one has it, whoever asks first.
    match store.commit(Txn::new().write(with_mac("d", "1")).write(with_mac("c", "1"))).await {
        Err(CommitError::Unique { held_by, .. }) => assert_eq!(held_by, host("c")),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_request_is_applied_once(bench: Bench) {
    let store = &bench.store;
    let txn = Txn::new().guard(Guard::Absent(host("a"))).put(host("a"), "1").event(host("a"), "made").request("r1");
    assert_eq!(store.commit(txn.clone()).await.unwrap(), Revision(1));
    put(store, "a", "2").await;
    assert_eq!(store.commit(txn.clone()).await.unwrap(), Revision(1), "its guard no longer holds, and is not asked");
    assert_eq!(value(store, "a").await.as_deref(), Some("2"));
    assert_eq!(store.events(&Selector::All, Revision::ZERO, 10).await.unwrap().events.len(), 1);
    assert_eq!(store.outcome(&RequestId("r1".into())).await.unwrap(), Some(Revision(1)));

    // A refused request was not applied, so it may come again.
    let refused = Txn::new().guard(Guard::Absent(host("a"))).put(host("a"), "3").request("r2");
    assert!(store.commit(refused).await.is_err());
    assert_eq!(store.outcome(&RequestId("r2".into())).await.unwrap(), None);
    assert_eq!(store.commit(Txn::new().put(host("a"), "3").request("r2")).await.unwrap(), Revision(3));

    bench.time.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(store.outcome(&RequestId("r1".into())).await.unwrap(), None);
    assert!(matches!(store.commit(txn).await, Err(CommitError::Conflict { .. })), "after a day it is a new request");
}

pub(super) async fn asking_takes_no_revision(bench: Bench) {
    let store = &bench.store;
    put(store, "a", "1").await;
    let ask = Txn::new().guard(Guard::Revision(host("a"), Revision(1)));
    assert_eq!(store.commit(ask.clone()).await.unwrap(), Revision(1));
    assert_eq!(put(store, "a", "2").await, Revision(2));
    assert!(matches!(store.commit(ask).await, Err(CommitError::Conflict { .. })));
}

pub(super) async fn an_unacceptable_transaction_is_refused(bench: Bench) {
    let twice = Txn::new().put(host("a"), "1").put(host("a"), "2");
    assert!(matches!(bench.store.commit(twice).await, Err(CommitError::Invalid(_))));
    assert_eq!(bench.store.revision().await.unwrap(), Revision::ZERO);
}

pub(super) async fn a_list_is_one_snapshot(bench: Bench) {
    let store = &bench.store;
    for name in ["a", "b", "c", "d", "e"] {
        put(store, name, "old").await;
    }
    let first = store.list(&Selector::All, Page::first(limit(2))).await.unwrap();
    assert_eq!((names(&first.items), first.revision), (vec!["a", "b"], Revision(5)));

    // Behind the page, ahead of it, and on its edge.
    store
        .commit(Txn::new().delete(host("c")).put(host("d"), "new").put(host("bb"), "new").put(host("a"), "new"))
        .await
        .unwrap();
    put(store, "d", "newer").await;

    let token = first.next.unwrap().to_string().parse().unwrap();
    let second = store.list(&Selector::All, Page::after(limit(2), token)).await.unwrap();
    assert_eq!((names(&second.items), second.revision), (vec!["c", "d"], Revision(5)));
    assert!(second.items.iter().all(|item| item.value == "old"));
    let third = store.list(&Selector::All, Page::after(limit(2), second.next.unwrap())).await.unwrap();
    assert_eq!((names(&third.items), third.next), (vec!["e"], None));

    let now = store.list(&Selector::All, Page::default()).await.unwrap();
    assert_eq!((names(&now.items), now.revision, now.next), (vec!["a", "b", "bb", "d", "e"], Revision(7), None));
    let exact = store.list(&Selector::All, Page::first(limit(5))).await.unwrap();
    assert_eq!(exact.next, None, "a page that happens to be full is still the last one");
}

pub(super) async fn a_page_is_bounded_in_bytes(bench: Bench) {
    for name in 0..20 {
        bench.store.commit(Txn::new().put(host(&format!("h{name:02}")), vec![0; 1 << 20])).await.unwrap();
    }
    let page = bench.store.list(&Selector::All, Page::default()).await.unwrap();
    assert_eq!((page.items.len(), page.items.iter().map(|item| item.value.len()).sum()), (16, Page::BYTES));
    assert!(page.next.is_some());
    let all = bench.store.list_all(&Selector::All).await.unwrap();
    assert_eq!((all.items.len(), all.next), (20, None));
    assert!(all.items.is_sorted_by(|a, b| a.key < b.key));
}

pub(super) async fn a_list_selects(bench: Bench) {
    let store = &bench.store;
    let keys = [
        Key::new("host", "r1-a"),
        Key::new("host", "r1-b"),
        Key::new("host", "r10"),
        Key::new("host", "r2"),
        Key::new("hosts", "r1-c"),
    ];
    for key in &keys {
        store.commit(Txn::new().put(key.clone(), "x").event(key.clone(), "e")).await.unwrap();
    }
    let table = [
        (Selector::All, 0..5),
        (Selector::Kind("host".into()), 0..4),
        (Selector::Prefix("host".into(), "r1-".into()), 0..2),
        (Selector::Prefix("host".into(), "r1".into()), 0..3),
        (Selector::Prefix("host".into(), String::new()), 0..4),
        (Selector::Key(keys[2].clone()), 2..3),
        (Selector::Key(Key::new("host", "r1")), 0..0),
        (Selector::Kind("hos".into()), 0..0),
    ];
    for (selector, expected) in table {
        let listed = store.list(&selector, Page::default()).await.unwrap().items;
        assert_eq!(
            listed.iter().map(|item| &item.key).collect::<Vec<_>>(),
            keys[expected.clone()].iter().collect::<Vec<_>>(),
            "{selector:?}"
        );
        let events = store.events(&selector, Revision::ZERO, 100).await.unwrap().events;
        assert_eq!(
            events.iter().map(|event| &event.subject).collect::<Vec<_>>(),
            keys[expected].iter().collect::<Vec<_>>(),
            "{selector:?}"
        );
        assert!(
            keys.iter().filter(|key| selector.matches(key)).eq(listed.iter().map(|item| &item.key)),
            "{selector:?}"
        );
    }
}

pub(super) async fn a_compacted_snapshot_expires(bench: Bench) {
    let store = &bench.store;
    for name in ["a", "b", "c"] {
        put(store, name, "1").await;
    }
    let token = store.list(&Selector::All, Page::first(limit(1))).await.unwrap().next.unwrap();
    put(store, "b", "2").await;
    store.compact(Revision(3)).await.unwrap();
    let page = store.list(&Selector::All, Page::after(limit(5), token.clone())).await.unwrap();
    assert_eq!(page.items[0].value, "1", "the snapshot at the mark itself is kept");
    store.compact(Revision(4)).await.unwrap();
    match store.list(&Selector::All, Page::after(limit(5), token)).await {
        Err(ReadError::Expired { at, oldest }) => assert_eq!((at, oldest), (Revision(3), Revision(4))),
        other => panic!("{other:?}"),
    }
    assert_eq!(value(store, "a").await.as_deref(), Some("1"));
    // Past the end it goes to the end, and never back.
    store.compact(Revision(1_000)).await.unwrap();
    store.compact(Revision(1)).await.unwrap();
    assert_eq!(put(store, "a", "3").await, Revision(5));
}

pub(super) async fn events_are_read_in_whole_commits(bench: Bench) {
    let store = &bench.store;
    store.commit(Txn::new().event(host("a"), "1").event(host("b"), "2").event(host("a"), "3")).await.unwrap();
    store.commit(Txn::new().event(host("a"), "4")).await.unwrap();
    let read = async |selector: &Selector, after, limit| {
        let page = store.events(selector, Revision(after), limit).await.unwrap();
        page.events
            .iter()
            .map(|event| (event.revision.0, event.ordinal, String::from_utf8(event.value.to_vec()).unwrap()))
            .collect::<Vec<_>>()
    };
    let at = |revision, ordinal, value: &str| (revision, ordinal, value.to_owned());
    assert_eq!(read(&host("a").into(), 0, 1).await, [at(1, 0, "1"), at(1, 2, "3")], "a commit is not split");
    assert_eq!(read(&host("a").into(), 1, 1).await, [at(2, 0, "4")]);
    assert_eq!(read(&host("a").into(), 2, 1).await, []);
    assert_eq!(read(&Selector::All, 0, 100).await.len(), 4);
    let latest = store.latest_events(&Selector::All, 2).await.unwrap().events;
    assert_eq!(latest.iter().map(|event| &event.value[..]).collect::<Vec<_>>(), [b"3", b"4"]);
}

pub(super) async fn events_outlive_compaction_until_forgotten(bench: Bench) {
    let store = &bench.store;
    for value in ["1", "2", "3"] {
        store.commit(Txn::new().event(host("a"), value)).await.unwrap();
    }
    store.compact(Revision(2)).await.unwrap();
    assert_eq!(store.latest_events(&Selector::All, 10).await.unwrap().events.len(), 3);
    assert_eq!(store.forget_events(Revision(3)).await.unwrap(), Revision(2), "a watch from 2 on still needs the third");
    assert_eq!(store.forget_events(Revision(1)).await.unwrap(), Revision(2));
    // Forgotten events go in the background; what is promised is that the third one stays.
    let page = store.events(&Selector::All, Revision(2), 10).await.unwrap();
    assert_eq!((page.forgotten, page.events.len()), (Revision(2), 1));
}

pub(super) async fn leases_fence(bench: Bench) {
    let (store, shard, ttl) = (&bench.store, Shard(7), Duration::from_secs(15));
    let work = |epoch| Txn::new().guard(Guard::Epoch(shard, epoch)).put(host("a"), "1");
    assert!(matches!(store.commit(work(Epoch(0))).await, Err(CommitError::Fenced { found: None, .. })));

    let one = store.acquire(shard, "one", ttl).await.unwrap();
    assert_eq!((one.lease.epoch, one.previous), (Epoch(1), None));
    assert_eq!(one.lease.expires, bench.time.now().saturating_add(ttl));
    store.commit(work(Epoch(1))).await.unwrap();
    assert!(matches!(store.acquire(shard, "two", ttl).await, Err(LeaseError::Held { holder, .. }) if holder == "one"));
    assert_eq!(store.revision().await.unwrap(), Revision(1), "leases take no revision");

    // Expired, but nobody took it: still good for commits and renewal.
    bench.time.advance(ttl);
    store.commit(work(Epoch(1))).await.unwrap();
    let renewed = store.renew(shard, Epoch(1), ttl).await.unwrap();
    assert_eq!(renewed.expires, bench.time.now().saturating_add(ttl));

    bench.time.advance(ttl);
    let two = store.acquire(shard, "two", ttl).await.unwrap();
    assert_eq!(two.lease.epoch, Epoch(2));
    assert_eq!(two.previous.map(|previous| (previous.holder, previous.expires)), Some(("one".into(), renewed.expires)));
    match store.commit(work(Epoch(1))).await {
        Err(CommitError::Fenced { shard: fenced, found }) => assert_eq!((fenced, found), (shard, Some(Epoch(2)))),
        other => panic!("{other:?}"),
    }
    assert!(matches!(store.renew(shard, Epoch(1), ttl).await, Err(LeaseError::Lost { .. })));
    assert!(matches!(store.release(shard, Epoch(1)).await, Err(LeaseError::Lost { .. })));

    // A restart of the holder fences its old self.
    let again = store.acquire(shard, "two", ttl).await.unwrap();
    assert_eq!((again.lease.epoch, again.previous.map(|previous| previous.holder)), (Epoch(3), Some("two".into())));
    assert!(matches!(store.commit(work(Epoch(2))).await, Err(CommitError::Fenced { .. })));

    store.release(shard, Epoch(3)).await.unwrap();
    assert!(matches!(store.commit(work(Epoch(3))).await, Err(CommitError::Fenced { found: None, .. })));
    let next = store.acquire(shard, "one", ttl).await.unwrap();
    assert_eq!((next.lease.epoch, next.previous), (Epoch(4), None), "after a clean release nobody has to wait");
    store.acquire(Shard(8), "two", ttl).await.unwrap();
}

pub(super) async fn concurrent_increments_are_not_lost(bench: Bench) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 10;
    put(&bench.store, "counter", "0").await;
    let increment = |store: AnyStore| async move {
        let mut done = 0;
        while done < EACH {
            let read = store.get(&host("counter")).await.unwrap().unwrap();
            let count: u64 = std::str::from_utf8(&read.value).unwrap().parse().unwrap();
            let txn = Txn::new()
                .guard(Guard::Revision(read.key.clone(), read.revision))
                .put(read.key, (count + 1).to_string());
            match store.commit(txn).await {
                Ok(_) => done += 1,
                Err(CommitError::Conflict { found, .. }) => {
                    assert!(found > Some(read.revision), "a get must not be stale")
                }
                Err(other) => panic!("{other}"),
            }
        }
    };
    let tasks: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(increment(bench.store.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(value(&bench.store, "counter").await, Some((WRITERS * EACH).to_string()));
    assert_eq!(bench.store.revision().await.unwrap(), Revision(1 + WRITERS * EACH));
}

pub(super) async fn a_backup_is_a_store(bench: Bench) {
    let store = &bench.store;
    store.commit(Txn::new().write(with_mac("a", "1")).event(host("a"), "made").request("r1")).await.unwrap();
    put(store, "b", "1").await;
    put(store, "b", "2").await;
    store.commit(Txn::new().delete(host("a"))).await.unwrap();
    store.commit(Txn::new().write(with_mac("c", "1"))).await.unwrap();
    store.acquire(Shard(1), "one", Duration::from_secs(15)).await.unwrap();
    store.compact(Revision(1)).await.unwrap();

    let path = bench.dir.path().join("backup.db");
    if let AnyStore::Postgres(_) = store {
        let refused = store.backup(&path).await.unwrap_err();
        assert!(matches!(refused, BackupError::Elsewhere { .. }), "{refused:?}");
        assert!(refused.to_string().contains("pg_dump --format=custom --schema=bench_"), "{refused}");
        return;
    }
    assert_eq!(store.backup(&path).await.unwrap(), Revision(5));
    put(store, "b", "after the backup").await;
    assert!(matches!(store.backup(&path).await, Err(BackupError::Exists { .. })));
    let nowhere = bench.dir.path().join("no/such/directory/backup.db");
    assert!(matches!(store.backup(&nowhere).await, Err(BackupError::Io { .. })));

    let copy = AnyStore::open(&path, SqliteOptions::with_clock(bench.time.clock())).unwrap();
    assert_eq!(copy.revision().await.unwrap(), Revision(5));
    assert_eq!(value(&copy, "b").await.as_deref(), Some("2"));
    assert_eq!(value(&copy, "a").await, None);
    assert_eq!(copy.outcome(&RequestId("r1".into())).await.unwrap(), Some(Revision(1)));
    assert!(matches!(copy.commit(Txn::new().write(with_mac("d", "1"))).await, Err(CommitError::Unique { .. })));
    assert!(matches!(copy.acquire(Shard(1), "two", Duration::from_secs(15)).await, Err(LeaseError::Held { .. })));
    assert_eq!(copy.events(&Selector::All, Revision::ZERO, 10).await.unwrap().events.len(), 1);
    assert_eq!(put(&copy, "b", "3").await, Revision(6));
    let left: Vec<_> = std::fs::read_dir(bench.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("partial")), "{left:?}");
}

pub(super) async fn a_recreated_object_is_new(bench: Bench) {
    let store = &bench.store;
    put(store, "a", "1").await;
    put(store, "a", "2").await;
    store.commit(Txn::new().delete(host("a"))).await.unwrap();
    put(store, "a", "3").await;
    let a = store.get(&host("a")).await.unwrap().unwrap();
    assert_eq!((a.revision, a.created), (Revision(4), Revision(4)));
}
