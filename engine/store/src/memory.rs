//! The model: what a store does, in the plainest code that does it. Other stores are compared with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::{BackupError, CommitError, LeaseError, ReadError, WatchError};
use crate::feed::{Feed, History, RingLimits};
use crate::key::{Key, Selector};
use crate::lease::{Acquired, Epoch, Lease, PreviousLease, Shard};
use crate::record::{Committed, Event, EventPage, List, ObjectChange, Page, Stored};
use crate::sqlite::{Snapshot, write_snapshot};
use crate::store::{ChangeStream, Store};
use crate::time::{StoreClock, StoreTime};
use crate::txn::{Guard, RequestId, Revision, Txn, UniqueKey, Write};

/// How long request ids are remembered.
pub(crate) const REQUESTS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A store in memory. Clones share it; nothing survives the last of them, except a [`Store::backup`].
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    feed: Arc<Feed>,
    clock: StoreClock,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.feed.close();
    }
}

/// One value an object has had.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) revision: Revision,
    pub(crate) created: Revision,
    pub(crate) at: StoreTime,
    /// The commit that replaced it.
    pub(crate) until: Option<Revision>,
    /// `None`: deleted.
    pub(crate) value: Option<Bytes>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseRow {
    /// `None`: released.
    pub(crate) holder: Option<String>,
    pub(crate) epoch: Epoch,
    pub(crate) expires: StoreTime,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) forgotten: Revision,
    pub(crate) versions: BTreeMap<Key, Vec<Version>>,
    pub(crate) unique: BTreeMap<UniqueKey, Key>,
    /// The same by holder, so that a write need not look through all entries for its own.
    held: BTreeMap<Key, Vec<UniqueKey>>,
    pub(crate) events: Vec<Event>,
    pub(crate) requests: BTreeMap<RequestId, (Revision, StoreTime)>,
    pub(crate) leases: BTreeMap<Shard, LeaseRow>,
}

impl State {
    fn live(&self, key: &Key) -> Option<&Version> {
        self.versions.get(key)?.last().filter(|version| version.value.is_some())
    }

    /// The revision a request was committed at, unless that is too long ago.
    pub(crate) fn request(&self, id: &RequestId, now: StoreTime) -> Option<Revision> {
        self.requests.get(id).filter(|(_, at)| *at > now.saturating_sub(REQUESTS_KEPT)).map(|(revision, _)| *revision)
    }

    fn check(&self, guard: &Guard) -> Result<(), CommitError> {
        let conflict = |key: &Key, found| Err(CommitError::Conflict { key: key.clone(), found });
        match guard {
            Guard::Revision(key, expected) => match self.live(key).map(|version| version.revision) {
                Some(found) if found == *expected => Ok(()),
                found => conflict(key, found),
            },
            Guard::Absent(key) => match self.live(key) {
                None => Ok(()),
                Some(version) => conflict(key, Some(version.revision)),
            },
            Guard::Epoch(shard, expected) => {
                let held = self.leases.get(shard).filter(|row| row.holder.is_some()).map(|row| row.epoch);
                if held == Some(*expected) { Ok(()) } else { Err(CommitError::Fenced { shard: *shard, found: held }) }
            }
        }
    }

    /// An entry belongs to who has it, unless this very transaction gives it up; then to the first that takes it.
    fn check_unique(&self, writes: &[Write]) -> Result<(), CommitError> {
        let keeps =
            |write: &Write, entry: &UniqueKey| matches!(write, Write::Put { unique, .. } if unique.contains(entry));
        let written: BTreeMap<&Key, &Write> = writes.iter().map(|write| (write.key(), write)).collect();
        let mut taken: BTreeMap<&UniqueKey, &Key> = BTreeMap::new();
        for write in writes {
            let Write::Put { key, unique, .. } = write else { continue };
            for entry in unique {
                let holder = self.unique.get(entry);
                if holder == Some(key) {
                    continue;
                }
                let holder = holder.filter(|holder| written.get(holder).is_none_or(|write| keeps(write, entry)));
                if let Some(held_by) = taken.get(entry).copied().or(holder) {
                    let UniqueKey { index, key } = entry.clone();
                    return Err(CommitError::Unique { index, key, held_by: held_by.clone() });
                }
                taken.insert(entry, key);
            }
        }
        Ok(())
    }

