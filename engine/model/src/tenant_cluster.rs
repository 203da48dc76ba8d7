//! A Kubernetes cluster that nodes are joined to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::Object;
use crate::quantity::Resources;
use crate::tenant_node::Taint;
use crate::wait::Failure;

/// How to reach and join one Kubernetes cluster.
pub type TenantCluster = Object<TenantClusterSpec, TenantClusterStatus>;

/// What a tenant cluster is. The kubeconfig is write-only and kept apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantClusterSpec {
    /// How nodes join.
    #[serde(default)]
    pub driver: JoinDriver,
    /// Changes whenever the kubeconfig does.
    #[serde(default)]
    pub kubeconfig_version: String,
    /// Labels for every node of the cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints for every node of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// SSH public keys for the image's default user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_authorized_keys: Vec<String>,
    /// Name of the network that the cluster's nodes get an address of; the node type's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The most that the cluster may hold at one time.
    #[serde(default, skip_serializing_if = "Quota::is_unlimited")]
    pub quota: Quota,
}

/// The most that a tenant cluster may hold at one time. What is not named is not limited.
///
/// A cluster holds the hosts of its tenant nodes, each from its reservation until the tenant node is gone. Lowering a quota
/// takes nothing away: until enough has been given back, nothing new is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Hosts of all node types together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<u32>,
    /// Hosts of single node types, by the type's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_types: BTreeMap<String, u32>,
    /// Amounts of resources, counted as the node types of the hosts declare them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: Resources,
}

impl Quota {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Quota::default()
    }
}

/// How nodes join a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JoinDriver {
    /// `kubeadm join` with a bootstrap token per claim and the cluster's CA pinned.
    #[default]
    Kubeadm,
}

/// What the engine found when it last talked to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TenantClusterStatus {
    /// True when the last contact succeeded.
    #[serde(default)]
    pub reachable: bool,
    /// Version of the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The endpoint that nodes are told to join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Why the last contact failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The generation of the spec that the status speaks of.
    #[serde(default)]
    pub observed_generation: u64,
}
