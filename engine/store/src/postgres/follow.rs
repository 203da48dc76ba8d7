//! From the commits of all engines to the watchers of this one.
//!
//! The writer passes this engine's commits on as they are; nothing is read again for them. When others have committed
//! before, this task reads all that is missing from the history. What wakes it is a notification, the writer when it
//! finds something missing, and once a second the counter of revisions itself: notifications make watches quick, the
//! counter makes them right.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::address::PostgresUrl;
use super::pool::{Pool, ask};
use super::query::{self, Past};
use super::session::{Session, quoted};
use super::writer::Counters;
use crate::error::ReadError;
use crate::feed::Feed;
use crate::record::Committed;
use crate::time::StoreTime;
use crate::txn::Revision;

/// Says that others have committed before this engine did.
pub(super) struct Missing;

pub(super) struct Follower {
    pub(super) url: PostgresUrl,
    pub(super) schema: String,
    /// How often the counter is looked at.
    pub(super) poll: Duration,
    pub(super) engine: String,
    pub(super) pool: Arc<Pool>,
    pub(super) feed: Arc<Feed>,
    pub(super) missing: mpsc::Receiver<Missing>,
    pub(super) counters: Arc<Counters>,
}

/// What there is to do.
enum Wake {
    /// Another engine has committed, or may have.
    Others,
    /// The store is closed.
    Closed,
}

impl Follower {
    /// Works until the store is closed.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(self.poll);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ear: Option<Ear> = None;
        let mut failing = false;
        loop {
            match self.next(&mut ear, &mut ticks).await {
                Wake::Closed => return,
                Wake::Others => {}
            }
            if ear.is_none() {
                // Opened before the counter is read, so that nothing falls in between.
                ear = Ear::open(&self.url, &self.schema).await;
            }
            match self.catch_up().await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "the commits of other engines cannot be read; watches wait until they can");
                    }
                    failing = true;
                }
            }
        }
    }

    async fn next(&mut self, ear: &mut Option<Ear>, ticks: &mut Interval) -> Wake {
        loop {
            tokio::select! {
                missing = self.missing.recv() => return if missing.is_some() { Wake::Others } else { Wake::Closed },
                note = Ear::hear(ear) => match note {
                    // The writer has passed on our own commits.
                    Some(engine) if engine == self.engine => {}
                    Some(_) => return Wake::Others,
                    None => *ear = None,
                },
                _ = ticks.tick() => return Wake::Others,
            }
        }
    }

    /// Publishes everything that has been committed by anyone.
    async fn catch_up(&mut self) -> Result<(), ReadError> {
        let meta = self.pool.meta().await?;
        if meta.compacted > self.feed.head() {
            self.feed.skip_to(meta.compacted);
        }
        self.read_until(meta.revision).await?;
        self.feed.compact(meta.compacted);
        self.counters.caught_up.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn read_until(&mut self, upto: Revision) -> Result<(), ReadError> {
        loop {
            let head = self.feed.head();
            if head >= upto {
                return Ok(());
            }
            self.counters.history_reads.fetch_add(1, Ordering::Relaxed);
            match self.pool.history(head).await? {
                // The writer may publish meanwhile, which is no harm: nothing is published twice.
                Past::Commits { commits, upto } => drop(self.feed.offer(head, dense(head, commits, upto))),
                Past::Compacted { oldest } => self.feed.skip_to(oldest),
            }
        }
    }
}

/// Puts in the commits that changed nothing, and of which the history therefore knows nothing.
fn dense(after: Revision, commits: Vec<Committed>, upto: Revision) -> Vec<Committed> {
    let mut commits = VecDeque::from(commits);
    let empty = |revision| Committed { revision, at: StoreTime::default(), objects: Vec::new(), events: Vec::new() };
    (after.0 + 1..=upto.0)
        .map(Revision)
        .map(|revision| {
            let found = commits.front().is_some_and(|commit| commit.revision == revision);
            found.then(|| commits.pop_front()).flatten().unwrap_or_else(|| empty(revision))
        })
        .collect()
}

/// A connection that listens.
struct Ear {
    /// Keeps the connection open.
    _session: Session,
    notes: mpsc::UnboundedReceiver<String>,
}

impl Ear {
    async fn open(url: &PostgresUrl, schema: &str) -> Option<Self> {
        let (notified, notes) = mpsc::unbounded_channel();
        let session = Session::open(url, schema, Some(notified)).await.ok()?;
        session.client().batch_execute(&format!("LISTEN {}", quoted(schema))).await.ok()?;
        Some(Self { _session: session, notes })
    }

    /// The name of an engine that has committed; `None`: the connection is gone. Without an ear, nothing is ever heard.
    async fn hear(ear: &mut Option<Self>) -> Option<String> {
        match ear {
            None => std::future::pending().await,
            Some(ear) => ear.notes.recv().await,
        }
    }
}

impl Pool {
    /// How far the store is.
    pub(super) async fn meta(&self) -> Result<super::schema::Meta, ReadError> {
        ask!(self, session => query::meta(session))
    }

    /// Some commits after `after`.
    pub(super) async fn history(&self, after: Revision) -> Result<Past, ReadError> {
        ask!(self, session => query::history(session, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_that_changed_nothing_are_put_in() {
        let commit = |revision| Committed {
            revision: Revision(revision),
            at: StoreTime(1),
            objects: Vec::new(),
            events: Vec::new(),
        };
        let all = dense(Revision(3), vec![commit(5), commit(7)], Revision(8));
        let seen: Vec<_> = all.iter().map(|commit| (commit.revision.0, commit.at.0)).collect();
        assert_eq!(seen, [(4, 0), (5, 1), (6, 0), (7, 1), (8, 0)]);
    }
}
