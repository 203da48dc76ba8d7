//! `vmetal_tenant_node`: a claim, one node wanted by a tenant cluster.

use std::time::Duration;

use tfplugin::{
    Attribute, Diagnostic, Diagnostics, Path, Pending, Schema, Type, Value,
    plan::{Change, Plan},
    schema::{Nesting, Usage, Validator},
};
use vmetal_api::Secrets;
use vmetal_model::{Candidate, Cause, Decision, Failure, GroupSpec, Lack, TenantNode, TenantNodePhase, TenantNodeSpec};

use crate::{
    convert::{equal, id_attribute, last_error_attribute, name_attribute, refresh, text},
    explain::span,
    foresee,
    kind::{Declaration, Kind, Verdict},
    provider::Engine,
    timeouts::Timeouts,
    wish,
};

/// `vmetal_tenant_node`.
pub(crate) struct TenantNodes;

/// How long "no node type can ever serve this" must stand before it is believed. Types that are being created by the same
/// apply arrive within it.
const NO_TYPE_GRACE: Duration = Duration::from_secs(20);

/// How long a failure that points at the declaration (a cluster or image that does not exist, a cluster nobody can join)
/// must stand before it is believed: what is missing may be on its way in the same apply.
const DECLARATION_GRACE: Duration = Duration::from_secs(60);

fn group_attribute() -> Attribute {
    let group = [
        ("name", Attribute::required(Type::String).describe("Name of the group within the cluster.")),
        (
            "size",
            Attribute::required(Type::Number)
                .validate(Validator::integer(1, i64::from(GroupSpec::LARGEST)))
                .describe("How many members there must be before any of them gets a host. All members give the same."),
        ),
        (
            "same",
            Attribute::optional(Type::String)
                .describe("A label whose value must be the same on the hosts of all members, such as `rack`."),
        ),
    ];
    Attribute::nested(Nesting::Single, Usage::Optional, group).requires_replace().describe(
        "Tenant nodes of one cluster that name the same group get their hosts together: all of them in one step, or none. \
         `vmetal_node_pool` declares such a group as one resource.",
    )
}

fn group(value: &Value) -> Option<GroupSpec> {
    let size = value.attr("size").as_i64().and_then(|size| u32::try_from(size).ok());
    Some(GroupSpec { name: text(value.attr("name"))?, size: size?, same: text(value.attr("same")) })
}

fn group_value(group: Option<&GroupSpec>) -> Value {
    group.map_or(Value::Null, |group| {
        Value::object([
            ("name", Value::from(group.name.clone())),
            ("size", u64::from(group.size).into()),
            ("same", group.same.clone().into()),
        ])
    })
}

/// How many resources Terraform makes at the same time unless it is told otherwise.
const PARALLELISM: u32 = 10;

/// A group can only come together when all its members are declared, and Terraform declares no more of them while the
/// first ones wait.
fn crowded(plan: &Plan) -> Diagnostics {
    let waits = plan.planned.attr("wait_for").as_str() != Some("none");
    let large = group(plan.planned.attr("group")).filter(|group| group.size > PARALLELISM);
    match large.filter(|_| waits && plan.change() == Change::Create) {
        Some(group) => Diagnostic::warning(
            format!("Group {} needs more than Terraform's usual parallelism", group.name),
            format!(
                "No member gets a host before all {0} are declared, and each waits for its own. Terraform makes {PARALLELISM} \
                 resources at a time unless told otherwise: use vmetal_node_pool, set wait_for = \"none\", or run terraform \
                 apply -parallelism={0}.",
                group.size
            ),
        )
        .at(Path::attr("group"))
        .into(),
        None => Diagnostics::new(),
    }
}

impl Kind for TenantNodes {
    type Object = TenantNode;

    const TYPE: &'static str = "vmetal_tenant_node";
    const NOUN: &'static str = "tenant node";
    const TIMEOUTS: Timeouts = Timeouts::minutes(90);
    const WAIT_FOR: Option<&'static str> = Some("ready");

    fn schema() -> Schema {
        let own = [
            ("id", id_attribute()),
            ("name", name_attribute("tenant node")),
            ("group", group_attribute()),
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
            ("plan_check", foresee::attribute()),
            ("timeouts", Self::TIMEOUTS.attribute()),
            ("phase", Attribute::computed(Type::String).describe("How far the node is.")),
            ("host", Attribute::computed(Type::String).describe("The chosen host.")),
            (
                "address",
                Attribute::computed(Type::String)
                    .describe("The host's address of the node's network, once one is reserved; null without a network."),
            ),
            ("node_name", Attribute::computed(Type::String).describe("Name of the Node in the tenant's cluster.")),
            ("provider_id", Attribute::computed(Type::String).describe("The Node's provider id.")),
            ("chosen_node_type", Attribute::computed(Type::String).describe("The chosen node type.")),
            ("cost", Attribute::computed(Type::Number).describe("The chosen node type's cost.")),
            (
                "decision_reason",
                Attribute::computed(Type::String).describe("Why this type and host were chosen, or why none was."),
            ),
            ("last_error", last_error_attribute()),
        ];
        Schema::new(
            "One node of a tenant's cluster, on a server of its own: a host is chosen, installed, joined, and given back \
             erased when the resource is destroyed.",
            own.into_iter().chain(wish::attributes()),
        )
    }

    fn declare(planned: &Value) -> Result<Declaration<TenantNodeSpec>, Diagnostic> {
        let spec = TenantNodeSpec { group: group(planned.attr("group")), ..wish::spec(planned)? };
        Ok(Declaration { spec, labels: Default::default() })
    }