    /// Applies a transaction, or changes nothing.
    pub(crate) fn commit(&mut self, txn: Txn, now: StoreTime) -> Result<(Revision, Option<Committed>), CommitError> {
        if let Some(revision) = txn.request_id.as_ref().and_then(|id| self.request(id, now)) {
            return Ok((revision, None));
        }
        txn.guards.iter().try_for_each(|guard| self.check(guard))?;
        self.check_unique(&txn.writes)?;
        let read_only = txn.is_read_only();
        let revision = if read_only { self.revision } else { self.revision.next() };
        self.revision = revision;
        self.requests.retain(|_, (_, at)| *at > now.saturating_sub(REQUESTS_KEPT));
        if let Some(id) = txn.request_id {
            self.requests.insert(id, (revision, now));
        }
        if read_only {
            return Ok((revision, None));
        }
        txn.writes.iter().for_each(|write| self.release_unique(write.key()));
        let mut committed = Committed { revision, at: now, objects: Vec::new(), events: Vec::new() };
        for write in txn.writes {
            committed.objects.extend(self.apply(write, revision, now));
        }
        for (ordinal, event) in (0..).zip(txn.events) {
            committed.events.push(Event { revision, ordinal, at: now, subject: event.subject, value: event.value });
        }
        committed.objects.sort_by(|a, b| a.key().cmp(b.key()));
        self.events.extend(committed.events.iter().cloned());
        Ok((revision, Some(committed)))
    }

    /// Enters what a key holds.
    pub(crate) fn take_unique(&mut self, entry: UniqueKey, holder: Key) {
        self.held.entry(holder.clone()).or_default().push(entry.clone());
        self.unique.insert(entry, holder);
    }

    fn release_unique(&mut self, holder: &Key) {
        for entry in self.held.remove(holder).into_iter().flatten() {
            self.unique.remove(&entry);
        }
    }

    fn apply(&mut self, write: Write, revision: Revision, at: StoreTime) -> Option<ObjectChange> {
        let live = self.live(write.key()).map(|version| version.created);
        let (key, created, value) = match write {
            Write::Put { key, value, unique } => {
                unique.into_iter().for_each(|entry| self.take_unique(entry, key.clone()));
                (key, live.unwrap_or(revision), Some(Bytes::from(value)))
            }
            Write::Delete(key) => (key, live?, None),
        };
        let versions = self.versions.entry(key.clone()).or_default();
        if let Some(last) = versions.last_mut() {
            last.until = Some(revision);
        }
        versions.push(Version { revision, created, at, until: None, value: value.clone() });
        Some(match value {
            Some(value) => ObjectChange::Put(Stored { key, revision, created, written_at: at, value }),
            None => ObjectChange::Deleted(key),
        })
    }

    fn list(&self, selector: &Selector, page: &Page) -> Result<List, ReadError> {
        let revision = page.token.as_ref().map_or(self.revision, |token| token.revision);
        if revision < self.compacted {
            return Err(ReadError::Expired { at: revision, oldest: self.compacted });
        }
        if revision > self.revision {
            return Err(ReadError::BadToken);
        }
        let after = page.token.as_ref().map(|token| &token.after);
        let rest =
            self.versions.iter().filter(|(key, _)| selector.matches(key) && after.is_none_or(|after| *key > after));
        let rest = rest.filter_map(|(key, versions)| {
            let seen =
                |version: &&Version| version.revision <= revision && version.until.is_none_or(|until| until > revision);
            versions.iter().find(seen).and_then(|version| stored(key, version))
        });
        page.fill(revision, rest.map(Ok))
    }

    /// Moves the mark of compaction.
    pub(crate) fn mark_compacted(&mut self, before: Revision) {
        self.compacted = self.compacted.max(before.min(self.revision));
    }

