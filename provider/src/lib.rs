//! The Terraform provider of vmetal: a stateless client of the engine.
//!
//! Terraform says what should be; the engine makes it so and goes on whether or not anybody watches. The provider only
//! translates, waits and explains. Three decisions follow from that:
//!
//! * **Nothing is ever lost.** Every answer carries the best known state. A create is stamped before it is made, so that
//!   an apply that was killed half-way finds its own object again instead of a stranger's (`managed`).
//! * **Waiting is separate from making.** Where the wait of a create ends early (time, Ctrl-C), the object is saved as it
//!   is and *not* as failed: Terraform would otherwise destroy it and begin again, which on bare metal means wiping a
//!   server that is half-way installed. The next plan shows the resource as unfinished and the next apply goes on waiting.
//!   Only what the engine itself has given up is an error.
//! * **Errors are for the person at the keyboard**: what failed, on which host, what the engine last said, and what to do.
//!   Nothing of the transport shows (`explain`).
//!
//! One file per resource says how it maps to the model (`kind`); everything else is shared.

mod actions;
mod afterwards;
mod component;
mod convert;
mod cost;
mod ephemerals;
mod errand;
mod events;
mod explain;
mod fields;
mod foresee;
mod functions;
mod hardware;
mod held;
mod host;
mod image;
mod inventory;
mod kind;
mod look;
mod managed;
mod network;
mod node_pool;
mod node_type;
mod placement;
mod policy;
mod provider;
mod reads;
mod tenant_cluster;
mod tenant_node;
mod timeouts;
mod wait;
mod wish;

pub use provider::{ADDRESS, Engine, Vmetal};

/// What the provider offers, as `terraform providers schema -json` prints it.
pub fn description() -> serde_json::Value {
    tfplugin::describe::describe(Vmetal::new(), ADDRESS)
}
