//! Which differences between two descriptions of a provider break what worked under the first.

use std::collections::BTreeSet;

use serde_json::Value as Json;

/// What a provider offers by name, and how a user calls it.
const OFFERED: [(&str, &str); 5] = [
    ("resource_schemas", "resource"),
    ("data_source_schemas", "data source"),
    ("ephemeral_resource_schemas", "ephemeral resource"),
    ("list_resource_schemas", "list"),
    ("action_schemas", "action"),
];

/// Says, one line each, what of the difference between two documents of [`describe`](super::describe) breaks configurations
/// or states that work under `before`. Additions that nobody has to use, and other words, break nothing.
pub fn breaking(before: &Json, after: &Json) -> Vec<String> {
    let mut found = Vec::new();
    for (address, before) in members(&before["provider_schemas"]) {
        let after = &after["provider_schemas"][address];
        if after.is_null() {
            found.push(format!("the provider {address} is gone"));
            continue;
        }
        block("provider", &before["provider"]["block"], &after["provider"]["block"], &mut found);
        for (member, noun) in OFFERED {
            offered(noun, &before[member], &after[member], &mut found);
        }
        functions(&before["functions"], &after["functions"], &mut found);
        identities(&before["resource_identity_schemas"], &after["resource_identity_schemas"], &mut found);
    }
    found
}

fn members(object: &Json) -> impl Iterator<Item = (&String, &Json)> {
    object.as_object().into_iter().flatten()
}

fn offered(noun: &str, before: &Json, after: &Json, found: &mut Vec<String>) {
    for (name, before) in members(before) {
        let (after, title) = (&after[name], format!("{noun} {name}"));
        if after.is_null() {
            found.push(format!("{title} is gone"));
            continue;
        }
        let (from, to) = (before["version"].as_i64(), after["version"].as_i64());
        if to < from {
            found.push(format!("{title}: the version of the schema went back"));
        }
        block(&title, &before["block"], &after["block"], found);
    }
}

fn block(title: &str, before: &Json, after: &Json, found: &mut Vec<String>) {
    attributes(title, "", &before["attributes"], &after["attributes"], found);
}

fn attributes(title: &str, parent: &str, before: &Json, after: &Json, found: &mut Vec<String>) {
    for (name, before) in members(before) {
        let at = format!("{parent}{name}");
        match &after[name] {
            Json::Null => found.push(format!("{title}: {at} is gone")),
            after => attribute(title, &at, before, after, found),
        }
    }
    let known: BTreeSet<_> = members(before).map(|(name, _)| name).collect();
    for (name, attribute) in members(after).filter(|(name, _)| !known.contains(name)) {
        if is(attribute, "required") {
            found.push(format!("{title}: {parent}{name} is new and required"));
        }
    }
}

fn is(attribute: &Json, flag: &str) -> bool {
    attribute[flag] == true
}

fn attribute(title: &str, at: &str, before: &Json, after: &Json, found: &mut Vec<String>) {
    let mut broken = |what: &str| found.push(format!("{title}: {at} {what}"));
    let became = |flag: &str| !is(before, flag) && is(after, flag);
    let ceased = |flag: &str| is(before, flag) && !is(after, flag);
    let settable = |attribute: &Json| is(attribute, "required") || is(attribute, "optional");
    if became("required") {
        broken("is required now");
    }
    if settable(before) && !settable(after) {
        broken("can no longer be set");
    }
    if ceased("computed") {
        broken("is no longer computed");
    }
    if became("sensitive") {
        broken("is sensitive now, which outputs of it must say");
    }
    if became("write_only") {
        broken("is write-only now and cannot be read any more");
    }
    if ceased("write_only") {
        broken("is stored now, which it was not");
    }
    let nesting = |attribute: &Json| attribute["nested_type"]["nesting_mode"].clone();
    if before["type"] != after["type"] || nesting(before) != nesting(after) {
        broken("has another type");
        return;
    }
    let inner = |attribute: &Json| attribute["nested_type"]["attributes"].clone();
    attributes(title, &format!("{at}."), &inner(before), &inner(after), found);
}

fn functions(before: &Json, after: &Json, found: &mut Vec<String>) {
    for (name, before) in members(before) {
        let after = &after[name];
        if after.is_null() {
            found.push(format!("function {name} is gone"));
            continue;
        }
        if before["return_type"] != after["return_type"] {
            found.push(format!("function {name} returns another type"));
        }
        let takes = |function: &Json| -> Vec<Json> {
            let parameters = function["parameters"].as_array().into_iter().flatten();
            parameters.map(|parameter| parameter["type"].clone()).collect()
        };
        let variadic = |function: &Json| function["variadic_parameter"]["type"].clone();
        let narrowed = !variadic(before).is_null() && variadic(before) != variadic(after);
        let refuses = |index: usize| {
            let nullable = |function: &Json| is(&function["parameters"][index], "is_nullable");
            nullable(before) && !nullable(after)
        };
        if takes(before) != takes(after) || narrowed || (0..takes(before).len()).any(refuses) {
            found.push(format!("function {name} takes other arguments"));
        }
    }
}