    /// Moves the mark of forgotten events, and returns where it is.
    pub(crate) fn mark_forgotten(&mut self, before: Revision) -> Revision {
        self.forgotten = self.forgotten.max(before.min(self.compacted));
        self.forgotten
    }

    fn compact(&mut self, before: Revision) {
        self.mark_compacted(before);
        let mark = self.compacted;
        self.versions.retain(|_, versions| {
            versions.retain(|version| match version.until {
                Some(until) => until > mark,
                None => version.value.is_some() || version.revision > mark,
            });
            !versions.is_empty()
        });
    }

    fn history(&self, after: Revision) -> Vec<Committed> {
        let mut commits: BTreeMap<Revision, Committed> = BTreeMap::new();
        let mut commit = |revision, at, change: &mut dyn FnMut(&mut Committed)| {
            change(commits.entry(revision).or_insert_with(|| Committed {
                revision,
                at,
                objects: Vec::new(),
                events: Vec::new(),
            }));
        };
        for (key, versions) in &self.versions {
            for version in versions.iter().filter(|version| version.revision > after) {
                commit(version.revision, version.at, &mut |commit| {
                    commit.objects.push(
                        stored(key, version).map_or_else(|| ObjectChange::Deleted(key.clone()), ObjectChange::Put),
                    );
                });
            }
        }
        for event in self.events.iter().filter(|event| event.revision > after) {
            commit(event.revision, event.at, &mut |commit| commit.events.push(event.clone()));
        }
        commits.into_values().collect()
    }

    /// Takes a lease that is free, expired or the holder's own.
    pub(crate) fn acquire(
        &mut self,
        shard: Shard,
        holder: &str,
        ttl: Duration,
        now: StoreTime,
    ) -> Result<Acquired, LeaseError> {
        let row = self.leases.entry(shard).or_default();
        if let Some(other) = row.holder.as_ref().filter(|other| *other != holder)
            && row.expires > now
        {
            return Err(LeaseError::Held { shard, holder: other.clone(), expires: row.expires });
        }
        let previous = row.holder.take().map(|holder| PreviousLease { holder, expires: row.expires });
        *row = LeaseRow { holder: Some(holder.to_owned()), epoch: row.epoch.next(), expires: now.saturating_add(ttl) };
        let lease = Lease { shard, holder: holder.to_owned(), epoch: row.epoch, expires: row.expires };
        Ok(Acquired { lease, previous })
    }

    /// Extends a lease.
    pub(crate) fn renew(
        &mut self,
        shard: Shard,
        epoch: Epoch,
        ttl: Duration,
        now: StoreTime,
    ) -> Result<Lease, LeaseError> {
        let row = self.lease(shard, epoch)?;
        row.expires = now.saturating_add(ttl);
        Ok(Lease { shard, holder: row.holder.clone().unwrap_or_default(), epoch, expires: row.expires })
    }

    /// Gives a lease up.
    pub(crate) fn release(&mut self, shard: Shard, epoch: Epoch) -> Result<(), LeaseError> {
        self.lease(shard, epoch)?.holder = None;
        Ok(())
    }

    fn lease(&mut self, shard: Shard, epoch: Epoch) -> Result<&mut LeaseRow, LeaseError> {
        let row = self.leases.get_mut(&shard).filter(|row| row.holder.is_some() && row.epoch == epoch);
        row.ok_or(LeaseError::Lost { shard, epoch })
    }
}

