//! The one place where the installer looks at a clock.

use std::time::Instant;

/// The monotonic clock. Waits that tests must not sit through take durations from [`crate::engine::Pace`] or as
/// arguments; a simulated clock would be no use here, since what is waited for is hardware and network.
#[allow(clippy::disallowed_methods, reason = "the installer works in real time on real hardware")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
