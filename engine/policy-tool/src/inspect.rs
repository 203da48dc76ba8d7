//! What a policy is, without a decision.

use serde::Serialize;
use vmetal_policy::Workbench;
use vmetal_policy_sdk::{Arg, Kind, WIT_VERSION};

use crate::error::ToolError;
use crate::spec::Spec;

/// Everything that can be known of a policy before it decides anything.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// `cost` or `placement`.
    pub kind: &'static str,
    /// The boundary that it was built for.
    pub boundary: String,
    /// Of a component: its file. None for a native twin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<Component>,
    /// Reasons of its own.
    pub reasons: Vec<Reason>,
    /// What the cases that it brings show.
    pub cases: Vec<String>,
    /// The JSON Schema of its settings.
    pub settings: serde_json::Value,
}

/// A component's file.
#[derive(Debug, Clone, Serialize)]
pub struct Component {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub size: usize,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// Fuel that any call may use; a component that brings an interpreter may use more.
    pub fuel_base: u64,
    /// Fuel for each candidate on top.
    pub fuel_per_row: u64,
}

/// A reason of a policy's own.
#[derive(Debug, Clone, Serialize)]
pub struct Reason {
    /// Its number.
    pub code: u32,
    /// Its text; `{}` stands for the argument.
    pub text: String,
    /// What the argument is: `none`, `number` or `text`.
    pub argument: &'static str,
}

/// One setting, as its schema says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// What it may be.
    pub values: String,
    /// What it is when it is left out.
    pub default: String,
    /// What it means.
    pub description: String,
}

/// The name of a kind.
pub fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Cost => "cost",
        Kind::Placement => "placement",
    }
}

/// Loads a policy and asks it about itself.
///
/// # Errors
/// When it is refused or cannot be asked.
pub fn inspect(spec: &Spec) -> Result<Inspection, ToolError> {
    look(&spec.open()?)
}

pub(crate) fn look(bench: &Workbench) -> Result<Inspection, ToolError> {
    let policy = || bench.identity().to_string();
    let call = |call| move |source| ToolError::Call { policy: policy(), call, source };
    let info = bench.describe().map_err(call("describe"))?;
    let schema = bench.settings_schema().map_err(call("settings-schema"))?;
    let settings = serde_json::from_str(&schema).map_err(|source| ToolError::Schema { policy: policy(), source })?;
    let argument = |arg| match arg {
        Arg::None => "none",
        Arg::Number => "number",
        Arg::Sym => "text",
    };
    let reasons = info.reasons.into_iter();
    Ok(Inspection {
        name: info.name,
        version: info.version,
        kind: kind(bench.kind()),
        boundary: format!("vmetal:policy@{WIT_VERSION}"),
        component: bench.outside().map(|outside| Component {
            sha256: outside.sha256.clone(),
            size: outside.size,
            imports: outside.imports.clone(),
            exports: outside.exports.clone(),
            fuel_base: outside.allowance.fuel_base,
            fuel_per_row: outside.allowance.fuel_per_row,
        }),
        reasons: reasons
            .map(|reason| Reason { code: reason.code, text: reason.text, argument: argument(reason.arg) })
            .collect(),
        cases: bench.cases()?.into_iter().map(|case| case.case).collect(),
        settings,
    })
}

impl Inspection {
    /// The settings as a list.
    pub fn listed_settings(&self) -> Vec<Setting> {
        let Some(properties) = self.settings["properties"].as_object() else { return Vec::new() };
        let setting = |(name, schema): (&String, &serde_json::Value)| Setting {
            name: name.clone(),
            values: values(schema),
            default: schema
                .get("default")
                .filter(|default| !default.is_null())
                .map_or_else(String::new, |default| default.to_string()),
            description: schema["description"].as_str().unwrap_or_default().to_owned(),
        };
        properties.iter().map(setting).collect()
    }
}

/// What a schema allows, in a few words.
fn values(schema: &serde_json::Value) -> String {
    let list = |key: &str| schema[key].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(kind) = schema["type"].as_str() {
        return if kind == "array" { format!("list of {}", values(&schema["items"])) } else { kind.to_owned() };
    }
    let words: Vec<String> = match (list("enum"), list("anyOf")) {
        ([], any) => any.iter().map(values).filter(|one| one != "null").collect(),
        (fixed, _) => fixed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect(),
    };
    if words.is_empty() { "anything".to_owned() } else { words.join(" or ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use vmetal_policy::shipped;

    #[test]
    fn every_shipped_policy_describes_itself_and_its_settings() {
        for name in [shipped(Kind::Cost), shipped(Kind::Placement)].concat() {
            let seen = inspect(&name.parse().unwrap()).unwrap();
            assert_eq!((seen.name.as_str(), seen.settings["type"].as_str()), (name, Some("object")));
            for setting in seen.listed_settings() {
                assert!(!setting.description.is_empty() && !setting.values.is_empty(), "{name}: {setting:?}");
            }
        }
        let spread = inspect(&"place-spread".parse().unwrap()).unwrap();
        let skew = spread.listed_settings().into_iter().find(|setting| setting.name == "max_skew").unwrap();
        assert_eq!((skew.values.as_str(), skew.default.as_str()), ("integer", ""));
        assert_eq!(spread.reasons.iter().map(|reason| reason.code).collect::<Vec<_>>(), [1000, 1001, 1002]);
        let quarantine = inspect(&"place-quarantine".parse().unwrap()).unwrap().listed_settings();
        let erase = quarantine.iter().find(|setting| setting.name == "min_erase").unwrap();
        assert_eq!(
            (erase.values.as_str(), erase.default.as_str()),
            ("metadata or discard or overwrite", "\"overwrite\"")
        );
    }
}
