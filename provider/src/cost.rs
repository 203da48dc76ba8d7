//! `data "vmetal_cost"`: what N nodes would cost for a time, in integers. And the published price list, for the function
//! `node_cost`.

use std::{collections::BTreeMap, sync::Arc};

use tfplugin::{
    Attribute, Ctx, DataSource, Diagnostic, Diagnostics, Found, Named, Path, Pending, Schema, Type, Value,
    schema::{Nesting, Usage, Validator},
};
use vmetal_api::Client;
use vmetal_model::{
    Candidate, Decision, GroupSpec, Lack, NodeType, Resources, TenantNodeSpec,
    quantity::{CPU, MEMORY},
};
use vmetal_policy_sdk::pricing;

use crate::{
    explain::refused,
    foresee,
    node_type::NodeTypes,
    provider::Engine,
    tenant_node::{TenantNodes, unsatisfiable},
    wish,
};

/// Millionths in one unit of cost.
const MICRO: u64 = 1_000_000;
/// What of a tenant node's declaration decides which type it gets.
const ASKED: [&str; 3] = ["node_type", "requirements", "resources"];
/// More than a hundred years.
const HOURS: i64 = 1_000_000;

/// What a node with these resources costs by the published price list, in millionths; `None` beyond what can be counted.
pub(crate) fn published(resources: &Resources) -> Option<u64> {
    let amount = |name: &str| resources.get(name).copied().unwrap_or_default();
    let others = resources.iter().filter(|(name, _)| {
        let name = name.as_str();
        name != CPU && name != MEMORY && !pricing::FREE_OF_CHARGE.contains(&name)
    });
    let milli = |amount: vmetal_model::Quantity| u64::try_from(amount.milli()).unwrap_or(u64::MAX);
    let terms =
        pricing::terms(milli(amount(CPU)), amount(MEMORY).units_ceil(), others.map(|(_, amount)| milli(*amount)));
    let total: i128 = terms.iter().map(|(_, micros)| micros).sum();
    i64::try_from(total).ok().and_then(|micros| u64::try_from(micros).ok())
}

/// The data source.
pub(crate) struct Cost;

/// So many nodes of one type, at this price each for an hour.
#[derive(Debug, PartialEq)]
struct Share {
    node_type: String,
    nodes: u64,
    micros: u64,
}

impl Cost {
    pub(crate) fn register() -> Named<dyn DataSource<Engine>> {
        ("vmetal_cost", Arc::new(Self))
    }

    async fn ask(ctx: &Ctx<Engine>, config: &Value) -> Result<Value, Diagnostics> {
        let client = ctx.client()?.client()?;
        let nodes = config.attr("size").as_i64().and_then(|size| u32::try_from(size).ok()).unwrap_or(1);
        let hours = config.attr("hours").as_i64().and_then(|hours| u64::try_from(hours).ok()).unwrap_or(1);
        let spec = foresee::question(config)?;
        let shares = Self::shares(client, &spec, nodes).await?;
        let sum =
            |of: &dyn Fn(&Share) -> Option<u64>| shares.iter().try_fold(0u64, |sum, share| sum.checked_add(of(share)?));
        let hourly = sum(&|share| share.micros.checked_mul(share.nodes));
        let total = hourly.and_then(|hourly| hourly.checked_mul(hours));
        let (Some(hourly), Some(total)) = (hourly, total) else {
            return Err(Diagnostic::error(
                "The cost is too large to be counted",
                format!("{nodes} nodes for {hours} hours cost more than {} millionths of a unit.", u64::MAX),
            )
            .into());
        };
        let share = |share: &Share| {
            Value::object([
                ("node_type", Value::from(share.node_type.clone())),
                ("nodes", share.nodes.into()),
                ("node_micros_per_hour", share.micros.into()),
            ])
        };
        let mut state = config.clone();
        state.set("micros_per_hour", hourly);
        state.set("micros", total);
        state.set("by_node_type", Value::List(shares.iter().map(share).collect()));
        Ok(state)
    }

