//! Whole decisions over the model's objects.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use vmetal_model::meta::Metadata;
use vmetal_model::{
    Claim, ClaimState, Host, HostPhase, HostStatus, Inventory, NodeType, NodeTypeSpec, NodeTypeStatus, PciClass, PciId,
    TenantNode, TenantNodeSpec, TenantNodeStatus, Timestamp, Uid,
};

use vmetal_policy::{Columns, View};

use crate::support;

fn metadata(name: &str, labels: &[(&str, &str)]) -> Metadata {
    Metadata {
        name: name.to_owned(),
        uid: Uid(format!("uid-{name}")),
        generation: 1,
        revision: 1,
        labels: support::map(labels),
        annotations: BTreeMap::new(),
        created: Timestamp::UNIX_EPOCH,
        deleted: None,
    }
}

fn host(name: &str, labels: &[(&str, &str)], phase: HostPhase, gpus: usize) -> Host {
    let mut status = HostStatus::new(Timestamp::UNIX_EPOCH);
    status.phase = phase;
    let mut inventory = Inventory { memory_bytes: 4_000_000_000, ..Inventory::default() };
    inventory.cpu.threads = 2;
    inventory.pci = (0..gpus)
        .map(|slot| vmetal_model::inventory::PciDevice {
            address: format!("0000:0{slot}:00.0"),
            vendor: PciId::new(0x10de),
            device: PciId::new(0x2330),
            class: PciClass::new(3, 2, 0),
        })
        .collect();
    status.inventory = Some(inventory);
    let spec = serde_json::from_value(serde_json::json!({
        "bmc": { "address": "redfish://192.0.2.1", "username": "admin" },
        "boot_mac": "52:54:00:00:00:01",
    }))
    .unwrap();
    Host { metadata: metadata(name, labels), spec, status }
}

fn node_type(name: &str, selector: &[(&str, &str)], amounts: &[(&str, &str)]) -> NodeType {
    let spec = NodeTypeSpec {
        selector: support::map(selector),
        resources: support::resources(amounts),
        ..NodeTypeSpec::default()
    };
    NodeType { metadata: metadata(name, &[]), spec, status: NodeTypeStatus::default() }
}

pub(crate) fn tenant_node(amounts: &[(&str, &str)]) -> TenantNode {
    let spec = TenantNodeSpec {
        cluster: "blue".to_owned(),
        resources: support::resources(amounts),
        ..TenantNodeSpec::default()
    };
    TenantNode { metadata: metadata("web-1", &[]), spec, status: TenantNodeStatus::new(Timestamp::UNIX_EPOCH) }
}

pub(crate) fn view(hosts: &[Host]) -> View {
    let mut columns = Columns::default();
    hosts.iter().for_each(|host| columns.update(host));
    columns.view()
}

pub(crate) fn fleet() -> (Vec<NodeType>, Vec<Host>) {
    let types = vec![
        node_type("gpu", &[("class", "gpu")], &[("cpu", "2"), ("memory", "4Gi"), ("nvidia.com/gpu", "2")]),
        node_type("small", &[("class", "small")], &[("cpu", "2"), ("memory", "4Gi")]),
    ];
    let hosts = vec![
        host("s2", &[("class", "small")], HostPhase::Available, 0),
        host("s1", &[("class", "small")], HostPhase::Available, 0),
        host("g1", &[("class", "gpu")], HostPhase::Available, 2),
        host("g0", &[("class", "gpu")], HostPhase::Available, 1),
    ];
    (types, hosts)
}

#[test]
fn type_and_host_are_chosen_and_explained() {
    let (types, hosts) = fleet();
    let outcome =
        support::wasm().decide(&tenant_node(&[("cpu", "1")]), &types, &view(&hosts), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((outcome.node_type, outcome.host.as_deref()), (Some(1), Some("s1")));
    let decision = outcome.decision;
    assert_eq!(
        (decision.node_type.as_deref(), decision.host.as_deref(), decision.cost),
        (Some("small"), Some("s1"), Some(28))
    );
    assert_eq!(
        decision.reason,
        "small costs 28 and is the only that fits (2 considered); s1 chosen among 2 that fit (4 considered)"
    );
    assert_eq!(
        decision.node_types[0].reason,
        "has the special resource nvidia.com/gpu, which the claim does not ask for"
    );
    assert_eq!(decision.node_types[0].value, Some(20028));
    let hosts: Vec<_> =
        decision.hosts.iter().map(|host| (host.name.as_str(), host.feasible, host.reason.as_str())).collect();
    assert_eq!(hosts[..2], [("s1", true, "chosen"), ("s2", true, "fits")]);
    assert_eq!(hosts[3], ("g1", false, "label class=small wanted, host has class=gpu"));
    assert!(decision.policies[0].starts_with("cost-vcluster@0.1.0 sha256:"), "{:?}", decision.policies);
    assert!(decision.policies[1].starts_with("place-balanced@0.2.0 sha256:"), "{:?}", decision.policies);
    assert_eq!(decision.input_digest.len(), 64);
    assert_eq!(outcome.records.len(), 2);
}

#[test]
fn declared_accelerators_must_have_been_found() {
    let (types, hosts) = fleet();
    let node = tenant_node(&[("nvidia.com/gpu", "1")]);
    let outcome = support::native().decide(&node, &types, &view(&hosts), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(outcome.decision.host.as_deref(), Some("g1"));
    let g0 = outcome.decision.hosts.iter().find(|host| host.name == "g0").unwrap();
    assert_eq!(g0.reason, "nvidia.com/gpu 2 wanted, 1 there");
}

#[test]
fn what_cannot_be_satisfied_says_why_for_each_type_and_host() {
    let (types, mut hosts) = fleet();
    hosts[0].status.claim = Some(Claim {
        node: "db-1".to_owned(),
        uid: Uid("u".to_owned()),
        state: ClaimState::Install,
        since: Timestamp::UNIX_EPOCH,
        image: None,
        lease: None,
    });
    hosts[1].status.phase = HostPhase::Inspecting;
    let node = tenant_node(&[("cpu", "1")]);
    let outcome = support::wasm().decide(&node, &types, &view(&hosts), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((outcome.node_type, outcome.host), (None, None));
    assert_eq!(
        outcome.decision.reason,
        "no node type fits; small: 0 of 2 hosts free: 1 claimed, 1 not available; 1 other: 1 nvidia.com/gpu not asked for"
    );
    let reason = |name: &str| outcome.decision.hosts.iter().find(|host| host.name == name).unwrap().reason.clone();
    assert_eq!(reason("s2"), "as small: claimed by tenant node db-1");
    assert_eq!(reason("s1"), "as small: phase is inspecting, wanted available");
    assert_eq!(reason("g1"), "free, but its node type gpu does not fit the claim");
}

#[test]
fn records_survive_json_and_digests_tell_inputs_apart() {
    let (types, hosts) = fleet();
    let decide = |hosts: &[Host]| {
        support::wasm().decide(&tenant_node(&[("cpu", "1")]), &types, &view(hosts), Timestamp::UNIX_EPOCH).unwrap()
    };
    let (first, again, fewer) = (decide(&hosts), decide(&hosts), decide(&hosts[1..]));
    assert_eq!(first.decision, again.decision);
    assert_ne!(first.decision.input_digest, fewer.decision.input_digest);
    for record in first.records {
        let text = serde_json::to_string(&record).unwrap();
        let read: vmetal_policy::Record = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
