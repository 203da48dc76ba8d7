//! Sharing the shards with other engines: heartbeats, leases, hand-over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use vmetal_runtime::Monotonic;
use vmetal_store::{
    AnyStore, CommitError, Guard, Key, Lease, LeaseError, ObjectChange, ReadError, Selector, Shard, Store, StoreTime,
    Txn, Write,
};

use super::{Hold, Ownership, Shared, Terms};

/// The kind under which living engines say that they live.
pub const ENGINES: &str = "engine";
/// An engine that has not said so for this many leases is forgotten.
const FORGET_AFTER: u32 = 20;
/// How long a refused acquisition waits at least: clocks tick in milliseconds.
const SOON: Duration = Duration::from_millis(50);

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Heartbeat {
    /// What it holds, so that the others know what is taken.
    holds: BTreeSet<u16>,
    /// What it is: for people.
    version: String,
}

/// One engine's part in sharing a store.
pub struct Membership {
    ownership: Ownership,
    terms: Shared,
    store: AnyStore,
    /// Rung when an engine has said something new.
    news: Notify,
    /// What each engine said last.
    heard: std::sync::Mutex<BTreeMap<Key, Vec<u8>>>,
    said: std::sync::Mutex<Option<(Heartbeat, Monotonic)>>,
    renewed: std::sync::Mutex<Option<Monotonic>>,
}

/// When to look again at the latest.
struct Next(Duration);

impl Next {
    fn within(&mut self, pause: Duration) {
        self.0 = self.0.min(pause.max(SOON));
    }
}

impl Membership {
    /// `None` for an engine that is alone: there is nothing to share.
    pub fn new(ownership: &Ownership, store: &AnyStore) -> Option<Self> {
        let Terms::Shared(terms) = ownership.terms() else { return None };
        Some(Membership {
            ownership: ownership.clone(),
            terms: terms.clone(),
            store: store.clone(),
            news: Notify::new(),
            heard: std::sync::Mutex::default(),
            said: std::sync::Mutex::default(),
            renewed: std::sync::Mutex::default(),
        })
    }

    /// An engine has said something. That it still lives and holds what it held is no news: everybody would look at everybody
    /// with every heartbeat.
    pub fn hear(&self, said: &ObjectChange) {
        let mut heard = self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = match said {
            ObjectChange::Put(stored) => heard.insert(stored.key.clone(), stored.value.to_vec()),
            ObjectChange::Deleted(key) => heard.remove(key),
        };
        let now = match said {
            ObjectChange::Put(stored) => Some(&*stored.value),
            ObjectChange::Deleted(_) => None,
        };
        if before.as_deref() != now {
            self.news.notify_one();
        }
    }

    /// Takes part until dropped. `begin` is told of shards that became this engine's to decide about.
    pub async fn take_part(&self, begin: impl Fn(&[Shard])) {
        loop {
            let next = self.turn(Role::Member, &begin).await;
            // In this order, not in one drawn by chance: a simulation must be able to repeat itself.
            tokio::select! {
                biased;
                () = tokio::time::sleep(next.0) => {}
                () = self.news.notified() => {}
                () = self.ownership.table.bell.notified() => {}
            }
        }
    }

