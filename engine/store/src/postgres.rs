//! A store in a PostgreSQL database that several engines share.
//!
//! Each engine has one task that writes ([`writer`]): it commits what is waiting as one transaction, and engines get in
//! line for the row that counts revisions. Reads go past the line, each from a snapshot of its own. Watches are fed with
//! this engine's own commits as they are made and with those of others as they are noticed ([`follow`]).
//!
//! The tables are those of the SQLite store, checksums included, and so are the rules: they are the model's, applied to
//! what the database says ([`plan`]). Store time is the clock of the server, which all engines have in common.

mod address;
mod failure;
mod follow;
mod plan;
mod pool;
mod query;
mod rows;
mod schema;
mod session;
#[cfg(test)]
mod tests;
mod tls;
mod writer;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::check::CheckReport;
use crate::error::{BackupError, CommitError, LeaseError, OpenError, ReadError, WatchError};
use crate::feed::{Feed, History, Pace, RingLimits};
use crate::key::{Key, Selector};
use crate::lease::{Acquired, Epoch, Lease, Shard};
use crate::record::{Committed, EventPage, List, Page, Stored};
use crate::store::{ChangeStream, Store};
use crate::time::{StoreClock, StoreTime};
use crate::txn::{RequestId, Revision, Txn};

pub use address::PostgresUrl;
use failure::Failure;
use follow::Follower;
use plan::Operation;
use pool::{Pool, ask};
use session::Session;
use writer::{Counters, Writer};

/// Longer than a database takes to restart, shorter than a lease.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the counter of revisions is looked at, whether or not a notification came.
const POLL: Duration = Duration::from_secs(1);

/// How a PostgreSQL store is opened.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The schema that holds the tables: a database can hold several stores, and other things besides.
    pub schema: String,
    /// How long operations wait for a database that is away before they fail.
    pub patience: Duration,
    /// Where store time comes from; `None`: from the server, which is right whenever more than one engine is there.
    pub(crate) clock: Option<StoreClock>,
    /// Width of the feed's ring.
    pub(crate) ring: RingLimits,
    /// How often commits of other engines are looked for, besides when they are told.
    pub(crate) poll: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        let ring = RingLimits::default();
        Self { schema: "vmetal".to_owned(), patience: PATIENCE, clock: None, ring, poll: POLL }
    }
}

impl PostgresOptions {
    /// The time that counts, where the server says `server`.
    fn now(&self, server: StoreTime) -> StoreTime {
        self.clock.as_ref().map_or(server, StoreClock::now)
    }
}

/// What the writer has done since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostgresStats {
    /// Operations (commits, lease operations, compactions) taken.
    pub operations: u64,
    /// Transactions committed for them.
    pub batches: u64,
    /// Connections of the writer that were opened, after the first.
    pub reconnects: u64,
    /// Batches whose connection was lost during the commit and that were looked up afterwards.
    pub resolved: u64,
    /// Times that commits were read back for the watchers: those of other engines, or for slow watchers.
    pub history_reads: u64,
}

/// A store in a PostgreSQL database. Clones share it. When the last clone is dropped, what is queued is still committed,
/// in the background, as long as the runtime lives.
#[derive(Clone)]
pub struct PostgresStore(Arc<Shared>);

struct Shared {
    url: PostgresUrl,
    operations: mpsc::Sender<Operation>,
    pool: Arc<Pool>,
    feed: Arc<Feed>,
    options: PostgresOptions,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PostgresStore").field(&self.0.url).finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.feed.close();
    }
}

impl OpenError {
    fn from_failure(url: &PostgresUrl, failure: Failure) -> Self {
        let server = url.to_string();
        match failure {
            Failure::Corrupt(what) => Self::Unsuitable { server, what: format!("the store is damaged: {what}") },
            Failure::Full => Self::Unsuitable { server, what: "no space is left on it".to_owned() },
            Failure::Lost(source) | Failure::Refused(source) => Self::Connect { server, source },
        }
    }
}

