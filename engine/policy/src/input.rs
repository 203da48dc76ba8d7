//! What a decision is taken over, in words and not yet in numbers; taken from the model's objects by `from_model`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vmetal_model::PciId;
use vmetal_model::agent::EraseLevel;
use vmetal_model::bmc::PowerState;
use vmetal_model::inventory::PciDevice;
use vmetal_model::quantity::{CPU, MEMORY};
use vmetal_model::{HostPhase, Inventory, NodeType, Quantity, Requirement, Resources, TenantNode};

use crate::columns::View;
use crate::feasibility::gates::Gates;
use crate::network::UsedUp;
use crate::quota::Limit;
use crate::round::Bars;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The claim's name.
    pub name: String,
    /// The tenant cluster that the node is for.
    pub cluster: String,
    /// How many, all or none.
    pub count: u32,
    /// The node type, where the claim names one.
    pub node_type: Option<String>,
    /// What the node must at least offer.
    pub resources: Resources,
    /// Conditions on the node type's labels.
    pub requirements: Vec<Requirement>,
    /// The limits of the tenant cluster's quota, and what it holds of each besides this claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quota: Vec<Limit>,
    /// Networks that the claim may be on and that have too few addresses left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_up: Vec<UsedUp>,
}

impl Wanted {
    /// A claim for nothing in particular.
    pub(crate) fn nothing() -> Self {
        Wanted {
            name: String::new(),
            cluster: String::new(),
            count: 1,
            node_type: None,
            resources: Resources::new(),
            requirements: Vec::new(),
            quota: Vec::new(),
            used_up: Vec::new(),
        }
    }

    /// A tenant node's claim for one host, whatever the quota of its cluster.
    pub fn from_model(node: &TenantNode) -> Self {
        Wanted {
            name: node.name().to_owned(),
            cluster: node.spec.cluster.clone(),
            count: 1,
            node_type: node.spec.node_type.clone(),
            resources: node.spec.resources.clone(),
            requirements: node.spec.requirements.clone(),
            quota: Vec::new(),
            used_up: Vec::new(),
        }
    }
}

/// One node type on offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// True once its deletion was asked for.
    pub deleted: bool,
    /// Labels that a host must have to belong to it.
    pub selector: BTreeMap<String, String>,
    /// Labels that requirements are matched against: its properties and its selector.
    pub labels: BTreeMap<String, String>,
    /// What one of its hosts offers.
    pub resources: Resources,
    /// The operator's price in whole cost units; none or 0 asks for the policy's price.
    pub explicit_cost: Option<u64>,
    /// Hosts that the selector matches.
    pub total: u32,
    /// Those of them that could be taken now.
    pub free: u32,
    /// Those of the free ones that are on already.
    #[serde(default)]
    pub standby: u32,
    /// Why the others cannot, for people; empty when all can.
    pub taken: String,
}

/// A property of a node type that says what one of its hosts draws, in watts.
pub(crate) const WATTS: &str = "cost.vmetal.dev/watts";

impl Offer {
    /// A node type that asks nothing of its hosts.
    pub fn empty(name: &str) -> Self {
        Offer {
            name: name.to_owned(),
            deleted: false,
            selector: BTreeMap::new(),
            labels: BTreeMap::new(),
            resources: Resources::new(),
            explicit_cost: None,
            total: 0,
            free: 0,
            standby: 0,
            taken: String::new(),
        }
    }

    /// A node type with its capacity in a fleet.
    pub fn from_model(node_type: &NodeType, fleet: &View) -> Self {
        Offer::without_capacity(node_type).counted(fleet)
    }

    /// The same with its capacity in a fleet.
    #[must_use]
    pub fn counted(mut self, fleet: &View) -> Self {
        Gates::of(&self, fleet).fill_in(&mut self, fleet, &Bars::none());
        self
    }