    /// Hands every shard over: each as soon as nothing acts on it any more, and no later than `patience`. Waits for no
    /// successor. Returns how many could not be handed over; their leases run out.
    pub async fn leave(&self, patience: Duration) -> usize {
        self.ownership.table.leave(|_| true);
        let waited = tokio::time::timeout(patience, async {
            while !self.ownership.table.all().is_empty() {
                let next = self.turn(Role::Leaver, &|_| {}).await;
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(next.0) => {}
                    () = self.ownership.table.bell.notified() => {}
                }
            }
        });
        let _ = waited.await;
        let left = self.ownership.table.all().len();
        let mut txn = Txn::default();
        txn.writes.push(Write::Delete(self.key()));
        if let Err(error) = self.store.commit(txn).await {
            tracing::warn!(%error, "could not say goodbye to the other engines; they notice within {:?}", self.terms.lease);
        }
        left
    }

    fn key(&self) -> Key {
        Key::new(ENGINES, self.terms.id.clone())
    }

    fn third(&self) -> Duration {
        self.terms.lease / 3
    }

    async fn turn(&self, role: Role, begin: &impl Fn(&[Shard])) -> Next {
        let mut next = Next(self.third());
        self.renew_all().await;
        self.release_idle(&mut next).await;
        if role == Role::Member {
            self.say().await;
            match self.living().await {
                Ok(living) => self.follow(&living, &mut next).await,
                Err(error) => {
                    tracing::warn!(%error, "cannot read which engines live; keeping what is held");
                    next.within(Duration::from_secs(1));
                }
            }
            self.release_idle(&mut next).await;
        }
        let new = self.ownership.table.beginning();
        if !new.is_empty() {
            tracing::info!(shards = new.len(), owned = self.ownership.owned(), "shards are this engine's now");
            begin(&new);
        }
        let now = self.ownership.table.now();
        for tenure in self.ownership.table.all().values().filter(|tenure| !tenure.begun) {
            next.within(tenure.from.duration_since(now));
        }
        next
    }

    /// Extends every lease, if it is time to.
    async fn renew_all(&self) {
        let before = self.ownership.table.now();
        {
            let mut renewed = self.renewed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if renewed.is_some_and(|last| before.duration_since(last) < self.third() - SOON) {
                return;
            }
            *renewed = Some(before);
        }
        let renewals = self.ownership.table.all().into_iter().map(async |(shard, tenure)| {
            let hold = Hold { shard, epoch: tenure.epoch };
            (hold, self.store.renew(shard, tenure.epoch, self.terms.lease).await)
        });
        let mut lost = Vec::new();
        for (hold, renewed) in join_all(renewals).await {
            match renewed {
                // From before the question: the store may have answered at once and the answer come late.
                Ok(Lease { .. }) => self.ownership.table.renewed(hold, before.saturating_add(self.terms.lease)),
                Err(LeaseError::Lost { .. }) => {
                    self.ownership.table.forget(hold);
                    lost.push(hold.shard.to_string());
                }
                Err(error) => {
                    tracing::warn!(shard = %hold.shard, %error, "a lease could not be renewed; nothing is begun once it runs out");
                }
            }
        }
        if !lost.is_empty() {
            tracing::error!(
                shards = lost.join(","),
                "fenced: another engine has taken these shards, because this one did not renew its leases in time; nothing \
                 that was decided here about their objects counts any more"
            );
        }
    }

    /// Releases what is to be handed over and has nothing acting on it.
    async fn release_idle(&self, next: &mut Next) {
        let leaving = self.ownership.table.all().into_iter().filter(|(_, tenure)| tenure.leaving);
        let (idle, busy): (Vec<_>, Vec<_>) = leaving.partition(|(_, tenure)| tenure.grips == 0);
        if !busy.is_empty() {
            // The bell rings when the last grip is gone; this is for a ring that came before anybody listened.
            next.within(Duration::from_millis(500));
        }
        let releases = idle.into_iter().map(async |(shard, tenure)| {
            let hold = Hold { shard, epoch: tenure.epoch };
            match self.store.release(shard, tenure.epoch).await {
                Ok(()) | Err(LeaseError::Lost { .. }) => self.ownership.table.forget(hold),
                Err(error) => tracing::warn!(%shard, %error, "a lease could not be released; trying again"),
            }
        });
        join_all(releases).await;
    }

    /// Says that this engine lives and what it holds, if that is news or it is time to.
    async fn say(&self) {
        let holds = self.ownership.table.all().keys().map(|shard| shard.0).collect();
        let heartbeat = Heartbeat { holds, version: env!("CARGO_PKG_VERSION").to_owned() };
        let now = self.ownership.table.now();
        {
            let said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let fresh = |at: &Monotonic| now.duration_since(*at) < self.third() - SOON;
            if said.as_ref().is_some_and(|(last, at)| *last == heartbeat && fresh(at)) {
                return;
            }
        }
        let mut txn = Txn::default();
        // Plain data: it always serialises.
        txn.writes.push(Write::put(self.key(), serde_json::to_vec(&heartbeat).unwrap_or_default()));
        match self.store.commit(txn).await {
            Ok(_) => {
                let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *said = Some((heartbeat, now));
            }
            Err(error) => tracing::warn!(%error, "cannot tell the other engines that this one lives; trying again"),
        }
    }

    /// The living engines and what they hold; those that are dead for long are forgotten.
    async fn living(&self) -> Result<BTreeMap<String, BTreeSet<u16>>, ReadError> {
        let list = self.store.list_all(&Selector::Kind(ENGINES.into())).await?;
        let now = self.store.now().await?;
        let mut living = BTreeMap::new();
        for stored in list.items {
            let silent = now.duration_since(stored.written_at);
            if silent < self.terms.lease {
                // What cannot be read comes from another release: it lives, and the leases tell what it holds.
                let holds = serde_json::from_slice::<Heartbeat>(&stored.value).map(|h| h.holds).unwrap_or_default();
                living.insert(stored.key.name.to_string(), holds);
            } else if silent > self.terms.lease.saturating_mul(FORGET_AFTER) {
                self.forget_engine(stored.key, stored.revision).await;
            }
        }
        living.insert(self.terms.id.clone(), self.ownership.table.all().keys().map(|shard| shard.0).collect());
        Ok(living)
    }

    async fn forget_engine(&self, key: Key, revision: vmetal_store::Revision) {
        let mut txn = Txn::default();
        txn.guards.push(Guard::Revision(key.clone(), revision));
        txn.writes.push(Write::Delete(key));
        match self.store.commit(txn).await {
            // It came back, or another engine did the same.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => tracing::warn!(%error, "a dead engine's heartbeat could not be removed"),
        }
    }

    /// Does its part of what everybody computes.
    async fn follow(&self, living: &BTreeMap<String, BTreeSet<u16>>, next: &mut Next) {
        let plan = vmetal_runtime::plan(&self.terms.id, self.ownership.shards(), living);
        if !plan.give_up.is_empty() {
            tracing::info!(shards = plan.give_up.len(), engines = living.len(), "handing shards over to other engines");
            self.ownership.table.leave(|shard| plan.give_up.contains(&shard.0));
        }
        let attempts = plan.take.into_iter().map(async |number| self.acquire(Shard(number)).await);
        for pause in join_all(attempts).await.into_iter().flatten() {
            next.within(pause);
        }
        self.say().await;
    }

    /// Takes a shard that no living engine claims. Returns when to try again where it is still leased.
    async fn acquire(&self, shard: Shard) -> Option<Duration> {
        let before = self.ownership.table.now();
        match self.store.acquire(shard, &self.terms.id, self.terms.lease).await {
            Ok(acquired) => {
                let until = before.saturating_add(self.terms.lease);
                let wait = acquired.previous.map_or(Duration::ZERO, |previous| {
                    let granted = acquired.lease.expires.saturating_sub(self.terms.lease);
                    let free = previous.expires.saturating_add(self.terms.quarantine());
                    tracing::warn!(
                        %shard,
                        previous = previous.holder,
                        "took over from an engine that did not release; waiting until nothing of it can be on its way"
                    );
                    free.duration_since(granted)
                });
                self.ownership.table.own(shard, acquired.lease.epoch, until, wait);
                None
            }
            Err(LeaseError::Held { expires, .. }) => {
                let now = self.store.now().await.unwrap_or(StoreTime::default());
                Some(expires.duration_since(now).min(self.third()))
            }
            Err(error) => {
                tracing::warn!(%shard, %error, "a shard could not be taken; trying again");
                Some(Duration::from_secs(1))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Member,
    Leaver,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use futures::FutureExt as _;
    use jiff::Timestamp;
    use vmetal_runtime::VirtualClock;
    use vmetal_store::{Revision, StoreClock, Stored};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_that_says_nothing_new_wakes_nobody() {
        let store = AnyStore::memory(StoreClock::system());
        let (lease, longest_call, margin) = (Duration::from_secs(15), Duration::from_secs(30), Duration::from_secs(3));
        let terms = Terms::Shared(Shared { id: "me".to_owned(), lease, longest_call, margin });
        let clock = Arc::new(VirtualClock::starting_at(Timestamp::UNIX_EPOCH));
        let ownership = Ownership::open(&store, terms, clock).await.unwrap();
        let membership = Membership::new(&ownership, &store).unwrap();
        let key = Key::new(ENGINES, "other");
        let mut revision = Revision::ZERO;
        let mut says = |text: &'static str| {
            revision = revision.next();
            let value = text.as_bytes().into();
            let (key, created, written_at) = (key.clone(), revision, StoreTime(revision.0));
            membership.hear(&ObjectChange::Put(Stored { key, revision, created, written_at, value }));
            membership.news.notified().now_or_never().is_some()
        };
        assert!(says("one") && !says("one") && says("two") && !says("two"));
        membership.hear(&ObjectChange::Deleted(key.clone()));
        assert!(membership.news.notified().now_or_never().is_some(), "that it is gone is news");
    }
}