impl PostgresStore {
    /// Connects, and makes the tables if they are not there. The store lives on the runtime that this is called on.
    ///
    /// # Errors
    /// See [`OpenError`]; in particular when the database cannot be reached, is a standby, or was written by a newer
    /// engine.
    pub async fn open(url: PostgresUrl, options: PostgresOptions) -> Result<Self, OpenError> {
        let failed = |failure| OpenError::from_failure(&url, failure);
        let mut session = Session::open(&url, &options.schema, None).await.map_err(failed)?;
        let (meta, engine) = schema::open(&mut session, &url, &options.schema).await?;
        let feed = Arc::new(Feed::new(meta.revision, meta.compacted, options.ring));
        let pool = Arc::new(Pool::new(url.clone(), options.schema.clone()));
        let counters = Arc::new(Counters::default());
        let (missed, missing) = mpsc::channel(1);
        let (operations, queue) = mpsc::channel(writer::QUEUE);
        let writer = Writer {
            url: url.clone(),
            options: options.clone(),
            session: Some(session),
            engine: engine.clone(),
            batch: 0,
            garbage: meta.compacted > Revision::ZERO,
            feed: Arc::clone(&feed),
            follower: missed,
            counters: Arc::clone(&counters),
        };
        let follower = Follower {
            url: url.clone(),
            schema: options.schema.clone(),
            poll: options.poll,
            engine,
            pool: Arc::clone(&pool),
            feed: Arc::clone(&feed),
            missing,
            counters: Arc::clone(&counters),
        };
        // They end by themselves: the writer when all handles are gone, the follower after the writer.
        tokio::spawn(writer.run(queue));
        tokio::spawn(follower.run());
        Ok(Self(Arc::new(Shared { url, operations, pool, feed, options, counters })))
    }

    /// The same, but makes no tables: for looking at a store that has to be there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_existing(url: PostgresUrl, options: PostgresOptions) -> Result<Self, OpenError> {
        let failed = |failure| OpenError::from_failure(&url, failure);
        let mut session = Session::open(&url, &options.schema, None).await.map_err(failed)?;
        if !schema::exists(&mut session, &options.schema).await.map_err(failed)? {
            let what = format!("there is no store in its schema {}", options.schema);
            return Err(OpenError::Unsuitable { server: url.to_string(), what });
        }
        Self::open(url, options).await
    }

    /// What the writer has done since the store was opened.
    pub fn stats(&self) -> PostgresStats {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        PostgresStats {
            operations: read(&counters.operations),
            batches: read(&counters.batches),
            reconnects: read(&counters.reconnects),
            resolved: read(&counters.resolved),
            history_reads: read(&counters.history_reads),
        }
    }

    /// Checks every record and the chain of revisions, while engines go on. For indexes and pages, PostgreSQL has
    /// `pg_amcheck` and `pg_checksums`.
    ///
    /// # Errors
    /// When the database cannot be read. What is wrong inside is in the report.
    pub async fn check(&self) -> Result<CheckReport, ReadError> {
        ask!(&self.0.pool, session => query::check(session))
    }

    /// Where it is, without the password.
    pub fn url(&self) -> &PostgresUrl {
        &self.0.url
    }

    /// Hands an operation to the writer and waits for the answer.
    async fn write<T, E: From<CommitError>>(
        &self,
        operation: impl FnOnce(plan::Reply<T, E>) -> Operation,
    ) -> Result<T, E> {
        let stopped = || CommitError::Unavailable { reason: "the store's writer has stopped".to_owned(), source: None };
        let lost = || CommitError::Unknown { reason: "the store's writer stopped".to_owned(), source: None };
        let (reply, answer) = oneshot::channel();
        self.0.operations.send(operation(reply)).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(lost().into()))
    }
}

/// Gives a watcher the past without keeping the store open.
struct Past(Weak<Shared>);

