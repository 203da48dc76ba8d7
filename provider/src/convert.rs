//! Between Terraform's values and the model's types.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use jiff::SignedDuration;
use tfplugin::{
    Attribute, Diagnostic, Path, Type, Value,
    schema::{Nesting, Usage, Validator},
};
use vmetal_model::{MacAddr, Quantity, Resources, Taint, TaintEffect, validate};

/// A map of strings; null and unknown read as empty.
pub(crate) fn string_map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_map().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// A list of strings; null and unknown read as empty.
pub(crate) fn string_list(value: &Value) -> Vec<String> {
    value.as_list().unwrap_or_default().iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// A string; null and unknown read as none.
pub(crate) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Text that must parse.
pub(crate) fn parsed<T: FromStr<Err: Display>>(value: &Value, at: Path) -> Result<T, Diagnostic> {
    let text = value.as_str().unwrap_or_default();
    text.parse().map_err(|e: T::Err| Diagnostic::error("Invalid value", sentence(&e.to_string())).at(at))
}

/// Amounts by resource name.
pub(crate) fn resources(value: &Value, at: &Path) -> Result<Resources, Diagnostic> {
    let entries = value.as_map().into_iter().flatten();
    entries.map(|(name, amount)| Ok((name.clone(), parsed(amount, at.key(name))?))).collect()
}

/// Taints.
pub(crate) fn taints(value: &Value, at: &Path) -> Result<Vec<Taint>, Diagnostic> {
    let items = value.as_list().unwrap_or_default().iter().enumerate();
    items
        .map(|(index, item)| {
            Ok(Taint {
                key: text(item.attr("key")).unwrap_or_default(),
                value: text(item.attr("value")).unwrap_or_default(),
                effect: parsed::<TaintEffect>(item.attr("effect"), at.index(index).attribute("effect"))?,
            })
        })
        .collect()
}

/// Taints as Terraform has them; an empty value is an absent one.
pub(crate) fn taints_value(taints: &[Taint]) -> Value {
    let item = |taint: &Taint| {
        let value = (!taint.value.is_empty()).then(|| taint.value.clone());
        Value::object([
            ("key", taint.key.clone().into()),
            ("value", Value::from(value)),
            ("effect", taint.effect.as_str().into()),
        ])
    };
    Value::List(taints.iter().map(item).collect())
}

/// Amounts as Terraform has them.
pub(crate) fn resources_value(resources: &Resources) -> Value {
    Value::object(resources.iter().map(|(name, amount)| (name.clone(), amount.to_string())))
}

/// Replaces a declared attribute by what the engine has, unless both mean the same: the user's spelling is kept, and
/// "nothing" is not turned into "empty".
pub(crate) fn refresh(state: &mut Value, name: &str, found: impl Into<Value>, same: fn(&Value, &Value) -> bool) {
    let found = found.into();
    let known = state.attr(name);
    let both_empty = is_empty(known) && is_empty(&found);
    if !both_empty && !same(known, &found) {
        state.set(name, if is_empty(&found) && !known.is_known() { Value::Null } else { found });
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Map(map) => map.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Plain equality, for [`refresh`].
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    a == b
}

/// Text that parses to the same, for [`refresh`].
pub(crate) fn same_parsed<T: FromStr + PartialEq>(a: &Value, b: &Value) -> bool {
    match (a.as_str().map(T::from_str), b.as_str().map(T::from_str)) {
        (Some(Ok(a)), Some(Ok(b))) => a == b,
        _ => a == b,
    }
}

/// `AA-BB-..` and `aa:bb:..` are one address.
pub(crate) fn same_mac(a: &Value, b: &Value) -> bool {
    same_parsed::<MacAddr>(a, b)
}

/// `1024Mi` and `1Gi` are one amount.
pub(crate) fn same_resources(a: &Value, b: &Value) -> bool {
    match (a.as_map(), b.as_map()) {
        (Some(a), Some(b)) => {
            a.len() == b.len() && a.iter().all(|(k, x)| b.get(k).is_some_and(|y| same_parsed::<Quantity>(x, y)))
        }
        _ => a == b,
    }
}

/// A taint without a value has an empty one.
pub(crate) fn same_taints(a: &Value, b: &Value) -> bool {
    match (taints(a, &Path::root()), taints(b, &Path::root())) {
        (Ok(parsed), Ok(other)) if a.is_known() && b.is_known() => parsed == other,
        _ => a == b,
    }
}

/// First letter in upper case, full stop at the end.
pub(crate) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let mut sentence: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    sentence.push_str(letters.as_str());
    if !sentence.is_empty() && !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

/// The span `90m`, `1h30m` or `45s` names; at least a second.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let span: SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a duration; expected for example 90m, 1h30m or 45s."))?;
    match std::time::Duration::try_from(span) {
        Ok(span) if span.as_secs() >= 1 => Ok(span),
        _ => Err(format!("{text:?} is not a usable duration; expected at least a second.")),
    }
}

/// Checks that text parses.
pub(crate) fn parses<T: FromStr<Err: Display> + 'static>(summary: &str) -> Validator {
    Validator::string(summary, |text| text.parse::<T>().map(drop).map_err(|e| sentence(&e.to_string())))
}

