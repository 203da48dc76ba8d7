//! Handing a component to the engine and declaring it, so that it decides without a restart.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use vmetal_api::{Apply, Client};
use vmetal_model::{Duty, Kind, Policy, PolicyCheck, PolicyKind, PolicyPhase, PolicySpec};
use vmetal_policy_source::{read_component, signature_beside};
use vmetal_policy_tool::trial::examine;

use super::distribution::judge;
use crate::args::InstallArgs;
use crate::error::CliError;
use crate::text::clean;

/// How long the engine may take to seat a policy: compiling a large one takes a quarter of a minute.
const PATIENCE: Duration = Duration::from_secs(180);

/// Hands over, declares, and waits until the engine has seated or refused it.
pub(crate) async fn run(args: InstallArgs, client: &Client, out: &mut impl Write) -> Result<(), CliError> {
    let bytes = read_component(&args.component)?;
    let seen = examine(&args.component.display().to_string(), Arc::clone(&bytes))?;
    judge(&seen, "nothing was installed")?;
    let kind = if seen.inspection.kind == PolicyKind::Cost.as_str() { PolicyKind::Cost } else { PolicyKind::Placement };
    let sha256 = seen.inspection.component.map(|component| component.sha256).unwrap_or_default();
    let name = args.name.clone().unwrap_or_else(|| kind.as_str().to_owned());
    let spec = PolicySpec {
        kind,
        sha256,
        signature: signature_beside(&args.component, args.signature.as_deref())?,
        origin: args.component.file_name().map(|name| name.to_string_lossy().into_owned()),
        settings: settings(args.settings.as_deref())?,
        on_failure: args.on_failure.into(),
        duty: if args.rest { Duty::Rests } else { Duty::Decides },
    };
    let check = match client.check_policy(&spec).await? {
        PolicyCheck::ComponentMissing => {
            client.put_component(&spec.sha256, bytes).await?;
            client.check_policy(&spec).await?
        }
        accepted => accepted,
    };
    if let PolicyCheck::Accepted { decided_by: Some(other), .. } = check
        && spec.duty == Duty::Decides
        && other != name
    {
        return Err(CliError::Usage {
            message: format!("policy {} decides on {kind} already, and only one can", clean(&other)),
            advice: format!(
                "take its place with `--name {0}`, or give it up first with `vmetal delete policy {0}`",
                clean(&other)
            ),
        });
    }
    let apply = Apply::new::<Policy>(&name, &spec).map_err(vmetal_api::ApiError::from)?;
    client.apply(apply).await?;
    tell(&settled(client, &name).await?, out)
}

/// The policy once its status speaks of what is declared now.
async fn settled(client: &Client, name: &str) -> Result<Policy, CliError> {
    let done = |object: Option<&vmetal_api::AnyObject>| {
        let policy: Policy = object?.typed().ok()?;
        (policy.status.observed_generation == policy.metadata.generation).then_some(policy)
    };
    Ok(client.wait_for(Kind::Policy, name, PATIENCE, done).await?)
}

fn tell(policy: &Policy, out: &mut impl Write) -> Result<(), CliError> {
    let (spec, status, name) = (&policy.spec, &policy.status, clean(policy.name()));
    let known = status.facts.as_ref().map_or_else(String::new, |facts| format!("{}@{} ", facts.name, facts.version));
    match (&status.failure, status.phase) {
        (Some(failure), _) => {
            return Err(CliError::PolicyFails { what: format!("policy {name} is refused: {failure}") });
        }
        (None, PolicyPhase::Resting) => {
            writeln!(out, "policy {name}  {}sha256:{} is accepted and decides nothing", clean(&known), spec.sha256)?;
        }
        (None, _) => {
            writeln!(out, "policy {name}  {}sha256:{} decides on {}", clean(&known), spec.sha256, spec.kind)?;
            writeln!(out, "`vmetal delete policy {name}` gives the decision back to the engine's configuration")?;
        }
    }
    Ok(out.flush()?)
}

fn settings(text: Option<&str>) -> Result<Map<String, Value>, CliError> {
    let wrong = |seen: String| CliError::Usage {
        message: format!("the settings are not a JSON object: {seen}"),
        advice: r#"write them as --settings '{"max_skew":2}'; `vmetal policy inspect` shows what there is"#.to_owned(),
    };
    match text.map(serde_json::from_str::<Value>) {
        None => Ok(Map::new()),
        Some(Ok(Value::Object(settings))) => Ok(settings),
        Some(Ok(other)) => Err(wrong(other.to_string())),
        Some(Err(error)) => Err(wrong(error.to_string())),
    }
}
