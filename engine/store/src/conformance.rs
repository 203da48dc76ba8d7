//! What every store must do, run against each of them.
//!
//! [`cases`] states the promises of [`crate::Store`] one by one; [`model`] sends random transactions, restarts included,
//! to a store and to the model in memory and compares every answer. A new store is added to the list at the end.

mod cases;
mod model;
mod watching;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tempfile::TempDir;

use crate::{AnyStore, OpenError, PostgresOptions, PostgresUrl, SqliteOptions, SqliteStore, StoreClock, StoreTime};

/// A time that only tests move.
#[derive(Clone, Debug)]
pub(crate) struct ManualTime(Arc<AtomicU64>);

impl ManualTime {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_700_000_000_000)))
    }

    pub(crate) fn clock(&self) -> StoreClock {
        let time = self.clone();
        StoreClock::from_fn(move || time.now())
    }

    pub(crate) fn now(&self) -> StoreTime {
        StoreTime(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

/// An empty store of some kind, and what it needs to live.
pub(crate) struct Bench {
    pub(crate) store: AnyStore,
    pub(crate) time: ManualTime,
    /// Also where backups go.
    pub(crate) dir: TempDir,
    home: Home,
}

/// Where a store is when it is closed.
enum Home {
    Memory,
    Sqlite,
    Postgres(PostgresOptions),
}

/// The database of this process. Each bench has a schema of its own in it.
pub(crate) fn database() -> PostgresUrl {
    static DATABASE: LazyLock<String> = LazyLock::new(|| vmetal_test_postgres::shared().database());
    PostgresUrl::parse(&DATABASE).unwrap()
}

/// Options with an empty schema.
pub(crate) fn fresh_schema() -> PostgresOptions {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    PostgresOptions { schema: format!("bench_{number}"), ..PostgresOptions::default() }
}

/// Opens a store that this process may just have closed. The lock is the file's, and a program that another test starts at
/// the same moment has a copy of every open file from its fork to its exec: for so long the lock outlives its owner.
pub(crate) fn open_when_free(path: &Path, options: &SqliteOptions) -> Result<SqliteStore, OpenError> {
    for _ in 0..6_000 {
        match SqliteStore::open(path, options.clone()) {
            Err(OpenError::Locked { .. }) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened,
        }
    }
    SqliteStore::open(path, options.clone())
}

impl Bench {
    fn with(home: Home, time: ManualTime) -> Self {
        let store = AnyStore::memory(time.clock());
        Self { store, time, dir: tempfile::tempdir().unwrap(), home }
    }

    pub(crate) async fn memory() -> Self {
        Self::with(Home::Memory, ManualTime::new())
    }

    pub(crate) async fn sqlite() -> Self {
        let mut bench = Self::with(Home::Sqlite, ManualTime::new());
        bench.reopen().await;
        bench
    }

    pub(crate) async fn postgres() -> Self {
        let time = ManualTime::new();
        let options = PostgresOptions { clock: Some(time.clock()), ..fresh_schema() };
        let mut bench = Self::with(Home::Postgres(options), time);
        bench.reopen().await;
        bench
    }

    /// Closes the store and opens it again, as a restarted process would.
    pub(crate) async fn reopen(&mut self) {
        // A lock or a connection of the old one must not be in the way of the new one.
        drop(std::mem::replace(&mut self.store, AnyStore::memory(self.time.clock())));
        self.store = match &self.home {
            Home::Memory => panic!("a store in memory does not survive"),
            Home::Sqlite => {
                let options = SqliteOptions::with_clock(self.time.clock());
                AnyStore::Sqlite(open_when_free(&self.dir.path().join("store.db"), &options).unwrap())
            }
            Home::Postgres(options) => AnyStore::connect(database(), options.clone()).await.unwrap(),
        };
    }
}

/// Makes a test of each case for each store.
macro_rules! suite {
    ($($module:ident :: { $($case:ident),* $(,)? }),* $(,)?) => {
        suite!(@on memory $($($module::$case)*)*);
        suite!(@on sqlite $($($module::$case)*)*);
        suite!(@on postgres $($($module::$case)*)*);
    };
    (@on $store:ident $($module:ident :: $case:ident)*) => {
        mod $store {
            $(#[tokio::test]
            async fn $case() {
                super::$module::$case(super::Bench::$store().await).await;
            })*
        }
    };
}

suite! {
    cases::{
        revisions_are_dense,
        a_lost_guard_changes_nothing,
        a_unique_entry_has_one_holder,
        unique_entries_can_be_swapped,
        a_request_is_applied_once,
        asking_takes_no_revision,
        an_unacceptable_transaction_is_refused,
        a_list_is_one_snapshot,
        a_page_is_bounded_in_bytes,
        a_list_selects,
        a_compacted_snapshot_expires,
        events_are_read_in_whole_commits,
        events_outlive_compaction_until_forgotten,
        leases_fence,
        concurrent_increments_are_not_lost,
        a_backup_is_a_store,
        a_recreated_object_is_new,
    },
    watching::{
        a_watch_delivers_every_commit_once,
        a_watch_selects_and_marks_progress,
        a_watch_cannot_reach_behind_compaction,
        a_waiting_watch_survives_compaction,
        a_watch_of_the_future_is_refused,
        a_watch_ends_with_the_store,
    },
}
