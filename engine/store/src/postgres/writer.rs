//! The one task that writes.
//!
//! It takes all operations that are waiting and commits them as one transaction of three round trips: begin and lock,
//! load what they depend on, write and commit. The lock is that of the row of `meta`, which also holds the counter of
//! revisions: reading the counter and getting in line are one step, the line lasts exactly as long as the transaction,
//! and revisions are dense over all engines because a transaction that comes to nothing leaves the counter alone. (An
//! advisory lock would need a second statement, a key that no other program uses, and would tell an operator nothing.)
//!
//! A connection that is lost during the commit leaves open what became of it. Each batch therefore writes its number
//! beside its engine's name into `writer`. The new connection takes the lock first, and because the old transaction held
//! it, that transaction has then ended one way or the other, however late its commit arrived: the number says which. So a
//! batch is neither lost nor done twice, and no caller has to care. Only when the database stays away for longer than the
//! options' patience are the callers told that the outcome is unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::PostgresOptions;
use super::address::PostgresUrl;
use super::failure::Failure;
use super::follow::Missing;
use super::plan::{Answer, Needs, Operation, Plan};
use super::rows::{Committing, Writes, load};
use super::schema::Meta;
use super::session::Session;
use crate::error::CommitError;
use crate::feed::Feed;

/// Most operations in one transaction ...
const BATCH: usize = 1_024;
/// ... and about the most bytes, unless it is a single operation.
const BATCH_BYTES: usize = 16 << 20;
/// Operations that may wait; whoever comes next waits for a place.
pub(super) const QUEUE: usize = 4_096;
/// A transaction that takes longer is given up with its connection. Longer than the server itself allows a statement.
const ATTEMPT: Duration = Duration::from_secs(40);
/// Rows of compacted history removed in one transaction, so that commits need not wait long.
const COLLECT: i64 = 1_000;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) operations: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) resolved: AtomicU64,
    pub(super) history_reads: AtomicU64,
    /// Times that everything committed by anyone had been published.
    pub(super) caught_up: AtomicU64,
}

pub(super) struct Writer {
    pub(super) url: PostgresUrl,
    pub(super) options: PostgresOptions,
    pub(super) session: Option<Session>,
    /// This engine's name in `writer`.
    pub(super) engine: String,
    /// The number of the last batch that was tried.
    pub(super) batch: u64,
    pub(super) garbage: bool,
    pub(super) feed: Arc<Feed>,
    pub(super) follower: mpsc::Sender<Missing>,
    pub(super) counters: Arc<Counters>,
}

/// Where a batch failed.
enum Abort {
    /// Before its commit: nothing is durable.
    Apply(Failure),
    /// In its commit: it may be durable.
    Commit(Failure, Done),
}

/// A batch that was decided, with what its callers are to be told.
struct Done {
    answers: Vec<Answer>,
    plan: Option<Box<Plan>>,
}

