//! A store in one SQLite file.
//!
//! One thread writes. It takes every transaction that is waiting, runs each in a savepoint of one SQLite transaction,
//! commits that once (one `fsync`), and then answers all of them: the price of durability is shared by all who wait for
//! it, and no transaction ever waits for a lock. Other threads read, each from a snapshot of its own, so that a long
//! list holds up neither commits nor other reads.
//!
//! The history and the present are one table: each row is a value that an object had, from the commit that wrote it to
//! the commit that replaced it. That makes a page of an old snapshot, a change to replay for a watcher and the present
//! value the same record with the same checksum.
//!
//! The file belongs to one process, held by a lock on a file beside it, because a second writer would break the two
//! promises that are kept in memory: the order of the feed and the fencing by leases.

mod apply;
mod backup;
mod check;
mod failure;
mod lock;
mod offline;
mod query;
mod reader;
mod row;
mod schema;
mod writer;

#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::Connection;

use crate::error::{BackupError, CommitError, LeaseError, OpenError, ReadError, WatchError};
use crate::feed::{Feed, History, RingLimits};
use crate::key::{Key, Selector};
use crate::lease::{Acquired, Epoch, Lease, Shard};
use crate::record::{Committed, EventPage, List, Page, Stored};
use crate::store::{ChangeStream, Store};
use crate::time::{StoreClock, StoreTime};
use crate::txn::{RequestId, Revision, Txn};

pub use offline::{Existing, Restored, backup_file, check_file, restore_file};

pub(crate) use backup::{Snapshot, write_snapshot};

/// How a SQLite store is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Where store time comes from.
    pub clock: StoreClock,
    /// Width of the feed's ring.
    pub(crate) ring: RingLimits,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self::with_clock(StoreClock::system())
    }
}

impl SqliteOptions {
    /// Options with another clock than the machine's.
    pub fn with_clock(clock: StoreClock) -> Self {
        Self { clock, ring: RingLimits::default() }
    }
}

/// What the writer has done since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transactions (commits, lease operations, compactions) answered.
    pub transactions: u64,
    /// SQLite commits, each one `fsync`, that they took.
    pub batches: u64,
    /// SQLite commits that removed compacted history.
    pub collections: u64,
}

/// A store in one SQLite file. Clones share it. When the last clone is dropped, what is queued is committed and the
/// file is closed and unlocked; the drop waits for that.
#[derive(Clone, Debug)]
pub struct SqliteStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    writer: writer::Handle,
    readers: reader::Pool,
    feed: Arc<Feed>,
    clock: StoreClock,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.feed.close();
        self.readers.close();
        // Last: it owns the lock on the file.
        self.writer.close();
    }
}

impl SqliteStore {
    /// Opens or creates the store at `path` (mode 0600; `path` plus `.lock` is created beside it). Blocks for the
    /// integrity check, which reads the whole file.
    ///
    /// # Errors
    /// See [`OpenError`]; in particular when another process has it open, when a newer engine wrote it, or when the
    /// file is damaged.
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let lock = lock::FileLock::take(&path)?;
        let (connection, marks) = schema::open(&path)?;
        let readers = reader::Pool::start(&path)?;
        let feed = Arc::new(Feed::new(marks.revision, marks.compacted, options.ring));
        let writer = writer::Handle::start(connection, lock, Arc::clone(&feed), options.clock.clone(), marks)
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        Ok(Self(Arc::new(Shared { path, writer, readers, feed, clock: options.clock })))
    }

    /// What the writer has done since the store was opened.
    pub fn stats(&self) -> Stats {
        let counters = self.0.writer.counters();
        Stats {
            transactions: counters.transactions.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            collections: counters.collections.load(Ordering::Relaxed),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.0.readers.read(query).await
    }
}

/// Gives a watcher the past without keeping the store open.
struct Past(Weak<Shared>);

impl History for Past {
    fn read(&self, after: Revision) -> BoxFuture<'_, Result<(Vec<Committed>, Revision), WatchError>> {
        async move {
            let shared = self.0.upgrade().ok_or(WatchError::Closed)?;
            match shared.readers.read(move |connection| query::history(connection, after)).await? {
                query::Past::Commits { commits, upto } => Ok((commits, upto)),
                query::Past::Compacted { oldest } => Err(WatchError::Compacted { oldest }),
            }
        }
        .boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Revision, WatchError>> {
        async move {
            let shared = self.0.upgrade().ok_or(WatchError::Closed)?;
            Ok(shared.readers.read(query::revision).await?)
        }
        .boxed()
    }
}

impl Store for SqliteStore {
    async fn commit(&self, txn: Txn) -> Result<Revision, CommitError> {
        txn.validate()?;
        self.0.writer.call(move |batch| apply::commit(batch, &txn)).await
    }

    async fn outcome(&self, request: &RequestId) -> Result<Option<Revision>, ReadError> {
        let (request, now) = (request.clone(), self.0.clock.now());
        self.read(move |connection| Ok(query::request(connection, &request, now)?)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, ReadError> {
        let key = key.clone();
        self.read(move |connection| query::get(connection, &key)).await
    }

    async fn list(&self, selector: &Selector, page: Page) -> Result<List, ReadError> {
        let selector = selector.clone();
        self.read(move |connection| query::list(connection, &selector, &page)).await
    }

    fn watch(&self, selector: Selector, after: Revision) -> ChangeStream {
        self.0.feed.stream(Arc::new(Past(Arc::downgrade(&self.0))), selector, after)
    }

    async fn events(&self, subject: &Selector, after: Revision, limit: usize) -> Result<EventPage, ReadError> {
        let subject = subject.clone();
        self.read(move |connection| query::events(connection, &subject, after, limit)).await
    }

    async fn latest_events(&self, subject: &Selector, limit: usize) -> Result<EventPage, ReadError> {
        let subject = subject.clone();
        self.read(move |connection| query::latest_events(connection, &subject, limit)).await
    }

    async fn revision(&self) -> Result<Revision, ReadError> {
        self.read(query::revision).await
    }

    async fn now(&self) -> Result<StoreTime, ReadError> {
        Ok(self.0.clock.now())
    }

    async fn compact(&self, before: Revision) -> Result<(), CommitError> {
        self.0.writer.call(move |batch| Ok(batch.compact(before))).await.map(|_: Revision| ())
    }

    async fn forget_events(&self, before: Revision) -> Result<Revision, CommitError> {
        self.0.writer.call(move |batch| Ok(batch.forget_events(before))).await
    }

    async fn backup(&self, to: &Path) -> Result<Revision, BackupError> {
        let to = to.to_owned();
        self.read(move |connection| Ok(backup::copy(connection, &to))).await?
    }

    async fn acquire(&self, shard: Shard, holder: &str, ttl: Duration) -> Result<Acquired, LeaseError> {
        let holder = holder.to_owned();
        self.0.writer.call(move |batch| apply::acquire(batch, shard, &holder, ttl)).await
    }

    async fn renew(&self, shard: Shard, epoch: Epoch, ttl: Duration) -> Result<Lease, LeaseError> {
        self.0.writer.call(move |batch| apply::renew(batch, shard, epoch, ttl)).await
    }

    async fn release(&self, shard: Shard, epoch: Epoch) -> Result<(), LeaseError> {
        self.0.writer.call(move |batch| apply::release(batch, shard, epoch)).await
    }
}
