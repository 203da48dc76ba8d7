//! The right to talk to a BMC, asked for at the last moment.

use std::fmt;

/// Says whether its holder may still send something to a BMC. Asked immediately before each request is written, after every
/// wait for a turn: an engine that slept since its last request must not wake up and send the next.
///
/// What is between the question and the socket is bounded by [`crate::Config::request_timeout`], which is why whoever takes a
/// host over waits that long first.
pub trait Fence: Send + Sync {
    /// Whether a request may be sent now.
    ///
    /// # Errors
    /// [`Fenced`] when the right has run out or belongs to somebody else.
    fn check(&self) -> Result<(), Fenced>;
}

/// Why nothing may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fenced(pub String);

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fence of a process that is alone by other means: a test, a tool in an operator's hands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Fence for Alone {
    fn check(&self) -> Result<(), Fenced> {
        Ok(())
    }
}
