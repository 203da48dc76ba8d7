#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::{consistency::Violation, *};
use crate::{codec::Type, schema::Usage};

fn same_case(a: &Value, b: &Value) -> bool {
    matches!((a.as_str(), b.as_str()), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b))
}

fn schema() -> Schema {
    let bmc = [
        ("address", Attribute::required(Type::String).semantic_equality(same_case)),
        ("password", Attribute::optional(Type::String).write_only()),
        ("kind", Attribute::computed(Type::String).use_state_for_unknown()),
    ];
    let disks = [("path", Attribute::required(Type::String)), ("size", Attribute::computed(Type::Number))];
    Schema::new(
        "a server",
        [
            ("name", Attribute::required(Type::String).requires_replace()),
            ("mac", Attribute::optional(Type::String).semantic_equality(same_case)),
            ("mode", Attribute::optional(Type::String).default("uefi")),
            ("labels", Attribute::optional(Type::map(Type::String))),
            ("bmc", Attribute::nested(Nesting::Single, Usage::Optional, bmc)),
            ("disks", Attribute::nested(Nesting::List, Usage::Optional, disks)),
            ("id", Attribute::computed(Type::String).use_state_for_unknown()),
            ("phase", Attribute::computed(Type::String)),
        ],
    )
}

/// What core would propose: the configuration, and the prior value of what is computed and not set.
fn core_proposes(attributes: &BTreeMap<String, Attribute>, prior: &Value, config: &Value) -> Value {
    let Value::Map(wanted) = config else { return config.clone() };
    let mut proposed = wanted.clone();
    for (name, attribute) in attributes {
        let (before, wanted) = (prior.attr(name), config.attr(name));
        let value = match &attribute.shape {
            _ if wanted.is_null() && attribute.is_computed() => before.clone(),
            Shape::Nested(Nesting::Single, children) => core_proposes(children, before, wanted),
            Shape::Nested(Nesting::List, children) => match wanted {
                Value::List(items) => Value::List(
                    items
                        .iter()
                        .enumerate()
                        .map(|(i, item)| {
                            let before = before.as_list().and_then(|l| l.get(i)).cloned().unwrap_or_default();
                            core_proposes(children, &before, item)
                        })
                        .collect(),
                ),
                other => other.clone(),
            },
            _ => wanted.clone(),
        };
        proposed.insert(name.clone(), value);
    }
    Value::Map(proposed)
}

fn plan_of(prior: &Value, config: &Value) -> Plan {
    let schema = schema();
    let proposed = core_proposes(schema.attributes(), prior, config);
    propose(&schema, prior.clone(), config.clone(), &proposed, Private::default())
}

fn config(name: &str, mac: &str, address: &str) -> Value {
    let mut config = empty_object(&schema());
    config.set("name", name);
    config.set("mac", mac);
    let bmc = [("address", Value::from(address)), ("password", Value::from("secret")), ("kind", Value::Null)];
    config.set("bmc", Value::object(bmc));
    config
}

/// Fills in what a plan leaves open, as an apply would.
fn applied(planned: &Value) -> Value {
    match planned {
        Value::Unknown(_) => Value::from("filled"),
        Value::Map(map) => Value::Map(map.iter().map(|(k, v)| (k.clone(), applied(v))).collect()),
        Value::List(items) => Value::List(items.iter().map(applied).collect()),
        other => other.clone(),
    }
}

#[test]
fn a_create_leaves_computed_values_open_and_applies_defaults() {
    let plan = plan_of(&Value::Null, &config("a", "AA:BB", "x"));
    assert_eq!(plan.change(), Change::Create);
    assert!(plan.planned.attr("id").is_unknown() && plan.planned.attr("phase").is_unknown());
    assert!(plan.planned.attr("bmc").attr("kind").is_unknown());
    assert!(plan.planned.attr("bmc").attr("password").is_null(), "write-only values are not planned");
    assert_eq!(plan.planned.attr("mode"), &Value::from("uefi"));
    assert!(plan.replace.is_empty());
}

#[test]
fn no_change_is_no_change() {
    let state = applied(&plan_of(&Value::Null, &config("a", "AA:BB", "x")).planned);
    let again = plan_of(&state, &config("a", "aa:bb", "X"));
    assert_eq!(again.planned, state, "another spelling of the same address is no change");
}

