//! Which node type, which host: decisions that operators can write, exchange, limit and explain.
//!
//! A decision has three steps, and only the middle one is a policy's:
//!
//! 1. **Rules** ([`feasibility`]), native and the same for everyone: phase, exclusivity, selector, requirements, sizes,
//!    capacity, special resources only when asked for. Every candidate that fails gets a typed reason.
//! 2. **Policy**: a WebAssembly component (or the native twin of a shipped one) sees all candidates as columns of
//!    integers, with the outcome of the rules in one of them, and ranks what is left. It runs in a fresh instance with
//!    limits that do not depend on the machine, and can do nothing but compute.
//! 3. **Rules again**: the answer is checked row by row. A policy can narrow and rank; it cannot widen.
//!
//! Every decision leaves a [`Record`] with the digests of policy and input and the verdict on each candidate.
//!
//! When a policy fails (a trap, no fuel, an answer that is not believed), its [`Binding`] says whether there is no
//! decision or the native twin stands in; either way the next decision starts afresh.
//!
//! Nothing here knows the store, the clock or the network: inputs are arguments, and so is the time.

mod candidates;
pub mod cases;
mod check;
pub mod columns;
mod component;
pub mod componentize;
mod cost;
mod decision;
mod engine;
mod error;
mod explanation;
pub mod feasibility;
mod input;
pub mod journal;
mod network;
mod outcome;
mod portrait;
mod probe;
mod quota;
mod round;
mod seat;
mod settings;
mod slot;
mod snapshot;
mod symbols;
#[cfg(test)]
mod testing;
mod workbench;

pub use columns::{Columns, View};
pub use component::cache::{Compiler, Kept};
pub use component::compile_into;
pub use component::sandbox::{Allowance, Limits, Note, Notes};
pub use cost::Cost;
pub use decision::{Candidate, PlaceDecision, Record, TypeDecision};
pub use engine::{Config, DEFAULT_COST, DEFAULT_PLACEMENT, PolicyEngine};
pub use error::{Cause, Fault, LoadError, OutputError, PolicyError, RunError};
pub use feasibility::gates::open_hosts;
pub use input::{Hardware, HostRow, Offer, Wanted};
pub use network::{Networks, Room, UsedUp, Which};
pub use outcome::Outcome;
pub use portrait::Portrait;
pub use probe::Question;
pub use quota::{Limit, Limited, Quotas};
pub use round::{Bars, Recorded, Round};
pub use seat::shipped;
pub use settings::Complaint;
pub use slot::{Binding, Identity, Source};
pub use vmetal_model::OnFailure;
pub use workbench::{Outside, Workbench};
