//! What would become of tenant nodes that are only planned yet: asked of the engine at plan time, and told with the plan.
//!
//! Plans stay pure: nothing of this goes into planned values, which the apply decides. It is told as diagnostics. What can
//! never be satisfied fails the plan, with every candidate and what it lacks. A plan that also makes hosts or node types
//! cannot know what there will be, and says nothing; nor does one whose engine is away.

use std::{collections::BTreeMap, time::Duration};

use tfplugin::{Attribute, Diagnostic, Diagnostics, Type, Value, schema::Validator};
use vmetal_api::ApiError;
use vmetal_model::{Decision, GroupSpec, Lack, TenantNodeSpec};

use crate::{
    convert::sentence,
    errand::{Errand, errand},
    provider::Engine,
    tenant_node::unsatisfiable,
    wish,
};

/// How long a plan waits for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The attribute that says what is done with the answer.
pub(crate) fn attribute() -> Attribute {
    Attribute::optional(Type::String).validate(Validator::one_of(&["fail", "warn", "off"])).describe(
        "What a plan does about a node that no node type fits: `fail` (also when not set), `warn`, or `off`, which asks the \
         engine nothing while planning. A plan to destroy only warns; where a client does not show that it is one, \
         `terraform destroy -refresh=false` plans nothing else.",
    )
}

/// What a plan should say about `count` nodes of this declaration; those of a group are judged together, as the engine does.
pub(crate) async fn foresee(
    engine: &Engine,
    planned: &Value,
    spec: TenantNodeSpec,
    count: u32,
    title: &str,
) -> Diagnostics {
    let check = match planned.attr("plan_check").as_str().unwrap_or("fail") {
        // What is planned then is to go, and a plan that fails would keep it.
        "fail" if errand() != Errand::Other => "warn",
        check => check,
    };
    let Ok(client) = engine.client() else { return Diagnostics::new() };
    if check == "off" || count == 0 || engine.plans_supply() || !asked(planned) {
        return Diagnostics::new();
    }
    // The cluster may be made by the same apply; placement does not depend on it.
    let cluster = if spec.cluster.is_empty() { "planned".to_owned() } else { spec.cluster.clone() };
    // So may what the group is called after.
    let named = |group: GroupSpec| GroupSpec {
        name: Some(group.name).filter(|name| !name.is_empty()).unwrap_or("planned".to_owned()),
        ..group
    };
    let group = spec.group.map(named);
    let together = if group.is_some() { Together::Yes } else { Together::No };
    let spec = TenantNodeSpec { cluster, group, ..spec };
    let client = client.with_patience(Duration::ZERO);
    match tokio::time::timeout(PATIENCE, client.preview_placement(&spec, count)).await {
        Ok(Ok(decisions)) => tell(&decisions, together, check, title),
        // What is wrong with the declaration is told by its validation.
        Ok(Err(ApiError::Invalid(_))) => Diagnostics::new(),
        Ok(Err(error)) => {
            tracing::info!(target: "provider", %error, "the placement could not be looked at while planning");
            Diagnostics::new()
        }
        Err(_) => Diagnostics::new(),
    }
}

/// Whether everything that placement depends on is known.
fn asked(planned: &Value) -> bool {
    let known = |name: &&str| planned.attr(name).is_wholly_known();
    let group = planned.attr("group");
    let group = !group.is_unknown() && ["size", "same"].iter().all(|name| !group.attr(name).is_unknown());
    ["node_type", "requirements", "resources", "together", "network"].iter().all(known) && group
}

/// Whether nodes are placed all or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Together {
    Yes,
    No,
}

fn tell(decisions: &[Decision], together: Together, check: &str, title: &str) -> Diagnostics {
    let Some(first) = decisions.first() else { return Diagnostics::new() };
    if let Some(listed) = unsatisfiable(first) {
        let summary = format!("No node type fits {title}");
        let detail = format!(
            "{listed}\n\nAsk for less, or declare a node type that fits. If one is on its way by other means, set plan_check = \
             \"warn\"."
        );
        let told =
            if check == "warn" { Diagnostic::warning(summary, detail) } else { Diagnostic::error(summary, detail) };
        return told.into();
    }
    if together == Together::Yes && first.host.is_none() {
        let all = decisions.len();
        return Diagnostic::warning(
            format!("Placement of {title}: none of the {all} gets a host yet"),
            format!(
                "{} All of them wait until they can have their hosts together. The apply decides anew.",
                sentence(&first.reason)
            ),
        )
        .into();
    }
    let mut by_type: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for decision in decisions.iter().filter(|decision| decision.host.is_some()) {
        let sum = by_type.entry(decision.node_type.as_deref().unwrap_or_default()).or_default();
        *sum = (sum.0 + 1, sum.1 + decision.cost.unwrap_or_default());
    }
    let placed: usize = by_type.values().map(|(count, _)| count).sum();
    let mut parts: Vec<String> =
        by_type.iter().map(|(name, (count, cost))| format!("{count} x {name}, cost {cost}")).collect();
    // Of several things that a node lacks, what comes first has to be there before the others help.
    let lacks = |decision: &Decision, what: Lack| {
        decision.host.is_none() && decision.node_types.iter().any(|candidate| candidate.lacks == Some(what))
    };
    let over = decisions.iter().filter(|one| lacks(one, Lack::Quota)).count();
    let no_address = decisions.iter().filter(|one| !lacks(one, Lack::Quota) && lacks(one, Lack::Address)).count();
    let without = decisions.len() - placed - over - no_address;
    parts.extend((without > 0).then(|| format!("{without} without a free host")));
    parts.extend((no_address > 0).then(|| format!("{no_address} without an address left in their network")));
    parts.extend((over > 0).then(|| format!("{over} over the quota of their tenant cluster")));
    let last = decisions.iter().rev().find(|decision| decision.host.is_none()).unwrap_or(first);
    let hosts: Vec<_> = decisions.iter().filter_map(|decision| decision.host.as_deref()).take(8).collect();
    let at = if hosts.is_empty() { String::new() } else { format!(" Now that would be: {}.", hosts.join(", ")) };
    let wait = match (without, over, no_address) {
        (0, 0, 0) => "",
        (_, 0, 0) => " What finds no free host waits for one.",
        (_, 0, _) => {
            " What finds none waits: for a free host, and for an address to be given back or the network to get more."
        }
        _ => " What finds none waits: for a free host, and for the cluster to give one back or its quota to be raised.",
    };
    Diagnostic::warning(
        format!("Placement of {title}: {}", parts.join("; ")),
        format!("{}{at}{wait} The apply decides anew.", sentence(&last.reason)),
    )
    .into()
}

/// The part of a declaration that a placement is asked about, for data sources.
pub(crate) fn question(config: &Value) -> Result<TenantNodeSpec, Diagnostic> {
    let spec = wish::spec(config)?;
    Ok(TenantNodeSpec { cluster: "preview".to_owned(), ..spec })
}
