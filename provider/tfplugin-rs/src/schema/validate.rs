//! Checks of configurations against the rules of their attributes, each failure with the path of its attribute.
//!
//! Unknown values are skipped: validation runs before variables are known and again, per instance, when they are.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Attribute, Nesting, Schema, Shape};
use crate::{
    diagnostics::{Diagnostic, Diagnostics},
    path::Path,
    value::Value,
};

type Check = dyn Fn(&Value) -> Result<(), String> + Send + Sync;

/// A check of one known, non-null value.
#[derive(Clone)]
pub struct Validator {
    summary: String,
    check: Arc<Check>,
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Validator").field(&self.summary).finish()
    }
}

impl Validator {
    /// A check of strings. `summary` heads the diagnostic ("Invalid MAC address"), the error is its detail.
    pub fn string(
        summary: impl Into<String>,
        check: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self::value(summary, move |value| value.as_str().map_or(Ok(()), &check))
    }

    /// A check of any value.
    pub fn value(
        summary: impl Into<String>,
        check: impl Fn(&Value) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { summary: summary.into(), check: Arc::new(check) }
    }

    /// One of these strings.
    pub fn one_of(options: &'static [&'static str]) -> Self {
        Self::string("Unknown value", move |text| {
            if options.contains(&text) {
                return Ok(());
            }
            Err(format!("{text:?} is not one of {}.", options.join(", ")))
        })
    }

    /// A whole number in a range, both ends included.
    pub fn integer(low: i64, high: i64) -> Self {
        Self::value("Number out of range", move |value| match (value.as_number(), value.as_i64()) {
            (None, _) => Ok(()),
            (Some(_), Some(int)) if (low..=high).contains(&int) => Ok(()),
            (Some(number), _) => Err(format!("Expected a whole number from {low} to {high}, found {number}.")),
        })
    }
}

/// Runs every validator of the schema over a configuration.
pub fn check(schema: &Schema, config: &Value) -> Diagnostics {
    let mut found = Diagnostics::new();
    check_object(schema.attributes(), config, &Path::root(), &mut found);
    found
}

fn check_object(attributes: &BTreeMap<String, Attribute>, object: &Value, at: &Path, found: &mut Diagnostics) {
    if !object.is_known() {
        return;
    }
    for (name, attribute) in attributes {
        let value = object.attr(name);
        if !value.is_known() {
            continue;
        }
        let at = at.attribute(name);
        for validator in &attribute.validators {
            if let Err(detail) = (validator.check)(value) {
                found.push(Diagnostic::error(validator.summary.clone(), detail).at(at.clone()));
            }
        }
        let Shape::Nested(nesting, children) = &attribute.shape else { continue };
        match (nesting, value) {
            (Nesting::Single, object) => check_object(children, object, &at, found),
            (_, Value::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    // An element of a set has no path of its own; the set's is the closest there is.
                    let at = if *nesting == Nesting::Set { at.clone() } else { at.index(index) };
                    check_object(children, item, &at, found);
                }
            }
            (_, Value::Map(items)) => {
                for (key, item) in items {
                    check_object(children, item, &at.key(key), found);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Type, schema::Usage};

    #[test]
    fn failures_carry_paths_and_unknowns_are_skipped() {
        let port = || [("port", Attribute::required(Type::Number).validate(Validator::integer(1, 65535)))];
        let schema = Schema::new(
            "",
            [
                ("mode", Attribute::optional(Type::String).validate(Validator::one_of(&["a", "b"]))),
                ("bmc", Attribute::nested(Nesting::Single, Usage::Optional, port())),
                ("nics", Attribute::nested(Nesting::List, Usage::Optional, port())),
            ],
        );
        let bad = Value::object([
            ("mode", Value::from("c")),
            ("bmc", Value::object([("port", Value::unknown())])),
            ("nics", Value::list([Value::object([("port", 80i64)]), Value::object([("port", 0i64)])])),
        ]);
        let found: Vec<_> = check(&schema, &bad)
            .into_iter()
            .map(|d| format!("{}: {}: {}", d.path.unwrap_or_default(), d.summary, d.detail))
            .collect();
        assert_eq!(
            found,
            [
                "mode: Unknown value: \"c\" is not one of a, b.",
                "nics[1].port: Number out of range: Expected a whole number from 1 to 65535, found 0.",
            ]
        );
    }
}
