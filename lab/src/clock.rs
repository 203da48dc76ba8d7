//! The one place where the lab reads the clock. A lab stands in for hardware, so its time is real; nothing is decided by it, it is only
//! written down (journal, console marks, `LastResetTime`).

use jiff::Timestamp;

/// The time now.
#[allow(clippy::disallowed_methods, reason = "the edge to the real clock")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
