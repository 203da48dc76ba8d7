//! Leases: which engine may act on a shard of the hosts, and the number that fences the one before it.
//!
//! A lease is an agreement about time, so it cannot by itself stop an engine that sleeps through its expiry. The epoch
//! can: it grows with every change of hands and is part of every commit ([`crate::Guard::Epoch`]), so the old holder's
//! late commit fails. Effects outside the store (a call to a BMC) are covered by the new holder waiting, from
//! [`PreviousLease::expires`], as long as the longest call can take.
//!
//! Leases are not objects: they take no revision and no watcher sees them, because 64 shards renewed every five
//! seconds would drown the history in noise.

use std::fmt;

use crate::time::StoreTime;

/// A part of the hosts that is owned as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many times a shard has changed hands. Grows by one per acquisition, never falls, survives release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next holder.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What is held.
    pub shard: Shard,
    /// Who holds it.
    pub holder: String,
    /// Since which change of hands.
    pub epoch: Epoch,
    /// Until when, unless renewed.
    pub expires: StoreTime,
}

/// The holder that was displaced without having released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousLease {
    /// Who it was.
    pub holder: String,
    /// Until when it could believe that it held the shard: wait from here before the first effect.
    pub expires: StoreTime,
}

/// A lease just acquired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// The new lease.
    pub lease: Lease,
    /// The holder that may still have an effect in flight; `None` after a clean release or for a new shard.
    pub previous: Option<PreviousLease>,
}
