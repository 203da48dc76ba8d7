//! Joining servers to a tenant's Kubernetes cluster, and taking them out again.
//!
//! The tenant's API server is a foreign system: vmetal holds a kubeconfig for it and nothing else. This crate is the only
//! one that talks to it, and it does so in single calls without memory: each takes what the engine has stored (claim,
//! node name, uid, provider id), looks at the cluster, changes at most one thing, and says what it found. Deciding when
//! to call, waiting between calls and remembering the outcome is the engine's. So every call may be repeated after a
//! crash, and none trusts that the cluster is as it was left.
//!
//! The order of a node's life, and the guard at each step:
//!
//! 1. [`TenantClient::prepare_join`] makes the claim's own bootstrap token, pins the cluster's one authority and checks
//!    that the cluster would let a node in, before any server is powered on.
//! 2. [`render_user_data`] turns the grant into cloud-init user data that phones home and runs `kubeadm join`.
//! 3. [`TenantClient::observe_node`] says whether the Node that appeared is the one that was ordered (provider id, not a
//!    Node from before the claim) and whether it is ready to be used.
//! 4. [`TenantClient::revoke_token`] once it is: the node has its own certificate by then.
//! 5. [`TenantClient::cordon`], [`TenantClient::drain_pass`] until it is empty, *then power off*, then
//!    [`TenantClient::delete_node`]. A kubelet that still runs may create its Node again, so deleting comes after the
//!    power is off; the uid guards against deleting somebody else's Node of the same name.
//!
//! Two properties of the kube crate shape the code (both seen against a real server): its `evict` drops the delete
//! options, so evictions are built here; and its client retries 429 by itself, which turns a disruption budget's "no"
//! into silence, so a second client without retries makes the evictions.

mod client;
mod discovery;
mod drain;
mod error;
mod join;
mod kubeconfig;
mod node;
mod standby;
mod token;
mod user_data;

pub use client::{ClusterFacts, TenantClient};
pub use drain::{BlockedPod, DrainMode, DrainOptions, DrainProgress, PodRef};
pub use error::TenantError;
pub use join::{JoinGrant, JoinRequest, TokenRevocation};
pub use kubeconfig::KubeconfigError;
pub use node::{CordonOutcome, DeleteOutcome, NodeExpectation, NodeState, split_labels};
pub use standby::{StandbyInput, render_standby};
pub use token::TokenSecret;
pub use user_data::{
    Attachment, Callback, NodeRegistration, UserDataError, UserDataInput, render_meta_data, render_network_config,
    render_user_data,
};
