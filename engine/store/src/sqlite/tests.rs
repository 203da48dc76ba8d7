//! What only a file can do: be locked, be damaged, be full, survive.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures::StreamExt;
use futures::future::join_all;
use tokio::sync::oneshot;

use super::*;
use crate::conformance::open_when_free;
use crate::{Change, EventRecord, Guard, Page, Write};

const CHILD: &str = "VMETAL_STORE_TEST_CHILD";

fn host(name: impl Into<String>) -> Key {
    Key::new("host", name)
}

fn open(path: &Path) -> SqliteStore {
    open_when_free(path, &SqliteOptions::default()).unwrap()
}

/// Why a store does not open that nobody holds.
fn refused(path: &Path) -> OpenError {
    open_when_free(path, &SqliteOptions::default()).expect_err("it must not open")
}

/// Why a store does not open that somebody holds.
fn locked_out(path: &Path) -> OpenError {
    SqliteStore::open(path, SqliteOptions::default()).expect_err("it must not open")
}

/// Runs one of the `child_` tests below in a process of its own.
fn child(test: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("sqlite::tests::{test}"), "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a child says, without what the test harness says around it.
fn said(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("child: ").map(str::to_owned))
}

#[test]
#[ignore = "a helper process of the tests"]
fn child_holds_the_store() {
    let store = open(Path::new(&std::env::var(CHILD).unwrap()));
    println!("\nchild: open");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    drop(store);
}

#[test]
#[ignore = "a helper process of the tests"]
fn child_commits_until_it_is_killed() {
    let store = open(Path::new(&std::env::var(CHILD).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    println!();
    runtime.block_on(async {
        loop {
            let commit =
                |name: usize| store.commit(Txn::new().put(host(format!("h{name}")), "x").event(host("log"), "y"));
            for revision in join_all((0..8).map(commit)).await {
                println!("child: {}", revision.unwrap());
            }
        }
    });
}

#[test]
fn a_second_process_is_refused_and_told_who_holds_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut holder = child("child_holds_the_store", &path);
    let mut lines = said(&mut holder);
    assert_eq!(lines.next().as_deref(), Some("open"));

    let error = locked_out(&path);
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == holder.id()), "{error:?}");
    assert!(error.to_string().contains(&format!("process {}", holder.id())), "{error}");

    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    let ours = open(&path);
    assert!(matches!(locked_out(&path), OpenError::Locked { pid, .. } if pid == Some(std::process::id())));
    drop(ours);
    open(&path);
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut acknowledged = 0;
    for round in 0..6 {
        let mut writer = child("child_commits_until_it_is_killed", &path);
        // The pipe stays open until after the kill, so that nothing but the kill ends the writer.
        let mut lines = said(&mut writer);
        let heard: Vec<u64> = lines.by_ref().take(20 + round * 17).map(|line| line.parse().unwrap()).collect();
        writer.kill().unwrap();
        writer.wait().unwrap();

        assert!(heard[0] > acknowledged, "a revision was given twice");
        acknowledged = *heard.iter().max().unwrap();
        let store = open(&path);
        let head = store.revision().await.unwrap();
        assert!(head.0 >= acknowledged, "acknowledged {acknowledged}, found {head}");
        let mut stream = store.watch(Selector::All, Revision::ZERO);
        for expected in 1..=head.0 {
            match stream.next().await.unwrap().unwrap() {
                Change::Committed(commit) => {
                    assert_eq!((commit.revision.0, commit.objects.len(), commit.events.len()), (expected, 1, 1));
                }
                Change::Progress(at) => panic!("a mark at {at} instead of commit {expected}"),
            }
        }
        acknowledged = head.0;
    }
}

