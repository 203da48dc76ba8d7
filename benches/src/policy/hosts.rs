//! Made-up hosts: racks of accelerated servers, all alike or of every kind. The same on every run.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};
use vmetal_model::inventory::PciDevice;
use vmetal_model::meta::Metadata;
use vmetal_model::{
    Claim, ClaimState, Host, HostPhase, HostSpec, HostStatus, Inventory, NodeType, NodeTypeSpec, NodeTypeStatus,
    PciClass, PciId, Uid,
};
use vmetal_policy::{Columns, Offer, View, Wanted};

/// The moment of all decisions, in seconds since 1970-01-01 UTC.
pub(super) const NOW: u64 = 1_800_000_000;
const CLUSTERS: u64 = 40;
const RACK: u32 = 18;

/// What a fleet looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mixture {
    /// Every host may be chosen, and all have the same facts but for their place.
    Uniform,
    /// Two classes; some hosts are claimed, in error or hold failures, each with a history of its own.
    Mixed,
}

/// A sequence that looks arbitrary and is always the same (Knuth's multiplier, the upper bits).
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// So many hosts.
pub(super) fn fleet(mixture: Mixture, count: u32) -> Result<Vec<Host>> {
    let mut sequence = Sequence(7);
    (0..count).map(|index| host(mixture, index, &mut sequence)).collect()
}

fn host(mixture: Mixture, index: u32, sequence: &mut Sequence) -> Result<Host> {
    let rack = index / RACK;
    let mut class = "gpu";
    let mut status = HostStatus::new(Timestamp::UNIX_EPOCH);
    status.phase = HostPhase::Available;
    status.inventory = Some(inventory());
    if mixture == Mixture::Mixed {
        class = if sequence.below(10) < 7 { "gpu" } else { "cpu" };
        status.power = serde_json::from_value(json!(["on", "off"][usize::try_from(sequence.below(2))?]))?;
        status.tenancies.count = u32::try_from(sequence.below(30))?;
        if status.tenancies.count > 0 {
            status.tenancies.last_cluster = Some(format!("tenant-{:02}", sequence.below(CLUSTERS)));
            let at = Timestamp::from_second(i64::try_from(NOW - sequence.below(60 * 86_400))?)?;
            let level = ["metadata", "discard", "overwrite"][usize::try_from(sequence.below(3))?];
            let erase = json!({ "claim_uid": "0", "level": level, "disks": [], "at": at });
            status.erase = Some(serde_json::from_value(erase)?);
        }
        match sequence.below(10) {
            0..3 => status.claim = Some(claim(index)),
            3 => status.phase = HostPhase::Error,
            4 => status.retry.failures = 1 + u32::try_from(sequence.below(3))?,
            _ => {}
        }
    }
    Ok(Host {
        metadata: metadata(&format!("rack{rack:04}-{:02}", index % RACK), labels(class, rack)),
        spec: spec()?,
        status,
    })
}

fn labels(class: &str, rack: u32) -> BTreeMap<String, String> {
    let topology = |level: &str, value: String| (format!("topology.vmetal.dev/{level}"), value);
    BTreeMap::from([
        ("class".to_owned(), class.to_owned()),
        topology("power-feed", format!("feed-{}", rack % 4)),
        topology("row", format!("row-{}", rack / 20)),
        topology("leaf", format!("leaf-{}", rack / 4)),
        topology("rack", format!("rack-{rack:04}")),
    ])
}

fn claim(index: u32) -> Claim {
    Claim {
        node: format!("node-{index}"),
        uid: Uid(format!("uid-{index}")),
        state: ClaimState::Install,
        since: Timestamp::UNIX_EPOCH,
        image: None,
        lease: None,
    }
}

fn inventory() -> Inventory {
    let mut inventory = Inventory { memory_bytes: 2 << 40, ..Inventory::default() };
    inventory.cpu.threads = 192;
    let device = |slot: u32| PciDevice {
        address: format!("0000:{slot:02x}:00.0"),
        vendor: PciId::new(0x10de),
        device: PciId::new(0x2330),
        class: PciClass::new(3, 2, 0),
    };
    inventory.pci = (0..8).map(device).collect();
    inventory
}

fn spec() -> Result<HostSpec> {
    let bmc = json!({ "address": "redfish://192.0.2.1", "username": "admin" });
    Ok(serde_json::from_value(json!({ "bmc": bmc, "boot_mac": "52:54:00:00:00:01" }))?)
}

fn metadata(name: &str, labels: BTreeMap<String, String>) -> Metadata {
    Metadata {
        name: name.to_owned(),
        uid: Uid(format!("uid-{name}")),
        generation: 1,
        revision: 1,
        labels,
        annotations: BTreeMap::new(),
        created: Timestamp::UNIX_EPOCH,
        deleted: None,
    }
}

/// The class that claims ask for.
fn class() -> Result<NodeType> {
    let spec = NodeTypeSpec {
        selector: BTreeMap::from([("class".to_owned(), "gpu".to_owned())]),
        resources: serde_json::from_value(resources())?,
        ..NodeTypeSpec::default()
    };
    Ok(NodeType { metadata: metadata("gpu", BTreeMap::new()), spec, status: NodeTypeStatus::default() })
}

fn resources() -> Value {
    json!({ "cpu": "192", "memory": "2Ti", "nvidia.com/gpu": "8" })
}

/// A claim for one host, the class that it is for and the fleet that it is placed in.
pub(super) struct Scene {
    pub(super) wanted: Wanted,
    pub(super) offer: Offer,
    pub(super) fleet: View,
}

impl Scene {
    pub(super) fn new(hosts: &[Host]) -> Result<Self> {
        let mut columns = Columns::default();
        hosts.iter().for_each(|host| columns.update(host));
        let fleet = columns.view();
        let wanted = Wanted {
            name: "node-1".to_owned(),
            cluster: "tenant-01".to_owned(),
            count: 1,
            node_type: Some("gpu".to_owned()),
            resources: serde_json::from_value(resources())?,
            requirements: Vec::new(),
            quota: Vec::new(),
            used_up: Vec::new(),
        };
        Ok(Scene { wanted, offer: Offer::from_model(&class()?, &fleet), fleet })
    }
}
