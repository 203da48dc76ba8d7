//! Which objects this engine may decide about and act on.
//!
//! Objects hash to shards; how many there are is written in the store, so that no two engines can disagree. An engine owns a
//! shard by a lease in the store whose epoch grows with every change of hands. Two values stand for that, and nothing but
//! this module makes them:
//!
//! * a [`Hold`] is the epoch of a shard. A commit that follows from a decision carries it as a guard, so the store refuses
//!   whatever an engine decides after another has taken over, however late it comes.
//! * a [`Grip`] is the right to act: a hold whose lease is not about to run out. It is counted for as long as it lives, and
//!   asked again before each single request to a BMC ([`Fence`]).
//!
//! # When a new owner acts
//!
//! An old owner writes no request to a socket later than [`Terms::margin`] before its lease runs out, by a clock that was read
//! before it asked for the lease; such a request ends within [`Terms::longest_call`]. So a new owner that took an expired
//! lease neither decides nor acts before
//!
//! ```text
//! expiry of the old lease + longest call + margin        (all by the store's clock)
//! ```
//!
//! and, where the old owner released the lease, which it does only with no grip left, at once. From death to the first effect
//! it is at most the lease (15 s) + the longest call (30 s) + the margin (3 s).
//!
//! What this does not cover: a process that is suspended between the check and the write to the socket for longer than all of
//! that. Nothing but a gateway that checks epochs itself could.

mod membership;
mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use vmetal_bmc::{Fence, Fenced};
use vmetal_runtime::Clock;
use vmetal_store::{AnyStore, CommitError, Epoch, Guard, Key, ReadError, Shard, Store, Txn, Write};

pub use self::membership::{ENGINES, Membership};
use self::table::Table;
use crate::engine::ObjectKey;

/// How many shards a new store gets. Enough for an even share among tens of engines; a lease each.
pub const SHARDS: u16 = 64;
/// Where the store says how many it has.
const SETTING: (&str, &str) = ("setting", "shards");

/// How ownership works here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terms {
    /// No other engine can have this store: a lock on its file, or the memory of one process, says so. All shards are taken at
    /// the start, without waiting for anybody, and never run out: a killed predecessor has no thread left that could send
    /// anything, and what it had sent, the lifecycle waits for (`Limits::settle`).
    Alone,
    /// Others may share the store.
    Shared(Shared),
}

/// The terms of several engines. All engines of one store must have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// What this engine is called; unique among those that live, different after each start.
    pub id: String,
    /// For how long a lease is taken. Renewed after each third of it.
    pub lease: Duration,
    /// The longest time from the check of a lease to the end of the request that it allowed.
    pub longest_call: Duration,
    /// What a clock may be wrong by during a lease, and a thread late.
    pub margin: Duration,
}

impl Shared {
    /// How long after the expiry of another's lease its last request may still be on its way.
    pub fn quarantine(&self) -> Duration {
        self.longest_call.saturating_add(self.margin)
    }
}

/// A shard at an epoch: what a commit is guarded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    shard: Shard,
    epoch: Epoch,
}

impl Hold {
    /// What must hold for a commit of this holder.
    pub fn guard(self) -> Guard {
        Guard::Epoch(self.shard, self.epoch)
    }
}

/// On whose authority something is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The owner of the object decided it. Refused when it is the owner no more.
    Owner(Hold),
    /// It was said from outside: declared through the API, reported by an installer. Any engine may take that in; it is
    /// guarded by the revision of what it changes, and it starts no effect.
    Outside,
}

/// The right to act on what belongs to a shard, for as long as it lives. Not for ever: [`Fence::check`] says whether it still
/// is one.
pub struct Grip {
    table: Arc<Table>,
    hold: Hold,
}

impl Grip {
    /// The epoch it is for.
    pub fn hold(&self) -> Hold {
        self.hold
    }
}

impl Fence for Grip {
    fn check(&self) -> Result<(), Fenced> {
        self.table.check(self.hold).map_err(|refusal| Fenced(refusal.to_string()))
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        self.table.let_go(self.hold);
    }
}

