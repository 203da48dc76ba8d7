//! The one thread that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::failure::{Failure, Stop};
use super::lock::FileLock;
use super::schema::Marks;
use crate::error::CommitError;
use crate::feed::Feed;
use crate::record::Committed;
use crate::time::{StoreClock, StoreTime};
use crate::txn::Revision;

/// Most operations in one SQLite transaction.
const BATCH: usize = 1_024;
/// Operations that may wait; whoever comes next waits for a place.
const QUEUE: usize = 4_096;
/// Rows of compacted history removed in one SQLite transaction, so that commits need not wait long.
const COLLECT: u32 = 1_000;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) transactions: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) collections: AtomicU64,
}

/// The callers' end of the writer.
#[derive(Debug)]
pub(super) struct Handle {
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
}

impl Handle {
    /// Starts the thread. It owns the connection and the lock until it ends.
    pub(super) fn start(
        connection: Connection,
        lock: FileLock,
        feed: Arc<Feed>,
        clock: StoreClock,
        marks: Marks,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let counters = Arc::new(Counters::default());
        // History that was being removed when the store was closed is removed now.
        let garbage = marks.compacted > Revision::ZERO;
        let writer = Writer {
            connection,
            feed,
            clock,
            marks,
            garbage,
            failed: None,
            counters: Arc::clone(&counters),
            _lock: lock,
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run(queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), counters })
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Runs `operation` in the next batch and returns its result once the batch is durable.
    pub(super) async fn call<T, E>(
        &self,
        operation: impl FnMut(&mut Batch<'_>) -> Result<T, Stop<E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<CommitError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        self.submit(Box::new(Call { operation, result: None, reply })).await?;
        let lost = || CommitError::Unknown { reason: "the store's writer stopped".to_owned(), source: None };
        result.await.unwrap_or_else(|_| Err(lost().into()))
    }

    pub(super) async fn submit(&self, job: Box<dyn Job>) -> Result<(), CommitError> {
        let stopped = || CommitError::Unavailable { reason: "the store's writer has stopped".to_owned(), source: None };
        self.jobs.as_ref().ok_or_else(stopped)?.send(job).await.map_err(|_| stopped())
    }

    /// Waits until everything queued is done and the file is closed.
    pub(super) fn close(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

/// One operation on its way through a batch. It may be applied more than once before it is finished, if a batch that
/// it was part of failed.
pub(super) trait Job: Send {
    /// Applies it; `Ok(false)`: it was refused and must leave nothing behind.
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<bool, Failure>;
    /// Answers the caller.
    fn finish(self: Box<Self>, durable: Result<(), CommitError>);
}

struct Call<F, T, E> {
    operation: F,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Job for Call<F, T, E>
where
    F: FnMut(&mut Batch<'_>) -> Result<T, Stop<E>> + Send,
    T: Send,
    E: From<CommitError> + Send,
{
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<bool, Failure> {
        let result = match (self.operation)(batch) {
            Ok(value) => Ok(value),
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Failed(failure)) => return Err(failure),
        };
        let applied = result.is_ok();
        self.result = Some(result);
        Ok(applied)
    }

    fn finish(self: Box<Self>, durable: Result<(), CommitError>) {
        let result = match (durable, self.result) {
            (Ok(()), Some(result)) => result,
            (Err(error), _) => Err(error.into()),
            // Dropping the sender tells the caller that the outcome is unknown.
            (Ok(()), None) => return,
        };
        // A caller that has gone away does not undo the commit.
        let _ = self.reply.send(result);
    }
}

/// The SQLite transaction under way.
pub(super) struct Batch<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now: StoreTime,
    pub(super) marks: Marks,
    pub(super) committed: Vec<Committed>,
}

impl Batch<'_> {
    /// Moves the compaction mark; the rows go later.
    pub(super) fn compact(&mut self, before: Revision) -> Revision {
        self.marks.compacted = self.marks.compacted.max(before.min(self.marks.revision));
        self.marks.compacted
    }

    /// Moves the mark of the events; the rows go later.
    pub(super) fn forget_events(&mut self, before: Revision) -> Revision {
        self.marks.forgotten = self.marks.forgotten.max(before.min(self.marks.compacted));
        self.marks.forgotten
    }

    /// Runs one job so that it leaves a trace only if it is applied.
    fn run(&mut self, job: &mut dyn Job) -> Result<(), Failure> {
        let (marks, commits) = (self.marks, self.committed.len());
        self.connection.prepare_cached("SAVEPOINT job")?.execute([])?;
        if !job.apply(self)? {
            self.connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
            self.marks = marks;
            self.committed.truncate(commits);
        }
        self.connection.prepare_cached("RELEASE job")?.execute([])?;
        Ok(())
    }
}

struct Writer {
    connection: Connection,
    feed: Arc<Feed>,
    clock: StoreClock,
    marks: Marks,
    /// Rows before the marks may still be there.
    garbage: bool,
    /// Why no more commits are taken.
    failed: Option<String>,
    counters: Arc<Counters>,
    /// Dropped after the connection.
    _lock: FileLock,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        loop {
            if self.garbage {
                self.collect();
            }
            let first = if self.garbage {
                match queue.try_recv() {
                    Ok(job) => job,
                    Err(mpsc::error::TryRecvError::Empty) => continue,
                    Err(mpsc::error::TryRecvError::Disconnected) => break,
                }
            } else {
                match queue.blocking_recv() {
                    Some(job) => job,
                    None => break,
                }
            };
            let mut jobs = vec![first];
            while jobs.len() < BATCH
                && let Ok(job) = queue.try_recv()
            {
                jobs.push(job);
            }
            self.batch(jobs);
        }
        if let Err(error) = self.connection.pragma_query_value(None, "optimize", |_| Ok(())).or_else(none_is_fine) {
            tracing::warn!(%error, "the store could not be tidied up before closing");
        }
    }

    /// Commits all jobs as one SQLite transaction. If the store fails on one of them, each is tried alone, so that a
    /// damaged record or a full disk is reported to those that it concerns.
    fn batch(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        if let Some(why) = &self.failed {
            for job in jobs {
                job.finish(Err(CommitError::Unavailable { reason: why.clone(), source: None }));
            }
            return;
        }
        match self.try_batch(&mut jobs) {
            Ok(()) => self.finish(jobs, &Ok(())),
            Err(Abort::Commit(failure)) => {
                if !matches!(failure, Failure::Full) {
                    // The log may hold what the database does not know to be committed; only recovery can tell.
                    tracing::error!(?failure, "a commit failed; the store takes no more until it is opened again");
                    self.failed =
                        Some("an earlier commit failed on the disk; check it and restart the engine".to_owned());
                }
                self.finish(jobs, &Err(failure.at_commit()));
            }
            Err(Abort::Apply(_)) if jobs.len() > 1 => jobs.into_iter().for_each(|job| self.batch(vec![job])),
            Err(Abort::Apply(failure)) => self.finish(jobs, &Err(failure.not_applied())),
        }
    }

    fn finish(&self, jobs: Vec<Box<dyn Job>>, durable: &Result<(), CommitError>) {
        self.counters.transactions.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        for job in jobs {
            job.finish(durable.clone());
        }
    }

    fn try_batch(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), Abort> {
        let mut batch =
            Batch { connection: &self.connection, now: self.clock.now(), marks: self.marks, committed: Vec::new() };
        let applied = self.connection.execute_batch("BEGIN IMMEDIATE").map_err(Failure::from).and_then(|()| {
            jobs.iter_mut().try_for_each(|job| batch.run(job.as_mut()))?;
            if batch.marks != self.marks {
                batch.marks.write(&self.connection)?;
            }
            Ok(())
        });
        if let Err(failure) = applied {
            self.rollback();
            return Err(Abort::Apply(failure));
        }
        if let Err(error) = self.connection.execute_batch("COMMIT") {
            self.rollback();
            return Err(Abort::Commit(error.into()));
        }
        let Batch { marks, committed, .. } = batch;
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        if marks.compacted > self.marks.compacted {
            self.feed.compact(marks.compacted);
            self.garbage = true;
        }
        self.garbage |= marks.forgotten > self.marks.forgotten;
        self.marks = marks;
        // Before anyone is answered, so that a watcher sees what its own commit did.
        self.feed.publish(committed);
        Ok(())
    }

    fn rollback(&self) {
        // Some failures have already ended the transaction.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }

    /// Removes some of the history before the marks.
    fn collect(&mut self) {
        match self.try_collect() {
            Ok(more) => self.garbage = more,
            Err(error) => {
                self.rollback();
                self.garbage = false;
                tracing::warn!(%error, "compacted history could not be removed; it is tried again after the next compaction");
            }
        }
    }

    fn try_collect(&self) -> rusqlite::Result<bool> {
        let remove = |table_id: &str, rows: &str, mark: Revision| {
            let sql = format!("DELETE FROM {table_id} IN (SELECT {rows} LIMIT {COLLECT})");
            self.connection.prepare_cached(&sql)?.execute([mark])
        };
        let compacted = self.marks.compacted;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let removed = [
            remove("version WHERE id", "id FROM version WHERE until <= ?1", compacted)?,
            remove(
                "version WHERE id",
                "id FROM version WHERE until IS NULL AND value IS NULL AND revision <= ?1",
                compacted,
            )?,
            remove(
                "event WHERE (revision, ordinal)",
                "revision, ordinal FROM event WHERE revision <= ?1",
                self.marks.forgotten,
            )?,
        ];
        self.connection.execute_batch("COMMIT")?;
        self.counters.collections.fetch_add(1, Ordering::Relaxed);
        Ok(removed.contains(&(COLLECT as usize)))
    }
}

/// Where a batch failed.
enum Abort {
    /// Before the commit: nothing is durable.
    Apply(Failure),
    /// In the commit.
    Commit(Failure),
}

fn none_is_fine(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    }
}
