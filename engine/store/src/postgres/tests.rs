//! What only a shared database can do: be used by several engines, be cut off, crash, be damaged.
#![allow(clippy::unwrap_used, reason = "tests")]

mod proxy;

use futures::StreamExt;
use futures::future::join_all;
use tokio::time::timeout;
use vmetal_test_postgres::{Listen, Server};

use self::proxy::Proxy;
use super::*;
use crate::conformance::{database, fresh_schema};
use crate::{Change, EventRecord, Guard};

/// Longer than anything takes that happens at all.
const PATIENT: Duration = Duration::from_mins(2);

fn host(name: impl Into<String>) -> Key {
    Key::new("host", name)
}

async fn open(options: &PostgresOptions) -> PostgresStore {
    PostgresStore::open(database(), options.clone()).await.unwrap()
}

/// A schema of its own for a store that hears of others' commits only by being told of them.
fn told_only() -> PostgresOptions {
    PostgresOptions { poll: Duration::from_hours(1), ..fresh_schema() }
}

/// Waits until a store listens to other engines and has read everything that there was.
async fn listening(store: &PostgresStore) {
    let listens = async {
        while store.0.counters.caught_up.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENT, listens).await.expect("it never listens");
}

/// A plain connection to the tables of a store.
async fn raw(options: &PostgresOptions) -> Session {
    Session::open(&database(), &options.schema, None).await.unwrap()
}

#[tokio::test]
async fn several_engines_share_one_order_and_see_each_others_commits() {
    const ENGINES: usize = 3;
    const EACH: usize = 40;
    let options = fresh_schema();
    let engines = join_all((0..ENGINES).map(|_| open(&options))).await;
    let watches: Vec<_> = engines.iter().map(|engine| engine.watch(Selector::All, Revision::ZERO)).collect();
    let work = engines.iter().enumerate().map(|(number, engine)| async move {
        let commit = |round: usize| {
            let txn = Txn::new().put(host(format!("e{number}-{}", round % 7)), format!("{round}"));
            engine.commit(txn.event(host("log"), format!("{number}/{round}")))
        };
        join_all((0..EACH).map(commit)).await.into_iter().map(|revision| revision.unwrap().0).collect::<Vec<_>>()
    });
    let mut given: Vec<u64> = join_all(work).await.concat();
    given.sort();
    assert_eq!(given, (1..=(ENGINES * EACH) as u64).collect::<Vec<_>>(), "dense over all engines");
    let batches: u64 = engines.iter().map(|engine| engine.stats().batches).sum();
    assert!(batches < given.len() as u64, "{batches} batches for {} commits", given.len());

    let mut histories = Vec::new();
    for mut watch in watches {
        let mut commits = Vec::new();
        while commits.len() < ENGINES * EACH {
            match watch.next().await.unwrap().unwrap() {
                Change::Committed(commit) => commits.push(commit),
                Change::Progress(_) => {}
            }
        }
        assert!(commits.iter().enumerate().all(|(place, commit)| commit.revision.0 == place as u64 + 1));
        histories.push(commits);
    }
    assert!(histories.windows(2).all(|pair| pair[0] == pair[1]), "every engine tells the same");
}

#[tokio::test]
async fn a_watch_hears_of_another_engine_without_waiting_for_the_poll() {
    let options = told_only();
    let (one, two) = (open(&options).await, open(&options).await);
    let mut watch = two.watch(Selector::All, Revision::ZERO);
    assert_eq!(watch.next().await.unwrap().unwrap(), Change::Progress(Revision::ZERO));
    listening(&two).await;
    for round in 1..=5 {
        one.commit(Txn::new().put(host("a"), "x")).await.unwrap();
        let change = timeout(PATIENT, watch.next()).await.expect("nobody told it").unwrap().unwrap();
        assert_eq!(change.revision(), Revision(round));
    }
}

#[tokio::test]
async fn commits_of_this_engine_are_not_read_back() {
    let store = open(&told_only()).await;
    let mut watch = store.watch(Selector::All, Revision::ZERO);
    assert_eq!(watch.next().await.unwrap().unwrap(), Change::Progress(Revision::ZERO));
    listening(&store).await;
    for expected in 1..=50 {
        store.commit(Txn::new().put(host("a"), "x")).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().revision(), Revision(expected));
    }
    assert_eq!(store.stats().history_reads, 0);
}

