//! Which key is to be looked at next.
//!
//! A reconciler decides from the present state alone, so a wake carries nothing but the key, and waking a key twice
//! before it runs is the same as once: the earlier time wins. A key that is woken while it runs is held back until the
//! run ends and then runs again, because the run may have read the state before the change that the wake is about.
//!
//! # Guarantees
//!
//! * A key is in the hands of at most one [`Lease`] at a time.
//! * After `wake(key)` returns, a run of `key` begins (unless the key is forgotten, and provided someone calls
//!   [`Scheduler::next`]). It sees every change made before the wake.
//! * Keys that are due come out in the order in which they became due; those due at the same instant, in the order in
//!   which they were woken. So no key starves.
//! * With tokio's time paused, the order is the same every time.
//!
//! # Caveats
//!
//! [`Scheduler::wake_at`] turns a wall-clock time into a delay when it is called. If the wall clock is set afterwards,
//! the wake comes that much too early or late; the periodic scan of an engine covers the latter.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;

/// No wake is further away than this; a later one comes early, is looked at and is put off again.
const HORIZON: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A queue of keys with due times. Clones share it.
#[derive(Debug)]
pub struct Scheduler<K> {
    shared: Arc<Shared<K>>,
    clock: Arc<dyn Clock>,
}

impl<K> Clone for Scheduler<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), clock: Arc::clone(&self.clock) }
    }
}

#[derive(Debug)]
struct Shared<K> {
    state: Mutex<State<K>>,
    /// Rung when the first of the queue may have changed.
    bell: Notify,
}

/// When a key is due, and the number of the wake that said so.
type Due = (Instant, u64);

#[derive(Debug)]
struct State<K> {
    queue: BTreeMap<Due, K>,
    keys: HashMap<K, Slot>,
    wakes: u64,
    running: usize,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    /// In the queue.
    Waiting(Due),
    /// Held by a lease; to be queued when it ends, if woken meanwhile.
    Running(Option<Due>),
}

/// How busy a scheduler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Keys whose time has not come.
    pub waiting: usize,
    /// Keys that are due and not yet taken.
    pub ready: usize,
    /// Keys in the hands of a lease.
    pub running: usize,
    /// How long the first of the ready keys has been due: the engine's lag.
    pub lag: Duration,
}

impl<K: Clone + Eq + Hash + Debug> Scheduler<K> {
    /// An empty scheduler. `clock` translates the wall-clock times given to [`Scheduler::wake_at`].
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State { queue: BTreeMap::new(), keys: HashMap::new(), wakes: 0, running: 0 };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), bell: Notify::new() }), clock }
    }

    /// Wants `key` looked at now.
    pub fn wake(&self, key: K) {
        self.shared.wake(key, Instant::now());
    }

    /// Wants `key` looked at after a while.
    pub fn wake_after(&self, key: K, delay: Duration) {
        self.shared.wake(key, Instant::now() + delay.min(HORIZON));
    }

    /// Wants `key` looked at at a time (now, if that has passed).
    pub fn wake_at(&self, key: K, when: Timestamp) {
        let delay = self.clock.now().duration_until(when);
        self.wake_after(key, Duration::try_from(delay).unwrap_or(Duration::ZERO));
    }

    /// Takes `key` out of the queue; a run under way goes on.
    pub fn forget(&self, key: &K) {
        let mut state = self.shared.state();
        match state.keys.get_mut(key) {
            Some(Slot::Running(pending)) => *pending = None,
            Some(Slot::Waiting(due)) => {
                let due = *due;
                state.queue.remove(&due);
                state.keys.remove(key);
            }
            None => {}
        }
    }

    /// Waits for the next key that is due and takes it. Several may wait; dropping the future loses nothing.
    pub async fn next(&self) -> Lease<K> {
        loop {
            // From here on no ring is missed (`notify_waiters` promises it), so a wake between the look and the wait
            // counts.
            let bell = self.shared.bell.notified();
            let taken = self.shared.state().take(Instant::now());
            match taken {
                Ok(key) => return Lease { key, shared: Arc::clone(&self.shared) },
                // In this order, not in one drawn by chance: a simulation must be able to repeat itself.
                Err(Some(due)) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(due) => {}
                    () = bell => {}
                },
                Err(None) => bell.await,
            }
        }
    }

    /// How busy it is.
    pub fn stats(&self) -> SchedulerStats {
        let now = Instant::now();
        let state = self.shared.state();
        let ready = state.queue.range(..=(now, u64::MAX)).count();
        let lag =
            state.queue.first_key_value().map_or(Duration::ZERO, |((due, _), _)| now.saturating_duration_since(*due));
        SchedulerStats { waiting: state.queue.len() - ready, ready, running: state.running, lag }
    }
}

impl<K> Shared<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        // The state is only ever changed by the few lines below, none of which can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Shared<K> {
    fn wake(&self, key: K, at: Instant) {
        if self.state().wake(key, at) {
            self.bell.notify_waiters();
        }
    }

    fn release(&self, key: &K) {
        if self.state().release(key) {
            self.bell.notify_waiters();
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Returns whether someone who waits should look again.
    fn wake(&mut self, key: K, at: Instant) -> bool {
        self.wakes += 1;
        let due = (at, self.wakes);
        match self.keys.get_mut(&key) {
            Some(Slot::Running(pending)) => {
                *pending = Some(pending.map_or(due, |earlier| earlier.min(due)));
                return false;
            }
            Some(Slot::Waiting(earlier)) if *earlier <= due => return false,
            Some(Slot::Waiting(later)) => {
                self.queue.remove(&std::mem::replace(later, due));
            }
            None => {
                self.keys.insert(key.clone(), Slot::Waiting(due));
            }
        }
        self.queue.insert(due, key);
        self.is_first(due)
    }

    /// The first key that is due, or when that will be.
    fn take(&mut self, now: Instant) -> Result<K, Option<Instant>> {
        let Some(first) = self.queue.first_entry() else { return Err(None) };
        if first.key().0 > now {
            return Err(Some(first.key().0));
        }
        let key = first.remove();
        self.keys.insert(key.clone(), Slot::Running(None));
        self.running += 1;
        Ok(key)
    }

    /// Returns whether someone who waits should look again.
    fn release(&mut self, key: &K) -> bool {
        self.running -= 1;
        match self.keys.remove(key) {
            Some(Slot::Running(Some(due))) => {
                self.keys.insert(key.clone(), Slot::Waiting(due));
                self.queue.insert(due, key.clone());
                self.is_first(due)
            }
            _ => false,
        }
    }

    fn is_first(&self, due: Due) -> bool {
        self.queue.first_key_value().is_some_and(|(first, _)| *first == due)
    }
}

/// The right to work on a key. Dropping it, also in a panic, lets the key run again.
#[derive(Debug)]
#[must_use = "dropping the lease ends the run"]
pub struct Lease<K: Clone + Eq + Hash> {
    key: K,
    shared: Arc<Shared<K>>,
}

impl<K: Clone + Eq + Hash> Lease<K> {
    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Ends the run.
    pub fn done(self) {}
}

impl<K: Clone + Eq + Hash> Drop for Lease<K> {
    fn drop(&mut self) {
        self.shared.release(&self.key);
    }
}
