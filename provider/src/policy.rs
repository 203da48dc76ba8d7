//! `vmetal_policy`: who prices node types, or who chooses hosts.

use serde_json::Value as Json;
use tfplugin::{
    Attribute, Diagnostic, Diagnostics, Pending, Schema, Type, Value,
    plan::{Change, Plan},
    schema::{Nesting, Usage, Validator},
};
use vmetal_api::Client;
use vmetal_model::{Duty, Failure, OnFailure, Policy, PolicyKind, PolicyPhase, PolicySpec};

use crate::{
    component::{self, Component},
    convert::{equal, id_attribute, last_error_attribute, name_attribute, refresh, text},
    errand::{Errand, errand},
    kind::{Declaration, Kind, Verdict},
    provider::Engine,
    timeouts::Timeouts,
};

/// `vmetal_policy`.
pub(crate) struct Policies;

/// Settings as a JSON object.
fn settings(text: &str) -> Result<serde_json::Map<String, Json>, String> {
    match serde_json::from_str(text) {
        Ok(Json::Object(settings)) => Ok(settings),
        Ok(_) => Err("Settings are a JSON object; expected for example jsonencode({ max_skew = 2 }).".to_owned()),
        Err(error) => Err(format!("Settings are not JSON: {error}. Write them with jsonencode.")),
    }
}

/// Spaces and the order of names mean nothing, and no settings are empty ones.
fn same_settings(a: &Value, b: &Value) -> bool {
    let read = |value: &Value| settings(value.as_str().unwrap_or("{}"));
    match (read(a), read(b)) {
        (Ok(first), Ok(second)) if !a.is_unknown() && !b.is_unknown() => first == second,
        _ => a == b,
    }
}

fn kind(value: &Value) -> PolicyKind {
    if value.as_str() == Some("cost") { PolicyKind::Cost } else { PolicyKind::Placement }
}

impl Kind for Policies {
    type Object = Policy;

    const TYPE: &'static str = "vmetal_policy";
    const NOUN: &'static str = "policy";
    const TIMEOUTS: Timeouts = Timeouts::minutes(10);
    const WAIT_FOR: Option<&'static str> = Some("ready");

    fn is_supply() -> bool {
        true
    }

    fn schema() -> Schema {
        let describe = [
            ("name", Attribute::computed(Type::String).describe("Its name.")),
            ("version", Attribute::computed(Type::String).describe("Its own version.")),
            ("world", Attribute::computed(Type::String).describe("The contract that it is built for.")),
            (
                "reasons",
                Attribute::computed(Type::list(Type::String))
                    .describe("Its own reasons for turning a candidate down, by number."),
            ),
        ];
        Schema::new(
            "A policy: a WebAssembly component that prices node types (`cost`) or chooses hosts (`placement`). Of each kind at \
             most one decides; where none does, the engine's configuration says who. To exchange a policy, change `source`: \
             every engine loads the new one beside the old one, tries it with the cases that it brings, and exchanges them \
             between two decisions. If that fails, the old one goes on. A plan tries the policy as well, with its settings, \
             for which the engine may be given the component; what is not applied within a day is forgotten.",
            [
                ("id", id_attribute()),
                ("name", name_attribute("policy")),
                (
                    "kind",
                    Attribute::required(Type::String).validate(Validator::one_of(&["cost", "placement"])).describe(
                        "What it decides on: `cost`, which node type a tenant node gets and at what price, or `placement`, \
                         which host of that type.",
                    ),
                ),
                (
                    "source",
                    Attribute::required(Type::String).describe(
                        "The component's file on the machine that runs Terraform, as `vmetal policy build` writes it; at most \
                         32 MiB.",
                    ),
                ),
                (
                    "signature",
                    Attribute::optional(Type::String).describe(
                        "A detached signature of the component, in base64: `filebase64(\"mine.wasm.sig\")`. Needed where the \
                         engine's configuration names keys (`policies.keys`).",
                    ),
                ),
                (
                    "settings",
                    Attribute::optional(Type::String)
                        .semantic_equality(same_settings)
                        .validate(Validator::string("Invalid settings", |text| settings(text).map(drop)))
                        .describe(
                            "What the policy is told, as JSON: `jsonencode({ max_skew = 2 })`. Checked while planning, by the \
                             policy itself; `vmetal policy inspect` shows what there is to set.",
                        ),
                ),
                (
                    "on_failure",
                    Attribute::optional(Type::String)
                        .default("native_twin")
                        .validate(Validator::one_of(&["native_twin", "closed"]))
                        .describe(
                            "What follows when it fails to decide: `native_twin` (default), a shipped policy of the same name, \
                             or else the default of its kind, decides instead; or `closed`, there is no decision and the \
                             tenant node waits.",
                        ),
                ),
                (
                    "active",
                    Attribute::optional(Type::Bool).default(true).describe(
                        "Whether it decides (default). One that does not is kept and tried out. A second one of a kind that \
                         decides is refused.",
                    ),
                ),
                (
                    "wait_for",
                    Attribute::optional(Type::String)
                        .default("ready")
                        .validate(Validator::one_of(&["ready", "none"]))
                        .describe("What an apply waits for: `ready` (default), that it is accepted, and decides if it is to; or `none`."),
                ),
                ("timeouts", Self::TIMEOUTS.attribute()),
                ("sha256", Attribute::computed(Type::String).describe("SHA-256 of the component, hexadecimal.")),
                (
                    "phase",
                    Attribute::computed(Type::String).describe(
                        "`pending`, `active` (it decides), `resting` (accepted, and not to decide) or `failed` (refused).",
                    ),
                ),
                (
                    "active_sha256",
                    Attribute::computed(Type::String).describe(
                        "SHA-256 of the component that decides through this policy now: an older one where the present one is \
                         refused. Null where none does.",
                    ),
                ),
                (
                    "describe",
                    Attribute::nested(Nesting::Single, Usage::Computed, describe)
                        .describe("What the policy says of itself."),
                ),
                ("last_error", last_error_attribute()),
            ],
        )
    }

