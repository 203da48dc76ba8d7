//! The rules a plan and an apply must keep, checked on our own replies.
//!
//! They are those of Terraform core for providers without the legacy type system. A plan may differ from the
//! configuration only where the schema says "computed" and the user set nothing, or where it keeps the prior value of
//! something the user spelled differently. An apply may decide only what the plan left unknown.

use std::collections::BTreeMap;

use crate::{
    codec::Type,
    diagnostics::{Diagnostic, Diagnostics},
    path::Path,
    schema::{Attribute, Nesting, Schema, Shape, Usage},
    value::Value,
};

/// A rule that a reply breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The attribute.
    pub path: Path,
    /// The rule.
    pub rule: &'static str,
}

/// Turns violations into diagnostics a user can report.
pub fn report(type_name: &str, step: &str, violations: Vec<Violation>) -> Diagnostics {
    let describe = |violation: Violation| {
        let at = if violation.path.is_root() { "the object".to_owned() } else { violation.path.to_string() };
        Diagnostic::error(
            format!("The provider made an inconsistent {step} of {type_name}"),
            format!(
                "{at}: {}. This is a bug in the provider, not in your configuration; please report it.",
                violation.rule
            ),
        )
        .at(violation.path)
    };
    violations.into_iter().map(describe).collect()
}

/// Checks a plan of a create or an update.
pub fn plan(schema: &Schema, prior: &Value, config: &Value, planned: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    if planned.as_map().is_none() {
        found.push(Violation { path: Path::root(), rule: "a planned object must be an object" });
        return found;
    }
    plan_object(schema.attributes(), prior, config, planned, &Path::root(), &mut found);
    found
}

fn plan_object(
    attributes: &BTreeMap<String, Attribute>,
    prior: &Value,
    config: &Value,
    planned: &Value,
    at: &Path,
    found: &mut Vec<Violation>,
) {
    for (name, attribute) in attributes {
        let (prior, config, planned) = (prior.attr(name), config.attr(name), planned.attr(name));
        let path = at.attribute(name);
        let ty = attribute.value_type();
        let mut broken = |rule| found.push(Violation { path: path.clone(), rule });
        if attribute.is_write_only() {
            if !planned.is_null() {
                broken("a write-only value must not be planned");
            }
            continue;
        }
        if attribute.is_read_only() {
            continue;
        }
        if config.is_null() {
            if attribute.usage != Usage::OptionalComputed && !planned.is_null() {
                broken("planned although neither set nor computed");
            }
            continue;
        }
        let kept = !prior.is_null() && planned.equivalent(prior, &ty);
        if planned.equivalent(config, &ty) || kept {
            continue;
        }
        let Shape::Nested(nesting, children) = &attribute.shape else {
            broken("the planned value is neither the configured nor the prior one");
            continue;
        };
        if config.is_unknown() {
            broken("planned although the configuration is not yet known");
        } else if !planned.is_known() {
            broken("a configured object must be planned as an object");
        } else {
            plan_nested(*nesting, children, [prior, config, planned], &path, found);
        }
    }
}

fn plan_nested(
    nesting: Nesting,
    children: &BTreeMap<String, Attribute>,
    [prior, config, planned]: [&Value; 3],
    at: &Path,
    found: &mut Vec<Violation>,
) {
    match (nesting, config, planned) {
        (Nesting::Single, config, planned) => plan_object(children, prior, config, planned, at, found),
        (Nesting::List, Value::List(wanted), Value::List(items)) if wanted.len() == items.len() => {
            for (index, (config, planned)) in wanted.iter().zip(items).enumerate() {
                let prior = prior.as_list().and_then(|l| l.get(index)).cloned().unwrap_or_default();
                plan_object(children, &prior, config, planned, &at.index(index), found);
            }
        }
        (Nesting::Map, Value::Map(wanted), Value::Map(items)) if wanted.keys().eq(items.keys()) => {
            for (key, config) in wanted {
                plan_object(children, prior.attr(key), config, planned.attr(key), &at.key(key), found);
            }
        }
        // Elements of sets have no names to match them by: each must be good for one that is configured, and each of those
        // must have one.
        (Nesting::Set, Value::List(wanted), Value::List(items)) if wanted.len() == items.len() => {
            let good = |planned: &Value, config: &Value| {
                let mut found = Vec::new();
                plan_object(children, &Value::Null, config, planned, at, &mut found);
                found.is_empty()
            };
            if !correlate(items, wanted, good) {
                found.push(Violation { path: at.clone(), rule: "the planned elements are not the configured ones" });
            }
        }
        _ => found.push(Violation { path: at.clone(), rule: "as many objects must be planned as are configured" }),
    }
}

