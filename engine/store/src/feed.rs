//! From the writer to the watchers, in bounded memory.
//!
//! The writer pushes each commit, once it is durable, into one ring shared by all watchers; a watcher keeps nothing but
//! its place. A watcher that is slower than the ring is wide reads the missing commits from the history on disk, and
//! only when that has been compacted is it told so. So the memory the feed takes is the ring (bounded in commits and in
//! bytes) plus one chunk per watcher, however many watchers there are and however slow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};

use crate::error::WatchError;
use crate::key::Selector;
use crate::record::{Change, Committed};
use crate::store::ChangeStream;
use crate::txn::Revision;

/// The ring holds at most this many commits ...
const RING_COMMITS: usize = 4_096;
/// ... and at most this many bytes of them (but always the newest one).
const RING_BYTES: usize = 16 << 20;
/// A watcher takes this many commits at a time out of the ring.
const CHUNK: usize = 256;
/// A caught-up watcher to whom nothing was of interest is told how far it is after this many commits.
const PROGRESS_EVERY: u64 = 64;

/// Reads commits that have left the ring.
pub(crate) trait History: Send + Sync + 'static {
    /// Commits after `after`, in order, from the first on; some, if there are any. `Ok((commits, upto))`: everything in
    /// `(after, upto]` is in `commits`, except commits that changed nothing.
    fn read(&self, after: Revision) -> BoxFuture<'_, Result<(Vec<Committed>, Revision), WatchError>>;

    /// The newest durable revision, which may be ahead of what has been published.
    fn head(&self) -> BoxFuture<'_, Result<Revision, WatchError>>;

    /// How soon a durable commit is published.
    fn pace(&self) -> Pace {
        Pace::AtOnce
    }
}

/// How soon a durable commit is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Before its caller is answered.
    AtOnce,
    /// Later, if another process has made it.
    Later,
}

/// The shared end of the feed.
#[derive(Debug)]
pub(crate) struct Feed {
    ring: Mutex<Ring>,
    /// Wakes watchers; `None` once the store is closed.
    bell: watch::Sender<Option<Revision>>,
    /// Rung with the bell, and waited for in its stead: it wakes in the order of waiting, where a watch channel draws the order
    /// by chance, and a simulation must be able to repeat itself.
    rung: Notify,
    limits: RingLimits,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct RingLimits {
    pub(crate) commits: usize,
    pub(crate) bytes: usize,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self { commits: RING_COMMITS, bytes: RING_BYTES }
    }
}

#[derive(Debug)]
struct Ring {
    /// Dense: the last one is `head`.
    commits: VecDeque<(Arc<Committed>, usize)>,
    bytes: usize,
    head: Revision,
    compacted: Revision,
}

enum Next {
    Commits(Vec<Arc<Committed>>),
    /// Nothing newer has been published.
    CaughtUp,
    /// The ring does not reach back that far.
    Behind,
    Compacted(Revision),
}

