//! Objects for the rendering tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use vmetal_api::AnyObject;
use vmetal_model::{Kind, Timestamp};

pub(crate) fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// So many seconds before [`now`].
fn ago(seconds: i64) -> Timestamp {
    now() - jiff::SignedDuration::from_secs(seconds)
}

fn object(kind: Kind, name: &str, spec: Value, status: Value) -> AnyObject {
    let metadata = json!({"name": name, "uid": format!("uid-of-{name}"), "generation": 2, "revision": 17,
        "labels": {"rack": "1"}, "created": ago(86_400)});
    AnyObject { kind, metadata: serde_json::from_value(metadata).unwrap(), spec, status }
}

fn host_spec(number: u32) -> Value {
    json!({
        "bmc": {"address": format!("redfish://10.0.0.{number}"), "username": "root"},
        "boot_mac": format!("52:54:00:00:00:{number:02}"),
    })
}

pub(crate) fn available_host() -> AnyObject {
    let status = json!({
        "phase": "available", "phase_since": ago(7500), "stage": "idle", "stage_since": ago(7500), "power": "off",
        "address": "172.22.0.11", "observed_generation": 2,
        "bmc": {"system_path": "/redfish/v1/Systems/1", "manufacturer": "Acme", "model": "M1", "serial": "SN-1",
            "firmware": "7.10", "certificate": "ab12", "power": "off"},
        "inventory": {
            "identity": {"serial": "SN-1"},
            "cpu": {"architecture": "x86_64", "model": "EPYC 9354", "sockets": 1, "cores": 32, "threads": 64},
            "memory_bytes": 256_u64 << 30,
            "disks": [{"name": "nvme0n1", "size_bytes": 960_197_124_096_u64, "bus": "nvme", "rotational": false,
                "model": "PM9A3", "serial": "D1", "sector_bytes": 512}],
            "nics": [{"name": "eth0", "mac": "52:54:00:00:00:01", "link_up": true, "speed_mbps": 25000, "boot": true}],
            "firmware": "uefi",
        },
        "erase": {"claim_uid": "old", "level": "discard", "disks": [{"name": "nvme0n1", "serial": "D1", "size_bytes": 960_197_124_096_u64, "method": "BLKDISCARD"}],
            "at": ago(7600)},
    });
    object(Kind::Host, "rack1-01", host_spec(1), status)
}

pub(crate) fn busy_host() -> AnyObject {
    let status = json!({
        "phase": "provisioning", "phase_since": ago(192), "stage": "work", "stage_since": ago(62), "power": "on",
        "observed_generation": 2,
        "wait": {"reason": "the installer to write the image", "unblocks": "its report", "since": ago(62),
            "next_check": now() + jiff::SignedDuration::from_secs(5), "deadline": now() + jiff::SignedDuration::from_secs(840)},
        "claim": {"node": "web-1", "uid": "uid-of-web-1", "state": "install", "since": ago(200)},
        "boot": {"id": "b7", "purpose": "install", "token_sha256": "00", "opened": ago(180), "called_in": ago(90)},
        "progress": {"step": "writing image", "done": 1_u64 << 30, "total": 4_u64 << 30},
        "operation": {"id": 9, "kind": "power_on", "state": {"state": "succeeded"}, "started": ago(170), "finished": ago(168)},
        "retry": {"failures": 0, "attempts": 1},
    });
    let mut host = object(Kind::Host, "rack1-02", host_spec(2), status);
    host.metadata.deleted = Some(ago(10));
    host
}

pub(crate) fn failed_host() -> AnyObject {
    let status = json!({
        "phase": "error", "phase_since": ago(45), "stage": "idle", "stage_since": ago(45), "power": "unknown",
        "failed_phase": "registering", "observed_generation": 2,
        "failure": {"cause": "bmc_credentials", "message": "BMC https://10.0.0.3 refused user \"root\"",
            "advice": "correct user name or password", "at": ago(45)},
    });
    object(Kind::Host, "rack1-003", host_spec(3), status)
}

pub(crate) fn node_type() -> AnyObject {
    let spec = json!({"selector": {"size": "small"}, "resources": {"cpu": "8", "memory": "32Gi"}, "image": "debian", "standby": 2});
    let capacity = json!({"total": 4, "available": 2, "claimed": 1, "standby": 1});
    let status = json!({"cost": 42, "capacity": capacity, "observed_generation": 2});
    object(Kind::NodeType, "small", spec, status)
}

pub(crate) fn tenant_node() -> AnyObject {
    let status = json!({
        "phase": "provisioning", "phase_since": ago(192), "host": "rack1-02", "host_uid": "uid-of-rack1-02",
        "provider_id": "vmetal://uid-of-rack1-02", "observed_generation": 2,
        "decision": {
            "node_type": "small", "host": "rack1-02", "cost": 42, "reason": "small is the cheapest class that fits",
            "node_types": [
                {"name": "small", "value": 42, "feasible": true, "reason": "cheapest"},
                {"name": "large", "value": 310, "feasible": true, "reason": "costs more"},
                {"name": "gpu", "feasible": false, "reason": "arch in [arm64] does not hold: arch is amd64"},
            ],
            "hosts": [
                {"name": "rack1-02", "value": 10, "feasible": true, "reason": "first that fits"},
                {"name": "rack1-01", "feasible": false, "reason": "claimed by web-0"},
            ],
            "policies": ["cost-vcluster@0.1.0 sha256:aa"], "input_digest": "bb", "at": ago(200),
        },
    });
    object(Kind::TenantNode, "web-1", json!({"cluster": "prod"}), status)
}

pub(crate) fn tenant_cluster() -> AnyObject {
    let status =
        json!({"reachable": true, "version": "v1.36.0", "endpoint": "https://10.1.0.1", "observed_generation": 1});
    object(Kind::TenantCluster, "prod", json!({}), status)
}

pub(crate) fn image() -> AnyObject {
    let status = json!({"phase": "ready", "digest": "cafe", "size_bytes": 3_u64 << 30, "stored_bytes": 512 << 20,
        "observed_generation": 1});
    object(Kind::Image, "debian", json!({"source": "/srv/debian.qcow2"}), status)
}

pub(crate) fn network() -> AnyObject {
    let spec = json!({"cidr": "10.20.0.0/24", "ranges": ["10.20.0.10-10.20.0.99"], "gateway": "10.20.0.1",
        "nameservers": ["10.20.0.2"], "vlan": 120, "mtu": 9000});
    object(Kind::Network, "tenants", spec, json!({"addresses": 90, "used": 90, "observed_generation": 2}))
}

pub(crate) fn policy() -> AnyObject {
    let spec = |sha256: &str| json!({"kind": "placement", "sha256": sha256, "settings": {"max_skew": 2}});
    let failure = json!({"cause": "policy", "message": "policy mine refuses its settings", "advice": "correct them",
        "at": ago(60)});
    let facts = json!({"name": "mine", "version": "1", "world": "vmetal:policy/placement-policy@0.1.0",
        "reasons": ["1000: too far away"]});
    let status = json!({"phase": "failed", "in_force": {"generation": 1, "spec": spec("aa")}, "facts": facts,
        "failure": failure, "observed_generation": 2});
    object(Kind::Policy, "place", spec("bb"), status)
}
