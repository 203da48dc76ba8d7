//! The trait every store implements, and the handle the engine passes around.

use std::future::Future;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use futures::stream::BoxStream;

use crate::error::{BackupError, CommitError, LeaseError, OpenError, ReadError, WatchError};
use crate::intercept::InterceptedStore;
use crate::key::{Key, Selector};
use crate::lease::{Acquired, Epoch, Lease, Shard};
use crate::memory::MemoryStore;
use crate::postgres::{PostgresOptions, PostgresStore, PostgresUrl};
use crate::record::{Change, EventPage, List, Page, Stored};
use crate::sqlite::{SqliteOptions, SqliteStore};
use crate::time::{StoreClock, StoreTime};
use crate::txn::{RequestId, Revision, Txn};

/// What [`Store::watch`] returns. It does not keep the store open: after the last handle is dropped it ends with
/// [`WatchError::Closed`].
pub type ChangeStream = BoxStream<'static, Result<Change, WatchError>>;

/// A transactional store with one total order of commits.
///
/// The trait is used through [`AnyStore`], so its futures need no boxing; all of them are `Send`.
pub trait Store: Send + Sync + 'static {
    /// Applies all parts of `txn` at one revision, or none. Returns after the commit is durable.
    ///
    /// A transaction whose request id was committed within the last 24 hours is not applied again, whatever it holds:
    /// the revision of that commit is returned. Dropping the future does not undo the commit.
    ///
    /// # Errors
    /// See [`CommitError`]; only [`CommitError::Unknown`] may have been applied.
    fn commit(&self, txn: Txn) -> impl Future<Output = Result<Revision, CommitError>> + Send;

    /// The revision that a request id was committed at, if it was within the last 24 hours.
    fn outcome(&self, request: &RequestId) -> impl Future<Output = Result<Option<Revision>, ReadError>> + Send;

    /// One object. Linearizable: never older than any commit that returned before the call began.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<Stored>, ReadError>> + Send;

    /// The selected objects at one revision, ordered by key, in pages. The first page picks the present; later pages
    /// read the same snapshot.
    ///
    /// # Errors
    /// [`ReadError::Expired`] when the snapshot was compacted away between two pages.
    fn list(&self, selector: &Selector, page: Page) -> impl Future<Output = Result<List, ReadError>> + Send;

    /// All selected objects at one revision, however many pages that takes.
    fn list_all(&self, selector: &Selector) -> impl Future<Output = Result<List, ReadError>> + Send {
        async move {
            let most = NonZeroUsize::new(Page::MOST).unwrap_or(NonZeroUsize::MIN);
            let mut all = self.list(selector, Page::first(most)).await?;
            while let Some(token) = all.next.take() {
                let page = self.list(selector, Page::after(most, token)).await?;
                all.items.extend(page.items);
                all.next = page.next;
            }
            Ok(all)
        }
    }

    /// Every commit after `after` that touched something selected: in order, whole, exactly once; between them, marks
    /// that say how far the stream is. Ends after its first error.
    fn watch(&self, selector: Selector, after: Revision) -> ChangeStream;

    /// Events about the selected subjects after `after`, oldest first. Returns whole commits and stops at the first
    /// end of a commit at or past `limit` events, so the revision of the last event is where to go on from.
    fn events(
        &self,
        subject: &Selector,
        after: Revision,
        limit: usize,
    ) -> impl Future<Output = Result<EventPage, ReadError>> + Send;

    /// The newest `limit` events about the selected subjects, oldest first.
    fn latest_events(
        &self,
        subject: &Selector,
        limit: usize,
    ) -> impl Future<Output = Result<EventPage, ReadError>> + Send;

    /// The newest revision.
    fn revision(&self) -> impl Future<Output = Result<Revision, ReadError>> + Send;

    /// Time as the store sees it. For leases and display.
    fn now(&self) -> impl Future<Output = Result<StoreTime, ReadError>> + Send;

    /// Gives up the values that were replaced at or before `before` (at most the present revision). Snapshots and
    /// watches from before it end; objects and events stay.
    fn compact(&self, before: Revision) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Gives up the events at or before `before`, but none that a watch could still need: returns the revision up to
    /// which events were forgotten, which is never past the last compaction.
    fn forget_events(&self, before: Revision) -> impl Future<Output = Result<Revision, CommitError>> + Send;

    /// Writes a consistent copy of the whole store to a new file that [`AnyStore::open`] can open, and returns the
    /// revision it holds. Commits go on meanwhile.
    fn backup(&self, to: &Path) -> impl Future<Output = Result<Revision, BackupError>> + Send;

    /// Takes the lease of a shard that nobody holds, whose lease has expired, or that the same holder has (a restart:
    /// the old self is fenced like anyone else). The epoch grows by one.
    fn acquire(
        &self,
        shard: Shard,
        holder: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<Acquired, LeaseError>> + Send;

    /// Extends a lease to `ttl` from now. An expired lease that nobody took meanwhile can be renewed.
    fn renew(
        &self,
        shard: Shard,
        epoch: Epoch,
        ttl: Duration,
    ) -> impl Future<Output = Result<Lease, LeaseError>> + Send;

    /// Gives a lease up, so that the next holder need not wait. Call it only with no effect in flight.
    fn release(&self, shard: Shard, epoch: Epoch) -> impl Future<Output = Result<(), LeaseError>> + Send;
}

