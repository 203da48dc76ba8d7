//! `vmetald`: the engine.
//!
//! The rooms below it know nothing of each other: the model and the lifecycle decide, the store remembers, the gateways act.
//! This crate puts them together and is the only one that knows all of them.
//!
//! One change flows like this: the API admits it ([`backend`]) and commits it ([`ledger`]); the commit wakes the object
//! ([`reconcile`]); a step function of `vmetal-lifecycle` decides; the intent is committed; one effect is performed; its
//! outcome is committed; and the commit wakes the object again. Retries, restarts and recovery are this same loop.

pub mod agent;
pub mod backend;
pub mod boots;
pub mod boundary;
mod causes;
pub mod claims;
pub mod components;
pub mod config;
pub mod decisions;
pub mod engine;
mod files;
pub mod fleet;
pub mod housekeeping;
pub mod lanes;
pub mod ledger;
pub mod metrics;
pub mod netboot;
pub mod oidc;
pub mod ownership;
pub mod questions;
pub mod reconcile;
pub mod run;
pub mod seats;
pub mod secrets;
pub mod tenants;

pub use config::Config;
pub use engine::Engine;