impl Writer {
    /// Works until all handles of the store are gone and everything queued is done.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Operation>) {
        let mut held: Option<Operation> = None;
        loop {
            if self.garbage {
                self.collect().await;
            }
            let first = match held.take() {
                Some(operation) => operation,
                None if self.garbage => match queue.try_recv() {
                    Ok(operation) => operation,
                    Err(mpsc::error::TryRecvError::Empty) => continue,
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                },
                None => match queue.recv().await {
                    Some(operation) => operation,
                    None => return,
                },
            };
            let mut bytes = first.weight();
            let mut operations = vec![first];
            while operations.len() < BATCH
                && let Ok(operation) = queue.try_recv()
            {
                bytes += operation.weight();
                if bytes > BATCH_BYTES {
                    held = Some(operation);
                    break;
                }
                operations.push(operation);
            }
            self.batch(operations).await;
        }
    }

    /// Commits all operations as one transaction. If the database fails on one of them, each is tried alone, so that
    /// what is wrong is reported to those that it concerns.
    async fn batch(&mut self, operations: Vec<Operation>) {
        self.counters.operations.fetch_add(operations.len() as u64, Ordering::Relaxed);
        match self.persist(&operations).await {
            Ok(done) => self.finish(operations, done).await,
            Err(error) if operations.len() > 1 && matches!(error, CommitError::Corrupt { .. } | CommitError::Full) => {
                for operation in operations {
                    let single = [operation];
                    let outcome = self.persist(&single).await;
                    let [operation] = single;
                    match outcome {
                        Ok(done) => self.finish(vec![operation], done).await,
                        Err(error) => operation.fail(error),
                    }
                }
            }
            Err(error) => operations.into_iter().for_each(|operation| operation.fail(error.clone())),
        }
    }

    async fn finish(&mut self, operations: Vec<Operation>, done: Done) {
        if let Some(plan) = done.plan {
            let base = plan.base();
            let (_, compacted, _) = plan.marks();
            // Before anyone is answered, so that a watch behind the mark is refused from now on.
            if operations.iter().any(|operation| matches!(operation, Operation::Compact(..))) {
                self.feed.compact(compacted);
            }
            self.garbage |= operations
                .iter()
                .any(|operation| matches!(operation, Operation::Compact(..) | Operation::ForgetEvents(..)));
            if !plan.commits.is_empty() && !self.feed.offer(base, plan.commits) {
                // Others have committed before. One message is as good as several.
                let _ = self.follower.try_send(Missing);
            }
        }
        operations.into_iter().zip(done.answers).for_each(|(operation, answer)| answer.give(operation));
    }

    /// Makes a batch durable, over lost connections, or says why not.
    async fn persist(&mut self, operations: &[Operation]) -> Result<Done, CommitError> {
        let begin = Instant::now();
        // What may have been committed on a connection that was lost.
        let mut pending: Option<Done> = None;
        let mut pause = Duration::from_millis(10);
        loop {
            let abort = match self.attempt(operations, &mut pending).await {
                Ok(done) => return Ok(done),
                Err(abort) => abort,
            };
            let failure = match abort {
                Abort::Commit(failure, done) => {
                    pending = Some(done);
                    failure
                }
                Abort::Apply(failure) => failure,
            };
            if matches!(failure, Failure::Lost(_)) || pending.is_some() {
                self.session = None;
            } else {
                return Err(failure.not_applied());
            }
            if begin.elapsed() > self.options.patience {
                return Err(match (pending, failure.not_applied()) {
                    (None, error) => error,
                    (Some(_), CommitError::Unavailable { source, .. }) => {
                        let reason = "the connection to the database was lost during the commit".to_owned();
                        CommitError::Unknown { reason, source }
                    }
                    (Some(_), error) => CommitError::Unknown { reason: error.to_string(), source: None },
                });
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// One try. `pending` is the same batch as it was decided on a connection that was lost while it was committed.
    async fn attempt(&mut self, operations: &[Operation], pending: &mut Option<Done>) -> Result<Done, Abort> {
        let lock = async {
            self.connect().await?;
            self.begin().await
        };
        let meta = match timeout(ATTEMPT, lock).await {
            Ok(meta) => meta.map_err(Abort::Apply)?,
            Err(_) => return Err(Abort::Apply(Failure::lost("the database does not answer"))),
        };
        if let Some(done) = pending.take() {
            // Under the lock, so the other transaction has ended.
            match self.last_batch().await {
                Ok(last) => {
                    self.counters.resolved.fetch_add(1, Ordering::Relaxed);
                    if last == Some(self.batch) {
                        self.rollback().await;
                        return Ok(done);
                    }
                }
                Err(failure) => return Err(Abort::Commit(failure, done)),
            }
        }
        self.batch += 1;
        match timeout(ATTEMPT, self.decide(operations, &meta)).await {
            Ok(decided) => {
                let (done, writes) = decided.map_err(Abort::Apply)?;
                let Some(writes) = writes else {
                    self.rollback().await;
                    return Ok(done);
                };
                self.write(done, writes).await
            }
            Err(_) => Err(Abort::Apply(Failure::lost("the database does not answer"))),
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = None;
            self.counters.reconnects.fetch_add(1, Ordering::Relaxed);
            self.session = Some(Session::open(&self.url, &self.options.schema, None).await?);
        }
        Ok(())
    }

    fn session(&mut self) -> Result<&mut Session, Failure> {
        self.session.as_mut().ok_or_else(|| Failure::lost("there is no connection to the database"))
    }

    /// Gets in line, and returns the state at the head of it.
    async fn begin(&mut self) -> Result<Meta, Failure> {
        let session = self.session()?;
        let statement = session.statement(&format!("{} FOR UPDATE", Meta::SELECT)).await?;
        let client = session.client();
        let (begun, rows) = tokio::join!(client.batch_execute("BEGIN"), client.query(&statement, &[]));
        begun?;
        let locked = rows.map_err(Failure::from).and_then(|rows| Meta::of(&rows));
        match locked {
            Ok(meta) => Ok(Meta { now: self.options.now(meta.now), ..meta }),
            Err(failure) => {
                self.rollback().await;
                Err(failure)
            }
        }
    }

    /// The last batch of this engine that was committed.
    async fn last_batch(&mut self) -> Result<Option<u64>, Failure> {
        let engine = self.engine.clone();
        let rows = self.session()?.query("SELECT batch FROM writer WHERE engine = $1", &[&engine]).await?;
        rows.first().map(|row| super::schema::number(row, 0)).transpose()
    }

    async fn decide(&mut self, operations: &[Operation], meta: &Meta) -> Result<(Done, Option<Writes>), Failure> {
        let (engine, batch, schema) = (self.engine.clone(), self.batch, self.options.schema.clone());
        let session = self.session()?;
        let decided = async {
            let loaded = load(session, &Needs::of(operations), meta.now).await?;
            let mut plan = Plan::new(meta, loaded);
            let answers = operations.iter().map(|operation| plan.apply(operation)).collect();
            if !plan.changes_something() {
                return Ok((Done { answers, plan: None }, None));
            }
            let writes = Writes::prepare(session, &plan, &engine, batch, &schema).await?;
            Ok((Done { answers, plan: Some(Box::new(plan)) }, Some(writes)))
        };
        let decided = decided.await;
        if decided.is_err() {
            self.rollback().await;
        }
        decided
    }

    async fn write(&mut self, done: Done, writes: Writes) -> Result<Done, Abort> {
        let Some(session) = &self.session else {
            return Err(Abort::Apply(Failure::lost("there is no connection to the database")));
        };
        match timeout(ATTEMPT, writes.commit(session)).await {
            Ok(Ok(())) => {
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                Ok(done)
            }
            Ok(Err(Committing::Refused(failure))) => Err(Abort::Apply(failure)),
            Ok(Err(Committing::Unknown(failure))) => Err(Abort::Commit(failure, done)),
            Err(_) => Err(Abort::Commit(Failure::lost("the database does not answer"), done)),
        }
    }

    /// Leaves the line. A session that cannot do even that is given up, which does it too.
    async fn rollback(&mut self) {
        let Some(session) = &self.session else { return };
        if !matches!(timeout(ATTEMPT, session.client().batch_execute("ROLLBACK")).await, Ok(Ok(()))) {
            self.session = None;
        }
    }

    /// Removes some of the history before the marks.
    async fn collect(&mut self) {
        match timeout(ATTEMPT, self.try_collect()).await {
            Ok(Ok(more)) => self.garbage = more,
            failed => {
                self.session = None;
                self.garbage = false;
                let why = failed.ok().and_then(Result::err);
                tracing::warn!(
                    ?why,
                    "compacted history could not be removed; it is tried again after the next compaction"
                );
            }
        }
    }

    async fn try_collect(&mut self) -> Result<bool, Failure> {
        self.connect().await?;
        // In line with the commits: a row that is to go may be one that a commit is about to touch.
        let meta = self.begin().await?;
        let session = self.session()?;
        let (compacted, forgotten) = (super::rows::int(meta.compacted.0), super::rows::int(meta.forgotten.0));
        let mut more = false;
        for (sql, mark) in [
            (
                "DELETE FROM version WHERE id = ANY (ARRAY (SELECT id FROM version WHERE until <= $1 LIMIT $2))",
                compacted,
            ),
            (
                "DELETE FROM version WHERE id = ANY (ARRAY (SELECT id FROM version
                 WHERE until IS NULL AND value IS NULL AND revision <= $1 LIMIT $2))",
                compacted,
            ),
            (
                "DELETE FROM event e USING (SELECT revision, ordinal FROM event WHERE revision <= $1 LIMIT $2) AS old
                 WHERE e.revision = old.revision AND e.ordinal = old.ordinal",
                forgotten,
            ),
        ] {
            let statement = session.statement(sql).await?;
            more |= session.client().execute(&statement, &[&mark, &COLLECT]).await? == COLLECT as u64;
        }
        let day = super::rows::int(meta.now.saturating_sub(crate::memory::REQUESTS_KEPT).0);
        let statement = session.statement("DELETE FROM writer WHERE at < $1").await?;
        session.client().execute(&statement, &[&day]).await?;
        session.client().batch_execute("COMMIT").await?;
        Ok(more)
    }
}
