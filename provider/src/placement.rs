//! `data "vmetal_placement"`: what the engine would decide now for tenant nodes, without reserving anything.

use std::sync::Arc;

use tfplugin::{
    Attribute, Ctx, DataSource, Diagnostics, Found, Named, Pending, Schema, Type, Value,
    schema::{Nesting, Usage, Validator},
};
use vmetal_model::{Candidate, Decision, GroupSpec, TenantNodeSpec};

use crate::{convert::text, explain::refused, foresee, provider::Engine, tenant_node::TenantNodes, wish};

/// What of a tenant node's declaration decides where it goes.
const ASKED: [&str; 3] = ["node_type", "requirements", "resources"];

/// The data source.
pub(crate) struct Placement;

impl Placement {
    pub(crate) fn register() -> Named<dyn DataSource<Engine>> {
        ("vmetal_placement", Arc::new(Self))
    }

    async fn ask(ctx: &Ctx<Engine>, config: &Value) -> Result<Value, Diagnostics> {
        let client = ctx.client()?.client()?;
        let count = config.attr("size").as_i64().and_then(|size| u32::try_from(size).ok()).unwrap_or(1);
        let together = config.attr("together");
        let group = (!together.is_null()).then(|| GroupSpec {
            name: "preview".to_owned(),
            size: count,
            same: text(together.attr("same")),
        });
        let spec = TenantNodeSpec { group, ..foresee::question(config)? };
        let decisions = client.preview_placement(&spec, count).await;
        let decisions = decisions.map_err(|error| refused::<TenantNodes>("looking at a placement", error))?;
        let mut state = config.clone();
        let placed: Vec<&Decision> = decisions.iter().filter(|decision| decision.host.is_some()).collect();
        let first = decisions.first();
        state.set("satisfiable", placed.len() == decisions.len());
        state.set("chosen_node_type", first.and_then(|decision| decision.node_type.clone()));
        state.set("cost", placed.iter().filter_map(|decision| decision.cost).sum::<u64>());
        state.set("hosts", placed.iter().filter_map(|decision| decision.host.clone()).collect::<Vec<_>>());
        let telling = decisions.iter().find(|decision| decision.host.is_none()).or(first);
        state.set("reason", telling.map(|decision| decision.reason.clone()));
        let candidates = |of: fn(&Decision) -> &Vec<Candidate>| {
            Value::List(telling.map(|decision| of(decision).iter().map(candidate).collect()).unwrap_or_default())
        };
        state.set("node_type_candidates", candidates(|decision| &decision.node_types));
        state.set("host_candidates", candidates(|decision| &decision.hosts));
        Ok(state)
    }
}

fn candidate(candidate: &Candidate) -> Value {
    Value::object([
        ("name", Value::from(candidate.name.clone())),
        ("feasible", candidate.feasible.into()),
        ("value", candidate.value.into()),
        ("reason", candidate.reason.clone().into()),
    ])
}

impl DataSource<Engine> for Placement {
    fn schema(&self) -> Schema {
        let candidate = || {
            [
                ("name", Attribute::computed(Type::String).describe("Its name.")),
                ("feasible", Attribute::computed(Type::Bool).describe("Whether it could be chosen.")),
                ("value", Attribute::computed(Type::Number).describe("Cost of a node type, score of a host.")),
                ("reason", Attribute::computed(Type::String).describe("Why it was chosen, could be, or could not.")),
            ]
        };
        let candidates = |what: &str| Attribute::nested(Nesting::List, Usage::Computed, candidate()).describe(what);
        let same = Attribute::optional(Type::String)
            .describe("A label whose value must be the same on all of their hosts, such as `rack`.");
        let own = [
            (
                "size",
                Attribute::optional(Type::Number)
                    .validate(Validator::integer(1, i64::from(GroupSpec::LARGEST)))
                    .describe("For how many such nodes; 1 when not set."),
            ),
            (
                "together",
                Attribute::nested(Nesting::Single, Usage::Optional, [("same", same)]).describe(
                    "As members of one group, such as a `vmetal_node_pool` with `together`: all of them get their hosts, or none \
                     does.",
                ),
            ),
            ("satisfiable", Attribute::computed(Type::Bool).describe("Whether all of them would get a host now.")),
            ("chosen_node_type", Attribute::computed(Type::String).describe("The node type of the first.")),
            ("cost", Attribute::computed(Type::Number).describe("What those that get a host cost together.")),
            ("hosts", Attribute::computed(Type::list(Type::String)).describe("The hosts they would get, in order.")),
            ("reason", Attribute::computed(Type::String).describe("Why, or why not all of them.")),
            ("node_type_candidates", candidates("Every node type that was considered.")),
            ("host_candidates", candidates("Hosts that were considered, the best first.")),
        ];
        let asked = wish::attributes().into_iter().filter(|(name, _)| ASKED.contains(name));
        Schema::new(
            "What the engine would decide now for tenant nodes that nobody has declared: node type, cost, hosts and every \
             candidate, by the rules and policies that decide in earnest. Nothing is reserved.",
            own.into_iter().chain(asked),
        )
    }

    fn read<'a>(&'a self, ctx: &'a Ctx<Engine>, config: Value) -> Pending<'a, Found> {
        Box::pin(async move { Self::ask(ctx, &config).await.into() })
    }
}
