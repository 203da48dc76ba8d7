#![allow(clippy::unwrap_used, reason = "tests")]
use vmetal_model::{Lack, NodeTypeSpec, TenantClusterSpec, TenantNodeSpec, TenantNodeStatus, Timestamp};

use super::*;
use crate::feasibility::{lack, node_type as rejections};
use crate::input::Wanted;
use crate::testing::metadata;

fn resources(pairs: &[(&str, &str)]) -> Resources {
    pairs.iter().map(|(name, amount)| ((*name).to_owned(), amount.parse().unwrap())).collect()
}

fn cluster(name: &str, quota: Quota) -> TenantCluster {
    let spec = TenantClusterSpec { quota, ..Default::default() };
    TenantCluster { metadata: metadata(name), spec, status: Default::default() }
}

fn node_type(name: &str, amounts: &[(&str, &str)]) -> NodeType {
    let spec = NodeTypeSpec { resources: resources(amounts), ..Default::default() };
    NodeType { metadata: metadata(name), spec, status: Default::default() }
}

fn node(name: &str, cluster: &str, on: Option<&str>) -> TenantNode {
    let spec = TenantNodeSpec { cluster: cluster.into(), ..Default::default() };
    let mut status = TenantNodeStatus::new(Timestamp::UNIX_EPOCH);
    status.host = on.map(|_| format!("host-of-{name}"));
    status.decision = on.map(|node_type| vmetal_model::Decision {
        node_type: Some(node_type.into()),
        host: None,
        cost: None,
        reason: String::new(),
        node_types: vec![],
        hosts: vec![],
        policies: vec![],
        input_digest: String::new(),
        at: Timestamp::UNIX_EPOCH,
        log: None,
    });
    TenantNode { metadata: metadata(name), spec, status }
}

fn quota() -> Quota {
    Quota {
        hosts: Some(4),
        node_types: BTreeMap::from([("gpu".to_owned(), 2)]),
        resources: resources(&[("nvidia.com/gpu", "16"), ("memory", "3Ti")]),
    }
}

/// One small and one GPU host are held by `c`, two small ones by another cluster.
fn quotas() -> Quotas {
    let types =
        [node_type("small", &[("memory", "64Gi")]), node_type("gpu", &[("memory", "2Ti"), ("nvidia.com/gpu", "8")])];
    let nodes = [
        node("one", "c", Some("small")),
        node("two", "c", Some("gpu")),
        node("waits", "c", None),
        node("theirs", "other", Some("small")),
        node("theirs-too", "other", Some("small")),
    ];
    Quotas::of(&[cluster("c", quota()), cluster("other", Quota::default())], &types, &nodes)
}

fn held(limits: &[Limit]) -> Vec<String> {
    limits
        .iter()
        .map(|limit| format!("{} of {}", limit.limited.number(limit.held), limit.limited.say(limit.most)))
        .collect()
}

/// A free host of a type with so many GPUs.
fn offer(name: &str, amounts: &[(&str, &str)]) -> Offer {
    Offer { resources: resources(amounts), total: 9, free: 9, ..Offer::empty(name) }
}

#[test]
fn what_a_cluster_holds_is_what_its_nodes_have() {
    let mut quotas = quotas();
    let of = |quotas: &Quotas| held(&quotas.limits(&node("waits", "c", None)));
    let before = ["2 of 4 hosts", "1 of 2 hosts of type gpu", "2112Gi of 3Ti memory", "8 of 16 nvidia.com/gpu"];
    assert_eq!(of(&quotas), before);
    quotas.take("c", "gpu");
    assert_eq!(
        of(&quotas),
        ["3 of 4 hosts", "2 of 2 hosts of type gpu", "4160Gi of 3Ti memory", "16 of 16 nvidia.com/gpu"]
    );
    assert_eq!(quotas.excess("c").unwrap(), "tenant cluster c holds 4160Gi of its 3Ti memory");
    // A small host needs memory too; a host that needs nothing of what is used up may be had.
    assert_eq!(quotas.admit("c", "small").unwrap_err(), "tenant cluster c holds 4160Gi of its 3Ti memory");
    assert_eq!(quotas.admit("c", "of-nothing"), Ok(()));
    quotas.give_back("c", "of-nothing");
    quotas.give_back("c", "gpu");
    assert_eq!((of(&quotas), quotas.excess("c")), (before.map(str::to_owned).to_vec(), None));
    assert_eq!((quotas.admit("c", "small"), quotas.admit("other", "gpu")), (Ok(()), Ok(())));
    quotas.give_back("c", "small");
    // Whoever looks for another host gives its own back.
    let own = held(&quotas.limits(&node("two", "c", Some("gpu"))));
    assert_eq!(own, ["1 of 4 hosts", "0 of 2 hosts of type gpu", "64Gi of 3Ti memory", "0 of 16 nvidia.com/gpu"]);
    assert!(quotas.limits(&node("n", "other", None)).is_empty() && !quotas.is_empty());
    assert!(Quotas::of(&[cluster("c", Quota::default())], &[] as &[NodeType], &[] as &[TenantNode]).is_empty());
}

