//! A store with somebody in between, for simulations: what an engine sees when its store is slow, away, or fails while a
//! commit is on its way. The store underneath is the model; only the way to it is bad.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;

use crate::error::{BackupError, CommitError, LeaseError, ReadError, WatchError};
use crate::key::{Key, Selector};
use crate::lease::{Acquired, Epoch, Lease, Shard};
use crate::memory::MemoryStore;
use crate::record::{EventPage, List, Page, Stored};
use crate::store::{ChangeStream, Store};
use crate::time::StoreTime;
use crate::txn::{RequestId, Revision, Txn};

/// What becomes of a transaction on its way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It arrives.
    Arrives,
    /// It is lost before it arrives: [`CommitError::Unavailable`].
    Lost,
    /// It arrives, and so the caller must not know: [`CommitError::Unknown`].
    AnswerLost,
    /// It does not arrive, and the caller must not know that either: [`CommitError::Unknown`].
    Unknown,
}

/// Whether any other call gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Pass,
    /// It does not.
    Fail,
}

/// Stands between a caller and its store. Each method may take its time; one that never completes is a caller that has
/// died.
pub trait Intercept: Debug + Send + Sync + 'static {
    /// Before a transaction is sent; may change it.
    fn commit<'a>(&'a self, txn: &'a mut Txn) -> BoxFuture<'a, Delivery>;

    /// After a transaction was applied or refused, before the caller hears of it.
    fn committed<'a>(&'a self, outcome: &'a Result<Revision, CommitError>) -> BoxFuture<'a, ()>;

    /// Before any other call.
    fn call(&self) -> BoxFuture<'_, Verdict>;

    /// Completes when a watch that begins now breaks off.
    fn cut(&self) -> BoxFuture<'static, ()>;

    /// Before each change is handed to a watcher: news may be late.
    fn news(&self) -> BoxFuture<'static, ()>;
}

/// The model with an [`Intercept`] before it. Several of them may share one model: several engines.
#[derive(Clone, Debug)]
pub struct InterceptedStore {
    store: MemoryStore,
    between: Arc<dyn Intercept>,
}

const AWAY: &str = "the simulated store is away";

impl InterceptedStore {
    /// Puts somebody in between.
    pub fn new(store: MemoryStore, between: Arc<dyn Intercept>) -> Self {
        InterceptedStore { store, between }
    }

    async fn read(&self) -> Result<(), ReadError> {
        match self.between.call().await {
            Verdict::Pass => Ok(()),
            Verdict::Fail => Err(ReadError::Unavailable { reason: AWAY.to_owned(), source: None }),
        }
    }

    async fn write(&self) -> Result<(), CommitError> {
        match self.between.call().await {
            Verdict::Pass => Ok(()),
            Verdict::Fail => Err(CommitError::Unavailable { reason: AWAY.to_owned(), source: None }),
        }
    }
}

impl Store for InterceptedStore {
    async fn commit(&self, mut txn: Txn) -> Result<Revision, CommitError> {
        let unknown = || CommitError::Unknown { reason: AWAY.to_owned(), source: None };
        let delivery = self.between.commit(&mut txn).await;
        let outcome = match delivery {
            Delivery::Arrives | Delivery::AnswerLost => self.store.commit(txn).await,
            Delivery::Lost => Err(CommitError::Unavailable { reason: AWAY.to_owned(), source: None }),
            Delivery::Unknown => Err(unknown()),
        };
        self.between.committed(&outcome).await;
        if delivery == Delivery::AnswerLost { Err(unknown()) } else { outcome }
    }

