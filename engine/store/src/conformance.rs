//! What every store must do, run against each of them.
//!
//! [`cases`] states the promises of [`crate::Store`] one by one; [`model`] sends random transactions, restarts included,
//! to a store and to the model in memory and compares every answer. A new store is added to the list at the end.

mod cases;
mod model;
mod watching;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::{AnyStore, SqliteOptions, StoreClock, StoreTime};

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
}

impl Bench {
    pub(crate) fn memory() -> Self {
        let time = ManualTime::new();
        Self { store: AnyStore::memory(time.clock()), time, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn sqlite() -> Self {
        let (time, dir) = (ManualTime::new(), tempfile::tempdir().unwrap());
        let store = AnyStore::open(dir.path().join("store.db"), SqliteOptions::with_clock(time.clock())).unwrap();
        Self { store, time, dir }
    }
}

/// Makes a test of each case for each store.
macro_rules! suite {
    ($($module:ident :: { $($case:ident),* $(,)? }),* $(,)?) => {
        mod memory {
            $($(#[tokio::test]
            async fn $case() {
                super::$module::$case(super::Bench::memory()).await;
            })*)*
        }

        mod sqlite {
            $($(#[tokio::test]
            async fn $case() {
                super::$module::$case(super::Bench::sqlite()).await;
            })*)*
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