#[test]
fn a_quota_is_a_gate_of_its_own_that_says_what_is_held() {
    let gpu = offer("gpu", &[("nvidia.com/gpu", "8")]);
    let asked = |limits: Vec<Limit>, count: u32| Wanted {
        cluster: "c".to_owned(),
        count,
        quota: limits,
        resources: resources(&[("nvidia.com/gpu", "1")]),
        ..Wanted::nothing()
    };
    let limit = |limited: Limited, most: u64, held: u64| {
        vec![Limit { limited, most: Quantity::units(most), held: Quantity::units(held) }]
    };
    let gpus = || Limited::Resource("nvidia.com/gpu".to_owned());
    let of_type = || Limited::NodeType("gpu".to_owned());
    let cases = [
        (limit(Limited::Hosts, 8, 8), 1, "tenant cluster c holds 8 of its 8 hosts", Lack::Quota),
        (limit(Limited::Hosts, 3, 8), 1, "tenant cluster c holds 8 of its 3 hosts", Lack::Quota),
        (limit(Limited::Hosts, 1, 1), 1, "tenant cluster c holds 1 of its 1 host", Lack::Quota),
        (limit(Limited::Hosts, 8, 7), 2, "tenant cluster c holds 7 of its 8 hosts, 2 more wanted", Lack::Quota),
        (limit(of_type(), 2, 2), 1, "tenant cluster c holds 2 of its 2 hosts of type gpu", Lack::Quota),
        (limit(gpus(), 60, 56), 1, "tenant cluster c holds 56 of its 60 nvidia.com/gpu, 8 more wanted", Lack::Quota),
        (limit(gpus(), 4, 0), 1, "tenant cluster c holds 0 of its 4 nvidia.com/gpu, 8 more wanted", Lack::Quota),
        (limit(Limited::Hosts, 0, 0), 1, "tenant cluster c holds 0 of its 0 hosts", Lack::Quota),
    ];
    for (limits, count, text, lacks) in cases {
        let found = rejections(&asked(limits, count), &gpu);
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
        assert_eq!((found[0].code(), found[0].topic().as_str()), (vmetal_policy_sdk::gate::QUOTA, "over quota"));
        assert_eq!(lack(&found), lacks, "{text}");
    }
    let fits = [limit(Limited::Hosts, 8, 7), limit(gpus(), 64, 56), limit(Limited::NodeType("other".to_owned()), 0, 3)];
    for limits in fits {
        assert_eq!(rejections(&asked(limits, 1), &gpu), []);
    }
    // What needs none of it may be had, however much of it is held.
    let small = offer("small", &[]);
    let none = Wanted { resources: Resources::new(), ..asked(limit(gpus(), 4, 8), 1) };
    assert_eq!(rejections(&none, &small), []);
    let both = Offer { free: 0, taken: "9 claimed".to_owned(), ..gpu };
    let found = rejections(&asked(limit(Limited::Hosts, 8, 8), 1), &both);
    assert_eq!((found.len(), found[0].code(), lack(&found)), (2, vmetal_policy_sdk::gate::QUOTA, Lack::Quota));
    assert_eq!(found[0].remedy(), "tenant cluster c has to give back as much, or be allowed 9 hosts");
}

#[test]
fn policies_see_how_many_more_hosts_the_cluster_may_hold() {
    let quotas = quotas();
    let left = |offer: &Offer| {
        let limits = quotas.limits(&node("waits", "c", None));
        limits.iter().filter_map(|limit| limit.left(offer)).min()
    };
    assert_eq!(left(&offer("small", &[])), Some(2), "by the hosts");
    assert_eq!(left(&offer("gpu", &[("nvidia.com/gpu", "8")])), Some(1), "by the type and by its GPUs");
    assert_eq!(left(&offer("large", &[("memory", "2Ti")])), Some(0), "by memory");
    assert_eq!(
        quotas.limits(&node("n", "other", None)).iter().filter_map(|limit| limit.left(&offer("small", &[]))).min(),
        None
    );
}
