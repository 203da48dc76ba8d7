//! Time as the store sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z by the store's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub u64);

impl StoreTime {
    /// This time plus a duration, to the millisecond.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This time minus a duration, to the millisecond, and not before the epoch.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where a store takes its time from. Within one process it never runs backwards, whatever the source does: a lease
/// must not come back to life because somebody set the clock.
#[derive(Clone)]
pub struct StoreClock {
    source: Arc<dyn Fn() -> StoreTime + Send + Sync>,
    latest: Arc<AtomicU64>,
}

impl StoreClock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Self::from_fn(system_time)
    }

    /// A clock that asks `source`; simulations and tests inject theirs here.
    pub fn from_fn(source: impl Fn() -> StoreTime + Send + Sync + 'static) -> Self {
        Self { source: Arc::new(source), latest: Arc::new(AtomicU64::new(0)) }
    }

    /// The present time.
    pub fn now(&self) -> StoreTime {
        let read = (self.source)().0;
        StoreTime(self.latest.fetch_max(read, Ordering::Relaxed).max(read))
    }
}

impl fmt::Debug for StoreClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreClock").field(&self.now()).finish()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place where a store reads the wall clock; all else takes a StoreClock"
)]
fn system_time() -> StoreTime {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    StoreTime(since_epoch.map_or(0, millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_stands_still() {
        let source = Arc::new(AtomicU64::new(5_000));
        let read = Arc::clone(&source);
        let clock = StoreClock::from_fn(move || StoreTime(read.load(Ordering::Relaxed)));
        assert_eq!(clock.now(), StoreTime(5_000));
        source.store(1_000, Ordering::Relaxed);
        assert_eq!(clock.now(), StoreTime(5_000));
        source.store(5_001, Ordering::Relaxed);
        assert_eq!(clock.now(), StoreTime(5_001));
    }
}
