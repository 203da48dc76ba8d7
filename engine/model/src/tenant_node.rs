//! A claim: one node wanted by a tenant cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::{Object, Uid};
use crate::network::Lease;
use crate::quantity::Resources;
use crate::requirement::Requirement;
use crate::wait::{Failure, Wait};

/// One node wanted by a tenant cluster.
pub type TenantNode = Object<TenantNodeSpec, TenantNodeStatus>;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantNodeSpec {
    /// Name of the tenant cluster to join.
    pub cluster: String,
    /// Name of the class of hosts; chosen by the cost policy when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_type: Option<String>,
    /// Conditions on the class's labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<Requirement>,
    /// What the node must at least offer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: Resources,
    /// Name of the image; the class's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Name of the network that the node gets an address of; the cluster's when absent, or else the class's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Labels for the Node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints for the Node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Changes whenever the (write-only) user data does.
    #[serde(default)]
    pub user_data_version: String,
    /// How the node is emptied before it is released.
    #[serde(default)]
    pub drain: DrainSpec,
    /// Others that it is placed together with, all or none; alone when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupSpec>,
}

/// Tenant nodes of one cluster that are placed together: each of them gets a host in the same commit, or none does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Name of the group; tenant nodes of the same cluster that give it are its members.
    pub name: String,
    /// How many members there must be before any of them gets a host. Members beyond it are placed when they come.
    pub size: u32,
    /// Label whose value must be the same on the hosts of all members, for example the rack or the NVLink domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<String>,
}

impl GroupSpec {
    /// The largest group: all of it is one transaction.
    pub const LARGEST: u32 = 1024;
}

/// How a node is emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainSpec {
    /// How long pods may take to go, seconds.
    #[serde(default = "default_drain_seconds")]
    pub timeout_seconds: u32,
    /// What happens when they have not gone by then.
    #[serde(default)]
    pub on_timeout: DrainTimeout,
}

fn default_drain_seconds() -> u32 {
    1800
}

impl Default for DrainSpec {
    fn default() -> Self {
        DrainSpec { timeout_seconds: default_drain_seconds(), on_timeout: DrainTimeout::default() }
    }
}

/// What happens when a drain does not finish in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrainTimeout {
    /// Keep waiting and say so: disruption budgets are the tenant's word.
    #[default]
    Wait,
    /// Go on without them.
    Force,
}

/// A taint, as Kubernetes has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// The taint's key.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if they can.
    PreferNoSchedule,
    /// All pods have to go.
    NoExecute,
}

impl TaintEffect {
    /// Kubernetes' spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
            TaintEffect::NoExecute => "NoExecute",
        }
    }
}

/// Text that is not a taint effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a taint effect; expected NoSchedule, PreferNoSchedule or NoExecute")]
pub struct UnknownTaintEffect(pub String);

impl FromStr for TaintEffect {
    type Err = UnknownTaintEffect;
    fn from_str(text: &str) -> Result<Self, UnknownTaintEffect> {
        [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute]
            .into_iter()
            .find(|effect| effect.as_str() == text)
            .ok_or_else(|| UnknownTaintEffect(text.to_owned()))
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.key, self.value, self.effect.as_str())
    }
}

/// How far a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantNodePhase {
    /// No host yet; the decision says why.
    #[default]
    Pending,
    /// A host is reserved; token and user data are being made.
    Scheduled,
    /// The host is being installed.
    Provisioning,
    /// The installed system booted and joins.
    Joining,
    /// The Node is Ready in the tenant's cluster.
    Ready,
    /// Pods are leaving.
    Draining,
    /// The host is taken back: off, Node deleted, erased.
    Released,
    /// Stopped; the failure says why and what to do.
    Failed,
}

impl TenantNodePhase {
    /// The public name.
    pub fn as_str(self) -> &'static str {
        match self {
            TenantNodePhase::Pending => "pending",
            TenantNodePhase::Scheduled => "scheduled",
            TenantNodePhase::Provisioning => "provisioning",
            TenantNodePhase::Joining => "joining",
            TenantNodePhase::Ready => "ready",
            TenantNodePhase::Draining => "draining",
            TenantNodePhase::Released => "released",
            TenantNodePhase::Failed => "failed",
        }
    }
}