    async fn outcome(&self, request: &RequestId) -> Result<Option<Revision>, ReadError> {
        self.read().await?;
        self.store.outcome(request).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, ReadError> {
        self.read().await?;
        self.store.get(key).await
    }

    async fn list(&self, selector: &Selector, page: Page) -> Result<List, ReadError> {
        self.read().await?;
        self.store.list(selector, page).await
    }

    fn watch(&self, selector: Selector, after: Revision) -> ChangeStream {
        let between = Arc::clone(&self.between);
        let late = self.store.watch(selector, after).then(move |change| {
            let news = between.news();
            async move {
                news.await;
                change
            }
        });
        let broken = futures::stream::once(std::future::ready(Err(WatchError::Closed)));
        late.take_until(self.between.cut()).chain(broken).boxed()
    }

    async fn events(&self, subject: &Selector, after: Revision, limit: usize) -> Result<EventPage, ReadError> {
        self.read().await?;
        self.store.events(subject, after, limit).await
    }

    async fn latest_events(&self, subject: &Selector, limit: usize) -> Result<EventPage, ReadError> {
        self.read().await?;
        self.store.latest_events(subject, limit).await
    }

    async fn revision(&self) -> Result<Revision, ReadError> {
        self.read().await?;
        self.store.revision().await
    }

    async fn now(&self) -> Result<StoreTime, ReadError> {
        self.read().await?;
        self.store.now().await
    }

    async fn compact(&self, before: Revision) -> Result<(), CommitError> {
        self.write().await?;
        self.store.compact(before).await
    }

    async fn forget_events(&self, before: Revision) -> Result<Revision, CommitError> {
        self.write().await?;
        self.store.forget_events(before).await
    }

    async fn backup(&self, to: &Path) -> Result<Revision, BackupError> {
        self.store.backup(to).await
    }

    async fn acquire(&self, shard: Shard, holder: &str, ttl: Duration) -> Result<Acquired, LeaseError> {
        self.write().await?;
        self.store.acquire(shard, holder, ttl).await
    }

    async fn renew(&self, shard: Shard, epoch: Epoch, ttl: Duration) -> Result<Lease, LeaseError> {
        self.write().await?;
        self.store.renew(shard, epoch, ttl).await
    }

    async fn release(&self, shard: Shard, epoch: Epoch) -> Result<(), LeaseError> {
        self.write().await?;
        self.store.release(shard, epoch).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::record::Change;
    use crate::store::AnyStore;
    use crate::time::StoreClock;
    use crate::txn::Write;

    /// Loses each answer, and cuts each watch after a second.
    #[derive(Debug)]
    struct Deaf;

    impl Intercept for Deaf {
        fn commit<'a>(&'a self, _txn: &'a mut Txn) -> BoxFuture<'a, Delivery> {
            Box::pin(std::future::ready(Delivery::AnswerLost))
        }

        fn committed<'a>(&'a self, _outcome: &'a Result<Revision, CommitError>) -> BoxFuture<'a, ()> {
            Box::pin(std::future::ready(()))
        }

        fn call(&self) -> BoxFuture<'_, Verdict> {
            Box::pin(std::future::ready(Verdict::Fail))
        }

        fn cut(&self) -> BoxFuture<'static, ()> {
            Box::pin(tokio::time::sleep(Duration::from_secs(1)))
        }

        fn news(&self) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_no_lost_commit_and_a_cut_watch_says_so() {
        let model = MemoryStore::new(StoreClock::from_fn(|| StoreTime(1)));
        let store = AnyStore::Intercepted(InterceptedStore::new(model.clone(), Arc::new(Deaf)));
        let key = Key::new("host", "a");
        let mut txn = Txn::default();
        txn.writes.push(Write::put(key.clone(), "1"));
        assert!(matches!(store.commit(txn).await, Err(CommitError::Unknown { .. })));
        assert!(model.get(&key).await.unwrap().is_some());
        assert!(matches!(store.get(&key).await, Err(ReadError::Unavailable { .. })));
        let seen: Vec<_> = store.watch(Selector::All, Revision::ZERO).collect().await;
        assert!(matches!(seen.first(), Some(Ok(Change::Committed(_)))), "{seen:?}");
        assert!(matches!(seen.last(), Some(Err(WatchError::Closed))), "{seen:?}");
    }
}
