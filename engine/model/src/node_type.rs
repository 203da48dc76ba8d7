//! A class of hosts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::Object;
use crate::quantity::Resources;
use crate::wait::Failure;

/// A class of hosts: which hosts belong to it, what they offer, what they cost.
pub type NodeType = Object<NodeTypeSpec, NodeTypeStatus>;

/// What a class of hosts is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeTypeSpec {
    /// Hosts whose labels contain all of these belong to the class. Must not be empty.
    pub selector: BTreeMap<String, String>,
    /// What a host of the class offers.
    pub resources: Resources,
    /// Unit-less cost; computed by the cost policy when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<u64>,
    /// Name of the image that claims on this class install unless they name another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How many hosts are kept on standby: installed with the class's image, running, and waiting for a claim.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub standby: u32,
    /// Name of the network that claims on this class get an address of, unless they or their clusters name another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Labels that requirements of claims are matched against, besides the selector's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What the engine computed for a class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NodeTypeStatus {
    /// The cost that claims are decided with, in whole units, rounded up.
    #[serde(default)]
    pub cost: u64,
    /// The same, exact, in millionths of a unit. Absent where it was computed by an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// How many hosts there are.
    #[serde(default)]
    pub capacity: Capacity,
    /// Why hosts are not being put on standby now, if they should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<StandbyTrouble>,
    /// The generation of the spec that the status speaks of.
    #[serde(default)]
    pub observed_generation: u64,
}

/// Installing hosts ahead of claims does not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StandbyTrouble {
    /// How many hosts it has failed on, with none of the image's on standby.
    pub failed: u32,
    /// What failed last.
    pub failure: Failure,
    /// When another host is tried. Absent when none is before the image or the class changes, or a failed host goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub next: Option<Timestamp>,
}

/// Hosts of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Capacity {
    /// All hosts that the selector matches.
    pub total: u32,
    /// Those that are available and unclaimed.
    pub available: u32,
    /// Those that are claimed.
    pub claimed: u32,
    /// Those that wait on standby: installed, running, unclaimed.
    #[serde(default)]
    pub standby: u32,
}
