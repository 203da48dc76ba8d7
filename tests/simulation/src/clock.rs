//! The clocks of one engine: tokio's virtual time, and a wall clock that can be set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use vmetal_runtime::{Clock, Monotonic};

/// When every simulation begins: 2026-06-01T00:00:00Z.
pub const BEGIN: i64 = 1_780_272_000;

/// The true time of a simulation that began at `start`.
pub fn now(start: tokio::time::Instant) -> Timestamp {
    let millis = BEGIN * 1000 + start.elapsed().as_millis() as i64;
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// A clock whose wall time may jump while its monotonic time does not.
#[derive(Debug, Clone)]
pub struct SimClock {
    start: tokio::time::Instant,
    skew_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// The clock of a machine; `start` is the simulation's beginning.
    pub fn new(start: tokio::time::Instant) -> Self {
        SimClock { start, skew_ms: Arc::default() }
    }

    /// Sets the wall clock by this much.
    pub fn jump(&self, by: SignedDuration) {
        self.skew_ms.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }

    /// Sets the wall clock right.
    pub fn set_right(&self) {
        self.skew_ms.store(0, Ordering::Relaxed);
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let millis = BEGIN * 1000 + self.elapsed().as_millis() as i64 + self.skew_ms.load(Ordering::Relaxed);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.elapsed())
    }
}
