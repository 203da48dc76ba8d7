//! The machinery of a reconciling engine, without anything to reconcile.
//!
//! An engine that drives thousands of machines needs the same few mechanisms whatever the machines are, and each of
//! them has a way to go quietly wrong. They live here, apart from the model and the store, so that each can be tested
//! to the end:
//!
//! * [`Clock`] and [`Entropy`]: time and chance as arguments. With [`VirtualClock`] and [`SeededEntropy`] a run of the
//!   whole engine can be repeated from its seed, and an hour of waiting takes no time.
//! * [`Scheduler`]: which key is to be looked at next. No key runs twice at once, no wake is lost.
//! * [`Lane`]: at most so many boots, images, joins at a time; exact, first come first served, visible.
//! * [`plan`]: which shards an engine takes, gives up and waits for, where several share the work.
//!
//! Nothing here talks to the outside, and nothing here knows a host from a node.

mod clock;
mod entropy;
mod permits;
mod scheduler;
mod sharing;

pub use clock::{Clock, ManualClock, Monotonic, SystemClock, VirtualClock};
pub use entropy::{Entropy, SeededEntropy, SystemEntropy};
pub use permits::{Lane, LaneCounts, Permit};
pub use scheduler::{Lease, Scheduler, SchedulerStats};
pub use sharing::{Plan, ShardNumber, plan, shard_of, shares};
