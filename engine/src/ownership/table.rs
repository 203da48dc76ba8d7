//! What is owned, by the clock of this process. Plain bookkeeping: nothing here waits or talks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use vmetal_runtime::{Clock, Monotonic};
use vmetal_store::{Epoch, Shard};

use super::{Hold, Refusal};

/// The shards of this engine.
pub(super) struct Table {
    clock: Arc<dyn Clock>,
    margin: Duration,
    tenures: Mutex<BTreeMap<Shard, Tenure>>,
    /// Rung when the last grip on a shard that is to be handed over is gone, and when a shard was lost.
    pub(super) bell: Notify,
}

/// The time of one shard with this engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tenure {
    pub(super) epoch: Epoch,
    /// Until when the lease is good, counted from before it was asked for. `None`: for as long as the process lives.
    pub(super) until: Option<Monotonic>,
    /// Before this the previous owner's last request may be on its way.
    pub(super) from: Monotonic,
    /// The same by the wall clock: since when this engine listens to what is said about the shard's objects.
    pub(super) since: Timestamp,
    /// Being handed over: nothing new begins.
    pub(super) leaving: bool,
    /// Whether the engine was told to begin.
    pub(super) begun: bool,
    /// Grips that live.
    pub(super) grips: usize,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("tenures", &*self.lock()).finish_non_exhaustive()
    }
}

impl Table {
    pub(super) fn new(clock: Arc<dyn Clock>, margin: Duration) -> Self {
        Table { clock, margin, tenures: Mutex::default(), bell: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Shard, Tenure>> {
        // Every change is a single assignment, so that a panic elsewhere leaves nothing half done.
        self.tenures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Monotonic {
        self.clock.monotonic()
    }

    pub(super) fn own_for_ever(&self, shard: Shard, epoch: Epoch) {
        let (from, since) = (Monotonic::default(), self.clock.now());
        let tenure = Tenure { epoch, until: None, from, since, leaving: false, begun: true, grips: 0 };
        self.lock().insert(shard, tenure);
    }

    /// A lease was acquired that is good until `until`; nothing is decided for another `wait`.
    pub(super) fn own(&self, shard: Shard, epoch: Epoch, until: Monotonic, wait: Duration) {
        let from = self.now().saturating_add(wait);
        let signed = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        let since = self.clock.now().saturating_add(signed).unwrap_or(Timestamp::MAX);
        let tenure = Tenure { epoch, until: Some(until), from, since, leaving: false, begun: false, grips: 0 };
        self.lock().insert(shard, tenure);
    }

    pub(super) fn renewed(&self, hold: Hold, until: Monotonic) {
        if let Some(tenure) = self.lock().get_mut(&hold.shard).filter(|tenure| tenure.epoch == hold.epoch) {
            tenure.until = Some(until);
        }
    }

    /// The epoch of a shard that may be decided about.
    pub(super) fn owned(&self, shard: Shard) -> Option<Epoch> {
        let now = self.now();
        let tenures = self.lock();
        tenures.get(&shard).filter(|tenure| !tenure.leaving && tenure.from <= now).map(|tenure| tenure.epoch)
    }

    /// Since when the holder listens, by the wall clock.
    pub(super) fn since(&self, hold: Hold) -> Option<Timestamp> {
        self.lock().get(&hold.shard).filter(|tenure| tenure.epoch == hold.epoch).map(|tenure| tenure.since)
    }

    fn standing<'a>(&self, tenures: &'a mut BTreeMap<Shard, Tenure>, hold: Hold) -> Result<&'a mut Tenure, Refusal> {
        let Hold { shard, epoch } = hold;
        let now = self.now();
        let tenure = tenures.get_mut(&shard).filter(|tenure| tenure.epoch == epoch && tenure.from <= now);
        let tenure = tenure.ok_or(Refusal::NotOurs { shard, epoch })?;
        match tenure.until {
            Some(until) if now.saturating_add(self.margin) >= until => Err(Refusal::RunOut { shard, epoch }),
            _ => Ok(tenure),
        }
    }

    /// Whether what was begun may go on. A shard that is being handed over is handed over only when all has ended.
    pub(super) fn check(&self, hold: Hold) -> Result<(), Refusal> {
        self.standing(&mut self.lock(), hold).map(|_| ())
    }

    /// Counts one more that acts.
    pub(super) fn grip(&self, hold: Hold) -> Result<(), Refusal> {
        let mut tenures = self.lock();
        let tenure = self.standing(&mut tenures, hold)?;
        if tenure.leaving {
            return Err(Refusal::NotOurs { shard: hold.shard, epoch: hold.epoch });
        }
        tenure.grips += 1;
        Ok(())
    }

    pub(super) fn let_go(&self, hold: Hold) {
        if let Some(tenure) = self.lock().get_mut(&hold.shard).filter(|tenure| tenure.epoch == hold.epoch) {
            tenure.grips -= 1;
            if tenure.grips == 0 && tenure.leaving {
                self.bell.notify_one();
            }
        }
    }

    /// The store says that a shard is at another epoch: it is somebody else's. True when that is news.
    pub(super) fn superseded(&self, shard: Shard, found: Option<Epoch>) -> bool {
        let mut tenures = self.lock();
        let lost = tenures.get(&shard).is_some_and(|tenure| found != Some(tenure.epoch));
        if lost {
            tenures.remove(&shard);
            self.bell.notify_one();
        }
        lost
    }

    /// Forgets a shard that was released or lost.
    pub(super) fn forget(&self, hold: Hold) {
        let mut tenures = self.lock();
        if tenures.get(&hold.shard).is_some_and(|tenure| tenure.epoch == hold.epoch) {
            tenures.remove(&hold.shard);
        }
    }

    /// Begins to hand shards over.
    pub(super) fn leave(&self, leaving: impl Fn(Shard) -> bool) {
        for (shard, tenure) in self.lock().iter_mut() {
            tenure.leaving |= leaving(*shard);
        }
    }

    /// Everything that is held, also what is being handed over or waited for.
    pub(super) fn all(&self) -> BTreeMap<Shard, Tenure> {
        self.lock().clone()
    }

    /// Everything that may be decided about.
    pub(super) fn all_owned(&self) -> Vec<Shard> {
        let now = self.now();
        self.lock().iter().filter(|(_, t)| !t.leaving && t.from <= now).map(|(shard, _)| *shard).collect()
    }

    /// Shards that became the engine's to decide about since this was last asked.
    pub(super) fn beginning(&self) -> Vec<Shard> {
        let now = self.now();
        let mut tenures = self.lock();
        let new = tenures.iter_mut().filter(|(_, tenure)| !tenure.begun && !tenure.leaving && tenure.from <= now);
        new.map(|(shard, tenure)| {
            tenure.begun = true;
            *shard
        })
        .collect()
    }
}