/// Checks each value of a map.
pub(crate) fn values_parse<T: FromStr<Err: Display> + 'static>(summary: &str) -> Validator {
    Validator::value(summary, |value| {
        let bad = |(key, value): (&String, &Value)| {
            let error = value.as_str()?.parse::<T>().err()?;
            Some(format!("{key}: {}", sentence(&error.to_string())))
        };
        value.as_map().into_iter().flatten().find_map(bad).map_or(Ok(()), Err)
    })
}

/// Checks labels by Kubernetes' rules.
pub(crate) fn labels_validator() -> Validator {
    Validator::value("Invalid label", |value| {
        for (key, value) in value.as_map().into_iter().flatten() {
            if value.is_null() {
                return Err(format!("The label {key:?} has no value; expected text (it may be empty)."));
            }
            // An unknown value is checked when it is known; its key already can be.
            let value = value.as_str().unwrap_or_default();
            validate::label("", key, value).map_err(|e| sentence(&e.message))?;
        }
        Ok(())
    })
}

/// `id`, the engine's identity of the object.
pub(crate) fn id_attribute() -> Attribute {
    Attribute::computed(Type::String)
        .use_state_for_unknown()
        .describe("The engine's identity of the object. An object of the same name made later has another.")
}

/// `name`, by which the engine knows the object.
pub(crate) fn name_attribute(what: &str) -> Attribute {
    Attribute::required(Type::String)
        .requires_replace()
        .validate(Validator::string("Invalid name", |text| validate::name(text).map_err(|e| sentence(&e.message))))
        .describe(format!(
            "Name of the {what}: a DNS label of at most 63 lower-case letters, digits and hyphens. Changing it makes another {what}."
        ))
}

/// A map of labels.
pub(crate) fn labels_attribute(description: &str) -> Attribute {
    Attribute::optional(Type::map(Type::String)).validate(labels_validator()).describe(description)
}

/// A list of taints.
pub(crate) fn taints_attribute(description: &str) -> Attribute {
    let taint = [
        ("key", Attribute::required(Type::String).describe("The taint's key.")),
        ("value", Attribute::optional(Type::String).describe("Its value.")),
        (
            "effect",
            Attribute::required(Type::String)
                .validate(parses::<TaintEffect>("Invalid taint effect"))
                .describe("`NoSchedule`, `PreferNoSchedule` or `NoExecute`."),
        ),
    ];
    Attribute::nested(Nesting::List, Usage::Optional, taint).describe(description)
}

/// Why the engine is not satisfied.
pub(crate) fn last_error_attribute() -> Attribute {
    Attribute::computed(Type::String)
        .describe("The failure that matters now, and what to do about it; null when there is none.")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn durations_are_what_people_write() {
        assert_eq!(duration("90m").unwrap().as_secs(), 5400);
        assert_eq!(duration("1h30m").unwrap().as_secs(), 5400);
        assert_eq!(duration("45s").unwrap().as_secs(), 45);
        for bad in ["", "90", "soon", "-5m", "10ms"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn spellings_survive_a_refresh_and_changes_do_not() {
        let mut state = Value::object([
            ("mac", Value::from("52-54-00-AA-BB-CC")),
            ("labels", Value::Null),
            ("empty", Value::object::<&str, &str>([])),
            ("resources", Value::object([("memory", "1024Mi")])),
        ]);
        let before = state.clone();
        refresh(&mut state, "mac", "52:54:00:aa:bb:cc", same_mac);
        refresh(&mut state, "labels", BTreeMap::<String, String>::new(), equal);
        refresh(&mut state, "empty", Value::Null, equal);
        refresh(&mut state, "resources", Value::object([("memory", "1Gi")]), same_resources);
        assert_eq!(state, before);
        refresh(&mut state, "mac", "52:54:00:aa:bb:cd", same_mac);
        refresh(&mut state, "resources", Value::object([("memory", "2Gi")]), same_resources);
        assert_eq!(state.attr("mac"), &Value::from("52:54:00:aa:bb:cd"));
        assert_eq!(state.attr("resources").attr("memory"), &Value::from("2Gi"));
    }

    #[test]
    fn a_taint_without_value_goes_there_and_back() {
        let value = Value::list([Value::object([
            ("key", Value::from("gpu")),
            ("value", Value::Null),
            ("effect", "NoSchedule".into()),
        ])]);
        let parsed = taints(&value, &Path::attr("taints")).unwrap();
        assert_eq!(taints_value(&parsed), value);
        let spelled = Value::list([Value::object([("key", "gpu"), ("value", ""), ("effect", "NoSchedule")])]);
        let mut state = Value::object([("taints", spelled)]);
        let before = state.clone();
        refresh(&mut state, "taints", value, same_taints);
        assert_eq!(state, before, "an empty value is kept as the user wrote it");
    }
}
