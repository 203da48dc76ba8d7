//! One gateway per BMC: the only code of vmetal that talks to a management controller.
//!
//! Management controllers are slow, small and odd. They lock accounts after a few wrong passwords, run out of sessions,
//! answer "done" and do nothing, forget one half of what is written beside the other, and die under parallel requests.
//! [`Gateways`] hands out one [`Gateway`] per BMC address, and everything that protects a BMC is in one place behind it:
//!
//! * at most one changing call and two reads in flight per BMC (per origin, so that blades behind one controller share
//!   them), at a bounded rate; `Retry-After` is obeyed;
//! * a circuit breaker: after five failures in a row on the network the BMC is left alone for a while, then asked one
//!   harmless question first;
//! * a refused password is tried twice, never a third time, until it changes;
//! * every request asks a [`Fence`] first, at the last moment: an engine that lost the host sends nothing more;
//! * every write is read back, and only what reads back counts as done;
//! * basic authentication on each request and no sessions, so that none can leak;
//! * a changing call is never cancelled by dropping its future: it runs to its own deadline.
//!
//! Addresses are user input. [`AddressGuard`] decides at dial time, after name resolution, which addresses may be
//! reached; redirects are not followed, proxies not used, links in answers must stay on the same origin, and bodies are
//! bounded. Certificates are verified unless the operator pinned one or chose otherwise in so many words, see [`tls`].
//!
//! Errors are [`BmcError`]: what failed, where, what was expected and seen; [`BmcError::to_failure`] adds what to do.
//!
//! Sources: DSP0266 (Redfish protocol), DSP0268 (Redfish schemas).

pub mod config;
pub mod error;
pub mod fence;
pub mod gateway;
pub mod guard;
mod link;
pub mod quirks;
mod redfish;
pub mod tls;
mod transport;
pub mod wire;

pub use config::Config;
pub use error::BmcError;
pub use fence::{Alone, Fence, Fenced};
pub use gateway::{BmcTarget, Gateway, Gateways};
pub use guard::{AddressGuard, Cidr};