impl Feed {
    /// A feed for a store whose newest commit is `head` and whose history reaches back to `compacted`.
    pub(crate) fn new(head: Revision, compacted: Revision, limits: RingLimits) -> Self {
        let ring = Ring { commits: VecDeque::new(), bytes: 0, head, compacted };
        Self { ring: Mutex::new(ring), bell: watch::Sender::new(Some(head)), rung: Notify::new(), limits }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Every change of the ring is complete before anything can panic, so a poisoned lock holds a sound ring.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes durable commits. They must follow on densely.
    pub(crate) fn publish(&self, commits: impl IntoIterator<Item = Committed>) {
        self.push(self.ring(), commits);
    }

    /// Publishes those of the dense `commits` after `base` that have not been published yet, in a store that several
    /// engines write to. `false`: some before them are missing, and nothing was published.
    pub(crate) fn offer(&self, base: Revision, commits: Vec<Committed>) -> bool {
        let ring = self.ring();
        let head = ring.head;
        if head < base {
            return false;
        }
        self.push(ring, commits.into_iter().filter(|commit| commit.revision > head));
        true
    }

    fn push(&self, mut ring: MutexGuard<'_, Ring>, commits: impl IntoIterator<Item = Committed>) {
        for commit in commits {
            debug_assert_eq!(commit.revision, ring.head.next(), "the feed must be dense");
            ring.head = commit.revision;
            let weight = commit.weight();
            ring.bytes += weight;
            ring.commits.push_back((Arc::new(commit), weight));
            while ring.commits.len() > self.limits.commits || (ring.bytes > self.limits.bytes && ring.commits.len() > 1)
            {
                ring.pop();
            }
        }
        let head = ring.head;
        drop(ring);
        self.bell.send_if_modified(|at| at.is_some_and(|old| old < head) && at.replace(head).is_some());
        self.rung.notify_waiters();
    }

    /// Ends streams that still want what is at or before `compacted`.
    pub(crate) fn compact(&self, compacted: Revision) {
        let mut ring = self.ring();
        ring.compacted = ring.compacted.max(compacted);
        while ring.commits.front().is_some_and(|(commit, _)| commit.revision <= compacted) {
            ring.pop();
        }
        drop(ring);
        self.bell.send_modify(|_| {});
        self.rung.notify_waiters();
    }

    /// The newest commit that was published.
    pub(crate) fn head(&self) -> Revision {
        self.ring().head
    }

    /// Steps over commits that nobody can tell any more: streams that still want them end.
    pub(crate) fn skip_to(&self, compacted: Revision) {
        let mut ring = self.ring();
        if ring.head < compacted {
            ring.head = compacted;
            ring.commits.clear();
            ring.bytes = 0;
        }
        drop(ring);
        self.compact(compacted);
        self.bell.send_modify(|at| *at = at.map(|at| at.max(compacted)));
        self.rung.notify_waiters();
    }

    /// Ends all streams.
    pub(crate) fn close(&self) {
        self.bell.send_replace(None);
        self.rung.notify_waiters();
    }

    fn after(&self, cursor: Revision) -> Next {
        let ring = self.ring();
        if cursor < ring.compacted {
            return Next::Compacted(ring.compacted);
        }
        if cursor >= ring.head {
            return Next::CaughtUp;
        }
        match ring.commits.front() {
            Some((first, _)) if first.revision <= cursor.next() => {
                let skip = usize::try_from(cursor.next().0 - first.revision.0).unwrap_or(usize::MAX);
                Next::Commits(
                    ring.commits.iter().skip(skip).take(CHUNK).map(|(commit, _)| Arc::clone(commit)).collect(),
                )
            }
            _ => Next::Behind,
        }
    }

    /// A stream of what `selector` points at after `after`.
    pub(crate) fn stream(
        self: &Arc<Self>,
        history: Arc<dyn History>,
        selector: Selector,
        after: Revision,
    ) -> ChangeStream {
        let watcher = Watcher {
            bell: self.bell.subscribe(),
            feed: Arc::clone(self),
            history,
            selector,
            cursor: after,
            pending: VecDeque::new(),
            told: None,
            start: Revision::ZERO,
            state: State::Starting,
        };
        futures::stream::unfold(watcher, |mut watcher| async move {
            let item = watcher.next().await?;
            if item.is_err() {
                watcher.state = State::Ended;
            }
            Some((item, watcher))
        })
        .boxed()
    }
}

impl Ring {
    fn pop(&mut self) {
        if let Some((_, weight)) = self.commits.pop_front() {
            self.bytes -= weight;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Starting,
    Running,
    Ended,
}

struct Watcher {
    feed: Arc<Feed>,
    bell: watch::Receiver<Option<Revision>>,
    history: Arc<dyn History>,
    selector: Selector,
    /// Everything up to here has been looked at.
    cursor: Revision,
    /// Selected, not yet delivered.
    pending: VecDeque<Committed>,
    /// The last revision the reader knows that it has reached.
    told: Option<Revision>,
    /// The newest commit when the watch began: before it, the stream has not caught up.
    start: Revision,
    state: State,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Change, WatchError>> {
        match self.state {
            State::Ended => return None,
            State::Starting => {
                if let Err(error) = self.start().await {
                    return Some(Err(error));
                }
                self.state = State::Running;
            }
            State::Running => {}
        }
        loop {
            if let Some(committed) = self.pending.pop_front() {
                self.told = Some(committed.revision);
                return Some(Ok(Change::Committed(committed)));
            }
            // Before the look: what is rung meanwhile counts.
            let feed = Arc::clone(&self.feed);
            let rung = feed.rung.notified();
            if self.bell.borrow_and_update().is_none() {
                return Some(Err(WatchError::Closed));
            }
            match self.feed.after(self.cursor) {
                Next::Compacted(oldest) => return Some(Err(WatchError::Compacted { oldest })),
                Next::Commits(commits) => {
                    self.pending.extend(commits.iter().filter_map(|commit| commit.select(&self.selector)));
                    self.cursor = commits.last().map_or(self.cursor, |commit| commit.revision);
                }
                Next::Behind => {
                    if let Err(error) = self.read().await {
                        return Some(Err(error));
                    }
                }
                Next::CaughtUp if self.cursor < self.start => {
                    if let Err(error) = self.read().await {
                        return Some(Err(error));
                    }
                }
                Next::CaughtUp => {
                    if self.told.is_none_or(|told| self.cursor.0 - told.0 >= PROGRESS_EVERY) {
                        self.told = Some(self.cursor);
                        return Some(Ok(Change::Progress(self.cursor)));
                    }
                    rung.await;
                }
            }
        }
    }

    /// Refuses to wait for a revision that may never come, or may come with other content.
    async fn start(&mut self) -> Result<(), WatchError> {
        if self.history.pace() == Pace::Later || self.cursor > self.feed.head() {
            // A reader can see a commit on disk before it is published.
            self.start = self.history.head().await?;
            if self.cursor > self.start {
                return Err(WatchError::Ahead { after: self.cursor, head: self.start });
            }
        }
        Ok(())
    }

    /// Goes on with what is no longer, or not yet, in the ring.
    async fn read(&mut self) -> Result<(), WatchError> {
        let (commits, upto) = self.history.read(self.cursor).await?;
        self.pending.extend(commits.iter().filter_map(|commit| commit.select(&self.selector)));
        self.cursor = upto;
        Ok(())
    }
}
