//! The fast acceptance lane: the real terraform, provider, engine and lab, and a real Kubernetes control plane. Only the servers are
//! simulated, behind the lab's real BMC front end ([`vmetal_acceptance::installer`]).
//!
//! Each test has a stack of its own, in a directory and on ports of its own, so they run side by side.

#![allow(clippy::unwrap_used, reason = "tests")]

mod crashes;
mod credentials;
mod failures;
mod lifecycle;
mod support;