#[tokio::test]
async fn a_stale_holder_is_fenced_by_another_engine() {
    let options = fresh_schema();
    let (one, two) = (open(&options).await, open(&options).await);
    let (shard, ttl) = (Shard(3), Duration::from_hours(1));
    let lease = one.acquire(shard, "one", ttl).await.unwrap().lease;
    assert!(matches!(two.acquire(shard, "two", ttl).await, Err(LeaseError::Held { .. })), "by the server's clock");
    // As if the hour had passed.
    let over = lease.expires.saturating_sub(ttl + Duration::from_secs(1));
    let set = format!("UPDATE lease SET expires = {}", over.0);
    raw(&options).await.client().batch_execute(&set).await.unwrap();
    let taken = two.acquire(shard, "two", ttl).await.unwrap();
    assert_eq!((taken.lease.epoch.0, taken.previous.unwrap().expires), (lease.epoch.0 + 1, over));
    let late = one.commit(Txn::new().guard(Guard::Epoch(shard, lease.epoch)).put(host("a"), "late")).await;
    assert!(matches!(late, Err(CommitError::Fenced { found: Some(Epoch(2)), .. })), "{late:?}");
    assert_eq!(two.get(&host("a")).await.unwrap(), None);
}

#[tokio::test]
async fn compaction_removes_rows_and_other_engines_hear_of_it() {
    let options = fresh_schema();
    let (one, two) = (open(&options).await, open(&options).await);
    let replace = || Txn::new().put(host("a"), "x").put(host("b"), "x").event(host("a"), "e");
    join_all((0..1_500).map(|_| one.commit(replace()))).await;
    one.commit(Txn::new().delete(host("b"))).await.unwrap();
    one.compact(Revision(1_501)).await.unwrap();
    assert_eq!(two.forget_events(Revision(1_000)).await.unwrap(), Revision(1_000));
    let mut session = raw(&options).await;
    let sql = "SELECT (SELECT count(*) FROM version), (SELECT count(*) FROM event)";
    for _ in 0..1_200 {
        let row = &session.query(sql, &[]).await.unwrap()[0];
        if (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (1, 500) {
            let behind = two.watch(Selector::All, Revision(7)).next().await.unwrap();
            assert!(matches!(behind, Err(WatchError::Compacted { oldest: Revision(1_501) })), "{behind:?}");
            assert!(two.get(&host("a")).await.unwrap().is_some());
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("compacted rows stay");
}

#[tokio::test]
async fn what_is_damaged_is_an_error_that_names_the_record() {
    let options = fresh_schema();
    let store = open(&options).await;
    store.commit(Txn::new().put(host("good"), "sound").put(host("bad"), "value")).await.unwrap();
    store.commit(Txn::new().event(host("bad"), "event")).await.unwrap();
    let session = raw(&options).await;
    session.client().batch_execute("UPDATE version SET value = 'velue' WHERE name = 'bad'").await.unwrap();
    session.client().batch_execute("UPDATE event SET value = 'evant'").await.unwrap();
    assert_eq!(store.get(&host("good")).await.unwrap().unwrap().value, "sound");
    let error = store.get(&host("bad")).await.unwrap_err();
    assert!(matches!(&error, ReadError::Corrupt { what } if what.contains("host/bad at revision 1")), "{error:?}");
    assert!(matches!(store.list(&Selector::All, Page::default()).await, Err(ReadError::Corrupt { .. })));
    assert!(matches!(store.events(&Selector::All, Revision::ZERO, 9).await, Err(ReadError::Corrupt { .. })));
    assert!(matches!(store.latest_events(&Selector::All, 9).await, Err(ReadError::Corrupt { .. })));
    // Read back, by an engine that was not there when it was written.
    let ended = open(&options).await.watch(Selector::All, Revision::ZERO).next().await.unwrap();
    assert!(matches!(ended, Err(WatchError::Read(ReadError::Corrupt { .. }))), "{ended:?}");
    // What is damaged can be replaced.
    store.commit(Txn::new().put(host("bad"), "new")).await.unwrap();
    assert_eq!(store.get(&host("bad")).await.unwrap().unwrap().value, "new");
}

#[tokio::test]
async fn a_newer_layout_is_refused_at_the_start_and_while_running() {
    let options = fresh_schema();
    let store = open(&options).await;
    store.commit(Txn::new().put(host("a"), "1")).await.unwrap();
    raw(&options).await.client().batch_execute("UPDATE meta SET schema_version = 2").await.unwrap();
    let refused = PostgresStore::open(database(), options.clone()).await.unwrap_err();
    assert!(matches!(refused, OpenError::NewerDatabase { found: 2, known: 1, .. }), "{refused:?}");
    let refused = store.commit(Txn::new().put(host("a"), "2")).await.unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(
        matches!(refused, CommitError::Unavailable { .. }) && why.contains("another engine has migrated it"),
        "{why}"
    );
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let server = database();
    let nowhere = PostgresUrl::parse("postgres://vmetal:hunter2@/nowhere?host=/no/such/directory").unwrap();
    let refused = PostgresStore::open(nowhere, PostgresOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("postgres://vmetal@/nowhere?host=/no/such/directory"), "{refused}");
    assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");

    let mut other = server.clone();
    other.config.dbname("no_such_database");
    let refused = PostgresStore::open(other, PostgresOptions::default()).await.unwrap_err();
    assert!(format!("{refused:?}").contains("no_such_database"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_server_loses_nothing_that_was_acknowledged() {
    // With fsync, as an operator runs it.
    let server = Server::with_settings(Listen::Socket, "").unwrap();
    let url = PostgresUrl::parse(&server.database()).unwrap();
    let options = PostgresOptions { patience: Duration::from_mins(5), ..PostgresOptions::default() };
    let store = PostgresStore::open(url, options).await.unwrap();
    let mut watch = store.watch(Selector::All, Revision::ZERO);
    assert_eq!(watch.next().await.unwrap().unwrap(), Change::Progress(Revision::ZERO));
    let mut done = Vec::new();
    for round in 0..3 {
        let commits = (0..20).map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(Txn::new().put(host(format!("{round}-{number}")), "x")).await })
        });
        let commits: Vec<_> = commits.collect();
        tokio::time::sleep(Duration::from_millis(3)).await;
        let server = &server;
        tokio::task::block_in_place(move || {
            server.crash().unwrap();
            server.restart().unwrap();
        });
        for commit in commits {
            done.push(commit.await.unwrap().unwrap().0);
        }
    }
    done.sort();
    assert_eq!(done, (1..=60).collect::<Vec<_>>(), "each once, without a gap");
    for expected in 1..=60 {
        assert_eq!(watch.next().await.unwrap().unwrap().revision(), Revision(expected));
    }
    assert_eq!(store.list_all(&Selector::All).await.unwrap().items.len(), 60);
}

/// A generator of pseudo-random numbers (SplitMix64); its seed is printed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

#[tokio::test]
async fn commits_over_a_connection_that_is_cut_happen_exactly_once() {
    const COMMITS: u64 = 150;
    // Of so many commits one is made, and its answer lost.
    const LOST: u64 = 15;
    let seed = std::env::var("VMETAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    println!("seed {seed} (VMETAL_SEED)");
    let mut dice = Dice(seed);
    let proxy = Proxy::start(vmetal_test_postgres::shared().socket()).await;
    let options = PostgresOptions { patience: Duration::from_mins(5), ..fresh_schema() };
    let mut url = database();
    proxy.reroute(&mut url);
    let store = PostgresStore::open(url, options.clone()).await.unwrap();
    store.commit(Txn::new().put(host("counter"), "0")).await.unwrap();
    let mut watch = store.watch(Selector::All, Revision(1));
    for count in 1..=COMMITS {
        // Cut after so many bytes from here on, in one direction or the other: sometimes the server gets the commit and
        // we do not get the answer, sometimes it gets only a part.
        if count % LOST == 0 {
            proxy.cut_at_commit();
        } else if dice.roll(3) == 0 {
            proxy.cut_after(dice.roll(2) == 0, dice.roll(1_500));
        }
        // Not idempotent by itself: applied twice, it would fail its guard; lost, the next one would.
        let txn = Txn::new().guard(Guard::Revision(host("counter"), Revision(count)));
        let txn = txn.put(host("counter"), count.to_string()).event(host("counter"), count.to_string());
        let revision = store.commit(txn).await.unwrap_or_else(|error| panic!("commit {count}: {error:?}"));
        assert_eq!(revision, Revision(count + 1));
    }
    let stats = store.stats();
    println!("{stats:?}, {} cuts", proxy.cuts());
    assert!(stats.reconnects > 10 && stats.resolved >= COMMITS / LOST, "{stats:?}");
    let plain = open(&options).await;
    let counter = plain.get(&host("counter")).await.unwrap().unwrap();
    assert_eq!(counter.value, COMMITS.to_string());
    let events = plain.events(&Selector::All, Revision::ZERO, usize::MAX).await.unwrap().events;
    let told: Vec<_> = events.iter().map(|event| String::from_utf8(event.value.to_vec()).unwrap()).collect();
    assert_eq!(told, (1..=COMMITS).map(|count| count.to_string()).collect::<Vec<_>>());
    for expected in 1..=COMMITS {
        assert_eq!(watch.next().await.unwrap().unwrap().revision(), Revision(expected + 1));
    }
}

#[tokio::test]
async fn a_database_that_stays_away_leaves_a_request_to_be_looked_up() {
    let proxy = Proxy::start(vmetal_test_postgres::shared().socket()).await;
    let options = PostgresOptions { patience: Duration::from_secs(1), ..fresh_schema() };
    let mut url = database();
    proxy.reroute(&mut url);
    let store = PostgresStore::open(url, options.clone()).await.unwrap();
    let txn = |name: &str| Txn::new().guard(Guard::Absent(host(name))).put(host(name), "x").request(name);
    store.commit(txn("a")).await.unwrap();
    // The commit reaches the server, the answer does not come back, and the way stays closed.
    proxy.swallow_answers();
    let ambiguous = {
        let commit = store.commit(txn("b"));
        tokio::pin!(commit);
        loop {
            tokio::select! {
                answer = &mut commit => break answer,
                () = tokio::time::sleep(Duration::from_millis(20)) => proxy.close_once_committed().await,
            }
        }
    };
    assert!(matches!(ambiguous, Err(CommitError::Unknown { .. })), "{ambiguous:?}");
    let meanwhile = store.commit(txn("c")).await;
    assert!(matches!(meanwhile, Err(CommitError::Unavailable { .. })), "nothing was sent: {meanwhile:?}");
    proxy.open_again();
    let revision = store.commit(txn("b")).await.unwrap();
    assert_eq!(revision, Revision(2));
    assert_eq!(store.outcome(&RequestId("b".into())).await.unwrap(), Some(Revision(2)));
    assert_eq!(store.revision().await.unwrap(), Revision(2));
}

#[tokio::test]
async fn tls_is_verified() {
    let server = Server::start(Listen::Loopback).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let data = server.directory().join("data");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data).unwrap());
    for (name, text) in [("server.crt", &certificate), ("server.key", &key)] {
        std::fs::write(data.join(name), text).unwrap();
        std::os::unix::fs::chown(data.join(name), Some(owner), None).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(data.join(name), mode).unwrap();
    }
    let config = data.join("postgresql.auto.conf");
    let settings = std::fs::read_to_string(&config).unwrap() + "ssl = on\n";
    std::fs::write(&config, settings).unwrap();
    let database = server.new_database();
    server.stop().unwrap();
    server.restart().unwrap();

    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), certificate).unwrap();
    let url = |options: &str| {
        let port = server.port().unwrap();
        PostgresUrl::parse(&format!("postgres://vmetal@127.0.0.1:{port}/{database}?{options}")).unwrap()
    };
    let trusted = url(&format!("sslmode=verify-full&sslrootcert={}", roots.path().display()));
    let store = PostgresStore::open(trusted, PostgresOptions::default()).await.unwrap();
    store.commit(Txn::new().put(host("a"), "1").event(host("a"), "e")).await.unwrap();
    let mut session = Session::open(store.url(), "vmetal", None).await.unwrap();
    let encrypted = session.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    assert!(encrypted[0].get::<_, bool>(0));

    let unknown = PostgresStore::open(url("sslmode=require"), PostgresOptions::default()).await;
    let why = format!("{:?}", unknown.unwrap_err());
    assert!(why.contains("UnknownIssuer") || why.contains("CaUsedAsEndEntity"), "{why}");
    PostgresStore::open(url("sslmode=disable"), PostgresOptions::default()).await.unwrap();
}