    fn declare(planned: &Value) -> Result<Declaration<PolicySpec>, Diagnostic> {
        let sha256 = text(planned.attr("sha256")).ok_or_else(|| {
            let detail = "It is known when the plan or the apply has read the file that source names.";
            Diagnostic::error("The component's digest is not known yet", detail)
        })?;
        let spec = PolicySpec {
            kind: kind(planned.attr("kind")),
            sha256,
            signature: text(planned.attr("signature")),
            origin: text(planned.attr("source")),
            settings: planned.attr("settings").as_str().and_then(|text| settings(text).ok()).unwrap_or_default(),
            on_failure: match planned.attr("on_failure").as_str() {
                Some("closed") => OnFailure::Closed,
                _ => OnFailure::NativeTwin,
            },
            duty: if planned.attr("active").as_bool() == Some(false) { Duty::Rests } else { Duty::Decides },
        };
        Ok(Declaration { spec, labels: Default::default() })
    }

    fn observe(state: &mut Value, policy: &Policy) {
        let status = &policy.status;
        state.set("sha256", policy.spec.sha256.clone());
        state.set("phase", status.phase.as_str());
        state.set("active_sha256", status.in_force.as_ref().map(|in_force| in_force.spec.sha256.clone()));
        let describe = status.facts.as_ref().map(|facts| {
            Value::object([
                ("name", Value::from(facts.name.clone())),
                ("version", facts.version.clone().into()),
                ("world", facts.world.clone().into()),
                ("reasons", Value::list(facts.reasons.clone())),
            ])
        });
        state.set("describe", describe);
        state.set("last_error", status.failure.as_ref().map(ToString::to_string));
    }

    fn recall(state: &mut Value, policy: &Policy) {
        let spec = &policy.spec;
        refresh(state, "kind", spec.kind.as_str(), equal);
        refresh(state, "source", spec.origin.clone(), equal);
        refresh(state, "signature", spec.signature.clone(), equal);
        let told = !spec.settings.is_empty() || *state.attr("settings") != Value::Null;
        refresh(state, "settings", told.then(|| Json::Object(spec.settings.clone()).to_string()), same_settings);
        refresh(state, "on_failure", spec.on_failure.as_str(), equal);
        refresh(state, "active", spec.duty == Duty::Decides, equal);
    }