    fn secrets(config: &Value) -> Secrets {
        wish::secrets(config)
    }

    fn observe(state: &mut Value, node: &TenantNode) {
        let status = &node.status;
        let decision = status.decision.as_ref();
        state.set("phase", status.phase.as_str());
        state.set("host", status.host.clone());
        state.set("address", status.lease.as_ref().map(|lease| lease.address.to_string()));
        state.set("node_name", status.node_name.clone());
        state.set("provider_id", status.provider_id.clone());
        state.set("chosen_node_type", decision.and_then(|d| d.node_type.clone()));
        state.set("cost", decision.and_then(|d| d.cost));
        state.set("decision_reason", decision.map(|d| d.reason.clone()));
        state.set("last_error", status.failure.as_ref().map(ToString::to_string));
    }

    fn recall(state: &mut Value, node: &TenantNode) {
        wish::recall(state, &node.spec);
        refresh(state, "group", group_value(node.spec.group.as_ref()), equal);
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
            return crowded(plan);
        }
        let why: Vec<_> = plan.replace.iter().map(Path::to_string).collect();
        wiped(&plan.prior, &format!("A change of {} installs the node anew.", why.join(", ")))
    }

    fn foresee<'a>(engine: &'a Engine, plan: &'a Plan) -> Pending<'a, Diagnostics> {
        Box::pin(async move {
            let title = format!("tenant node {:?}", plan.planned.attr("name").as_str().unwrap_or_default());
            match (wish::spec(&plan.planned), group(plan.planned.attr("group"))) {
                (Ok(spec), None) => foresee::foresee(engine, &plan.planned, spec, 1, &title).await,
                // Its members are declared one by one: as if all of them asked for the same.
                (Ok(spec), Some(group)) => {
                    let (size, title) = (group.size, format!("the group of {title}"));
                    let spec = TenantNodeSpec { group: Some(group), ..spec };
                    foresee::foresee(engine, &plan.planned, spec, size, &title).await
                }
                // Told by its own attribute.
                (Err(_), _) => Diagnostics::new(),
            }
        })
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
        wish::attribute_of(field)
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

/// The candidates of a decision that no node type fits, and that waiting alone will not change; `None` where a type fits, or
/// lacks nothing but a free host, room in its cluster's quota or an address.
pub(crate) fn unsatisfiable(decision: &Decision) -> Option<String> {
    let hopeful = |candidate: &Candidate| {
        candidate.feasible || matches!(candidate.lacks, Some(Lack::FreeHost | Lack::Quota | Lack::Address))
    };
    if decision.node_types.iter().any(hopeful) {
        return None;
    }
    let one = |candidate: &Candidate| format!("- node type {}: {}", candidate.name, candidate.reason);
    let candidates: Vec<_> = decision.node_types.iter().map(one).collect();
    Some(if candidates.is_empty() { "There are no node types.".to_owned() } else { candidates.join("\n") })
}

/// The engine's decision that no node type fits, with every candidate and what it lacks. `None` while a type fits and only
/// a free host, room in the quota or an address is missing: that is worth waiting for.
fn no_type(node: &TenantNode) -> Option<Failure> {
    let failure = node.status.failure.as_ref().filter(|failure| failure.cause == Cause::NoCandidate)?;
    let decision = node.status.decision.as_ref()?;
    let listed = unsatisfiable(decision)?;
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
    use vmetal_model::{Metadata, Object, TenantNodeStatus, Timestamp, Uid};

    use super::*;

    fn node(phase: TenantNodePhase, failure: Option<Cause>, types: &[Option<Lack>]) -> TenantNode {
        let now = Timestamp::UNIX_EPOCH;
        let candidate = |lacks: &Option<Lack>| Candidate {
            name: "t".into(),
            value: None,
            feasible: lacks.is_none(),
            reason: "r".into(),
            lacks: *lacks,
        };
        let mut status = TenantNodeStatus::new(now);
        status.phase = phase;
        status.failure = failure.map(|cause| Failure { cause, message: "m".into(), advice: "a".into(), at: now });
        status.decision = Some(Decision {
            node_type: None,
            host: None,
            cost: None,
            reason: "no host".into(),
            node_types: types.iter().map(candidate).collect(),
            hosts: Vec::new(),
            policies: Vec::new(),
            input_digest: String::new(),
            at: now,
            log: None,
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
        let (fit, host) = (Some(Lack::Fit), Some(Lack::FreeHost));
        assert!(matches!(judge(&node(Phase::Pending, no_candidate, &[fit, None])), Verdict::Going(_)));
        assert!(
            matches!(judge(&node(Phase::Pending, no_candidate, &[fit, host])), Verdict::Going(_)),
            "all hosts are taken"
        );
        assert!(matches!(judge(&node(Phase::Pending, no_candidate, &[fit])), Verdict::Doubtful(_, NO_TYPE_GRACE)));
        assert!(matches!(judge(&node(Phase::Pending, no_candidate, &[])), Verdict::Doubtful(..)));
        let missing = node(Phase::Scheduled, Some(Cause::MissingReference), &[None]);
        assert!(matches!(judge(&missing), Verdict::Doubtful(_, DECLARATION_GRACE)));
        let away = node(Phase::Scheduled, Some(Cause::TenantUnreachable), &[None]);
        assert!(matches!(judge(&away), Verdict::Going(_)), "a cluster that is away may come back");
        assert!(matches!(judge(&node(Phase::Failed, Some(Cause::Join), &[None])), Verdict::Stuck(_)));
        assert_eq!(TenantNodes::judge(&node(Phase::Provisioning, None, &[]), "scheduled"), Verdict::Done);
    }
}
