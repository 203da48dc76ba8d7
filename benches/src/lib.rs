//! Side-by-side measurements of vmetal and its peers.
//!
//! Everything real is real: the engine is its own process with its store on disk, and reaches BMCs by its own client over TLS.
//! What is simulated (BMCs, servers, tenants' clusters) is in this crate, shares no code with the engine beyond the model and
//! the API's client, and its processor time is reported beside the engine's.

pub mod bmc;
pub mod cluster;
pub mod fleet;
pub mod identity;
pub mod ironic;
pub mod machine;
pub mod policy;
pub mod process;
pub mod provider;
pub mod row;
pub mod web;
