//! The component of a policy: a file here, bytes under their digest there.

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use tfplugin::{Diagnostic, Diagnostics, Path};
use vmetal_api::{ApiError, Client};
use vmetal_model::{Duty, PolicyCheck, PolicySpec, policy::LARGEST_COMPONENT};

use crate::{convert::sentence, explain::refused, policy::Policies};

/// How every WebAssembly file begins.
const WASM: [u8; 4] = *b"\0asm";
/// How a component goes on; a core module goes on with 1, 0, 0, 0.
const COMPONENT: [u8; 4] = [13, 0, 1, 0];

/// A component that was read.
pub(crate) struct Component {
    source: String,
    bytes: Arc<[u8]>,
    /// SHA-256 in hexadecimal.
    pub(crate) sha256: String,
}

fn wrong(source: &str, why: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error("The component cannot be used", format!("{source:?} {why}.")).at(Path::attr("source"))
}

impl Component {
    /// Reads a file, and looks whether it can be one at all. Everything else is the engine's to say.
    pub(crate) async fn read(source: &str) -> Result<Self, Diagnostic> {
        let unreadable = |error: std::io::Error| {
            let here = std::env::current_dir().map_or_else(|_| ".".to_owned(), |path| path.display().to_string());
            wrong(
                source,
                format!(
                    "cannot be read: {error}. Expected the component's file on the machine that runs Terraform; relative paths \
                     begin at {here}, and `vmetal policy build` writes components"
                ),
            )
        };
        let facts = tokio::fs::metadata(source).await.map_err(unreadable)?;
        if !facts.is_file() {
            return Err(wrong(source, "is not a file"));
        }
        // Before it is read: a wrong path must not fill the memory.
        if facts.len() > LARGEST_COMPONENT {
            return Err(wrong(
                source,
                format!("is {} bytes large; at most {LARGEST_COMPONENT} are allowed", facts.len()),
            ));
        }
        let bytes = tokio::fs::read(source).await.map_err(unreadable)?;
        match (bytes.get(..4), bytes.get(4..8)) {
            (Some(magic), Some(layer)) if magic == WASM && layer == COMPONENT => {}
            (Some(magic), Some(_)) if magic == WASM => {
                return Err(wrong(
                    source,
                    "is a core WebAssembly module; a component is wanted, which `vmetal policy build` makes",
                ));
            }
            _ => {
                return Err(wrong(
                    source,
                    "is not WebAssembly; a component is wanted, which `vmetal policy build` makes",
                ));
            }
        }
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Ok(Component { source: source.to_owned(), bytes: bytes.into(), sha256 })
    }

    /// The file is another one than was planned with.
    pub(crate) fn changed(&self, planned: &str) -> Diagnostic {
        let detail = format!(
            "{:?} had sha256 {planned} when the plan was made and has {} now. Plan again and apply that plan.",
            self.source, self.sha256
        );
        Diagnostic::error("The component changed after the plan", detail).at(Path::attr("source"))
    }
}

/// Has the engine try a policy; gives it the component if it does not have it.
async fn check(client: &Client, spec: &PolicySpec, component: &Component) -> Result<PolicyCheck, ApiError> {
    let first = client.check_policy(spec).await?;
    if first != PolicyCheck::ComponentMissing {
        return Ok(first);
    }
    client.put_component(&component.sha256, Arc::clone(&component.bytes)).await?;
    client.check_policy(spec).await
}

/// What the plan should say about a policy.
pub(crate) async fn foresee(client: &Client, name: &str, spec: &PolicySpec, component: &Component) -> Diagnostics {
    let client = client.with_patience(Duration::ZERO);
    match check(&client, spec, component).await {
        Ok(PolicyCheck::Accepted { decided_by: Some(other), .. }) if spec.duty == Duty::Decides && other != name => {
            let detail = format!(
                "Now the policy {other:?} decides on {}, and only one can. Unless this apply first deletes that one or sets its \
                 active to false (let this resource depend on it), the engine will refuse this one.",
                spec.kind
            );
            Diagnostic::warning("Another policy decides already", detail).at(Path::attr("active")).into()
        }
        Ok(_) => Diagnostics::new(),
        Err(error @ ApiError::Invalid(_)) => refused::<Policies>("trying the policy", error),
        Err(error) if error.is_transient() => {
            tracing::info!(target: "provider", %error, "the policy could not be tried while planning");
            Diagnostics::new()
        }
        Err(error) => Diagnostic::warning(
            "The policy could not be tried while planning",
            format!("{} {} The apply tries it.", sentence(&error.to_string()), sentence(&error.advice())),
        )
        .into(),
    }
}

/// Gives the engine the component, if it does not have it, and asks whether the policy will do.
pub(crate) async fn hand_over(client: &Client, spec: &PolicySpec, component: &Component) -> Result<(), Diagnostics> {
    match check(client, spec, component).await {
        Ok(_) => Ok(()),
        Err(error) => Err(refused::<Policies>(&format!("handing over {:?}", component.source), error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_a_component_is_told_from_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let large = file("large.wasm", b"");
        // A file of holes: it takes no room, and reading it would show.
        std::fs::OpenOptions::new().write(true).open(&large).unwrap().set_len(LARGEST_COMPONENT + 1).unwrap();
        for (source, why) in [
            (file("module.wasm", b"\0asm\x01\0\0\0"), "core WebAssembly module"),
            (file("script.wasm", b"#!/bin/sh\n"), "is not WebAssembly"),
            (file("short.wasm", b"\0as"), "is not WebAssembly"),
            (large, "at most 33554432 are allowed"),
            (dir.path().display().to_string(), "is not a file"),
            (dir.path().join("none.wasm").display().to_string(), "cannot be read: No such file"),
        ] {
            let refused = Component::read(&source).await.err().unwrap();
            assert!(refused.detail.contains(why) && refused.detail.contains(&source), "{refused:?}");
            assert_eq!(refused.path, Some(Path::attr("source")));
        }
        let component = Component::read(&file("good.wasm", b"\0asm\x0d\0\x01\0")).await.unwrap();
        assert_eq!(component.sha256.len(), 64);
        assert!(component.changed("ab").detail.contains(&component.sha256));
    }
}
