//! Where settings that a policy refuses are wrong, found by the policy's own JSON Schema.
//!
//! A policy's `validate-settings` has the last word and says what is wrong in its own words; the schema only helps to say
//! where. So keywords that are not known here are passed over, and no schema is no error.

use serde_json::{Map, Value};

use crate::error::LoadError;

/// One thing that is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The setting, for example `max_skew` or `weights[2]`; empty for the settings as a whole.
    pub at: String,
    /// What was seen and what was expected.
    pub message: String,
}

/// How deep a schema is followed; one that refers to itself has no end.
const DEPTH: usize = 16;
/// As many steps are taken at most: what a schema costs is not the policy's to say.
const STEPS: u32 = 20_000;
/// As many complaints are enough.
const MOST: usize = 20;
/// As much of a value is shown.
const SHOWN: usize = 80;

/// A policy refuses its settings.
pub(crate) fn refusal(policy: String, messages: Vec<String>, schema: &str, settings: &str) -> LoadError {
    LoadError::Settings { policy, messages, places: places(schema, settings) }
}

/// Where settings contradict a schema, both as JSON text.
fn places(schema: &str, settings: &str) -> Vec<Complaint> {
    let Ok(schema) = serde_json::from_str::<Value>(schema) else { return Vec::new() };
    let settings = if settings.trim().is_empty() { "{}" } else { settings };
    match serde_json::from_str::<Value>(settings) {
        Ok(settings) => {
            let mut check = Check { root: &schema, found: Vec::new(), steps: STEPS };
            check.value(&schema, &settings, "", 0);
            check.found
        }
        Err(error) => vec![Complaint { at: String::new(), message: format!("are not JSON: {error}") }],
    }
}

struct Check<'a> {
    root: &'a Value,
    found: Vec<Complaint>,
    /// Steps that are left.
    steps: u32,
}

impl<'a> Check<'a> {
    fn complain(&mut self, at: &str, message: String) {
        if self.found.len() < MOST {
            self.found.push(Complaint { at: at.to_owned(), message });
        }
    }

    fn value(&mut self, schema: &'a Value, value: &Value, at: &str, depth: usize) {
        self.steps = self.steps.saturating_sub(1);
        let schema = match schema {
            Value::Object(schema) if depth < DEPTH && self.steps > 0 => schema,
            // `false` allows nothing.
            Value::Bool(false) => return self.complain(at, "is not known to the policy".to_owned()),
            _ => return,
        };
        if let Some(inner) = schema.get("$ref").and_then(Value::as_str).and_then(|to| self.referred(to)) {
            self.value(inner, value, at, depth + 1);
        }
        for inner in list(schema, "allOf") {
            self.value(inner, value, at, depth + 1);
        }
        for word in ["anyOf", "oneOf"] {
            let choices = list(schema, word);
            let fits = choices.is_empty() || choices.iter().any(|choice| self.fits(choice, value, depth + 1));
            if !fits {
                let choices: Vec<String> = choices.iter().map(expectation).collect();
                self.complain(at, format!("is {}; expected {}", shown(value), choices.join(", or ")));
            }
        }
        if !has_type(schema.get("type"), value) || !has_value(schema, value) || !is_within(schema, value) {
            return self.complain(at, format!("is {}; expected {}", shown(value), expectation_of(schema)));
        }
        match value {
            Value::Object(members) => self.members(schema, members, at, depth),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(inner) = schema.get("items") {
                        self.value(inner, item, &format!("{at}[{index}]"), depth + 1);
                    }
                }
            }
            _ => {}
        }
    }

    fn members(&mut self, schema: &'a Map<String, Value>, members: &Map<String, Value>, at: &str, depth: usize) {
        let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        let known = schema.get("properties").and_then(Value::as_object);
        for (name, value) in members {
            match (known.and_then(|known| known.get(name)), schema.get("additionalProperties")) {
                (Some(inner), _) => self.value(inner, value, &below(name), depth + 1),
                (None, Some(Value::Bool(false))) => {
                    let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                    let expected = if names.is_empty() { "no settings".to_owned() } else { names.join(", ") };
                    self.complain(&below(name), format!("is not a setting of the policy; expected {expected}"));
                }
                (None, Some(inner)) => self.value(inner, value, &below(name), depth + 1),
                (None, None) => {}
            }
        }
        for name in list(schema, "required").iter().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                self.complain(&below(name), "is missing; the policy needs it".to_owned());
            }
        }
    }

    fn fits(&mut self, schema: &'a Value, value: &Value, depth: usize) -> bool {
        let mut trial = Check { root: self.root, found: Vec::new(), steps: self.steps };
        trial.value(schema, value, "", depth);
        self.steps = trial.steps;
        trial.found.is_empty()
    }

    /// A part of this very schema.
    fn referred(&self, to: &str) -> Option<&'a Value> {
        self.root.pointer(to.strip_prefix('#')?)
    }
}

