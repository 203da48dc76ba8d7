//! What an author's command can fail with.

use std::path::PathBuf;

use vmetal_policy::componentize::BuildError;
use vmetal_policy::journal::JournalError;
use vmetal_policy::{LoadError, PolicyError, RunError};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// A file cannot be read or written.
    #[error("cannot access {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory where a component is wanted.
    #[error("{} is a directory, a component's file is wanted; `vmetal policy build` makes one", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
    },
    /// Neither a file nor the name of a shipped policy.
    #[error("there is no file {name:?}, and no shipped policy is called so; shipped are {known}")]
    NoSuchPolicy {
        /// What was given.
        name: String,
        /// The shipped ones.
        known: String,
    },
    /// The policy is refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The crate could not be made a component.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The policy gave no decision.
    #[error("{when}")]
    Decision {
        /// What was decided.
        when: String,
        /// Why.
        #[source]
        source: PolicyError,
    },
    /// A log of decisions cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The policy could not be asked about itself.
    #[error("policy {policy} failed in {call}")]
    Call {
        /// Which.
        policy: String,
        /// The call.
        call: &'static str,
        /// How.
        #[source]
        source: RunError,
    },
    /// The schema that a policy gives is none.
    #[error("policy {policy} gives a settings schema that is no JSON")]
    Schema {
        /// Which.
        policy: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A file has not the form that is expected.
    #[error("{} is no {expected}: {reason}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// Where it differs.
        reason: String,
    },
    /// There is nothing to run.
    #[error("{what} brings no cases; write some into cases/*.yaml of its crate, or give a file with --cases")]
    NoCases {
        /// The policy.
        what: String,
    },
    /// Not a name for a crate.
    #[error("{name:?} is no name for a policy: small letters, digits and hyphens, beginning with a letter")]
    Name {
        /// What was given.
        name: String,
    },
    /// What is to be made is there already.
    #[error("{} is there already; nothing was changed", path.display())]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// The SDK is not where it was said to be.
    #[error("{} is not the policy SDK: its Cargo.toml does not name vmetal-policy-sdk; give policies/sdk of a checkout", path.display())]
    NotTheSdk {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is no such claim in the trace.
    #[error("no claim is called {name:?} in the trace; there are {known}")]
    NoSuchClaim {
        /// What was asked for.
        name: String,
        /// Some that there are.
        known: String,
    },
    /// There is no such host or node type in the fleet.
    #[error("the fleet has no {what} {name:?}")]
    NoSuchRow {
        /// Host or node type.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// What was asked for cannot be done.
    #[error("{message}")]
    Usage {
        /// Why, and what to do.
        message: String,
    },
}

impl ToolError {
    /// True when what was given is at fault, and not what became of it.
    pub fn is_usage(&self) -> bool {
        !matches!(self, ToolError::Load(_) | ToolError::Build(_) | ToolError::Decision { .. } | ToolError::Call { .. })
    }
}
