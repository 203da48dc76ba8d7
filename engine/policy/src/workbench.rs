//! A policy on its author's bench: loaded as an engine loads it, but for its own cases, which are run one by one to be told
//! about, and with nobody behind it, so that a failure shows.

use std::path::Path;
use std::sync::Arc;

use vmetal_model::OnFailure;
use vmetal_policy_sdk::{Info, Kind};

use crate::cases::{Case, CaseError};
use crate::component::cache::{Compiler, Kept};
use crate::component::sandbox::{Allowance, Limits, interprets};
use crate::component::scan;
use crate::component::sha256;
use crate::decision::Record;
use crate::engine::{Config, PolicyEngine};
use crate::error::{LoadError, RunError};
use crate::seat::shipped;
use crate::slot::{self, Binding, Identity, Source};

/// What a component's file says of it, before any of it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// Its size in bytes.
    pub size: usize,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// How long it may compute.
    pub allowance: Allowance,
    cases: Option<String>,
}

/// One policy, ready to be asked.
pub struct Workbench {
    engine: PolicyEngine,
    kind: Kind,
    outside: Option<Outside>,
}

impl Workbench {
    /// A component from a file, of whichever kind it is. In the directory `cache`, if there is to be one, the machine code of
    /// a component that brings an interpreter is kept: compiling that takes many seconds, and little of it is the policy.
    ///
    /// # Errors
    /// As when an engine loads it, except that its cases are not run.
    pub fn component(path: &Path, settings: &str, cache: Option<&Path>) -> Result<Self, LoadError> {
        Self::bytes(path.display().to_string(), slot::read(path, &Limits::default())?, settings, cache)
    }

    /// A component in memory; `name` is what messages call it.
    ///
    /// # Errors
    /// As [`Workbench::component`].
    pub fn bytes(name: String, bytes: Arc<[u8]>, settings: &str, cache: Option<&Path>) -> Result<Self, LoadError> {
        let outline = scan::outline(&name, &bytes)?;
        // One that exports neither is refused for that when it is loaded, after what matters more.
        let kind = if outline.exports_some("cost") { Kind::Cost } else { Kind::Placement };
        let outside = Outside {
            size: bytes.len(),
            sha256: sha256(&bytes),
            imports: outline.imports,
            exports: outline.exports,
            allowance: Limits::default().allowance(bytes.len()),
            cases: outline.cases,
        };
        let kept = cache
            .filter(|_| interprets(bytes.len()))
            .map(|directory| Kept { directory: directory.to_owned(), compiler: Compiler::Here });
        Self::open(kind, Source::Bytes { name, bytes, sha256: None }, settings, Some(outside), kept)
    }

    /// A shipped policy as compiled into this program.
    ///
    /// # Errors
    /// When no shipped policy has the name, or it refuses the settings.
    pub fn native(name: &str, settings: &str) -> Result<Self, LoadError> {
        let kind = if shipped(Kind::Cost).contains(&name) { Kind::Cost } else { Kind::Placement };
        let source = Source::Native { name: name.to_owned() };
        Self::open(kind, source, settings, None, None).map_err(|error| match error {
            LoadError::UnknownName { name, .. } => {
                let known = [shipped(Kind::Cost), shipped(Kind::Placement)].concat().join(", ");
                LoadError::UnknownName { name, known }
            }
            other => other,
        })
    }

    fn open(
        kind: Kind,
        source: Source,
        settings: &str,
        outside: Option<Outside>,
        cache: Option<Kept>,
    ) -> Result<Self, LoadError> {
        let engine = PolicyEngine::new(Config { hosts_kept: usize::MAX, cache, ..Config::native() })?;
        let binding = Binding { source, settings: settings.to_owned(), on_failure: OnFailure::Closed };
        engine.install_untried(kind, &binding)?;
        Ok(Workbench { engine, kind, outside })
    }

    /// The same, whose records keep so many hosts, as an engine's do.
    #[must_use]
    pub fn keeping(mut self, hosts: usize) -> Self {
        self.engine.hosts_kept = hosts;
        self
    }

    /// Which decision it takes.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Name, version and digest.
    pub fn identity(&self) -> Identity {
        let [cost, placement] = self.engine.identities();
        match self.kind {
            Kind::Cost => cost,
            Kind::Placement => placement,
        }
    }

    /// What its file says of it; none for a native twin.
    pub fn outside(&self) -> Option<&Outside> {
        self.outside.as_ref()
    }

    /// What it says of itself, asked in a fresh instance.
    ///
    /// # Errors
    /// When the call fails.
    pub fn describe(&self) -> Result<Info, RunError> {
        match self.kind {
            Kind::Cost => self.engine.cost.holder().describe(),
            Kind::Placement => self.engine.placement.holder().describe(),
        }
    }

    /// The JSON Schema of its settings, as text.
    ///
    /// # Errors
    /// When the call fails.
    pub fn settings_schema(&self) -> Result<String, RunError> {
        match self.kind {
            Kind::Cost => self.engine.cost.holder().settings_schema(),
            Kind::Placement => self.engine.placement.holder().settings_schema(),
        }
    }

    /// The cases that the component brings; none for a native twin.
    ///
    /// # Errors
    /// When they are not what [`crate::componentize`] writes.
    pub fn cases(&self) -> Result<Vec<Case>, LoadError> {
        let text = self.outside.as_ref().and_then(|outside| outside.cases.as_deref());
        text.map_or(Ok(Vec::new()), serde_json::from_str).map_err(|error: serde_json::Error| LoadError::Smoke {
            policy: self.identity().to_string(),
            case: "(all)".to_owned(),
            detail: format!("they cannot be read: {error}"),
        })
    }

    /// Runs one case with its settings.
    ///
    /// # Errors
    /// When the policy refuses the settings or fails. What is not as expected is told by [`Case::problems`].
    pub fn run_case(&self, case: &Case) -> Result<Record, CaseError> {
        self.engine.run_case(self.kind, case)
    }

    /// The policy in its seat, with a default policy in the other one. Its records keep every host.
    pub fn engine(&self) -> &PolicyEngine {
        &self.engine
    }
}
