//! `vmetal_tenant_node`: a claim, one node wanted by a tenant cluster.

use std::time::Duration;

use tfplugin::{
    Attribute, Diagnostic, Diagnostics, Path, Schema, Type, Value,
    plan::Plan,
    schema::{Nesting, Usage, Validator},
};
use vmetal_api::{Secret, Secrets};
use vmetal_model::{
    Cause, Failure, Operator, Quantity, Requirement, TenantNode, TenantNodePhase, TenantNodeSpec,
    tenant_node::{DrainSpec, DrainTimeout},
};

use crate::{
    convert::{
        duration, equal, id_attribute, labels_attribute, last_error_attribute, name_attribute, refresh, resources,
        resources_value, same_resources, same_taints, string_list, string_map, taints, taints_attribute, taints_value,
        text, values_parse,
    },
    explain::span,
    kind::{Declaration, Kind, Verdict},
    timeouts::Timeouts,
};

/// `vmetal_tenant_node`.
pub(crate) struct TenantNodes;

/// How long "no node type can ever serve this" must stand before it is believed. Types that are being created by the same
/// apply arrive within it.
const NO_TYPE_GRACE: Duration = Duration::from_secs(20);

/// How long a failure that points at the declaration (a cluster or image that does not exist, a cluster nobody can join)
/// must stand before it is believed: what is missing may be on its way in the same apply.
const DECLARATION_GRACE: Duration = Duration::from_secs(60);

const OPERATORS: [(&str, Operator); 6] = [
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
    ("Gt", Operator::Gt),
    ("Lt", Operator::Lt),
];

