//! The edge to the real clock. Decisions take the time as an argument; the servers ask for it here.
#![allow(clippy::disallowed_methods, reason = "the edge to the real clock")]

use std::time::Instant;

use jiff::Timestamp;

/// For durations.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// For the record.
pub(crate) fn timestamp() -> Timestamp {
    Timestamp::now()
}