/// Checks the reply of a create or an update against its plan.
pub fn apply(schema: &Schema, planned: &Value, new: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    if new.as_map().is_none() {
        found.push(Violation { path: Path::root(), rule: "the object is missing after apply" });
        return found;
    }
    compatible(planned, new, &schema.value_type(), &Path::root(), &mut found);
    unknowns(new, &Path::root(), &mut found);
    secrets(schema, new, &mut found);
    found
}

/// Checks a state read or imported: known throughout, and without secrets.
pub fn state(schema: &Schema, new: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    unknowns(new, &Path::root(), &mut found);
    secrets(schema, new, &mut found);
    found
}

fn secrets(schema: &Schema, new: &Value, found: &mut Vec<Violation>) {
    if !new.is_null() && !schema.without_write_only(new).equivalent(new, &schema.value_type()) {
        found.push(Violation { path: Path::root(), rule: "a write-only value must not be stored" });
    }
}

fn unknowns(value: &Value, at: &Path, found: &mut Vec<Violation>) {
    match value {
        Value::Unknown(_) => found.push(Violation { path: at.clone(), rule: "still unknown after apply" }),
        Value::List(items) => items.iter().enumerate().for_each(|(i, item)| unknowns(item, &at.index(i), found)),
        Value::Map(map) => map.iter().for_each(|(name, item)| unknowns(item, &at.attribute(name), found)),
        Value::Dynamic(inner) => unknowns(&inner.1, at, found),
        _ => {}
    }
}

fn compatible(planned: &Value, new: &Value, ty: &Type, at: &Path, found: &mut Vec<Violation>) {
    let mut broken = |rule| found.push(Violation { path: at.clone(), rule });
    match (planned, new, ty) {
        (Value::Unknown(refinements), new, _) => {
            if !refinements.admits(new) {
                broken("the value breaks what the plan promised about it");
            }
        }
        (Value::Map(before), Value::Map(_), Type::Object(types)) => {
            for (name, ty) in types {
                let before = before.get(name).cloned().unwrap_or_default();
                compatible(&before, new.attr(name), ty, &at.attribute(name), found);
            }
        }
        (Value::Map(before), Value::Map(after), Type::Map(ty)) => {
            if !before.keys().eq(after.keys()) {
                broken("the keys differ from the planned ones");
                return;
            }
            for (key, before) in before {
                compatible(before, new.attr(key), ty, &at.key(key), found);
            }
        }
        (Value::List(before), Value::List(after), Type::List(ty)) => {
            if before.len() != after.len() {
                broken("the length differs from the planned one");
                return;
            }
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compatible(before, after, ty, &at.index(index), found);
            }
        }
        (Value::List(before), Value::List(after), Type::Tuple(types)) if before.len() == after.len() => {
            for (index, ((before, after), ty)) in before.iter().zip(after).zip(types).enumerate() {
                compatible(before, after, ty, &at.index(index), found);
            }
        }
        // Two elements that were unknown may turn out the same, so a set may shrink, but every planned one must be there in
        // some form, and nothing else.
        (Value::List(before), Value::List(after), Type::Set(ty)) => {
            let same = |before: &Value, after: &Value| {
                let mut found = Vec::new();
                compatible(before, after, ty, at, &mut found);
                found.is_empty()
            };
            if after.len() > before.len() || !correlate(before, after, same) {
                broken("the elements differ from the planned ones");
            }
        }
        (Value::Dynamic(before), Value::Dynamic(after), _) if before.0 == after.0 => {
            compatible(&before.1, &after.1, &before.0, at, found);
        }
        (planned, new, ty) => {
            if !planned.equivalent(new, ty) {
                broken("the value differs from the planned one");
            }
        }
    }
}

/// Whether each of these has a partner among those, and each of those among these.
fn correlate(these: &[Value], those: &[Value], partners: impl Fn(&Value, &Value) -> bool) -> bool {
    these.iter().all(|a| those.iter().any(|b| partners(a, b)))
        && those.iter().all(|b| these.iter().any(|a| partners(a, b)))
}