#[test]
fn an_update_keeps_what_is_stable_and_a_rename_replaces() {
    let state = applied(&plan_of(&Value::Null, &config("a", "AA:BB", "x")).planned);
    let update = plan_of(&state, &config("a", "AA:CC", "x"));
    assert_eq!(update.planned.attr("id"), state.attr("id"));
    assert!(update.planned.attr("phase").is_unknown());
    assert!(update.replace.is_empty() && update.changes("mac") && !update.changes("name"));
    let rename = plan_of(&state, &config("b", "AA:BB", "x"));
    assert_eq!(rename.replace, [Path::attr("name")]);
}

fn rules(found: Vec<Violation>) -> Vec<String> {
    found.into_iter().map(|v| format!("{}: {}", v.path, v.rule)).collect()
}

#[test]
fn broken_plans_are_caught() {
    let config = config("a", "AA:BB", "x");
    let good = plan_of(&Value::Null, &config).planned;
    let check = |planned: &Value| rules(consistency::plan(&schema(), &Value::Null, &config, planned));
    assert_eq!(check(&good), Vec::<String>::new());
    let mut bad = good.clone();
    bad.set("mac", "aa:bb");
    bad.set("labels", Value::object([("a", "b")]));
    let mut bmc = good.attr("bmc").clone();
    bmc.set("password", "secret");
    bad.set("bmc", bmc);
    assert_eq!(
        check(&bad),
        [
            "bmc.password: a write-only value must not be planned",
            "labels: planned although neither set nor computed",
            "mac: the planned value is neither the configured nor the prior one",
        ]
    );
    let mut whole = good;
    whole.set("bmc", Value::unknown());
    assert_eq!(check(&whole), ["bmc: a configured object must be planned as an object"]);
}

#[test]
fn broken_applies_are_caught() {
    let planned = plan_of(&Value::Null, &config("a", "AA:BB", "x")).planned;
    let good = applied(&planned);
    assert_eq!(consistency::apply(&schema(), &planned, &good), []);
    let mut bad = good.clone();
    bad.set("mac", "aa:bb");
    bad.set("phase", Value::unknown());
    assert_eq!(
        rules(consistency::apply(&schema(), &planned, &bad)),
        ["mac: the value differs from the planned one", "phase: still unknown after apply"]
    );
    assert_eq!(rules(consistency::apply(&schema(), &planned, &Value::Null)), [": the object is missing after apply"]);
}

fn maybe(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    prop_oneof![1 => Just(Value::Null), 1 => Just(Value::unknown()), 4 => value].boxed()
}

fn any_config() -> impl Strategy<Value = Value> {
    let text = || "[aAbB]{1,2}".prop_map(Value::String);
    let bmc =
        (prop_oneof![text().boxed(), Just(Value::unknown()).boxed()], maybe(text())).prop_map(|(address, secret)| {
            Value::object([("address", address), ("password", secret), ("kind", Value::Null)])
        });
    let disk = text().prop_map(|path| Value::object([("path", path), ("size", Value::Null)]));
    let labels = proptest::collection::btree_map("[a-c]", maybe(text()), 0..3).prop_map(Value::Map);
    let disks = proptest::collection::vec(disk, 0..3).prop_map(Value::List);
    (text(), maybe(text()), maybe(text()), maybe(labels), maybe(bmc), maybe(disks)).prop_map(
        |(name, mac, mode, labels, bmc, disks)| {
            let mut config = empty_object(&schema());
            let set =
                [("name", name), ("mac", mac), ("mode", mode), ("labels", labels), ("bmc", bmc), ("disks", disks)];
            for (attribute, value) in set {
                config.set(attribute, value);
            }
            config
        },
    )
}

proptest! {
    /// Whatever is configured, the plans we make keep core's rules, an apply that fills them in keeps them too, and the
    /// same configuration afterwards plans nothing.
    #[test]
    fn plans_keep_the_rules(first in any_config(), second in any_config()) {
        let schema = schema();
        let create = plan_of(&Value::Null, &first);
        prop_assert_eq!(rules(consistency::plan(&schema, &Value::Null, &first, &create.planned)), Vec::<String>::new());
        let state = applied(&create.planned);
        prop_assert_eq!(rules(consistency::apply(&schema, &create.planned, &state)), Vec::<String>::new());
        let update = plan_of(&state, &second);
        prop_assert_eq!(rules(consistency::plan(&schema, &state, &second, &update.planned)), Vec::<String>::new());
        if first.is_wholly_known() {
            prop_assert_eq!(plan_of(&state, &first).planned, state);
        }
    }
}