fn list<'a>(schema: &'a Map<String, Value>, word: &str) -> &'a [Value] {
    schema.get(word).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn has_type(wanted: Option<&Value>, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    match wanted {
        Some(Value::String(name)) => is(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

fn has_value(schema: &Map<String, Value>, value: &Value) -> bool {
    let listed = schema.get("enum").and_then(Value::as_array).is_none_or(|values| values.contains(value));
    listed && schema.get("const").is_none_or(|only| only == value)
}

fn is_within(schema: &Map<String, Value>, value: &Value) -> bool {
    let bound = |word: &str| schema.get(word).and_then(Value::as_f64);
    let size = match value {
        Value::String(text) => Some(("minLength", "maxLength", text.chars().count())),
        Value::Array(items) => Some(("minItems", "maxItems", items.len())),
        _ => None,
    };
    if let Some((least, most, size)) = size {
        let size = size as f64;
        return bound(least).is_none_or(|least| size >= least) && bound(most).is_none_or(|most| size <= most);
    }
    let Some(number) = value.as_f64() else { return true };
    bound("minimum").is_none_or(|least| number >= least)
        && bound("maximum").is_none_or(|most| number <= most)
        && bound("exclusiveMinimum").is_none_or(|least| number > least)
        && bound("exclusiveMaximum").is_none_or(|most| number < most)
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn expectation(schema: &Value) -> String {
    schema.as_object().map_or_else(|| "something else".to_owned(), expectation_of)
}

/// What a schema wants, in words: `integer from 0 to 255`.
fn expectation_of(schema: &Map<String, Value>) -> String {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
    }
    if let Some(only) = schema.get("const") {
        return only.to_string();
    }
    let mut words = match schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "something else".to_owned(),
    };
    for (word, says) in [
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
        ("minLength", "of at least"),
        ("maxLength", "of at most"),
        ("minItems", "of at least"),
        ("maxItems", "of at most"),
    ] {
        if let Some(bound) = schema.get(word) {
            words.push_str(&format!(" {says} {bound}"));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r##"{
        "type": "object",
        "properties": {
            "count": { "type": "integer", "minimum": 0, "maximum": 255 },
            "level": { "enum": ["rack", "row"] },
            "floor": { "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "null" }] },
            "weights": { "type": "array", "maxItems": 3, "items": { "$ref": "#/$defs/weight" } },
            "by_rack": { "type": "object", "additionalProperties": { "type": "boolean" } }
        },
        "required": ["level"],
        "additionalProperties": false,
        "$defs": { "weight": { "type": "object", "properties": { "of": { "type": "string" } }, "required": ["of"] } }
    }"##;

    fn wrong(settings: &str) -> Vec<String> {
        let mut found: Vec<String> =
            places(SCHEMA, settings).into_iter().map(|one| format!("{} {}", one.at, one.message)).collect();
        found.sort();
        found
    }

    #[test]
    fn what_fits_has_no_complaints() {
        let fine = r#"{"count":255,"level":"row","floor":null,"weights":[{"of":"a"}],"by_rack":{"r1":true}}"#;
        assert_eq!(wrong(fine), Vec::<String>::new());
    }

    #[test]
    fn each_mistake_is_told_where_it_is() {
        let found = wrong(
            r#"{"count":256,"level":"site","floor":0,"weights":[{"of":1},{}],"by_rack":{"r1":"yes"},"colour":"red"}"#,
        );
        let expected = [
            "by_rack.r1 is \"yes\"; expected boolean",
            "colour is not a setting of the policy; expected by_rack, count, floor, level, weights",
            "count is 256; expected integer from 0 to 255",
            "floor is 0; expected integer from 1, or null",
            "level is \"site\"; expected \"rack\", \"row\"",
            "weights[0].of is 1; expected string",
            "weights[1].of is missing; the policy needs it",
        ];
        assert_eq!(found, expected);
        assert_eq!(wrong("{}"), ["level is missing; the policy needs it"]);
        assert_eq!(
            wrong(r#"{"level":"row","weights":[1,2,3,4]}"#),
            ["weights is [1,2,3,4]; expected array of at most 3"]
        );
    }

    #[test]
    fn a_schema_without_end_or_sense_ends() {
        let itself = r##"{"$ref":"#","properties":{"a":{"$ref":"#"}},"type":"object"}"##;
        assert_eq!(places(itself, r#"{"a":{"a":{}}}"#), []);
        assert!(!places(itself, r#"{"a":1}"#).is_empty());
        let wide: String = (0..50).map(|at| format!(r##""p{at}":{{"$ref":"#"}},"##)).collect();
        let wide = format!(r##"{{"$ref":"#","properties":{{{wide}"x":true}}}}"##);
        let deep = (0..6).fold("1".to_owned(), |inner, _| {
            let members: Vec<String> = (0..4).map(|at| format!(r#""p{at}":{inner}"#)).collect();
            format!("{{{}}}", members.join(","))
        });
        assert_eq!(places(&wide, &deep), [], "a schema that costs without end is given up");
        assert_eq!(places("no schema", "{}"), []);
        assert_eq!(places(r#"{"type":7,"minimum":"x"}"#, "{}"), []);
        assert_eq!(places("{}", "{").len(), 1);
        assert_eq!(places("{}", "").len(), 0);
    }
}