/// What has become of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantNodeStatus {
    /// How far the claim is.
    pub phase: TenantNodePhase,
    /// Since when.
    #[schemars(with = "String")]
    pub phase_since: Timestamp,
    /// What is being waited for, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// The reserved host's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The reserved host's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_uid: Option<Uid>,
    /// The address that the host has for this claim, and of which network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// How type and host were chosen, or why none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The bootstrap token's id while it exists (the secret half is kept apart).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The Node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// `vmetal://<host uid>`, as the Node carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The Node's uid once it is Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_uid: Option<String>,
    /// Failed tries of the present step in a row.
    #[serde(default)]
    pub failures: u32,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub not_before: Option<Timestamp>,
    /// The failure that matters now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Hosts that were given up for this claim, in order. None of them is chosen for it again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<TriedHost>,
    /// In `failed`: what the engine does about it by itself. Absent when only an operator, or the host's recovery, helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recourse: Option<Recourse>,
    /// The generation of the spec that the status speaks of.
    #[serde(default)]
    pub observed_generation: u64,
}

/// A host that was given up for a claim, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TriedHost {
    /// The host's name.
    pub host: String,
    /// The host's identity: another host of the same name was not tried.
    pub host_uid: Uid,
    /// What failed there.
    pub failure: Failure,
}

/// What the engine does about a failed claim by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recourse {
    /// It looks for another host.
    Looking,
    /// There is one: the claim leaves the host that failed. That host is the last in `tried`.
    Leaving,
}

impl TenantNodeStatus {
    /// The status of a claim that was just made.
    pub fn new(now: Timestamp) -> Self {
        TenantNodeStatus {
            phase: TenantNodePhase::Pending,
            phase_since: now,
            wait: None,
            host: None,
            host_uid: None,
            lease: None,
            decision: None,
            token_id: None,
            node_name: None,
            provider_id: None,
            node_uid: None,
            failures: 0,
            not_before: None,
            failure: None,
            tried: Vec::new(),
            recourse: None,
            observed_generation: 0,
        }
    }

    /// Whether the claim may not have a host, because it was given up for it.
    pub fn has_tried(&self, host: &Uid) -> bool {
        self.tried.iter().any(|tried| tried.host_uid == *host)
    }
}

/// How a class and a host were chosen: enough to explain the choice and to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// The chosen class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_type: Option<String>,
    /// The chosen host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The class's cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<u64>,
    /// One sentence: why this one, or why none.
    pub reason: String,
    /// Every class that was considered.
    #[serde(default)]
    pub node_types: Vec<Candidate>,
    /// Every host of the chosen class (or of all classes, when none was chosen).
    #[serde(default)]
    pub hosts: Vec<Candidate>,
    /// The policies that decided, as `name@version sha256:…`.
    #[serde(default)]
    pub policies: Vec<String>,
    /// SHA-256 over everything the policies were given.
    pub input_digest: String,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Its name in the log of decisions, by which it can be explained and taken again; absent when it was not logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// One class or host that was considered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Cost (classes) or score (hosts), where it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// Whether it could be chosen.
    pub feasible: bool,
    /// Why it was chosen, could have been, or could not.
    pub reason: String,
    /// Of a class that could not be chosen: what it would take. Absent for hosts, and in decisions of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Lack>,
}

/// What keeps a class from being chosen, as far as whoever waits for it must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// A free host and nothing else: it has hosts, and waiting for one of them may help.
    FreeHost,
    /// Room in the quota of the claim's tenant cluster: the cluster has to give something back, or its quota be raised.
    Quota,
    /// A free address of the network that the node would get one of: somebody has to give one back, or the network be given
    /// more.
    Address,
    /// Something that waiting does not bring: the claim, the class or the fleet has to change.
    Fit,
}