fn requirements_attribute() -> Attribute {
    let requirement = [
        ("key", Attribute::required(Type::String).describe("The label.")),
        (
            "operator",
            Attribute::required(Type::String)
                .validate(Validator::one_of(&["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]))
                .describe("`In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`."),
        ),
        (
            "values",
            Attribute::optional(Type::list(Type::String))
                .describe("One or more for `In` and `NotIn`, none for `Exists` and `DoesNotExist`, one integer for `Gt` and `Lt`."),
        ),
    ];
    Attribute::nested(Nesting::List, Usage::Optional, requirement)
        .requires_replace()
        .describe("Conditions on the labels of node types.")
}

fn drain_attribute() -> Attribute {
    let drain = [
        (
            "timeout",
            Attribute::optional(Type::String)
                .semantic_equality(same_span)
                .validate(Validator::string("Invalid duration", |text| duration(text).map(drop)))
                .describe("How long pods may take to go, such as `30m` (default)."),
        ),
        (
            "on_timeout",
            Attribute::optional(Type::String)
                .validate(Validator::one_of(&["wait", "force"]))
                .describe("Then: `wait` (default; disruption budgets are the tenant's word) or `force`."),
        ),
    ];
    Attribute::nested(Nesting::Single, Usage::Optional, drain)
        .describe("How the node is emptied before it is released.")
}

fn same_span(a: &Value, b: &Value) -> bool {
    match (a.as_str().map(duration), b.as_str().map(duration)) {
        (Some(Ok(a)), Some(Ok(b))) => a == b,
        _ => a == b,
    }
}

/// Lists of requirements as Terraform has them. No values are an absent list.
fn requirements_value(requirements: &[Requirement]) -> Value {
    let one = |requirement: &Requirement| {
        let operator = OPERATORS.into_iter().find(|(_, o)| *o == requirement.operator).map(|(name, _)| name);
        let values = (!requirement.values.is_empty()).then(|| requirement.values.clone());
        Value::object([
            ("key", Value::from(requirement.key.clone())),
            ("operator", operator.into()),
            ("values", values.into()),
        ])
    };
    Value::List(requirements.iter().map(one).collect())
}

fn requirements(value: &Value) -> Vec<Requirement> {
    let one = |item: &Value| {
        let operator = OPERATORS.into_iter().find(|(name, _)| item.attr("operator").as_str() == Some(name));
        Some(Requirement {
            key: text(item.attr("key"))?,
            operator: operator?.1,
            values: string_list(item.attr("values")),
        })
    };
    value.as_list().unwrap_or_default().iter().filter_map(one).collect()
}

fn same_requirements(a: &Value, b: &Value) -> bool {
    requirements(a) == requirements(b)
}

impl Kind for TenantNodes {
    type Object = TenantNode;

    const TYPE: &'static str = "vmetal_tenant_node";
    const NOUN: &'static str = "tenant node";
    const TIMEOUTS: Timeouts = Timeouts::minutes(90);
    const WAIT_FOR: Option<&'static str> = Some("ready");

    fn schema() -> Schema {
        Schema::new(
            "One node of a tenant's cluster, on a server of its own: a host is chosen, installed, joined, and given back \
             erased when the resource is destroyed.",
            [
                ("id", id_attribute()),
                ("name", name_attribute("tenant node")),
                (
                    "cluster",
                    Attribute::required(Type::String).requires_replace().describe("Name of the tenant cluster to join."),
                ),
                (
                    "node_type",
                    Attribute::optional(Type::String)
                        .requires_replace()
                        .describe("Name of the node type; the cheapest that fits when not set (see `chosen_node_type`)."),
                ),
                ("requirements", requirements_attribute()),
                (
                    "resources",
                    Attribute::optional(Type::map(Type::String))
                        .requires_replace()
                        .semantic_equality(same_resources)
                        .validate(values_parse::<Quantity>("Invalid quantity"))
                        .describe("What the node must at least offer, in Kubernetes' notation."),
                ),
                (
                    "image",
                    Attribute::optional(Type::String)
                        .requires_replace()
                        .describe("Name of the image to install; the node type's when not set."),
                ),
                ("labels", labels_attribute("Labels for the Node.").requires_replace()),
                ("taints", taints_attribute("Taints for the Node.").requires_replace()),
                (
                    "user_data_wo",
                    Attribute::optional(Type::String).write_only().describe(
                        "Cloud-init user data of your own. Write-only: it reaches the engine and is kept neither in plans \
                         nor in the state. Change `user_data_wo_version` together with it.",
                    ),
                ),
                (
                    "user_data_wo_version",
                    Attribute::optional(Type::String)
                        .requires_replace()
                        .describe("Any text or number; changing it installs the node anew with the present user data."),
                ),
                ("drain", drain_attribute()),
                (
                    "wait_for",
                    Attribute::optional(Type::String)
                        .default("ready")
                        .validate(Validator::one_of(&["ready", "scheduled", "none"]))
                        .describe(
                            "What an apply waits for: `ready` (the Node is Ready; default), `scheduled` (a host is chosen) or \
                             `none`.",
                        ),
                ),
                ("timeouts", Self::TIMEOUTS.attribute()),
                ("phase", Attribute::computed(Type::String).describe("How far the node is.")),
                ("host", Attribute::computed(Type::String).describe("The chosen host.")),
                ("node_name", Attribute::computed(Type::String).describe("Name of the Node in the tenant's cluster.")),
                ("provider_id", Attribute::computed(Type::String).describe("The Node's provider id.")),
                ("chosen_node_type", Attribute::computed(Type::String).describe("The chosen node type.")),
                ("cost", Attribute::computed(Type::Number).describe("The chosen node type's cost.")),
                (
                    "decision_reason",
                    Attribute::computed(Type::String).describe("Why this type and host were chosen, or why none was."),
                ),
                ("last_error", last_error_attribute()),
            ],
        )
    }

    fn declare(planned: &Value) -> Result<Declaration<TenantNodeSpec>, Diagnostic> {
        let drain = planned.attr("drain");
        let default = DrainSpec::default();
        let timeout = drain.attr("timeout").as_str().and_then(|text| duration(text).ok());
        let spec = TenantNodeSpec {
            cluster: text(planned.attr("cluster")).unwrap_or_default(),
            node_type: text(planned.attr("node_type")),
            requirements: requirements(planned.attr("requirements")),
            resources: resources(planned.attr("resources"), &Path::attr("resources"))?,
            image: text(planned.attr("image")),
            labels: string_map(planned.attr("labels")),
            taints: taints(planned.attr("taints"), &Path::attr("taints"))?,
            user_data_version: text(planned.attr("user_data_wo_version")).unwrap_or_default(),
            drain: DrainSpec {
                timeout_seconds: timeout
                    .map_or(default.timeout_seconds, |span| u32::try_from(span.as_secs()).unwrap_or(u32::MAX)),
                on_timeout: match drain.attr("on_timeout").as_str() {
                    Some("force") => DrainTimeout::Force,
                    _ => DrainTimeout::Wait,
                },
            },
            group: None,
        };
        Ok(Declaration { spec, labels: Default::default() })
    }

    fn secrets(config: &Value) -> Secrets {
        let data = text(config.attr("user_data_wo"));
        data.into_iter().map(|data| ("user_data".to_owned(), Secret::new(data))).collect()
    }

    fn observe(state: &mut Value, node: &TenantNode) {
        let status = &node.status;
        let decision = status.decision.as_ref();
        state.set("phase", status.phase.as_str());
        state.set("host", status.host.clone());
        state.set("node_name", status.node_name.clone());
        state.set("provider_id", status.provider_id.clone());
        state.set("chosen_node_type", decision.and_then(|d| d.node_type.clone()));
        state.set("cost", decision.and_then(|d| d.cost));
        state.set("decision_reason", decision.map(|d| d.reason.clone()));
        state.set("last_error", status.failure.as_ref().map(ToString::to_string));
    }

    fn recall(state: &mut Value, node: &TenantNode) {
        let spec = &node.spec;
        refresh(state, "cluster", spec.cluster.clone(), equal);
        refresh(state, "node_type", spec.node_type.clone(), equal);
        refresh(state, "requirements", requirements_value(&spec.requirements), same_requirements);
        refresh(state, "resources", resources_value(&spec.resources), same_resources);
        refresh(state, "image", spec.image.clone(), equal);
        refresh(state, "labels", spec.labels.clone(), equal);
        refresh(state, "taints", taints_value(&spec.taints), same_taints);
        refresh(state, "user_data_wo_version", spec.user_data_version.clone(), equal);
        let default = DrainSpec::default();
        if !(spec.drain == default && state.attr("drain").is_null()) {
            let mut drain = state.attr("drain").clone();
            let unset = |drain: &Value, name: &str, is_default: bool| is_default && drain.attr(name).is_null();
            if !unset(&drain, "timeout", spec.drain.timeout_seconds == default.timeout_seconds) {
                refresh(&mut drain, "timeout", format!("{}s", spec.drain.timeout_seconds), same_span);
            }
            if !unset(&drain, "on_timeout", spec.drain.on_timeout == default.on_timeout) {
                let then = if spec.drain.on_timeout == DrainTimeout::Force { "force" } else { "wait" };
                refresh(&mut drain, "on_timeout", then, equal);
            }
            state.set("drain", drain);
        }
    }

    fn judge(node: &TenantNode, wait_for: &str) -> Verdict {
        use TenantNodePhase as Phase;
        let status = &node.status;
        let going = || Verdict::Going(Self::doing(node));
        match (wait_for, status.phase) {
            ("none", _) => Verdict::Done,
            (_, Phase::Ready) => Verdict::Done,
            ("scheduled", Phase::Scheduled | Phase::Provisioning | Phase::Joining) => Verdict::Done,
            (_, Phase::Failed) => match (&status.failure, status.recourse) {
                // The engine is on its way to another host by itself.
                (_, Some(_)) | (None, _) => going(),
                (Some(failure), None) => Verdict::Stuck(failure.clone()),
            },
            (_, Phase::Pending | Phase::Scheduled) => doubt(node).unwrap_or_else(going),
            _ => going(),
        }
    }

    fn doing(node: &TenantNode) -> String {
        let status = &node.status;
        let phase = status.phase.as_str();
        let on = status.host.as_ref().map(|host| format!(" on host {host}")).unwrap_or_default();
        let step = match (&status.wait, &status.decision) {
            (Some(wait), _) => format!(", waiting for {} ({})", wait.reason, wait.unblocks),
            (None, Some(decision)) if status.phase == TenantNodePhase::Pending => format!(", {}", decision.reason),
            _ => String::new(),
        };
        format!("{phase}{on}{step}")
    }

    fn failure(node: &TenantNode) -> Option<&Failure> {
        node.status.failure.as_ref()
    }

    fn warn(plan: &Plan) -> Diagnostics {
        if plan.replace.is_empty() {
            return Diagnostics::new();
        }
        let why: Vec<_> = plan.replace.iter().map(Path::to_string).collect();
        wiped(&plan.prior, &format!("A change of {} installs the node anew.", why.join(", ")))
    }

    fn warn_destroy(state: &Value) -> Diagnostics {
        wiped(state, "The node is destroyed.")
    }

    fn whereabouts(node: &TenantNode) -> Vec<String> {
        let status = &node.status;
        let mut lines = vec![format!("Tenant cluster: {}", node.spec.cluster)];
        lines.extend(status.host.as_ref().map(|host| format!("Host: {host} (see: vmetal describe host {host})")));
        lines.extend(status.node_name.as_ref().map(|node| format!("Node: {node}")));
        lines
    }

    fn attribute_of(field: &str) -> Option<&'static str> {
        match field {
            "user_data" => Some("user_data_wo"),
            "user_data_version" => Some("user_data_wo_version"),
            "drain.timeout_seconds" => Some("drain.timeout"),
            _ => None,
        }
    }
}

/// Data on a server is about to go.
fn wiped(prior: &Value, why: &str) -> Diagnostics {
    match prior.attr("host").as_str() {
        Some(host) => Diagnostic::warning(
            format!("Host {host} will be erased"),
            format!(
                "{why} Its pods are drained, its Node object is deleted, and the disks of host {host} are erased: everything \
                 on them is lost."
            ),
        )
        .into(),
        None => Diagnostics::new(),
    }
}

/// What stands in the way of a claim that nothing was installed for yet, if waiting alone will hardly remove it.
fn doubt(node: &TenantNode) -> Option<Verdict> {
    if let Some(why) = no_type(node) {
        return Some(Verdict::Doubtful(why, NO_TYPE_GRACE));
    }
    let failure = node.status.failure.as_ref()?;
    let declared_wrong = matches!(failure.cause, Cause::MissingReference | Cause::TenantSetup | Cause::Image);
    declared_wrong.then(|| Verdict::Doubtful(failure.clone(), DECLARATION_GRACE))
}

/// The engine's decision that no node type fits, with every candidate and what it lacks. `None` while a type fits and only
/// a free host is missing: that is worth waiting for.
fn no_type(node: &TenantNode) -> Option<Failure> {
    let failure = node.status.failure.as_ref().filter(|failure| failure.cause == Cause::NoCandidate)?;
    let decision = node.status.decision.as_ref()?;
    if decision.node_types.iter().any(|candidate| candidate.feasible) {
        return None;
    }
    let candidates: Vec<_> = decision
        .node_types
        .iter()
        .map(|candidate| format!("- node type {}: {}", candidate.name, candidate.reason))
        .collect();
    let listed = if candidates.is_empty() { "There are no node types.".to_owned() } else { candidates.join("\n") };
    Some(Failure {
        cause: failure.cause,
        message: format!("no node type fits (unchanged for {}):\n{listed}", span(NO_TYPE_GRACE)),
        advice: "ask for less, or declare a node type that fits (add depends_on if this configuration declares it)"
            .to_owned(),
        at: failure.at,
    })
}

#[cfg(test)]
mod tests {
    use vmetal_model::{Candidate, Decision, Metadata, Object, TenantNodeStatus, Timestamp, Uid};

    use super::*;

    fn node(phase: TenantNodePhase, failure: Option<Cause>, feasible: &[bool]) -> TenantNode {
        let now = Timestamp::UNIX_EPOCH;
        let candidate =
            |feasible: &bool| Candidate { name: "t".into(), value: None, feasible: *feasible, reason: "r".into() };
        let mut status = TenantNodeStatus::new(now);
        status.phase = phase;
        status.failure = failure.map(|cause| Failure { cause, message: "m".into(), advice: "a".into(), at: now });
        status.decision = Some(Decision {
            node_type: None,
            host: None,
            cost: None,
            reason: "no host".into(),
            node_types: feasible.iter().map(candidate).collect(),
            hosts: Vec::new(),
            policies: Vec::new(),
            input_digest: String::new(),
            at: now,
        });
        let metadata = Metadata {
            name: "n".into(),
            uid: Uid("u".into()),
            generation: 1,
            revision: 1,
            labels: Default::default(),
            annotations: Default::default(),
            created: now,
            deleted: None,
        };
        Object { metadata, spec: TenantNodeSpec::default(), status }
    }

    #[test]
    fn a_busy_pool_is_worth_waiting_for_and_an_impossible_wish_is_not() {
        use TenantNodePhase as Phase;
        let judge = |node: &TenantNode| TenantNodes::judge(node, "ready");
        let no_candidate = Some(Cause::NoCandidate);
        assert!(matches!(judge(&node(Phase::Pending, no_candidate, &[false, true])), Verdict::Going(_)));
        assert!(matches!(judge(&node(Phase::Pending, no_candidate, &[false])), Verdict::Doubtful(_, NO_TYPE_GRACE)));
        assert!(matches!(judge(&node(Phase::Pending, no_candidate, &[])), Verdict::Doubtful(..)));
        let missing = node(Phase::Scheduled, Some(Cause::MissingReference), &[true]);
        assert!(matches!(judge(&missing), Verdict::Doubtful(_, DECLARATION_GRACE)));
        let away = node(Phase::Scheduled, Some(Cause::TenantUnreachable), &[true]);
        assert!(matches!(judge(&away), Verdict::Going(_)), "a cluster that is away may come back");
        assert!(matches!(judge(&node(Phase::Failed, Some(Cause::Join), &[true])), Verdict::Stuck(_)));
        assert_eq!(TenantNodes::judge(&node(Phase::Provisioning, None, &[]), "scheduled"), Verdict::Done);
    }
}
