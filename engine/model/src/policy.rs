//! A policy: who prices node types, or who chooses hosts.
//!
//! Of each kind at most one object decides ([`Duty::Decides`]); where none does, the engine's configuration says who. A
//! component is named by its digest and lives beside the object: whoever declares a policy hands it over first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::meta::Object;
use crate::wait::Failure;

/// Who prices node types, or who chooses hosts.
pub type Policy = Object<PolicySpec, PolicyStatus>;

/// The largest component, in bytes.
pub const LARGEST_COMPONENT: u64 = 32 << 20;
/// The longest settings, in bytes of JSON text.
pub const LONGEST_SETTINGS: usize = 64 << 10;

/// Which component decides on what, with which settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// What it decides on.
    pub kind: PolicyKind,
    /// SHA-256 of the component: 64 hexadecimal digits in lower case. The engine must have the component.
    pub sha256: String,
    /// A detached signature of the component, in base64. Needed where the engine's configuration names keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Where the component was taken from; a note for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// What the policy is told; it checks them itself.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// What happens when it fails.
    #[serde(default = "native_twin")]
    pub on_failure: OnFailure,
    /// Whether it decides.
    #[serde(default)]
    pub duty: Duty,
}

fn native_twin() -> OnFailure {
    OnFailure::NativeTwin
}

impl PolicySpec {
    /// The settings as the policy is given them: JSON text, empty for none.
    pub fn settings_text(&self) -> String {
        if self.settings.is_empty() { String::new() } else { Value::Object(self.settings.clone()).to_string() }
    }

    /// Whether both, where they decide, decide alike: they differ at most in what is noted about them.
    pub fn decides_as(&self, other: &PolicySpec) -> bool {
        let PolicySpec { kind, sha256, signature, origin: _, settings, on_failure, duty: _ } = self;
        (kind, sha256, signature) == (&other.kind, &other.sha256, &other.signature)
            && (settings, on_failure) == (&other.settings, &other.on_failure)
    }
}

/// What a policy decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// Which node type a claim gets, and what that costs.
    Cost,
    /// Which host of the type it gets.
    Placement,
}

impl PolicyKind {
    /// Both.
    pub const ALL: [PolicyKind; 2] = [PolicyKind::Cost, PolicyKind::Placement];

    /// The name in the API and in the component's interface, for example `cost`.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyKind::Cost => "cost",
            PolicyKind::Placement => "placement",
        }
    }
}

impl std::fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens when a policy fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// There is no decision; the claim waits and says why.
    #[default]
    Closed,
    /// The native twin of the policy decides, or, for a policy that is not a shipped one, the default of its kind; the
    /// decision says so.
    NativeTwin,
}

impl OnFailure {
    /// The name in the API, for example `native_twin`.
    pub fn as_str(self) -> &'static str {
        match self {
            OnFailure::Closed => "closed",
            OnFailure::NativeTwin => "native_twin",
        }
    }
}

/// Whether a policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// It does; no other object of its kind may.
    #[default]
    Decides,
    /// It is kept, and tried out, and nobody asks it.
    Rests,
}

/// What has become of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PolicyStatus {
    /// How far it is.
    pub phase: PolicyPhase,
    /// What was accepted last, and goes on deciding when a later declaration is refused. Absent while nothing decides through
    /// this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
    /// What the policy in force, or on trial, says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<PolicyFacts>,
    /// Why the declaration is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The generation of the spec that the status speaks of.
    #[serde(default)]
    pub observed_generation: u64,
}

/// A declaration that decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InForce {
    /// Which of the object's generations it is.
    pub generation: u64,
    /// The declaration.
    pub spec: PolicySpec,
}

/// How far a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyPhase {
    /// Not looked at yet.
    #[default]
    Pending,
    /// It decides.
    Active,
    /// It could decide, and is not to.
    Resting,
    /// It is refused; the failure says why, and what decides instead.
    Failed,
}

impl PolicyPhase {
    /// The name in the API, for example `active`.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyPhase::Pending => "pending",
            PolicyPhase::Active => "active",
            PolicyPhase::Resting => "resting",
            PolicyPhase::Failed => "failed",
        }
    }
}

/// What a policy says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PolicyFacts {
    /// Its name, for example `place-spread`.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// The contract that it is built for, for example `vmetal:policy/placement-policy@0.1.0`.
    pub world: String,
    /// Its own reasons for turning a candidate down, as `1000: text`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// What would become of a policy that is only planned yet. What is wrong with one is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum PolicyCheck {
    /// The engine does not have the component and cannot say.
    ComponentMissing,
    /// It would be accepted.
    Accepted {
        /// What it says of itself.
        facts: PolicyFacts,
        /// The JSON Schema of its settings, as it gives it.
        settings_schema: String,
        /// The object of its kind that decides now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decided_by: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::validate::Validate as _;

    fn spec(more: &str) -> PolicySpec {
        let digest = "ab".repeat(32);
        serde_json::from_str(&format!(r#"{{"kind":"placement","sha256":"{digest}"{more}}}"#)).unwrap()
    }

    #[test]
    fn a_component_that_is_declared_decides_with_its_twin_behind_it() {
        let plain = spec("");
        assert_eq!(
            (plain.on_failure, plain.duty, plain.settings_text().as_str()),
            (OnFailure::NativeTwin, Duty::Decides, "")
        );
        assert!(plain.validate().is_empty());
        let set = spec(r#","settings":{"max_skew":2}"#);
        assert_eq!(set.settings_text(), r#"{"max_skew":2}"#);
        assert!(plain.decides_as(&spec(r#","origin":"./mine.wasm","duty":"rests""#)));
        assert!(!plain.decides_as(&set) && !plain.decides_as(&spec(r#","on_failure":"closed""#)));
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits_and_settings_are_bounded() {
        let wrong = |spec: PolicySpec| spec.validate().into_iter().map(|error| error.path).collect::<Vec<_>>();
        for sha256 in [String::new(), "AB".repeat(32), format!("sha256:{}", "ab".repeat(32)), "ab".repeat(31)] {
            assert_eq!(wrong(PolicySpec { sha256: sha256.clone(), ..spec("") }), ["spec.sha256"], "{sha256}");
        }
        let mut long = spec("");
        long.settings.insert("a".into(), "x".repeat(LONGEST_SETTINGS).into());
        assert_eq!(wrong(long), ["spec.settings"]);
    }
}