#[tokio::test]
async fn a_flipped_bit_is_an_error_that_names_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = open(&path);
    store.commit(Txn::new().put(host("good"), "sound").put(host("bad"), "this value will rot")).await.unwrap();
    store.commit(Txn::new().event(host("bad"), "this event will rot")).await.unwrap();
    drop(store);

    let mut bytes = std::fs::read(&path).unwrap();
    for text in [&b"this value will rot"[..], b"this event will rot"] {
        let found: Vec<_> =
            bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text).map(|(at, _)| at).collect();
        assert_eq!(found.len(), 1, "the log must have been written back when the store was closed");
        bytes[found[0]] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();

    let store = open(&path);
    assert_eq!(store.get(&host("good")).await.unwrap().unwrap().value, "sound");
    let error = store.get(&host("bad")).await.unwrap_err();
    assert!(matches!(&error, ReadError::Corrupt { what } if what.contains("host/bad at revision 1")), "{error:?}");
    assert!(matches!(store.list(&Selector::All, Page::default()).await, Err(ReadError::Corrupt { .. })));
    assert!(matches!(store.events(&Selector::All, Revision::ZERO, 9).await, Err(ReadError::Corrupt { .. })));
    let ended = store.watch(Selector::All, Revision::ZERO).next().await.unwrap();
    assert!(matches!(ended, Err(WatchError::Read(ReadError::Corrupt { .. }))), "{ended:?}");
    // What is damaged can be replaced.
    store.commit(Txn::new().put(host("bad"), "new")).await.unwrap();
    assert_eq!(store.get(&host("bad")).await.unwrap().unwrap().value, "new");
}

#[tokio::test]
async fn a_damaged_page_is_an_error_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = open(&path);
    join_all((0..200).map(|number| store.commit(Txn::new().put(host(format!("h{number}")), vec![7; 500])))).await;
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    assert!(pages > 20);
    bytes[(pages / 2) * 4096..(pages / 2 + 1) * 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(refused(&path), OpenError::Corrupt { .. }));
}

#[tokio::test]
async fn files_that_are_not_ours_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let newer = dir.path().join("newer.db");
    drop(open(&newer));
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", schema::SCHEMA_VERSION + 1).unwrap();
    let error = refused(&newer);
    assert!(matches!(error, OpenError::Newer { found, known, .. } if found == known + 1), "{error:?}");

    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE precious (x)").unwrap();
    assert!(matches!(refused(&foreign), OpenError::NotAStore { .. }));
    let tables: u32 = Connection::open(&foreign)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);

    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "not a database at all, just a note that is long enough to look at").unwrap();
    assert!(matches!(refused(&text), OpenError::Corrupt { .. }));
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("not a database"));

    assert!(matches!(refused(&dir.path().join("no/such/directory/store.db")), OpenError::Io { .. }));
}

#[tokio::test]
async fn nobody_else_can_read_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(&path);
    store.commit(Txn::new().put(host("a"), "secret")).await.unwrap();
    store.backup(&dir.path().join("copy.db")).await.unwrap();
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        seen.push(entry.file_name().into_string().unwrap());
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    seen.sort();
    assert_eq!(seen, ["copy.db", "store.db", "store.db-shm", "store.db-wal", "store.db.lock"]);
}

/// Holds the writer in a batch of its own until the returned sender is used.
async fn hold(store: &SqliteStore) -> std::sync::mpsc::Sender<()> {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (started, has_started) = oneshot::channel();
    let (mut started, writer) = (Some(started), store.clone());
    tokio::spawn(async move {
        let wait = move |_: &mut writer::Batch<'_>| {
            started.take().map(|started| started.send(()));
            let _ = released.recv();
            Ok::<(), failure::Stop<CommitError>>(())
        };
        writer.0.writer.call(wait).await
    });
    has_started.await.unwrap();
    release
}