impl History for Past {
    fn read(&self, after: Revision) -> BoxFuture<'_, Result<(Vec<Committed>, Revision), WatchError>> {
        async move {
            let shared = self.0.upgrade().ok_or(WatchError::Closed)?;
            shared.counters.history_reads.fetch_add(1, Ordering::Relaxed);
            match shared.pool.history(after).await? {
                query::Past::Commits { commits, upto } => Ok((commits, upto)),
                query::Past::Compacted { oldest } => Err(WatchError::Compacted { oldest }),
            }
        }
        .boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Revision, WatchError>> {
        async move {
            let shared = self.0.upgrade().ok_or(WatchError::Closed)?;
            Ok(shared.pool.meta().await?.revision)
        }
        .boxed()
    }

    fn pace(&self) -> Pace {
        Pace::Later
    }
}

impl Store for PostgresStore {
    async fn commit(&self, txn: Txn) -> Result<Revision, CommitError> {
        txn.validate()?;
        self.write(|reply| Operation::Commit(Box::new(txn), reply)).await
    }

    async fn outcome(&self, request: &RequestId) -> Result<Option<Revision>, ReadError> {
        let answer = self.write(|reply| Operation::Outcome(request.clone(), reply)).await;
        answer.map_err(|error: CommitError| match error {
            CommitError::Corrupt { what } => ReadError::Corrupt { what },
            CommitError::Unavailable { reason, source } => ReadError::Unavailable { reason, source },
            other => ReadError::Unavailable { reason: other.to_string(), source: None },
        })
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, ReadError> {
        ask!(&self.0.pool, session => query::get(session, key))
    }

    async fn list(&self, selector: &Selector, page: Page) -> Result<List, ReadError> {
        ask!(&self.0.pool, session => query::list(session, selector, &page))
    }

    fn watch(&self, selector: Selector, after: Revision) -> ChangeStream {
        self.0.feed.stream(Arc::new(Past(Arc::downgrade(&self.0))), selector, after)
    }

    async fn events(&self, subject: &Selector, after: Revision, limit: usize) -> Result<EventPage, ReadError> {
        ask!(&self.0.pool, session => query::events(session, subject, after, limit))
    }

    async fn latest_events(&self, subject: &Selector, limit: usize) -> Result<EventPage, ReadError> {
        ask!(&self.0.pool, session => query::latest_events(session, subject, limit))
    }

    async fn revision(&self) -> Result<Revision, ReadError> {
        Ok(self.0.pool.meta().await?.revision)
    }

    async fn now(&self) -> Result<StoreTime, ReadError> {
        match &self.0.options.clock {
            Some(clock) => Ok(clock.now()),
            None => Ok(self.0.pool.meta().await?.now),
        }
    }

    async fn compact(&self, before: Revision) -> Result<(), CommitError> {
        self.write(|reply| Operation::Compact(before, reply)).await
    }

    async fn forget_events(&self, before: Revision) -> Result<Revision, CommitError> {
        self.write(|reply| Operation::ForgetEvents(before, reply)).await
    }

    /// Refused: PostgreSQL's own tools make better copies, and say how to restore them.
    async fn backup(&self, _to: &Path) -> Result<Revision, BackupError> {
        Err(BackupError::Elsewhere { server: self.0.url.to_string(), schema: self.0.options.schema.clone() })
    }

    async fn acquire(&self, shard: Shard, holder: &str, ttl: Duration) -> Result<Acquired, LeaseError> {
        self.write(|reply| Operation::Acquire(shard, holder.to_owned(), ttl, reply)).await
    }

    async fn renew(&self, shard: Shard, epoch: Epoch, ttl: Duration) -> Result<Lease, LeaseError> {
        self.write(|reply| Operation::Renew(shard, epoch, ttl, reply)).await
    }

    async fn release(&self, shard: Shard, epoch: Epoch) -> Result<(), LeaseError> {
        self.write(|reply| Operation::Release(shard, epoch, reply)).await
    }
}
