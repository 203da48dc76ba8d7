#![allow(clippy::unwrap_used, reason = "tests")]
use serde_json::{Value, json};
use vmetal_model::TaintEffect;

use super::*;

fn expectation() -> NodeExpectation {
    NodeExpectation {
        name: "worker-1".into(),
        provider_id: "vmetal://h1".into(),
        not_uid: Some("old".into()),
        labels: BTreeMap::from([("rack".into(), "r1".into())]),
        taints: vec![Taint { key: "gpu".into(), value: "yes".into(), effect: TaintEffect::NoSchedule }],
    }
}

/// A Node that meets the expectation, with `change` merged over it (null deletes, as in RFC 7396).
fn node(change: &Value) -> Node {
    let mut base = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "worker-1", "uid": "new", "labels": { "rack": "r1" } },
        "spec": { "providerID": "vmetal://h1", "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }] },
        "status": { "conditions": [
            { "type": "MemoryPressure", "status": "False" },
            { "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status" },
        ]},
    });
    merge(&mut base, change);
    serde_json::from_value(base).unwrap()
}

fn merge(base: &mut Value, change: &Value) {
    match (base, change) {
        (Value::Object(base), Value::Object(change)) => {
            for (key, value) in change {
                if value.is_null() {
                    base.remove(key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, change) => *base = change.clone(),
    }
}

#[test]
fn all_conditions_together_make_it_ready() {
    assert_eq!(judge(&node(&json!({})), &expectation()), NodeState::Ready { uid: "new".into() });
}

#[test]
fn each_missing_condition_is_named() {
    let ready = |status: &str, reason: &str, message: &str| json!({ "status": { "conditions": [{ "type": "Ready", "status": status, "reason": reason, "message": message }] } });
    let gpu = json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" });
    for (change, words) in [
        (json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }), "being deleted"),
        (json!({ "spec": { "providerID": null } }), "no provider id yet"),
        (json!({ "status": null }), "kubelet has not reported"),
        (ready("False", "KubeletNotReady", "container runtime network not ready"), "network not ready"),
        (ready("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."), "stopped posting"),
        (json!({ "metadata": { "labels": { "rack": null } } }), "label rack=r1 is missing"),
        (json!({ "metadata": { "labels": { "rack": "r2" } } }), "label rack is \"r2\", expected \"r1\""),
        (json!({ "spec": { "taints": null } }), "taint gpu=yes:NoSchedule is missing"),
        (
            json!({ "spec": { "taints": [{ "key": "gpu", "value": "no", "effect": "NoSchedule" }] } }),
            "taint gpu=yes:NoSchedule",
        ),
        (
            json!({ "spec": { "taints": [gpu, { "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }] } }),
            "node.kubernetes.io/not-ready:NoSchedule",
        ),
    ] {
        match judge(&node(&change), &expectation()) {
            NodeState::NotReady { uid, reasons } => {
                assert_eq!(uid, "new");
                assert!(reasons.len() == 1 && reasons[0].contains(words), "{change}: {reasons:?}");
            }
            other => panic!("{change}: {other:?}"),
        }
    }
}

#[test]
fn all_reasons_are_told_at_once() {
    let change = json!({ "metadata": { "labels": { "rack": null } }, "spec": { "taints": null }, "status": null });
    let NodeState::NotReady { reasons, .. } = judge(&node(&change), &expectation()) else { panic!("not NotReady") };
    assert_eq!(reasons.len(), 3, "{reasons:?}");
}

#[test]
fn a_ready_node_of_somebody_else_is_foreign() {
    let NodeState::Foreign { reason } =
        judge(&node(&json!({ "spec": { "providerID": "aws:///i-1" } })), &expectation())
    else {
        panic!("adopted another machine's Node")
    };
    assert!(reason.contains("aws:///i-1") && reason.contains("vmetal://h1"), "{reason}");

    let NodeState::Foreign { reason } = judge(&node(&json!({ "metadata": { "uid": "old" } })), &expectation()) else {
        panic!("adopted the Node from before the claim")
    };
    assert!(reason.contains("existed before"), "{reason}");
}

#[test]
fn labels_are_split_where_the_kubelet_is_refused() {
    for (key, kubelet) in [
        ("rack", true),
        ("vmetal.dev/host", true),
        ("vcluster.com/node-type", true),
        ("topology.kubernetes.io/zone", true),
        ("node.kubernetes.io/instance-type", true),
        ("gpu.node.kubernetes.io/model", true),
        ("kubelet.kubernetes.io/x", true),
        ("mykubernetes.io/x", true),
        ("node-role.kubernetes.io/worker", false),
        ("node-restriction.kubernetes.io/tenant", false),
        ("a.node-restriction.kubernetes.io/tenant", false),
        ("kubernetes.io/role", false),
        ("k8s.io/x", false),
        ("feature.k8s.io/x", false),
    ] {
        assert_eq!(kubelet_may_set(key), kubelet, "{key}");
    }
}
