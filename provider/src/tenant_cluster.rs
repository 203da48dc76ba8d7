//! `vmetal_tenant_cluster`: a Kubernetes cluster that nodes are joined to.

use tfplugin::{
    Attribute, Diagnostic, Diagnostics, Path, Schema, Type, Value,
    plan::{Change, Plan},
    schema::{Nesting, Usage, Validator},
};
use vmetal_api::{Secret, Secrets};
use vmetal_model::{Failure, Quantity, Quota, TenantCluster, TenantClusterSpec, tenant_cluster::JoinDriver};

use crate::{
    convert::{
        equal, id_attribute, labels_attribute, last_error_attribute, name_attribute, refresh, resources,
        resources_value, same_taints, string_list, string_map, taints, taints_attribute, taints_value, text,
        values_parse,
    },
    kind::{Declaration, Kind, Verdict},
    timeouts::Timeouts,
};

/// `vmetal_tenant_cluster`.
pub(crate) struct TenantClusters;

fn quota_attribute() -> Attribute {
    let count = || Attribute::optional(Type::Number).validate(Validator::integer(0, i64::from(u32::MAX)));
    let quota = [
        ("hosts", count().describe("Hosts of all node types together.")),
        (
            "node_types",
            Attribute::optional(Type::map(Type::Number)).describe("Hosts of single node types, by the type's name."),
        ),
        (
            "resources",
            Attribute::optional(Type::map(Type::String)).validate(values_parse::<Quantity>("Invalid quantity")).describe(
                "Amounts of resources such as `nvidia.com/gpu`, in Kubernetes' notation, counted as the node types of the \
                 hosts declare them.",
            ),
        ),
    ];
    Attribute::nested(Nesting::Single, Usage::Optional, quota).describe(
        "The most that the cluster may hold at one time; what is not named is not limited. Tenant nodes beyond it wait, and \
         say so. Lowering it takes nothing away: nothing more is given until enough has been given back.",
    )
}

fn quota(value: &Value) -> Result<Quota, Diagnostic> {
    let at = Path::attr("quota");
    let count = |value: &Value, at: Path| {
        let wrong = || Diagnostic::error("Invalid quota", "Expected a whole number from 0 to 4294967295.").at(at);
        value.as_i64().and_then(|count| u32::try_from(count).ok()).ok_or_else(wrong)
    };
    let hosts = Some(value.attr("hosts")).filter(|hosts| !hosts.is_null());
    let of_types = at.attribute("node_types");
    let node_types = value.attr("node_types").as_map().into_iter().flatten();
    Ok(Quota {
        hosts: hosts.map(|hosts| count(hosts, at.attribute("hosts"))).transpose()?,
        node_types: node_types
            .map(|(name, most)| Ok((name.clone(), count(most, of_types.key(name))?)))
            .collect::<Result<_, Diagnostic>>()?,
        resources: resources(value.attr("resources"), &at.attribute("resources"))?,
    })
}

fn quota_value(quota: &Quota) -> Value {
    if quota.is_unlimited() {
        return Value::Null;
    }
    let types = quota.node_types.iter().map(|(name, most)| (name.clone(), Value::from(u64::from(*most))));
    Value::object([
        ("hosts", quota.hosts.map_or(Value::Null, |hosts| u64::from(hosts).into())),
        ("node_types", if quota.node_types.is_empty() { Value::Null } else { Value::object(types) }),
        ("resources", if quota.resources.is_empty() { Value::Null } else { resources_value(&quota.resources) }),
    ])
}

/// Whether both limit the same: `64Gi` is `65536Mi`, and a quota that limits nothing is none.
fn same_quota(a: &Value, b: &Value) -> bool {
    matches!((quota(a), quota(b)), (Ok(a), Ok(b)) if a == b)
}

impl Kind for TenantClusters {
    type Object = TenantCluster;

    const TYPE: &'static str = "vmetal_tenant_cluster";
    const NOUN: &'static str = "tenant cluster";
    const TIMEOUTS: Timeouts = Timeouts::minutes(15);
    const WAIT_FOR: Option<&'static str> = Some("none");

    fn schema() -> Schema {
        Schema::new(
            "A Kubernetes cluster that tenant nodes join: how to reach it, and what all its nodes have in common.",
            [
                ("id", id_attribute()),
                ("name", name_attribute("tenant cluster")),
                (
                    "driver",
                    Attribute::optional(Type::String)
                        .default("kubeadm")
                        .validate(Validator::one_of(&["kubeadm"]))
                        .describe("How nodes join: `kubeadm` (default), with a bootstrap token per node and the CA pinned."),
                ),
                (
                    "kubeconfig_wo",
                    Attribute::optional(Type::String).write_only().describe(
                        "A kubeconfig that may manage Nodes and bootstrap tokens. Write-only: it reaches the engine and is \
                         kept neither in plans nor in the state. Change `kubeconfig_wo_version` together with it.",
                    ),
                ),
                (
                    "kubeconfig_wo_version",
                    Attribute::optional(Type::String).describe("Any text or number; change it whenever the kubeconfig changes."),
                ),
                ("labels", labels_attribute("Labels for every node of the cluster.")),
                ("taints", taints_attribute("Taints for every node of the cluster.")),
                (
                    "ssh_authorized_keys",
                    Attribute::optional(Type::list(Type::String))
                        .describe("SSH public keys for the image's default user on every node."),
                ),
                (
                    "network",
                    Attribute::optional(Type::String).describe("Name of the network (`vmetal_network`) that the cluster's nodes get an address of; the node type's when not set. It counts for nodes that are placed from then on."),
                ),
                ("quota", quota_attribute()),
                (
                    "wait_for",
                    Attribute::optional(Type::String)
                        .default("none")
                        .validate(Validator::one_of(&["reachable", "none"]))
                        .describe("What an apply waits for: `reachable` (the engine has talked to it) or `none` (default)."),
                ),
                ("timeouts", Self::TIMEOUTS.attribute()),
                ("reachable", Attribute::computed(Type::Bool).describe("Whether the last contact succeeded.")),
                ("version", Attribute::computed(Type::String).describe("Version of the API server.")),
                ("endpoint", Attribute::computed(Type::String).describe("The endpoint that nodes are told to join.")),
                ("last_error", last_error_attribute()),
            ],
        )
    }

