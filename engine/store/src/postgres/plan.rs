//! A batch of operations, decided in memory.
//!
//! The database is asked once for everything that a batch depends on, the operations are applied to that by the very code
//! of the model ([`State`]), and what has become different is written with a few statements. So a batch takes the same
//! number of round trips whether it holds one transaction or a thousand, and there is one implementation of what a guard
//! means.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::oneshot;

use super::schema::Meta;
use crate::error::{CommitError, LeaseError};
use crate::key::Key;
use crate::lease::{Acquired, Epoch, Lease, Shard};
use crate::memory::{LeaseRow, State};
use crate::record::Committed;
use crate::time::StoreTime;
use crate::txn::{Guard, RequestId, Revision, Txn, UniqueKey, Write};

/// Where an answer goes.
pub(super) type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// What the writer is asked to do.
pub(super) enum Operation {
    Commit(Box<Txn>, Reply<Revision, CommitError>),
    /// Asked in the order of commits, so that the answer cannot be overtaken by a commit that is still under way on a
    /// connection that was lost.
    Outcome(RequestId, Reply<Option<Revision>, CommitError>),
    Acquire(Shard, String, Duration, Reply<Acquired, LeaseError>),
    Renew(Shard, Epoch, Duration, Reply<Lease, LeaseError>),
    Release(Shard, Epoch, Reply<(), LeaseError>),
    Compact(Revision, Reply<(), CommitError>),
    ForgetEvents(Revision, Reply<Revision, CommitError>),
}

impl Operation {
    /// About how many bytes it adds to a batch.
    pub(super) fn weight(&self) -> usize {
        let Self::Commit(txn, _) = self else { return 64 };
        let write = |write: &Write| match write {
            Write::Put { value, unique, .. } => 256 + value.len() + 64 * unique.len(),
            Write::Delete(_) => 128,
        };
        let writes: usize = txn.writes.iter().map(write).sum();
        let events: usize = txn.events.iter().map(|event| 128 + event.value.len()).sum();
        64 * (1 + txn.guards.len()) + writes + events
    }

    /// Tells the caller that nothing came of it.
    pub(super) fn fail(self, error: CommitError) {
        // A caller that has gone away needs no answer.
        match self {
            Self::Commit(_, reply) => drop(reply.send(Err(error))),
            Self::Outcome(_, reply) => drop(reply.send(Err(error))),
            Self::Acquire(.., reply) => drop(reply.send(Err(error.into()))),
            Self::Renew(.., reply) => drop(reply.send(Err(error.into()))),
            Self::Release(.., reply) => drop(reply.send(Err(error.into()))),
            Self::Compact(_, reply) => drop(reply.send(Err(error))),
            Self::ForgetEvents(_, reply) => drop(reply.send(Err(error))),
        }
    }
}

/// What the caller of an operation is told once the batch is durable.
pub(super) enum Answer {
    Revision(Result<Revision, CommitError>),
    Outcome(Option<Revision>),
    Acquired(Result<Acquired, LeaseError>),
    Renewed(Result<Lease, LeaseError>),
    Released(Result<(), LeaseError>),
    Done,
}

impl Answer {
    /// Hands the answer to whom it belongs.
    pub(super) fn give(self, operation: Operation) {
        match (operation, self) {
            (Operation::Commit(_, reply), Self::Revision(answer)) => drop(reply.send(answer)),
            (Operation::ForgetEvents(_, reply), Self::Revision(answer)) => drop(reply.send(answer)),
            (Operation::Outcome(_, reply), Self::Outcome(answer)) => drop(reply.send(Ok(answer))),
            (Operation::Acquire(.., reply), Self::Acquired(answer)) => drop(reply.send(answer)),
            (Operation::Renew(.., reply), Self::Renewed(answer)) => drop(reply.send(answer)),
            (Operation::Release(.., reply), Self::Released(answer)) => drop(reply.send(answer)),
            (Operation::Compact(_, reply), Self::Done) => drop(reply.send(Ok(()))),
            // Dropping the sender tells the caller that the outcome is unknown.
            _ => tracing::error!("an operation of the store has an answer of another kind"),
        }
    }
}

/// What a batch depends on.
#[derive(Debug, Default)]
pub(super) struct Needs<'a> {
    /// Objects that are guarded or written.
    pub(super) keys: BTreeSet<&'a Key>,
    /// Objects that are written: what they hold in unique indexes is needed.
    pub(super) written: BTreeSet<&'a Key>,
    pub(super) unique: BTreeSet<&'a UniqueKey>,
    pub(super) requests: BTreeSet<&'a str>,
    pub(super) shards: BTreeSet<Shard>,
}

impl<'a> Needs<'a> {
    pub(super) fn of(operations: &'a [Operation]) -> Self {
        let mut needs = Self::default();
        for operation in operations {
            match operation {
                Operation::Commit(txn, _) => needs.add(txn),
                Operation::Outcome(id, _) => drop(needs.requests.insert(&id.0)),
                Operation::Acquire(shard, ..) | Operation::Renew(shard, ..) | Operation::Release(shard, ..) => {
                    needs.shards.insert(*shard);
                }
                Operation::Compact(..) | Operation::ForgetEvents(..) => {}
            }
        }
        needs
    }

