//! A whole vmetal on one machine: lab, network boot, engine, a real Kubernetes control plane and the real terraform.
//!
//! The demo and the acceptance tests are the same stack, put together in one place ([`Stack`]). Every process it starts dies
//! with the one that started it, even after `kill -9`.

pub mod artifacts;
pub mod cluster;
pub mod process;
pub mod stack;
pub mod terraform;

pub use artifacts::Artifacts;
pub use process::Process;
pub use stack::{Options, Place, Stack};
pub use terraform::Terraform;
