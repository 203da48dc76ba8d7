//! `vmetal_tenant_cluster`: a Kubernetes cluster that nodes are joined to.

use tfplugin::{
    Attribute, Diagnostic, Diagnostics, Path, Schema, Type, Value,
    plan::{Change, Plan},
    schema::Validator,
};
use vmetal_api::{Secret, Secrets};
use vmetal_model::{Failure, TenantCluster, TenantClusterSpec, tenant_cluster::JoinDriver};

use crate::{
    convert::{
        equal, id_attribute, labels_attribute, last_error_attribute, name_attribute, refresh, same_taints, string_list,
        string_map, taints, taints_attribute, taints_value, text,
    },
    kind::{Declaration, Kind, Verdict},
    timeouts::Timeouts,
};

/// `vmetal_tenant_cluster`.
pub(crate) struct TenantClusters;

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
        };
        Ok(Declaration { spec, labels: Default::default() })
    }

    fn secrets(config: &Value) -> Secrets {
        let kubeconfig = text(config.attr("kubeconfig_wo"));
        kubeconfig.into_iter().map(|text| ("kubeconfig".to_owned(), Secret::new(text))).collect()
    }

    fn observe(state: &mut Value, object: &TenantCluster) {
        let status = &object.status;
        state.set("reachable", status.reachable);
        state.set("version", status.version.clone());
        state.set("endpoint", status.endpoint.clone());
        state.set("last_error", status.failure.as_ref().map(ToString::to_string));
    }

    fn recall(state: &mut Value, object: &TenantCluster) {
        let TenantClusterSpec { driver, kubeconfig_version, labels, taints, ssh_authorized_keys } = &object.spec;
        let driver = match driver {
            JoinDriver::Kubeadm => "kubeadm",
        };
        refresh(state, "driver", driver, equal);
        refresh(state, "kubeconfig_wo_version", kubeconfig_version.clone(), equal);
        refresh(state, "labels", labels.clone(), equal);
        refresh(state, "taints", taints_value(taints), same_taints);
        refresh(state, "ssh_authorized_keys", ssh_authorized_keys.clone(), equal);
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
