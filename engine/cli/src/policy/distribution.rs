//! Publishing components, and checking what was published.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use vmetal_policy_source::artifact::{self, Label};
use vmetal_policy_source::{
    Component, Credentials, Origin, PublicKey, Reference, Registries, SigningKey, SourceError, Sources, Trust, cosign,
    read_component,
};
use vmetal_policy_tool::inspect::Inspection;
use vmetal_policy_tool::trial::{Examination, examine};

use super::print_json;
use crate::args::{DistributionCommand, RegistryArgs};
use crate::error::CliError;
use crate::text::Fields;

/// Runs one command.
pub(crate) async fn run(command: DistributionCommand, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        DistributionCommand::Push { reference, file, sign, registry } => {
            push(&reference, &file, sign.as_deref(), &registry, out).await?;
        }
        DistributionCommand::Verify { policy, keys, signature, registry, json } => {
            let verified = verify(&policy, &keys, signature, &registry).await?;
            if json {
                print_json(&verified, out)?
            } else {
                out.write_all(verified.text().as_bytes())?
            }
            out.flush()?;
            verified.judge()?;
        }
    }
    Ok(out.flush()?)
}

async fn push(
    reference: &Reference,
    file: &Path,
    sign: Option<&Path>,
    registry: &RegistryArgs,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let key = sign.map(SigningKey::from_file).transpose()?;
    let bytes = read_component(file)?;
    // What an engine would refuse is not published.
    let seen = examine(&file.display().to_string(), Arc::clone(&bytes))?;
    judge(&seen, "nothing was pushed")?;
    let Inspection { name, version, component, .. } = seen.inspection;
    let (imports, exports) = component.map(|component| (component.imports, component.exports)).unwrap_or_default();
    let registries = registries(registry)?;
    let label = Label { name, version, imports, exports };
    let pinned = artifact::push(&registries, reference, Bytes::from_owner(bytes), &label).await?;
    writeln!(out, "pushed  {}@{} as {reference}", label.name, label.version)?;
    if let Some(key) = key {
        writeln!(out, "signed  {}", cosign::sign(&registries, &pinned, &key).await?)?;
    }
    // Alone on the last line, for scripts.
    writeln!(out, "{pinned}")?;
    Ok(())
}

/// What is known of a component that was checked.
#[derive(Debug, Serialize)]
struct Verified {
    /// The file, or the reference with its digest.
    name: String,
    /// SHA-256 of the component.
    sha256: String,
    /// `name@version`.
    policy: String,
    /// `cost` or `placement`.
    kind: &'static str,
    /// The boundary that it was built for.
    boundary: String,
    signature: Signature,
    cases: usize,
    /// Cases that are not decided as they expect, with what differs.
    failed: Vec<String>,
}

/// What is known of its signature.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Signature {
    /// By this key.
    By(String),
    /// Nobody said whose would count.
    NotChecked,
}

async fn verify(
    policy: &str,
    keys: &[PathBuf],
    signature: Option<PathBuf>,
    registry: &RegistryArgs,
) -> Result<Verified, CliError> {
    let keys = keys.iter().map(|path| PublicKey::from_file(path)).collect::<Result<Vec<_>, _>>()?;
    let trust = if keys.is_empty() { Trust::Anyone } else { Trust::Keys(keys.into()) };
    let path = PathBuf::from(policy);
    let (sources, origin) = if path.exists() {
        (
            Sources::new(trust, Registries::new(Credentials::default(), Vec::new()), None),
            Origin::File { path, sha256: None, signature },
        )
    } else {
        let reference: Reference = policy.parse().map_err(|error| match error {
            // It looks like neither: both are said.
            SourceError::NotAReference { text, reason } => SourceError::NotAReference {
                text,
                reason: format!("there is no such file, and as a reference {reason}"),
            },
            other => other,
        })?;
        let sources = Sources::new(trust, registries(registry)?, None);
        let pinned = sources.resolve(&reference).await?;
        (sources, Origin::Oci(pinned))
    };
    let Component { name, bytes, digest, signer } = sources.component(&origin).await?;
    let Examination { inspection, trial } = examine(&name, bytes)?;
    let failed = trial.runs.iter().filter(|run| !run.problems.is_empty());
    let failed = failed.map(|run| format!("{} ({}): {}", run.case, run.on, run.problems.join("; "))).collect();
    Ok(Verified {
        name,
        sha256: digest.hex(),
        policy: format!("{}@{}", inspection.name, inspection.version),
        kind: inspection.kind,
        boundary: inspection.boundary,
        signature: signer.map_or(Signature::NotChecked, |key| Signature::By(key.to_string())),
        cases: inspection.cases.len(),
        failed,
    })
}

impl Verified {
    fn text(&self) -> String {
        let Verified { name, sha256, policy, kind, boundary, signature, cases, failed } = self;
        let signature = match signature {
            Signature::By(key) => format!("by {key}"),
            Signature::NotChecked => "not checked; --key says whose counts".to_owned(),
        };
        let mut fields = Fields::default();
        fields.add("sha256", sha256.clone()).add("policy", policy.clone()).add("world", format!("{kind}, {boundary}"));
        fields.add("signature", signature).add("cases", format!("{cases}, {} failed", failed.len()));
        fields.add("failed", failed.join("\n"));
        format!("{name}\n{}", fields.render())
    }

    fn judge(&self) -> Result<(), CliError> {
        match self.failed.len() {
            0 => Ok(()),
            failed => Err(CliError::PolicyFails { what: format!("{failed} cases are not decided as they expect") }),
        }
    }
}

pub(super) fn judge(seen: &Examination, then: &str) -> Result<(), CliError> {
    match seen.trial.failed() {
        0 => Ok(()),
        failed => Err(CliError::PolicyFails {
            what: format!("{failed} cases of {} are not decided as they expect; {then}", seen.trial.policy),
        }),
    }
}

fn registries(args: &RegistryArgs) -> Result<Registries, CliError> {
    let credentials = Credentials::from_environment(|name| std::env::var_os(name));
    let credentials = credentials.map_err(|message| CliError::Usage {
        message,
        advice: "log in anew with `docker login` or `podman login`, or mend what is there".to_owned(),
    })?;
    Ok(Registries::new(credentials, args.insecure_registries.clone()))
}
