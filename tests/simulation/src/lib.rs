//! A whole fleet in one process, in virtual time.
//!
//! What runs is the engine itself: the loop, the follower of the store, the ledger, the gateways to BMCs with their retries
//! and breakers, the interface for installers, the client of tenants' clusters. What is simulated is everything outside the
//! process: BMCs and the machines behind them ([`machine`], [`bmc`], [`life`]), the tenant's API server ([`cluster`]), the
//! way to the store ([`way`]), clocks ([`clock`]) and the operator ([`run`]). One number, the seed, decides what there is,
//! what is asked for and what goes wrong ([`scenario`]); [`oracle`] watches every commit, and the machines watch what is done
//! to them. A seed that fails is printed with its scenario and its timeline, and repeats itself exactly.
//!
//! See `docs/simulation.md` for how to read and replay a failure.

pub mod bmc;
pub mod chance;
pub mod clock;
pub mod cluster;
pub mod fault;
pub mod incarnation;
pub mod life;
pub mod link;
pub mod liveness;
pub mod machine;
pub mod operator;
pub mod oracle;
pub mod run;
pub mod scenario;
pub mod way;
pub mod world;

pub use run::{Options, Outcome, play, register, simulate};
