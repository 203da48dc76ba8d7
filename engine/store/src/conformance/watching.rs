//! Watches.

use futures::{FutureExt, StreamExt};

use super::Bench;
use super::cases::host;
use crate::{Change, ChangeStream, Committed, ObjectChange, Revision, Selector, Store, Txn, WatchError};

/// The next commit; marks of progress are checked and skipped.
pub(crate) async fn next_commit(stream: &mut ChangeStream) -> Committed {
    loop {
        match stream.next().await.unwrap().unwrap() {
            Change::Committed(committed) => return committed,
            Change::Progress(_) => {}
        }
    }
}

/// The stream's end.
async fn error(stream: &mut ChangeStream) -> WatchError {
    loop {
        if let Err(error) = stream.next().await.expect("a watch ends with an error") {
            assert!(stream.next().await.is_none(), "and then with nothing");
            return error;
        }
    }
}

pub(super) async fn a_watch_delivers_every_commit_once(bench: Bench) {
    let store = &bench.store;
    for round in 1..=3 {
        store
            .commit(Txn::new().put(host("b"), "x").put(host("a"), round.to_string()).event(host("a"), "e"))
            .await
            .unwrap();
    }
    let mut stream = store.watch(Selector::All, Revision(1));
    store.commit(Txn::new().delete(host("a"))).await.unwrap();
    for expected in 2..=3 {
        let commit = next_commit(&mut stream).await;
        assert_eq!(commit.revision, Revision(expected));
        assert_eq!(commit.objects.iter().map(ObjectChange::key).collect::<Vec<_>>(), [&host("a"), &host("b")]);
        match &commit.objects[0] {
            ObjectChange::Put(stored) => {
                assert_eq!((stored.revision, &stored.value[..]), (commit.revision, expected.to_string().as_bytes()));
                assert_eq!(stored.created, Revision(1));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((commit.events.len(), commit.events[0].revision), (1, commit.revision));
    }
    let deleted = next_commit(&mut stream).await;
    assert_eq!((deleted.revision, deleted.objects), (Revision(4), vec![ObjectChange::Deleted(host("a"))]));

    // Live: what comes after it has caught up.
    let waiting =
        tokio::spawn(async move { (next_commit(&mut stream).await.revision, next_commit(&mut stream).await.revision) });
    tokio::task::yield_now().await;
    store.commit(Txn::new().put(host("c"), "1")).await.unwrap();
    store.commit(Txn::new().put(host("c"), "2")).await.unwrap();
    assert_eq!(waiting.await.unwrap(), (Revision(5), Revision(6)));
}

pub(super) async fn a_watch_selects_and_marks_progress(bench: Bench) {
    let store = &bench.store;
    store.commit(Txn::new().put(host("a"), "1").put(host("b"), "1").event(host("b"), "e")).await.unwrap();
    store.commit(Txn::new().put(host("b"), "2")).await.unwrap();
    let mut stream = store.watch(host("a").into(), Revision::ZERO);
    match stream.next().await.unwrap().unwrap() {
        Change::Committed(commit) => {
            assert_eq!((commit.revision, commit.objects.len(), commit.events.len()), (Revision(1), 1, 0))
        }
        other => panic!("{other:?}"),
    }
    assert!(stream.next().now_or_never().is_none(), "nothing to say, and one commit behind is not worth saying");

    let mut fresh = store.watch(host("a").into(), Revision(2));
    assert_eq!(fresh.next().await.unwrap().unwrap(), Change::Progress(Revision(2)), "caught up");
    for _ in 0..64 {
        store.commit(Txn::new().put(host("b"), "3")).await.unwrap();
    }
    assert_eq!(fresh.next().await.unwrap().unwrap(), Change::Progress(Revision(66)), "a place to resume from");
}

pub(super) async fn a_watch_cannot_reach_behind_compaction(bench: Bench) {
    let store = &bench.store;
    for _ in 0..5 {
        store.commit(Txn::new().put(host("a"), "x")).await.unwrap();
    }
    store.compact(Revision(3)).await.unwrap();
    match error(&mut store.watch(Selector::All, Revision(2))).await {
        WatchError::Compacted { oldest } => assert_eq!(oldest, Revision(3)),
        other => panic!("{other:?}"),
    }
    let mut stream = store.watch(Selector::All, Revision(3));
    assert_eq!(next_commit(&mut stream).await.revision, Revision(4));
}

pub(super) async fn a_waiting_watch_survives_compaction(bench: Bench) {
    let store = &bench.store;
    store.commit(Txn::new().put(host("a"), "1")).await.unwrap();
    let mut stream = store.watch(Selector::All, Revision(1));
    assert_eq!(stream.next().await.unwrap().unwrap(), Change::Progress(Revision(1)));
    store.commit(Txn::new().put(host("a"), "2")).await.unwrap();
    assert_eq!(next_commit(&mut stream).await.revision, Revision(2));
    store.compact(Revision(2)).await.unwrap();
    store.commit(Txn::new().put(host("a"), "3")).await.unwrap();
    assert_eq!(next_commit(&mut stream).await.revision, Revision(3));
}

pub(super) async fn a_watch_of_the_future_is_refused(bench: Bench) {
    bench.store.commit(Txn::new().put(host("a"), "1")).await.unwrap();
    match error(&mut bench.store.watch(Selector::All, Revision(2))).await {
        WatchError::Ahead { after, head } => assert_eq!((after, head), (Revision(2), Revision(1))),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_watch_ends_with_the_store(bench: Bench) {
    let mut stream = bench.store.watch(Selector::All, Revision::ZERO);
    assert_eq!(stream.next().await.unwrap().unwrap(), Change::Progress(Revision::ZERO));
    let ended = tokio::spawn(async move { error(&mut stream).await });
    tokio::task::yield_now().await;
    drop(bench.store);
    assert!(matches!(ended.await.unwrap(), WatchError::Closed));
}