    fn judge(policy: &Policy, wait_for: &str) -> Verdict {
        let status = &policy.status;
        let current = status.observed_generation >= policy.metadata.generation;
        match (status.phase, &status.failure) {
            _ if wait_for == "none" => Verdict::Done,
            (PolicyPhase::Failed, Some(failure)) if current => Verdict::Stuck(failure.clone()),
            (PolicyPhase::Active | PolicyPhase::Resting, _) if current => Verdict::Done,
            _ => Verdict::Going(Self::doing(policy)),
        }
    }

    fn doing(policy: &Policy) -> String {
        match policy.metadata.deleted {
            Some(_) => "giving its seat back".to_owned(),
            None => "being loaded and tried".to_owned(),
        }
    }

    fn failure(policy: &Policy) -> Option<&Failure> {
        policy.status.failure.as_ref()
    }

    fn whereabouts(policy: &Policy) -> Vec<String> {
        let mut facts = vec![format!("Component sha256 {}", policy.spec.sha256)];
        facts.extend(policy.spec.origin.as_ref().map(|origin| format!("Source: {origin}")));
        facts
    }

    fn attribute_of(field: &str) -> Option<&'static str> {
        match field {
            "sha256" | "component" | "origin" => Some("source"),
            "duty" => Some("active"),
            _ => None,
        }
    }

    /// The file is read, and where anything changes the engine is asked what it thinks of it.
    fn complete<'a>(engine: Option<&'a Engine>, plan: &'a mut Plan) -> Pending<'a, Diagnostics> {
        Box::pin(async move {
            // What is planned then is to go: a file that is gone already must not keep it.
            if errand() != Errand::Other {
                return Diagnostics::new();
            }
            let Some(source) = text(plan.planned.attr("source")) else { return Diagnostics::new() };
            let component = match Component::read(&source).await {
                Ok(component) => component,
                Err(refused) => return refused.into(),
            };
            if plan.change() == Change::Update && plan.prior.attr("sha256").as_str() != Some(&component.sha256) {
                plan.reopen(&Self::schema());
            }
            plan.planned.set("sha256", component.sha256.clone());
            let unchanged = plan.change() == Change::Update && plan.planned == plan.prior;
            let known = ["name", "kind", "signature", "settings", "on_failure", "active"];
            let known = known.iter().all(|name| plan.planned.attr(name).is_wholly_known());
            let client = engine.and_then(|engine| engine.client().ok());
            match (client, Self::declare(&plan.planned)) {
                (Some(client), Ok(Declaration { spec, .. })) if known && !unchanged => {
                    let name = text(plan.planned.attr("name")).unwrap_or_default();
                    component::foresee(client, &name, &spec, &component).await
                }
                _ => Diagnostics::new(),
            }
        })
    }

    /// The engine is given the component before it is told of the policy.
    fn supply<'a>(client: &'a Client, planned: &'a mut Value) -> Pending<'a, Result<(), Diagnostics>> {
        Box::pin(async move {
            let source = text(planned.attr("source")).unwrap_or_default();
            let component = Component::read(&source).await?;
            match text(planned.attr("sha256")) {
                Some(planned) if planned != component.sha256 => return Err(component.changed(&planned).into()),
                _ => planned.set("sha256", component.sha256.clone()),
            }
            let spec = Self::declare(planned)?.spec;
            component::hand_over(client, &spec, &component).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_mean_the_same_however_they_are_spelled() {
        let same = |a: &str, b: &str| same_settings(&Value::from(a), &Value::from(b));
        assert!(same(r#"{"a":1,"b":[2]}"#, "{ \"b\": [2],\n \"a\": 1 }"));
        assert!(!same(r#"{"a":1}"#, r#"{"a":2}"#));
        assert!(same_settings(&Value::Null, &Value::from("{}")));
        assert!(!same_settings(&Value::unknown(), &Value::from("{}")));
    }

    #[test]
    fn settings_are_an_object() {
        for wrong in ["", "[1]", "null", "{"] {
            assert!(settings(wrong).is_err(), "{wrong:?}");
        }
    }
}