    /// A node type with nothing said about hosts.
    pub(crate) fn without_capacity(node_type: &NodeType) -> Self {
        let spec = &node_type.spec;
        let mut labels = spec.properties.clone();
        labels.extend(spec.selector.clone());
        Offer {
            name: node_type.name().to_owned(),
            deleted: node_type.is_deleted(),
            selector: spec.selector.clone(),
            labels,
            resources: spec.resources.clone(),
            explicit_cost: spec.cost,
            total: 0,
            free: 0,
            standby: 0,
            taken: String::new(),
        }
    }
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// Its name.
    pub name: String,
    /// True once its deletion was asked for.
    #[serde(default)]
    pub deleted: bool,
    /// True while it is held back (paused, about to be maintained, quarantined or detached) or not known to be erased.
    #[serde(default)]
    pub held: bool,
    /// Where it is in its life.
    pub phase: HostPhase,
    /// The tenant node that holds it.
    #[serde(default)]
    pub claimed_by: Option<String>,
    /// The operator's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What inspection found; none before the first inspection.
    #[serde(default)]
    pub hardware: Option<Hardware>,
    /// When its disks were last erased after a tenancy, in seconds since 1970-01-01 UTC, or 0.
    #[serde(default)]
    pub last_release: u64,
    /// The tenant cluster that had it last; empty before the first.
    #[serde(default)]
    pub last_tenant: String,
    /// How often a claim has had it.
    #[serde(default)]
    pub provisions: u32,
    /// Power as last read.
    #[serde(default)]
    pub power: PowerState,
    /// How thoroughly it was last erased after a tenancy.
    #[serde(default)]
    pub erased: Option<EraseLevel>,
    /// Failures in a row of what it does now.
    #[serde(default)]
    pub failures: u32,
}

/// What placement needs to know of a host's hardware.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// Hardware threads: what Kubernetes counts as `cpu`.
    pub threads: u32,
    /// Memory as the kernel sees it, in bytes.
    pub memory_bytes: u64,
    /// Accelerators by the resource name under which Kubernetes counts them.
    pub accelerators: BTreeMap<String, u32>,
    /// `vendor:device` of the first accelerator.
    pub gpu_model: Option<String>,
}

/// PCI vendors whose accelerators vmetal can tell from an inventory, with the resource that their Kubernetes device
/// plugins count them as.
pub(crate) const ACCELERATORS: [(PciId, &str); 2] =
    [(PciId::new(0x10de), "nvidia.com/gpu"), (PciId::new(0x1002), "amd.com/gpu")];
/// PCI base class and subclass of display controllers, 3D controllers and processing accelerators (PCI code and ID
/// assignment specification, classes 03h and 12h).
const ACCELERATOR_CLASSES: [(u8, u8); 4] = [(0x03, 0x00), (0x03, 0x02), (0x03, 0x80), (0x12, 0x00)];

impl Hardware {
    /// The part of an inventory that placement looks at.
    pub fn from_model(inventory: &Inventory) -> Self {
        let (counts, first) = accelerators(inventory);
        let counted = ACCELERATORS.iter().zip(counts).filter(|(_, count)| *count > 0);
        Hardware {
            threads: inventory.cpu.threads,
            memory_bytes: inventory.memory_bytes,
            accelerators: counted.map(|((_, resource), count)| ((*resource).to_owned(), count)).collect(),
            gpu_model: first.map(|first| gpu_model(first.vendor, first.device)),
        }
    }
}

/// How policies are told of a model.
pub(crate) fn gpu_model(vendor: PciId, device: PciId) -> String {
    format!("{vendor}:{device}")
}

/// How many accelerators of each kind of [`ACCELERATORS`] an inventory has, and the first of them. Allocates nothing.
pub(crate) fn accelerators(inventory: &Inventory) -> ([u32; ACCELERATORS.len()], Option<&PciDevice>) {
    let (mut counts, mut first) = ([0; ACCELERATORS.len()], None);
    for device in &inventory.pci {
        let Some(kind) = ACCELERATORS.iter().position(|(vendor, _)| device.vendor == *vendor) else { continue };
        if ACCELERATOR_CLASSES.contains(&(device.class.base(), device.class.subclass())) {
            counts[kind] += 1;
            first = first.or(Some(device));
        }
    }
    (counts, first)
}

/// Processors in thousandths. An amount beyond `u64` is `u64::MAX`.
pub(crate) fn cpu_milli(resources: &Resources) -> u64 {
    resources.get(CPU).map_or(0, |amount| milli(*amount))
}

/// Memory in bytes, rounded up.
pub(crate) fn memory_bytes(resources: &Resources) -> u64 {
    resources.get(MEMORY).map_or(0, |amount| amount.units_ceil())
}

/// Everything but processors and memory.
pub(crate) fn others(resources: &Resources) -> impl Iterator<Item = (&str, Quantity)> {
    resources.iter().filter(|(name, _)| *name != CPU && *name != MEMORY).map(|(name, amount)| (name.as_str(), *amount))
}

pub(crate) fn milli(amount: Quantity) -> u64 {
    u64::try_from(amount.milli()).unwrap_or(u64::MAX)
}
