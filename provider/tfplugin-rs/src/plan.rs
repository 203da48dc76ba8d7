//! From what the user wants to what will be planned, and whether a reply keeps Terraform's rules.
//!
//! Terraform core proposes a new state: the configuration, with the prior state where the user set nothing. [`propose`]
//! turns it into a plan in the order every provider SDK has settled on: defaults, then spellings that mean the same, then
//! "known after apply" for everything computed if anything changes at all, then the exceptions (values that survive
//! updates, changes that replace the object). It is a pure function: core calls it several times per change and compares.
//!
//! Core then checks the reply and blames the provider, in its own words, at the moment it hurts most. [`consistency`]
//! runs the same rules over our replies first, so that a mistake names the attribute and the resource type.

pub mod consistency;

use std::collections::BTreeMap;

use crate::{
    path::Path,
    resource::Private,
    schema::{Attribute, Nesting, OnChange, Schema, Shape},
    value::{Map, Value},
};

/// What a change is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is no object yet.
    Create,
    /// The object changes in place, unless the plan says replace.
    Update,
}

/// A plan in the making: given to [`crate::Resource::plan`], which may refine it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the user wrote; write-only values included.
    pub config: Value,
    /// The object as last read; null on create.
    pub prior: Value,
    /// The object as it will be; unknown where the apply decides.
    pub planned: Value,
    /// Attributes whose change needs a new object.
    pub replace: Vec<Path>,
    /// The provider's own notes; what is left here reaches the apply.
    pub private: Private,
}

impl Plan {
    /// Whether an object is made or changed.
    pub fn change(&self) -> Change {
        if self.prior.is_null() { Change::Create } else { Change::Update }
    }

    /// Whether the attribute gets another value, as far as known.
    pub fn changes(&self, name: &str) -> bool {
        self.prior.attr(name) != self.planned.attr(name)
    }

    /// Leaves a top-level attribute to the apply.
    pub fn mark_unknown(&mut self, name: &str) {
        self.planned.set(name, Value::unknown());
    }

    /// Leaves everything computed to the apply, as if something had changed: for an object whose last apply is not
    /// finished.
    pub fn reopen(&mut self, schema: &Schema) {
        mark_computed(schema.attributes(), &self.config, &self.prior, &mut self.planned);
    }
}

/// Makes the plan that follows from the schema alone.
pub fn propose(schema: &Schema, prior: Value, config: Value, proposed: &Value, private: Private) -> Plan {
    let mut planned = schema.without_write_only(proposed);
    let attributes = schema.attributes();
    settle(attributes, &config, &prior, &mut planned);
    let changed = prior.is_null() || !planned.equivalent(&prior, &schema.value_type());
    let mut replace = Vec::new();
    if changed {
        mark_computed(attributes, &config, &prior, &mut planned);
        if !prior.is_null() {
            find_replacements(attributes, &prior, &planned, &Path::root(), &mut replace);
        }
    }
    Plan { config, prior, planned, replace, private }
}

/// Calls `visit` for every attribute of every object that is known in `planned`, with the matching parts of the
/// configuration and the prior state. Elements of sets have no identity and are given no prior state.
fn walk(
    attributes: &BTreeMap<String, Attribute>,
    config: &Value,
    prior: &Value,
    planned: &mut Value,
    visit: &dyn Fn(&Attribute, &Value, &Value, &mut Value),
) {
    let Value::Map(map) = planned else { return };
    for (name, attribute) in attributes {
        let slot = map.entry(name.clone()).or_default();
        let (config, prior) = (config.attr(name), prior.attr(name));
        visit(attribute, config, prior, slot);
        let Shape::Nested(nesting, children) = &attribute.shape else { continue };
        // What nobody configured is the provider's as a whole: there is nothing in it to complete.
        if config.is_null() && attribute.default.is_none() {
            continue;
        }
        match (nesting, slot) {
            (Nesting::Single, slot) => walk(children, config, prior, slot, visit),
            (nesting, Value::List(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let of = |whole: &Value| whole.as_list().and_then(|l| l.get(index)).cloned().unwrap_or_default();
                    let before = if *nesting == Nesting::Set { Value::Null } else { of(prior) };
                    walk(children, &of(config), &before, item, visit);
                }
            }
            (_, Value::Map(items)) => {
                for (key, item) in items.iter_mut() {
                    walk(children, config.attr(key), prior.attr(key), item, visit);
                }
            }
            _ => {}
        }
    }
}

/// Defaults, and spellings that mean the same.
fn settle(attributes: &BTreeMap<String, Attribute>, config: &Value, prior: &Value, planned: &mut Value) {
    walk(attributes, config, prior, planned, &|attribute, config, prior, slot| {
        if let (Value::Null, Some(default)) = (config, &attribute.default) {
            *slot = default.clone();
        } else if let Some(same) = attribute.equality
            && config.is_known()
            && prior.is_known()
            && same(prior, config)
        {
            *slot = prior.clone();
        }
    });
}

/// What the provider computes is known after apply, unless it survives updates.
fn mark_computed(attributes: &BTreeMap<String, Attribute>, config: &Value, prior: &Value, planned: &mut Value) {
    walk(attributes, config, prior, planned, &|attribute, config, prior, slot| {
        let left_open = config.is_null() && attribute.is_computed() && attribute.default.is_none();
        if left_open {
            let kept = attribute.keep_state && !prior.is_null();
            *slot = if kept { prior.clone() } else { Value::unknown() };
        }
    });
}

fn find_replacements(
    attributes: &BTreeMap<String, Attribute>,
    prior: &Value,
    planned: &Value,
    at: &Path,
    found: &mut Vec<Path>,
) {
    for (name, attribute) in attributes {
        let (before, after) = (prior.attr(name), planned.attr(name));
        if before.equivalent(after, &attribute.value_type()) {
            continue;
        }
        let at = at.attribute(name);
        if attribute.on_change == OnChange::Replace {
            found.push(at);
        } else if let Shape::Nested(Nesting::Single, children) = &attribute.shape
            && before.is_known()
            && after.is_known()
        {
            find_replacements(children, before, after, &at, found);
        }
    }
}

/// An object of the schema in which everything is null: the start of an imported state.
pub fn empty_object(schema: &Schema) -> Value {
    Value::Map(schema.attributes().keys().map(|name| (name.clone(), Value::Null)).collect::<Map>())
}

#[cfg(test)]
mod tests;