/// Whichever store the engine was started with. Clones share it.
#[derive(Clone, Debug)]
pub enum AnyStore {
    /// The model: nothing survives the process.
    Memory(MemoryStore),
    /// One file, one engine.
    Sqlite(SqliteStore),
    /// The model, with somebody in between: simulations.
    Intercepted(InterceptedStore),
    /// One database, several engines.
    Postgres(PostgresStore),
}

impl AnyStore {
    /// A new, empty store in memory.
    pub fn memory(clock: StoreClock) -> Self {
        Self::Memory(MemoryStore::new(clock))
    }

    /// Opens or creates a SQLite store. Blocks for the integrity check, which reads the whole file.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, OpenError> {
        SqliteStore::open(path, options).map(Self::Sqlite)
    }

    /// Opens or creates a store in a PostgreSQL database. It lives on the runtime that this is called on.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn connect(url: PostgresUrl, options: PostgresOptions) -> Result<Self, OpenError> {
        PostgresStore::open(url, options).await.map(Self::Postgres)
    }
}

/// Calls the same method of whichever store this is.
macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Memory($store) => $call,
            Self::Sqlite($store) => $call,
            Self::Intercepted($store) => $call,
            Self::Postgres($store) => $call,
        }
    };
}

impl Store for AnyStore {
    async fn commit(&self, txn: Txn) -> Result<Revision, CommitError> {
        each!(self, store => store.commit(txn).await)
    }

    async fn outcome(&self, request: &RequestId) -> Result<Option<Revision>, ReadError> {
        each!(self, store => store.outcome(request).await)
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, ReadError> {
        each!(self, store => store.get(key).await)
    }

    async fn list(&self, selector: &Selector, page: Page) -> Result<List, ReadError> {
        each!(self, store => store.list(selector, page).await)
    }

    fn watch(&self, selector: Selector, after: Revision) -> ChangeStream {
        each!(self, store => store.watch(selector, after))
    }

    async fn events(&self, subject: &Selector, after: Revision, limit: usize) -> Result<EventPage, ReadError> {
        each!(self, store => store.events(subject, after, limit).await)
    }

    async fn latest_events(&self, subject: &Selector, limit: usize) -> Result<EventPage, ReadError> {
        each!(self, store => store.latest_events(subject, limit).await)
    }

    async fn revision(&self) -> Result<Revision, ReadError> {
        each!(self, store => store.revision().await)
    }

    async fn now(&self) -> Result<StoreTime, ReadError> {
        each!(self, store => store.now().await)
    }

    async fn compact(&self, before: Revision) -> Result<(), CommitError> {
        each!(self, store => store.compact(before).await)
    }

    async fn forget_events(&self, before: Revision) -> Result<Revision, CommitError> {
        each!(self, store => store.forget_events(before).await)
    }

    async fn backup(&self, to: &Path) -> Result<Revision, BackupError> {
        each!(self, store => store.backup(to).await)
    }

    async fn acquire(&self, shard: Shard, holder: &str, ttl: Duration) -> Result<Acquired, LeaseError> {
        each!(self, store => store.acquire(shard, holder, ttl).await)
    }

    async fn renew(&self, shard: Shard, epoch: Epoch, ttl: Duration) -> Result<Lease, LeaseError> {
        each!(self, store => store.renew(shard, epoch, ttl).await)
    }

    async fn release(&self, shard: Shard, epoch: Epoch) -> Result<(), LeaseError> {
        each!(self, store => store.release(shard, epoch).await)
    }
}
