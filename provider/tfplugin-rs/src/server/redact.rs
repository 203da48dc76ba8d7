//! Keeps secrets out of logs and out of what is told after a panic.
//!
//! An author cannot be careful everywhere: a library logs a request, an error carries a URL with a password. So whatever a
//! schema calls sensitive or write-only is remembered as it comes in, and every text that this crate writes to a log, or takes
//! from a panic, is searched for it. What never came in through such an attribute cannot be known here.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock},
};

use crate::{
    schema::{Attribute, Nesting, Schema, Secrecy, Shape},
    value::Value,
};

/// Stands where a secret stood.
pub(super) const HIDDEN: &str = "(redacted)";
/// Shorter values are everywhere: to hide them would tell them.
const SHORTEST: usize = 4;
/// More than any configuration has; what comes after is not remembered.
const MOST: usize = 100_000;

/// Logs are the process's, and so are its secrets.
static SECRETS: RwLock<BTreeSet<String>> = RwLock::new(BTreeSet::new());

/// Remembers every secret in a value of this schema.
pub(super) fn learn(schema: &Schema, value: &Value) {
    let mut found = BTreeSet::new();
    collect(schema.attributes(), value, &mut found);
    let known = |secrets: &BTreeSet<String>| found.iter().all(|secret| secrets.contains(secret));
    if known(&SECRETS.read().unwrap_or_else(PoisonError::into_inner)) {
        return;
    }
    let mut secrets = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    for secret in found {
        if secrets.len() < MOST {
            secrets.insert(secret);
        }
    }
}

/// The text without any secret that is known.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    let secrets = SECRETS.read().unwrap_or_else(PoisonError::into_inner);
    let mut text = Cow::Borrowed(text);
    // From behind, so that of two secrets of which one begins the other, the longer one goes first.
    for secret in secrets.iter().rev() {
        if text.contains(secret.as_str()) {
            text = Cow::Owned(text.replace(secret.as_str(), HIDDEN));
        }
    }
    text
}

fn collect(attributes: &BTreeMap<String, Attribute>, value: &Value, found: &mut BTreeSet<String>) {
    for (name, attribute) in attributes {
        let value = value.attr(name);
        match (&attribute.secrecy, &attribute.shape) {
            (Secrecy::Sensitive | Secrecy::WriteOnly, _) => texts(value, found),
            (Secrecy::Open, Shape::Nested(nesting, inner)) => match (nesting, value) {
                (Nesting::Single, one) => collect(inner, one, found),
                (_, Value::List(items)) => items.iter().for_each(|item| collect(inner, item, found)),
                (_, Value::Map(items)) => items.values().for_each(|item| collect(inner, item, found)),
                _ => {}
            },
            (Secrecy::Open, Shape::Plain(_)) => {}
        }
    }
}

/// Every text in a value, as it is and as `{:?}` writes it.
fn texts(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.len() >= SHORTEST => {
            let quoted = format!("{text:?}");
            found.insert(quoted[1..quoted.len() - 1].to_owned());
            found.insert(text.clone());
        }
        Value::List(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Map(items) => items.values().for_each(|item| texts(item, found)),
        Value::Dynamic(inner) => texts(&inner.1, found),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Type, schema::Usage};

    #[test]
    fn what_came_in_as_a_secret_goes_out_hidden() {
        let inner =
            || [("pw", Attribute::optional(Type::String).write_only()), ("user", Attribute::optional(Type::String))];
        let schema = Schema::new(
            "",
            [
                ("token", Attribute::optional(Type::String).sensitive()),
                ("many", Attribute::nested(Nesting::List, Usage::Optional, inner())),
                ("named", Attribute::nested(Nesting::Map, Usage::Optional, inner())),
                ("all", Attribute::optional(Type::Map(Box::new(Type::String))).sensitive()),
                ("short", Attribute::optional(Type::String).sensitive()),
            ],
        );
        let pair = |pw: &str| Value::object([("pw", pw), ("user", "redact-user")]);
        let mut value = Value::object([("token", "redact-1\nline \"two\""), ("short", "abc")]);
        value.set("many", Value::list([pair("redact-2"), pair("redact-2-longer")]));
        value.set("named", Value::object([("one", pair("redact-3"))]));
        value.set("all", Value::object([("k", "redact-4")]));
        learn(&schema, &value);
        let plain = redact("a redact-2-longer, redact-2; redact-3 redact-4 redact-user abc redact-1\nline \"two\".")
            .into_owned();
        assert_eq!(plain, "a (redacted), (redacted); (redacted) (redacted) redact-user abc (redacted).");
        let debugged = format!("{:?}", "redact-1\nline \"two\"");
        assert_eq!(redact(&debugged), "\"(redacted)\"");
        assert!(matches!(redact("nothing"), Cow::Borrowed("nothing")));
    }
}