    fn declare(planned: &Value) -> Result<Declaration<TenantClusterSpec>, Diagnostic> {
        let spec = TenantClusterSpec {
            driver: JoinDriver::Kubeadm,
            kubeconfig_version: text(planned.attr("kubeconfig_wo_version")).unwrap_or_default(),
            labels: string_map(planned.attr("labels")),
            taints: taints(planned.attr("taints"), &Path::attr("taints"))?,
            ssh_authorized_keys: string_list(planned.attr("ssh_authorized_keys")),
            network: text(planned.attr("network")),
            quota: quota(planned.attr("quota"))?,
        };
        Ok(Declaration { spec, labels: Default::default() })
    }

    fn secrets(config: &Value) -> Secrets {
        let kubeconfig = text(config.attr("kubeconfig_wo"));
        kubeconfig.into_iter().map(|text| ("kubeconfig".to_owned(), Secret::new(text))).collect()
    }

    fn secrets_version(state: &Value) -> &Value {
        state.attr("kubeconfig_wo_version")
    }

    fn observe(state: &mut Value, object: &TenantCluster) {
        let status = &object.status;
        state.set("reachable", status.reachable);
        state.set("version", status.version.clone());
        state.set("endpoint", status.endpoint.clone());
        state.set("last_error", status.failure.as_ref().map(ToString::to_string));
    }

    fn recall(state: &mut Value, object: &TenantCluster) {
        let TenantClusterSpec { driver, kubeconfig_version, labels, taints, ssh_authorized_keys, network, quota } =
            &object.spec;
        let driver = match driver {
            JoinDriver::Kubeadm => "kubeadm",
        };
        refresh(state, "driver", driver, equal);
        refresh(state, "kubeconfig_wo_version", kubeconfig_version.clone(), equal);
        refresh(state, "labels", labels.clone(), equal);
        refresh(state, "taints", taints_value(taints), same_taints);
        refresh(state, "ssh_authorized_keys", ssh_authorized_keys.clone(), equal);
        refresh(state, "network", network.clone(), equal);
        refresh(state, "quota", quota_value(quota), same_quota);
    }

    fn judge(object: &TenantCluster, wait_for: &str) -> Verdict {
        let status = &object.status;
        let current = status.observed_generation >= object.metadata.generation;
        if wait_for != "reachable" || (current && status.reachable) {
            return Verdict::Done;
        }
        Verdict::Going(Self::doing(object))
    }

    fn doing(object: &TenantCluster) -> String {
        match &object.status.failure {
            Some(failure) => failure.message.clone(),
            None => "waiting for the engine to reach the cluster".to_owned(),
        }
    }

    fn failure(object: &TenantCluster) -> Option<&Failure> {
        object.status.failure.as_ref()
    }

    fn warn(plan: &Plan) -> Diagnostics {
        if plan.change() == Change::Update || !plan.config.attr("kubeconfig_wo").is_null() {
            return Diagnostics::new();
        }
        Diagnostic::warning(
            "A tenant cluster without a kubeconfig",
            "The engine cannot reach this cluster and no node will join it. Set kubeconfig_wo.",
        )
        .at(Path::attr("kubeconfig_wo"))
        .into()
    }

    fn attribute_of(field: &str) -> Option<&'static str> {
        match field {
            "kubeconfig" => Some("kubeconfig_wo"),
            "kubeconfig_version" => Some("kubeconfig_wo_version"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn declared() -> Value {
        Value::object([
            ("hosts", Value::from(8u64)),
            ("node_types", Value::object([("gpu", Value::from(2u64))])),
            ("resources", Value::object([("memory", "1024Gi")])),
        ])
    }

    #[test]
    fn a_quota_goes_to_the_engine_and_comes_back_as_it_was_written() {
        let read = quota(&declared()).unwrap();
        assert_eq!(
            (read.hosts, read.node_types["gpu"], read.resources["memory"]),
            (Some(8), 2, "1Ti".parse().unwrap())
        );
        let back = quota_value(&read);
        assert!(same_quota(&declared(), &back) && quota(&back).unwrap() == read);
        let mut state = Value::object([("quota", declared())]);
        refresh(&mut state, "quota", back, same_quota);
        assert_eq!(state.attr("quota").attr("resources").attr("memory"), &Value::from("1024Gi"), "the user's spelling");
    }

    #[test]
    fn no_quota_and_one_that_limits_nothing_are_the_same() {
        let nothing = ["hosts", "node_types", "resources"].map(|name| (name, Value::Null));
        let nothing = Value::object(nothing);
        assert!(quota(&nothing).unwrap().is_unlimited() && quota(&Value::Null).unwrap().is_unlimited());
        let mut state = Value::object([("quota", nothing.clone())]);
        refresh(&mut state, "quota", quota_value(&Quota::default()), same_quota);
        assert_eq!(state.attr("quota"), &nothing);
        assert!(!same_quota(&nothing, &declared()));
    }

    #[test]
    fn what_is_no_number_of_hosts_is_refused_where_it_is_written() {
        let wrong = Value::object([("node_types", Value::object([("gpu", Value::from("two"))]))]);
        assert!(format!("{:?}", quota(&wrong).unwrap_err()).contains("whole number"));
    }
}