/// Why no effect may be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another engine has the shard, or will have it.
    #[error("shard {shard} is not this engine's any more (its epoch was {epoch}); another engine goes on with it")]
    NotOurs {
        /// The shard.
        shard: Shard,
        /// The epoch that was asked for.
        epoch: Epoch,
    },
    /// The lease is running out, or has: the store did not renew it in time, or this process was stopped for a while.
    #[error("the lease of shard {shard} (epoch {epoch}) has run out and is not renewed yet")]
    RunOut {
        /// The shard.
        shard: Shard,
        /// The epoch that was asked for.
        epoch: Epoch,
    },
}

/// Which objects this engine may decide about and act on. Clones share it.
#[derive(Clone)]
pub struct Ownership {
    table: Arc<Table>,
    terms: Terms,
    shards: u16,
}

impl Ownership {
    /// Reads, or writes, how many shards the store has, and takes all of them where no other engine can be. Otherwise it owns
    /// nothing until [`Membership`] runs.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn open(store: &AnyStore, terms: Terms, clock: Arc<dyn Clock>) -> Result<Self, OwnershipError> {
        let shards = shards(store).await?;
        let margin = match &terms {
            Terms::Alone => Duration::ZERO,
            Terms::Shared(shared) => shared.margin,
        };
        let table = Arc::new(Table::new(clock, margin));
        if terms == Terms::Alone {
            // The same name each time: the store lets a holder take its own lease over.
            let taken = (0..shards).map(|number| store.acquire(Shard(number), "alone", Duration::from_secs(15)));
            for acquired in futures::future::try_join_all(taken).await? {
                table.own_for_ever(acquired.lease.shard, acquired.lease.epoch);
            }
        }
        Ok(Ownership { table, terms, shards })
    }

    /// The terms it works by.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The shard of an object.
    pub fn shard_of(&self, key: &ObjectKey) -> Shard {
        let name = format!("{}/{}", key.kind.as_str(), key.name);
        Shard(vmetal_runtime::shard_of(name.as_bytes(), self.shards))
    }

    /// What the engine's decisions about an object are guarded by; `None` while the object is not the engine's to decide on.
    pub fn hold(&self, key: &ObjectKey) -> Option<Hold> {
        let shard = self.shard_of(key);
        self.table.owned(shard).map(|epoch| Hold { shard, epoch })
    }

    /// The right to act.
    ///
    /// # Errors
    /// When the hold is not, or not for long enough, in force.
    pub fn grip(&self, hold: Hold) -> Result<Grip, Refusal> {
        self.table.grip(hold)?;
        Ok(Grip { table: Arc::clone(&self.table), hold })
    }

    /// Since when a holder listens, by the wall clock: what was said before, the owner before it may have heard.
    pub fn since(&self, hold: Hold) -> Option<vmetal_model::Timestamp> {
        self.table.since(hold)
    }

    /// Takes note of a commit that was refused because the shard changed hands.
    pub fn heed(&self, error: &CommitError) {
        if let CommitError::Fenced { shard, found } = error
            && self.table.superseded(*shard, *found)
        {
            tracing::error!(
                %shard,
                "fenced: another engine has taken this shard, because this one did not renew its lease in time; nothing that \
                 was decided here about its objects counts any more"
            );
        }
    }

    /// How many shards are owned now.
    pub fn owned(&self) -> usize {
        self.table.all_owned().len()
    }
}

/// Why ownership could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// The number of shards cannot be read.
    #[error("cannot read how many shards the store has")]
    Read(#[from] ReadError),
    /// The number of shards cannot be written.
    #[error("cannot write how many shards the store has")]
    Commit(#[from] CommitError),
    /// A shard cannot be taken.
    #[error("cannot take a shard")]
    Lease(#[from] vmetal_store::LeaseError),
    /// The number is none.
    #[error(
        "the store says that it has {0:?} shards: expected a number from 1 to 65535; it was damaged or changed by hand"
    )]
    Nonsense(String),
}

async fn shards(store: &AnyStore) -> Result<u16, OwnershipError> {
    let key = Key::new(SETTING.0, SETTING.1);
    loop {
        if let Some(stored) = store.get(&key).await? {
            let text = String::from_utf8_lossy(&stored.value).into_owned();
            return text.parse().ok().filter(|shards| *shards > 0).ok_or(OwnershipError::Nonsense(text));
        }
        let mut txn = Txn::default();
        txn.guards.push(Guard::Absent(key.clone()));
        txn.writes.push(Write::put(key.clone(), SHARDS.to_string()));
        match store.commit(txn).await {
            // Whoever came first has said it.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