fn stored(key: &Key, version: &Version) -> Option<Stored> {
    let value = version.value.clone()?;
    Some(Stored {
        key: key.clone(),
        revision: version.revision,
        created: version.created,
        written_at: version.at,
        value,
    })
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: StoreClock) -> Self {
        let feed = Arc::new(Feed::new(Revision::ZERO, Revision::ZERO, RingLimits::default()));
        Self(Arc::new(Shared { state: Mutex::default(), feed, clock }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a defect in this file; readers may still look at what there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a watcher the past without keeping the store open.
struct Past(Weak<Shared>);

impl History for Past {
    fn read(&self, after: Revision) -> BoxFuture<'_, Result<(Vec<Committed>, Revision), WatchError>> {
        let read = self.0.upgrade().ok_or(WatchError::Closed).and_then(|shared| {
            let state = shared.state();
            if after < state.compacted {
                return Err(WatchError::Compacted { oldest: state.compacted });
            }
            Ok((state.history(after), state.revision))
        });
        std::future::ready(read).boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Revision, WatchError>> {
        std::future::ready(self.0.upgrade().map(|shared| shared.state().revision).ok_or(WatchError::Closed)).boxed()
    }
}

impl Store for MemoryStore {
    async fn commit(&self, txn: Txn) -> Result<Revision, CommitError> {
        txn.validate()?;
        let mut state = self.state();
        let (revision, committed) = state.commit(txn, self.0.clock.now())?;
        // Published under the lock, so that the feed sees commits in their order.
        self.0.feed.publish(committed);
        Ok(revision)
    }

    async fn outcome(&self, request: &RequestId) -> Result<Option<Revision>, ReadError> {
        Ok(self.state().request(request, self.0.clock.now()))
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, ReadError> {
        Ok(self.state().live(key).and_then(|version| stored(key, version)))
    }

    async fn list(&self, selector: &Selector, page: Page) -> Result<List, ReadError> {
        self.state().list(selector, &page)
    }

    fn watch(&self, selector: Selector, after: Revision) -> ChangeStream {
        self.0.feed.stream(Arc::new(Past(Arc::downgrade(&self.0))), selector, after)
    }

    async fn events(&self, subject: &Selector, after: Revision, limit: usize) -> Result<EventPage, ReadError> {
        let state = self.state();
        let mut events: Vec<Event> = Vec::new();
        for event in state.events.iter().filter(|event| event.revision > after && subject.matches(&event.subject)) {
            if events.len() >= limit && events.last().is_none_or(|last| last.revision != event.revision) {
                break;
            }
            events.push(event.clone());
        }
        Ok(EventPage { events, forgotten: state.forgotten })
    }

    async fn latest_events(&self, subject: &Selector, limit: usize) -> Result<EventPage, ReadError> {
        let state = self.state();
        let mut events: Vec<_> =
            state.events.iter().rev().filter(|event| subject.matches(&event.subject)).take(limit).cloned().collect();
        events.reverse();
        Ok(EventPage { events, forgotten: state.forgotten })
    }

    async fn revision(&self) -> Result<Revision, ReadError> {
        Ok(self.state().revision)
    }

    async fn now(&self) -> Result<StoreTime, ReadError> {
        Ok(self.0.clock.now())
    }

    async fn compact(&self, before: Revision) -> Result<(), CommitError> {
        let mut state = self.state();
        state.compact(before);
        self.0.feed.compact(state.compacted);
        Ok(())
    }

    async fn forget_events(&self, before: Revision) -> Result<Revision, CommitError> {
        let mut state = self.state();
        let mark = state.mark_forgotten(before);
        state.events.retain(|event| event.revision > mark);
        Ok(mark)
    }

    /// Writes a SQLite store with the same content, so that what a simulation has reached can be looked at.
    async fn backup(&self, to: &Path) -> Result<Revision, BackupError> {
        let snapshot: Snapshot = self.state().clone();
        let revision = snapshot.revision;
        write_snapshot(to, &snapshot).map(|()| revision)
    }

    async fn acquire(&self, shard: Shard, holder: &str, ttl: Duration) -> Result<Acquired, LeaseError> {
        self.state().acquire(shard, holder, ttl, self.0.clock.now())
    }

    async fn renew(&self, shard: Shard, epoch: Epoch, ttl: Duration) -> Result<Lease, LeaseError> {
        self.state().renew(shard, epoch, ttl, self.0.clock.now())
    }

    async fn release(&self, shard: Shard, epoch: Epoch) -> Result<(), LeaseError> {
        self.state().release(shard, epoch)
    }
}
