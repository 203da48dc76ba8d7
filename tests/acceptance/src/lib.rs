//! A whole vmetal on one machine: lab, network boot, engine, a real Kubernetes control plane and the real terraform.
//!
//! The demo and the acceptance tests are the same stack, put together in one place ([`Stack`]). Every process it starts dies
//! with the one that started it, even after `kill -9`.

pub mod artifacts;
pub mod cluster;
pub mod disk;
pub mod installer;
pub mod journal;
pub mod knock;
pub mod process;
pub mod site;
pub mod stack;
pub mod terraform;
pub mod watch;

pub use artifacts::Artifacts;
pub use installer::{Behaviour, Deed, Installers};
pub use process::Process;
pub use site::{EngineProcess, Site};
pub use stack::{Options, Place, Software, Stack};
pub use terraform::{Cli, Product, Terraform};