fn identities(before: &Json, after: &Json, found: &mut Vec<String>) {
    for (name, before) in members(before) {
        let after = &after[name];
        let parts = |identity: &Json, flag: &str| -> BTreeSet<(String, String)> {
            let all = members(&identity["attributes"]).filter(|(_, part)| flag.is_empty() || is(part, flag));
            all.map(|(name, part)| (name.clone(), part["type"].to_string())).collect()
        };
        let required = "required_for_import";
        if after.is_null() {
            found.push(format!("resource {name} has no identity any more"));
        } else if !parts(before, "").is_subset(&parts(after, "")) || parts(before, required) != parts(after, required) {
            found.push(format!("resource {name} is identified by something else"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Json {
        let attributes = json!({
            "name": { "type": "string", "required": true },
            "size": { "type": "number", "optional": true, "computed": true },
            "secret": { "type": "string", "optional": true, "write_only": true },
            "phase": { "type": "string", "computed": true },
            "bmc": {
                "optional": true,
                "nested_type": { "nesting_mode": "single", "attributes": { "user": { "type": "string", "optional": true } } },
            },
        });
        json!({ "provider_schemas": { "a/b/c": {
            "provider": { "version": 0, "block": { "attributes": { "endpoint": { "type": "string", "optional": true } } } },
            "resource_schemas": { "c_thing": { "version": 1, "block": { "attributes": attributes } } },
            "action_schemas": { "c_do": { "block": {} } },
            "functions": { "f": { "return_type": "string", "parameters": [{ "name": "x", "type": "string", "is_nullable": true }] } },
            "resource_identity_schemas": { "c_thing": {
                "version": 0, "attributes": { "name": { "type": "string", "required_for_import": true } },
            } },
        } } })
    }

    /// What is found when the value at a path of the provider's part becomes another; null removes it.
    fn after(path: &[&str], value: Json) -> Vec<String> {
        let mut changed = document();
        let provider = &mut changed["provider_schemas"]["a/b/c"];
        let (last, parents) = path.split_last().expect("a path");
        let parent = parents.iter().fold(provider, |json, step| match step.parse::<usize>() {
            Ok(index) => &mut json[index],
            Err(_) => &mut json[*step],
        });
        parent[*last] = value;
        breaking(&document(), &changed)
    }

    const THING: [&str; 4] = ["resource_schemas", "c_thing", "block", "attributes"];

    fn thing(rest: &[&'static str], value: Json) -> Vec<String> {
        after(&[THING.as_slice(), rest].concat(), value)
    }

    #[test]
    fn what_nobody_has_to_use_breaks_nothing() {
        assert_eq!(breaking(&document(), &document()), Vec::<String>::new());
        assert_eq!(thing(&["more"], json!({ "type": "bool", "optional": true })), Vec::<String>::new());
        assert_eq!(thing(&["name", "description"], json!("other words")), Vec::<String>::new());
        assert_eq!(thing(&["size", "deprecated"], json!(true)), Vec::<String>::new());
        assert_eq!(thing(&["phase", "optional"], json!(true)), Vec::<String>::new());
        assert_eq!(after(&["resource_schemas", "c_other"], json!({})), Vec::<String>::new());
        assert_eq!(after(&["resource_schemas", "c_thing", "version"], json!(2)), Vec::<String>::new());
        assert_eq!(after(&["functions", "g"], json!({})), Vec::<String>::new());
    }

    #[test]
    fn what_worked_and_works_no_more_is_named() {
        let gone = Json::Null;
        for (found, expected) in [
            (after(&["resource_schemas", "c_thing"], gone.clone()), "resource c_thing is gone"),
            (after(&["action_schemas", "c_do"], gone.clone()), "action c_do is gone"),
            (after(&["functions", "f"], gone.clone()), "function f is gone"),
            (after(&["functions", "f", "return_type"], json!("number")), "function f returns another type"),
            (after(&["functions", "f", "parameters"], json!([])), "function f takes other arguments"),
            (
                after(&["functions", "f", "parameters", "0", "is_nullable"], json!(false)),
                "function f takes other arguments",
            ),
            (
                after(&["resource_identity_schemas", "c_thing"], gone.clone()),
                "resource c_thing has no identity any more",
            ),
            (
                after(
                    &["resource_identity_schemas", "c_thing", "attributes", "site"],
                    json!({ "type": "string", "required_for_import": true }),
                ),
                "resource c_thing is identified by something else",
            ),
            (after(&["provider", "block", "attributes", "endpoint"], gone.clone()), "provider: endpoint is gone"),
            (
                after(&["resource_schemas", "c_thing", "version"], json!(0)),
                "resource c_thing: the version of the schema went back",
            ),
            (thing(&["size"], gone.clone()), "resource c_thing: size is gone"),
            (thing(&["size", "type"], json!("string")), "resource c_thing: size has another type"),
            (thing(&["size", "computed"], json!(false)), "resource c_thing: size is no longer computed"),
            (thing(&["size", "optional"], json!(false)), "resource c_thing: size can no longer be set"),
            (
                thing(&["secret", "write_only"], json!(false)),
                "resource c_thing: secret is stored now, which it was not",
            ),
            (
                thing(&["phase", "sensitive"], json!(true)),
                "resource c_thing: phase is sensitive now, which outputs of it must say",
            ),
            (
                thing(&["size", "write_only"], json!(true)),
                "resource c_thing: size is write-only now and cannot be read any more",
            ),
            (thing(&["bmc", "nested_type", "nesting_mode"], json!("list")), "resource c_thing: bmc has another type"),
            (thing(&["bmc", "nested_type", "attributes", "user"], gone), "resource c_thing: bmc.user is gone"),
            (
                thing(&["bmc", "nested_type", "attributes", "user", "required"], json!(true)),
                "resource c_thing: bmc.user is required now",
            ),
            (
                thing(&["must"], json!({ "type": "bool", "required": true })),
                "resource c_thing: must is new and required",
            ),
        ] {
            assert_eq!(found, [expected]);
        }
    }
}