    /// The nodes by the type that each would get. A type that is full counts as one that waits for a host.
    async fn shares(client: &Client, spec: &TenantNodeSpec, nodes: u32) -> Result<Vec<Share>, Diagnostics> {
        let types = client.list_as::<NodeType>(&BTreeMap::new()).await;
        let types = types.map_err(|error| refused::<NodeTypes>("reading the node types' costs", error))?;
        let price = |name: &str| types.iter().find(|one| one.name() == name).and_then(micros_of);
        let decisions = client.preview_placement(spec, nodes).await;
        let decisions = decisions.map_err(|error| refused::<TenantNodes>("looking at a placement", error))?;
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for decision in &decisions {
            let Some(name) = chosen(decision, &price) else {
                let listed = unsatisfiable(decision).unwrap_or_else(|| decision.reason.clone());
                let advice = "Ask for less, or declare a node type that fits.";
                return Err(Diagnostic::error("No node type fits", format!("{listed}\n\n{advice}")).into());
            };
            *counted.entry(name.to_owned()).or_default() += 1;
        }
        let share = |(node_type, nodes): (String, u64)| match price(&node_type) {
            Some(micros) => Ok(Share { node_type, nodes, micros }),
            None => Err(Diagnostic::error(
                format!("The cost of node type {node_type:?} is not known yet"),
                "The engine has not computed it. Run the command again.",
            )
            .at(Path::attr("node_type"))
            .into()),
        };
        counted.into_iter().map(share).collect()
    }
}

/// The type that a node would get: the chosen one, or the cheapest of those that only lack a free host.
fn chosen<'a>(decision: &'a Decision, price: &impl Fn(&str) -> Option<u64>) -> Option<&'a str> {
    if decision.host.is_some() {
        return decision.node_type.as_deref();
    }
    let waits = |candidate: &&Candidate| {
        candidate.feasible || matches!(candidate.lacks, Some(Lack::FreeHost | Lack::Quota | Lack::Address))
    };
    let names = decision.node_types.iter().filter(waits).map(|candidate| candidate.name.as_str());
    names.min_by_key(|name| price(name).unwrap_or(u64::MAX))
}

/// What a node of the type costs for an hour; `None` before the engine has computed it.
fn micros_of(node_type: &NodeType) -> Option<u64> {
    let status = &node_type.status;
    let rounded = status.cost.checked_mul(MICRO).filter(|_| status.observed_generation > 0);
    status.cost_micros.or(rounded)
}

impl DataSource<Engine> for Cost {
    fn schema(&self) -> Schema {
        let number = |what: &str| Attribute::computed(Type::Number).describe(what);
        let share = [
            ("node_type", Attribute::computed(Type::String).describe("The node type.")),
            ("nodes", number("How many of the nodes would be of it.")),
            ("node_micros_per_hour", number("What one of them costs for an hour.")),
        ];
        let own = [
            (
                "size",
                Attribute::optional(Type::Number)
                    .validate(Validator::integer(1, i64::from(GroupSpec::LARGEST)))
                    .describe("For how many such nodes; 1 when not set."),
            ),
            (
                "hours",
                Attribute::optional(Type::Number)
                    .validate(Validator::integer(1, HOURS))
                    .describe("For how long, in hours; 1 when not set. A month of 30 days has 720."),
            ),
            ("micros_per_hour", number("What all of them cost for an hour, in millionths of a unit.")),
            ("micros", number("What all of them cost for the whole time, in millionths of a unit.")),
            (
                "by_node_type",
                Attribute::nested(Nesting::List, Usage::Computed, share)
                    .describe("The node types that they would get, by name."),
            ),
        ];
        let asked = wish::attributes().into_iter().filter(|(name, _)| ASKED.contains(name));
        Schema::new(
            "What tenant nodes that nobody has declared would cost, by the costs and policies that decide in earnest. Costs \
             have no unit of their own; the estimate reads a node type's cost as that of one node for one hour. Nothing is \
             reserved, and nodes that would have to wait for a free host count like the others.",
            own.into_iter().chain(asked),
        )
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value) -> Pending<'a, Found> {
        Box::pin(async move { Self::ask(ctx, &config).await.into() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn resources(all: &[(&str, &str)]) -> Resources {
        all.iter().map(|(name, amount)| ((*name).to_owned(), amount.parse().unwrap())).collect()
    }

    /// The vectors of the policy that the engine ships.
    #[test]
    fn the_price_list_is_the_engines() {
        let price = |all: &[(&str, &str)]| published(&resources(all)).unwrap();
        assert_eq!(price(&[("cpu", "2"), ("memory", "4Gi")]), 28_000_000);
        assert_eq!(price(&[("cpu", "64"), ("memory", "256Gi"), ("nvidia.com/gpu", "4")]), 41_152_000_000);
        assert_eq!(
            price(&[("cpu", "2"), ("memory", "4Gi"), ("pods", "110"), ("ephemeral-storage", "1Ti")]),
            28_000_000
        );
        assert_eq!(price(&[("cpu", "2500m"), ("memory", "1536Mi")]), 28_000_000);
        assert_eq!(price(&[]), 0);
        assert_eq!(published(&resources(&[("cpu", "1T")])), None);
    }
}