#[tokio::test]
async fn transactions_that_wait_together_share_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store.db"));
    store.commit(Txn::new().put(host("taken"), "x")).await.unwrap();
    let before = store.stats();
    let release = hold(&store).await;

    let commit = |number: usize| {
        let txn = Txn::new().put(host(format!("h{number}")), "x");
        // Every tenth is refused, and takes nobody with it.
        let guard = Guard::Absent(host("taken"));
        store.commit(if number.is_multiple_of(10) { txn.guard(guard) } else { txn })
    };
    let mut commits = Box::pin(join_all((0..100).map(commit)));
    assert!(futures::poll!(commits.as_mut()).is_pending());
    release.send(()).unwrap();
    let results = commits.await;

    let applied: Vec<u64> = results.iter().filter_map(|result| Some(result.as_ref().ok()?.0)).collect();
    assert_eq!(applied, (2..=91).collect::<Vec<_>>(), "in the order in which they were sent, densely");
    assert!(results.iter().step_by(10).all(|result| matches!(result, Err(CommitError::Conflict { .. }))));
    let after = store.stats();
    assert_eq!(after.batches - before.batches, 2, "the held batch and one for all that waited");
    assert_eq!(after.transactions - before.transactions, 101);
    assert_eq!(store.get(&host("h10")).await.unwrap(), None);
    assert!(store.get(&host("h11")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_full_disk_is_reported_to_whom_it_concerns() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store.db"));
    store.commit(Txn::new().put(host("a"), "1")).await.unwrap();
    let limit = async |pages: u32| {
        let set = move |batch: &mut writer::Batch<'_>| {
            batch.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
            Ok::<(), failure::Stop<CommitError>>(())
        };
        store.0.writer.call(set).await.unwrap();
    };
    limit(40).await;
    let release = hold(&store).await;
    let big = |name: &str| store.commit(Txn::new().put(host(name), vec![7; 300_000]));
    let small = |name: &str| store.commit(Txn::new().put(host(name), "x"));
    let mut commits = Box::pin(async { tokio::join!(small("b"), big("c"), small("d")) });
    assert!(futures::poll!(commits.as_mut()).is_pending());
    release.send(()).unwrap();
    let (b, c, d) = commits.await;
    assert_eq!((b.unwrap(), d.unwrap()), (Revision(2), Revision(3)));
    assert!(matches!(c, Err(CommitError::Full)), "{c:?}");
    limit(1_000_000).await;
    assert_eq!(big("c").await.unwrap(), Revision(4), "space was freed");
}

#[tokio::test]
async fn a_slow_watcher_is_served_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let ring = RingLimits { commits: 4, bytes: 1 << 20 };
    let options = SqliteOptions { ring, ..SqliteOptions::default() };
    let store = SqliteStore::open(dir.path().join("store.db"), options).unwrap();
    let mut stream = store.watch(Selector::All, Revision::ZERO);
    assert_eq!(stream.next().await.unwrap().unwrap(), Change::Progress(Revision::ZERO));
    for number in 0..50_u64 {
        store.commit(Txn::new().put(host("a"), number.to_string())).await.unwrap();
    }
    for expected in 1..=50 {
        assert_eq!(stream.next().await.unwrap().unwrap().revision(), Revision(expected));
    }
    // And told when that is gone.
    for _ in 0..10 {
        store.commit(Txn::new().put(host("a"), "x")).await.unwrap();
    }
    store.compact(Revision(55)).await.unwrap();
    let ended = stream.next().await.unwrap();
    assert!(matches!(ended, Err(WatchError::Compacted { oldest: Revision(55) })), "{ended:?}");
}

#[tokio::test]
async fn a_long_history_is_read_in_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = open(&path);
    join_all((0..12).map(|_| store.commit(Txn::new().put(host("a"), vec![1; 1 << 20])))).await;
    let first = store.read(|connection| query::history(connection, Revision::ZERO)).await.unwrap();
    assert!(matches!(first, query::Past::Commits { upto: Revision(4), commits } if commits.len() == 4));
    drop(store);
    let store = open(&path);
    let mut stream = store.watch(Selector::All, Revision::ZERO);
    for expected in 1..=12 {
        assert_eq!(stream.next().await.unwrap().unwrap().revision(), Revision(expected));
    }
}

#[tokio::test]
async fn compaction_removes_rows_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = open(&path);
    let replace = || {
        let event = EventRecord::new(host("a"), "e");
        Txn { writes: vec![Write::put(host("a"), "x"), Write::put(host("b"), "x")], events: vec![event], ..Txn::new() }
    };
    join_all((0..1_500).map(|_| store.commit(replace()))).await;
    store.commit(Txn::new().delete(host("b"))).await.unwrap();
    store.compact(Revision(1_501)).await.unwrap();
    store.forget_events(Revision(1_000)).await.unwrap();
    drop(store);
    let store = open(&path);
    let count = |connection: &Connection| {
        let sql = "SELECT (SELECT count(*) FROM version), (SELECT count(*) FROM event)";
        Ok(connection.query_row(sql, [], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?)))?)
    };
    // The writer works it off between commits, a chunk before each batch.
    for _ in 0..4 {
        store.acquire(Shard(0), "one", Duration::from_secs(15)).await.unwrap();
    }
    assert_eq!(store.read(count).await.unwrap(), (1, 500));
    assert!(store.stats().collections <= 4);
    assert!(store.get(&host("a")).await.unwrap().is_some());
}
