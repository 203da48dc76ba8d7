//! `vmetal_node_type`: a class of hosts.

use tfplugin::{
    Attribute, Diagnostic, Path, Schema, Type, Value,
    schema::{Nesting, Usage, Validator},
};
use vmetal_model::{Failure, NodeType, NodeTypeSpec, Quantity};

use crate::{
    convert::{
        equal, id_attribute, labels_attribute, labels_validator, name_attribute, refresh, resources, resources_value,
        same_resources, string_map, text, values_parse,
    },
    kind::{Declaration, Kind, Verdict},
    timeouts::Timeouts,
};

/// `vmetal_node_type`.
pub(crate) struct NodeTypes;

impl Kind for NodeTypes {
    type Object = NodeType;

    const TYPE: &'static str = "vmetal_node_type";
    const NOUN: &'static str = "node type";
    const TIMEOUTS: Timeouts = Timeouts::minutes(5);
    const WAIT_FOR: Option<&'static str> = None;

    fn is_supply() -> bool {
        true
    }

    fn schema() -> Schema {
        let capacity = [
            ("total", Attribute::computed(Type::Number).describe("All hosts that the selector matches.")),
            ("available", Attribute::computed(Type::Number).describe("Those that are available and unclaimed.")),
            ("claimed", Attribute::computed(Type::Number).describe("Those that are claimed.")),
            (
                "standby",
                Attribute::computed(Type::Number).describe("Those that wait on standby, installed and running."),
            ),
        ];
        Schema::new(
            "A class of hosts: which hosts belong to it, what they offer and what they cost. Tenant nodes that name no type \
             get the cheapest that fits.",
            [
                ("id", id_attribute()),
                ("name", name_attribute("node type")),
                (
                    "selector",
                    Attribute::required(Type::map(Type::String))
                        .validate(labels_validator())
                        .describe("Hosts whose labels contain all of these belong to the class."),
                ),
                (
                    "resources",
                    Attribute::required(Type::map(Type::String))
                        .semantic_equality(same_resources)
                        .validate(values_parse::<Quantity>("Invalid quantity"))
                        .describe(
                            "What a host of the class offers: `cpu`, `memory` and extended resources such as \
                             `nvidia.com/gpu`, in Kubernetes' notation (`500m`, `16Gi`).",
                        ),
                ),
                (
                    "cost",
                    Attribute::optional(Type::Number)
                        .validate(Validator::integer(0, i64::MAX))
                        .describe("Unit-less cost; computed by the cost policy when not set (see `effective_cost`)."),
                ),
                (
                    "image",
                    Attribute::optional(Type::String)
                        .describe("Name of the image that tenant nodes of the class install unless they name another."),
                ),
                (
                    "standby",
                    Attribute::optional(Type::Number).validate(Validator::integer(0, i64::from(u32::MAX))).describe(
                        "How many hosts of the class are kept installed with `image`, running and waiting, so that a \
                             tenant node on that image only has to join. Needs `image`. 0 when not set.",
                    ),
                ),
                (
                    "network",
                    Attribute::optional(Type::String).describe(
                        "Name of the network (`vmetal_network`) that tenant nodes of the class get an address of, unless they \
                         or their tenant clusters name another. It counts for nodes that are placed from then on.",
                    ),
                ),
                (
                    "properties",
                    labels_attribute("Labels that requirements are matched against, besides the selector's."),
                ),
                ("timeouts", Self::TIMEOUTS.attribute()),
                (
                    "effective_cost",
                    Attribute::computed(Type::Number).describe("The cost that decisions are made with."),
                ),
                (
                    "capacity",
                    Attribute::nested(Nesting::Single, Usage::Computed, capacity).describe("How many hosts there are."),
                ),
            ],
        )
    }

    fn declare(planned: &Value) -> Result<Declaration<NodeTypeSpec>, Diagnostic> {
        let spec = NodeTypeSpec {
            selector: string_map(planned.attr("selector")),
            resources: resources(planned.attr("resources"), &Path::attr("resources"))?,
            cost: planned.attr("cost").as_i64().and_then(|cost| u64::try_from(cost).ok()),
            image: text(planned.attr("image")),
            network: text(planned.attr("network")),
            standby: planned.attr("standby").as_i64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
            properties: string_map(planned.attr("properties")),
        };
        Ok(Declaration { spec, labels: Default::default() })
    }

    fn observe(state: &mut Value, object: &NodeType) {
        let seen = object.status.observed_generation > 0;
        let capacity = object.status.capacity;
        state.set("effective_cost", seen.then_some(object.status.cost));
        let counts = [
            ("total", capacity.total),
            ("available", capacity.available),
            ("claimed", capacity.claimed),
            ("standby", capacity.standby),
        ];
        state.set("capacity", Value::object(counts.map(|(name, count)| (name, u64::from(count)))));
    }

    fn recall(state: &mut Value, object: &NodeType) {
        let spec = &object.spec;
        refresh(state, "selector", spec.selector.clone(), equal);
        refresh(state, "resources", resources_value(&spec.resources), same_resources);
        refresh(state, "cost", spec.cost, equal);
        refresh(state, "image", spec.image.clone(), equal);
        refresh(state, "network", spec.network.clone(), equal);
        // None is 0: what the user did not write stays unwritten.
        let said = spec.standby > 0 || *state.attr("standby") != Value::Null;
        refresh(state, "standby", said.then_some(u64::from(spec.standby)), equal);
        refresh(state, "properties", spec.properties.clone(), equal);
    }

    fn judge(object: &NodeType, _: &str) -> Verdict {
        if object.status.observed_generation >= object.metadata.generation {
            Verdict::Done
        } else {
            Verdict::Going(Self::doing(object))
        }
    }

    fn doing(_: &NodeType) -> String {
        "waiting for its cost to be computed".to_owned()
    }

    fn failure(_: &NodeType) -> Option<&Failure> {
        None
    }
}
