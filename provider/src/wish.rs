//! What a tenant node may be told to be: attributes that `vmetal_tenant_node` and `vmetal_node_pool` share.

use tfplugin::{
    Attribute, Diagnostic, Path, Type, Value,
    schema::{Nesting, Usage, Validator},
};
use vmetal_api::{Secret, Secrets};
use vmetal_model::{
    Operator, Quantity, Requirement, TenantNodeSpec,
    tenant_node::{DrainSpec, DrainTimeout},
};

use crate::convert::{
    duration, equal, labels_attribute, refresh, resources, resources_value, same_resources, same_taints, string_list,
    string_map, taints, taints_attribute, taints_value, text, values_parse,
};

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

/// The attributes.
pub(crate) fn attributes() -> Vec<(&'static str, Attribute)> {
    vec![
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
        (
            "network",
            Attribute::optional(Type::String).requires_replace().describe(
                "Name of the network (`vmetal_network`) to get an address of; the cluster's when not set, or else the node \
                 type's.",
            ),
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
    ]
}

/// The declaration they make, outside of any group.
pub(crate) fn spec(planned: &Value) -> Result<TenantNodeSpec, Diagnostic> {
    let drain = planned.attr("drain");
    let default = DrainSpec::default();
    let timeout = drain.attr("timeout").as_str().and_then(|text| duration(text).ok());
    Ok(TenantNodeSpec {
        cluster: text(planned.attr("cluster")).unwrap_or_default(),
        node_type: text(planned.attr("node_type")),
        requirements: requirements(planned.attr("requirements")),
        resources: resources(planned.attr("resources"), &Path::attr("resources"))?,
        image: text(planned.attr("image")),
        network: text(planned.attr("network")),
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
    })
}

/// The write-only values, by the engine's names.
pub(crate) fn secrets(config: &Value) -> Secrets {
    let data = text(config.attr("user_data_wo"));
    data.into_iter().map(|data| ("user_data".to_owned(), Secret::new(data))).collect()
}

/// Writes a declaration into the attributes, keeping spellings that mean the same.
pub(crate) fn recall(state: &mut Value, spec: &TenantNodeSpec) {
    refresh(state, "cluster", spec.cluster.clone(), equal);
    refresh(state, "node_type", spec.node_type.clone(), equal);
    refresh(state, "requirements", requirements_value(&spec.requirements), same_requirements);
    refresh(state, "resources", resources_value(&spec.resources), same_resources);
    refresh(state, "image", spec.image.clone(), equal);
    refresh(state, "network", spec.network.clone(), equal);
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

/// The attribute that a field of the model is set by, where the names differ.
pub(crate) fn attribute_of(field: &str) -> Option<&'static str> {
    match field {
        "user_data" => Some("user_data_wo"),
        "user_data_version" => Some("user_data_wo_version"),
        "drain.timeout_seconds" => Some("drain.timeout"),
        _ => None,
    }
}