    fn add(&mut self, txn: &'a Txn) {
        self.requests.extend(txn.request_id.as_ref().map(|id| id.0.as_str()));
        for guard in &txn.guards {
            match guard {
                Guard::Revision(key, _) | Guard::Absent(key) => drop(self.keys.insert(key)),
                Guard::Epoch(shard, _) => drop(self.shards.insert(*shard)),
            }
        }
        for write in &txn.writes {
            self.keys.insert(write.key());
            self.written.insert(write.key());
            if let Write::Put { unique, .. } = write {
                self.unique.extend(unique);
            }
        }
    }
}

/// What the database has said about the needs, and what has become of it.
#[derive(Debug)]
pub(super) struct Plan {
    before: State,
    after: State,
    now: StoreTime,
    pub(super) commits: Vec<Committed>,
}

impl Plan {
    /// `loaded` holds what the database knows of the needs; values are not needed, only whether there is one.
    pub(super) fn new(meta: &Meta, mut loaded: State) -> Self {
        (loaded.revision, loaded.compacted, loaded.forgotten) = (meta.revision, meta.compacted, meta.forgotten);
        Self { after: loaded.clone(), before: loaded, now: meta.now, commits: Vec::new() }
    }

    /// Applies one operation, or changes nothing.
    pub(super) fn apply(&mut self, operation: &Operation) -> Answer {
        let (state, now) = (&mut self.after, self.now);
        match operation {
            Operation::Commit(txn, _) => {
                Answer::Revision(state.commit((**txn).clone(), now).map(|(revision, commit)| {
                    self.commits.extend(commit);
                    revision
                }))
            }
            Operation::Outcome(id, _) => Answer::Outcome(state.request(id, now)),
            Operation::Acquire(shard, holder, ttl, _) => Answer::Acquired(state.acquire(*shard, holder, *ttl, now)),
            Operation::Renew(shard, epoch, ttl, _) => Answer::Renewed(state.renew(*shard, *epoch, *ttl, now)),
            Operation::Release(shard, epoch, _) => Answer::Released(state.release(*shard, *epoch)),
            Operation::Compact(before, _) => {
                state.mark_compacted(*before);
                Answer::Done
            }
            Operation::ForgetEvents(before, _) => Answer::Revision(Ok(state.mark_forgotten(*before))),
        }
    }

    /// The revision that the batch began at.
    pub(super) fn base(&self) -> Revision {
        self.before.revision
    }

    pub(super) fn now(&self) -> StoreTime {
        self.now
    }

    /// The newest revision, the mark of compaction and that of forgotten events, as they are after the batch.
    pub(super) fn marks(&self) -> (Revision, Revision, Revision) {
        (self.after.revision, self.after.compacted, self.after.forgotten)
    }

    /// Whether anything has to be written.
    pub(super) fn changes_something(&self) -> bool {
        let marks = |state: &State| (state.revision, state.compacted, state.forgotten);
        marks(&self.before) != marks(&self.after) || self.requests().next().is_some() || self.leases().next().is_some()
    }

    /// Objects whose newest value was replaced, and by which commit.
    pub(super) fn replaced(&self) -> impl Iterator<Item = (&Key, Revision)> {
        self.after.versions.iter().filter_map(|(key, versions)| {
            let first = versions.first().filter(|version| version.revision <= self.before.revision)?;
            Some((key, first.until?))
        })
    }

    /// New values with the commit that replaced them within this batch, if one did.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&Key, &crate::memory::Version)> {
        let new = |version: &&crate::memory::Version| version.revision > self.before.revision;
        self.after.versions.iter().flat_map(move |(key, versions)| versions.iter().filter(new).map(move |v| (key, v)))
    }

    /// Unique entries that are free now, or have another holder.
    pub(super) fn released(&self) -> impl Iterator<Item = &UniqueKey> {
        let gone = |(entry, holder): &(&UniqueKey, &Key)| self.after.unique.get(*entry) != Some(*holder);
        self.before.unique.iter().filter(gone).map(|(entry, _)| entry)
    }

    /// Unique entries that have a new holder.
    pub(super) fn taken(&self) -> impl Iterator<Item = (&UniqueKey, &Key)> {
        let new = |(entry, holder): &(&UniqueKey, &Key)| self.before.unique.get(*entry) != Some(*holder);
        self.after.unique.iter().filter(new)
    }

    /// Requests that were answered for the first time.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&RequestId, Revision)> {
        let new = |(id, _): &(&RequestId, &(Revision, StoreTime))| !self.before.requests.contains_key(*id);
        self.after.requests.iter().filter(new).map(|(id, (revision, _))| (id, *revision))
    }

    /// Leases that have changed.
    pub(super) fn leases(&self) -> impl Iterator<Item = (Shard, &LeaseRow)> {
        let changed = |(shard, row): &(&Shard, &LeaseRow)| self.before.leases.get(*shard) != Some(*row);
        self.after.leases.iter().filter(changed).map(|(shard, row)| (*shard, row))
    }
}

/// What the database knows of the needs, piece by piece.
pub(super) fn known(
    versions: Vec<(Key, crate::memory::Version)>,
    unique: BTreeMap<UniqueKey, Key>,
    requests: Vec<(RequestId, Revision, StoreTime)>,
    leases: Vec<(Shard, LeaseRow)>,
) -> State {
    let mut state = State::default();
    state.versions.extend(versions.into_iter().map(|(key, version)| (key, vec![version])));
    unique.into_iter().for_each(|(entry, holder)| state.take_unique(entry, holder));
    state.requests.extend(requests.into_iter().map(|(id, revision, at)| (id, (revision, at))));
    state.leases.extend(leases);
    state
}
