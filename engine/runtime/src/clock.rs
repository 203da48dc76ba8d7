//! Time as an argument.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A reading of a clock that only runs forward: the time since an arbitrary start, the same for all readings of one
/// [`Clock`]. Deadlines and leases are measured with this, because the wall clock may be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// The reading a while later.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What time it is.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall clock: for people, certificates and what outlives the process.
    fn now(&self) -> Timestamp;
    /// The clock that only runs forward: for measuring inside the process.
    fn monotonic(&self) -> Monotonic;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// The machine's clocks; the monotonic one starts at zero now.
    #[allow(clippy::disallowed_methods, reason = "the edge to the real clock")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the edge to the real clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }
}

/// A clock that follows tokio's: in a runtime with paused time it jumps from timer to timer, so that a simulation of a
/// day takes as long as its work does. Must be made and read inside a tokio runtime.
#[derive(Clone, Copy, Debug)]
pub struct VirtualClock {
    origin: Timestamp,
    start: tokio::time::Instant,
}

impl VirtualClock {
    /// A clock whose wall time is `origin` now.
    pub fn starting_at(origin: Timestamp) -> Self {
        Self { origin, start: tokio::time::Instant::now() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        later(self.origin, self.start.elapsed())
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }
}

/// A clock that stands still until it is moved; its wall time can be set, also back.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Timestamp, Duration)>);

impl ManualClock {
    /// A clock that shows `wall`.
    pub fn at(wall: Timestamp) -> Self {
        Self(Mutex::new((wall, Duration::ZERO)))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *time = (later(time.0, by), time.1.saturating_add(by));
    }

    /// Sets the wall clock; no time passes.
    pub fn set(&self, wall: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = wall;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn virtual_time_passes_without_waiting() {
        let clock = VirtualClock::starting_at(Timestamp::UNIX_EPOCH);
        let day = Duration::from_secs(24 * 60 * 60);
        tokio::time::sleep(day).await;
        assert_eq!(clock.monotonic(), Monotonic(day));
        assert_eq!(clock.now().to_string(), "1970-01-02T00:00:00Z");
    }

    #[test]
    fn setting_the_wall_clock_is_not_passing_of_time() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(60));
        clock.set(Timestamp::UNIX_EPOCH);
        assert_eq!((clock.now(), clock.monotonic()), (Timestamp::UNIX_EPOCH, Monotonic(Duration::from_secs(60))));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}