#[tokio::test]
async fn transactions_that_wait_together_share_one_commit() {
    let options = fresh_schema();
    let store = open(&options).await;
    store.commit(Txn::new().put(host("taken"), "x")).await.unwrap();
    // Somebody else is at the head of the line.
    let session = raw(&options).await;
    session.client().batch_execute("BEGIN; SELECT * FROM meta FOR UPDATE").await.unwrap();
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.commit(Txn { events: vec![EventRecord::new(host("x"), "y")], ..Txn::new() }).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = store.stats();
    let commit = |number: usize| {
        let txn = Txn::new().put(host(format!("h{number}")), "x");
        // Every tenth is refused, and takes nobody with it.
        let guard = Guard::Absent(host("taken"));
        store.commit(if number.is_multiple_of(10) { txn.guard(guard) } else { txn })
    };
    let mut commits = Box::pin(join_all((0..100).map(commit)));
    assert!(futures::poll!(commits.as_mut()).is_pending());
    session.client().batch_execute("COMMIT").await.unwrap();
    let results = commits.await;
    assert_eq!(first.await.unwrap().unwrap(), Revision(2));
    let applied: Vec<u64> = results.iter().filter_map(|result| Some(result.as_ref().ok()?.0)).collect();
    assert_eq!(applied, (3..=92).collect::<Vec<_>>(), "in the order in which they were sent, densely");
    assert!(results.iter().step_by(10).all(|result| matches!(result, Err(CommitError::Conflict { .. }))));
    assert_eq!(store.stats().batches - before.batches, 2, "the one that waited and one for all others");
}
