//! The policy that holds a seat, and how it is exchanged.
//!
//! A new policy is loaded completely (checked, compiled, asked about itself and about its settings) before it takes the
//! seat, in one atomic step. A decision holds on to the policy that it began with, so an exchange neither delays nor
//! fails a decision, and every decision is made by exactly one policy.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use vmetal_policy_sdk as sdk;

use crate::component::sandbox::{Limits, Notes, Sandbox, Usage};
use crate::component::{Loaded, sha256};
use crate::error::{Fault, LoadError, OutputError};
use crate::seat::Seat;
use crate::snapshot::Snapshot;

/// Which policy holds a seat, with which settings, and what happens when it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Where the policy comes from.
    pub source: Source,
    /// Its settings as JSON text; empty for none.
    pub settings: String,
    /// What happens when it fails.
    pub on_failure: OnFailure,
}

impl Binding {
    /// The native twin of the shipped policy.
    pub fn native() -> Self {
        Binding { source: Source::Native, settings: String::new(), on_failure: OnFailure::Closed }
    }

    /// A component from a file, with the native twin behind it.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let source = Source::File { path: path.into(), sha256: None };
        Binding { source, settings: String::new(), on_failure: OnFailure::NativeTwin }
    }
}

/// Where a policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The shipped policy as compiled into this program.
    Native,
    /// A component in a file.
    File {
        /// The file.
        path: PathBuf,
        /// Its SHA-256 in hexadecimal, when it is pinned.
        sha256: Option<String>,
    },
    /// A component in memory.
    Bytes {
        /// What to call it in messages.
        name: String,
        /// The component.
        bytes: Arc<[u8]>,
        /// Its SHA-256 in hexadecimal, when it is pinned.
        sha256: Option<String>,
    },
}

/// What happens when a policy fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// There is no decision; the claim waits and says why.
    #[default]
    Closed,
    /// The shipped policy's native twin decides; the decision says so.
    NativeTwin,
}

/// Who decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The policy's name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// SHA-256 of the component in hexadecimal; none for a native twin.
    pub sha256: Option<String>,
    /// Counts the policies that have held the seat, from 1.
    pub generation: u64,
}

impl std::fmt::Display for Identity {
    /// `cost-vcluster@0.1.0 sha256:…`, or `… native`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.sha256 {
            Some(sha256) => write!(f, "{}@{} sha256:{sha256}", self.name, self.version),
            None => write!(f, "{}@{} native", self.name, self.version),
        }
    }
}

/// A policy that is ready to decide.
pub(crate) struct Holder<S: Seat> {
    pub(crate) identity: Identity,
    pub(crate) info: sdk::Info,
    pub(crate) settings: String,
    pub(crate) on_failure: OnFailure,
    /// The strings whose symbols it wants.
    symbols: Vec<String>,
    /// None for the native twin.
    component: Option<Loaded<S>>,
    notes: usize,
}

/// An answer and what it took.
pub(crate) struct Answered<A> {
    pub(crate) answer: A,
    /// None for the native twin.
    pub(crate) fuel: Option<u64>,
    pub(crate) notes: Notes,
}

impl<S: Seat> Holder<S> {
    /// The native twin; its settings are empty, which every shipped policy accepts.
    pub(crate) fn twin(limits: &Limits, generation: u64) -> Self {
        let info = S::twin_info();
        let identity = Identity { name: info.name.clone(), version: info.version.clone(), sha256: None, generation };
        let symbols = S::twin_settings("").unwrap_or_default();
        Holder {
            identity,
            info,
            settings: String::new(),
            on_failure: OnFailure::Closed,
            symbols,
            component: None,
            notes: limits.notes,
        }
    }

    fn load(
        binding: &Binding,
        limits: &Limits,
        sandbox: impl FnOnce() -> Result<Arc<Sandbox>, LoadError>,
        generation: u64,
    ) -> Result<Self, LoadError> {
        let (policy, bytes, pin) = match &binding.source {
            Source::Native => {
                let mut twin = Self::twin(limits, generation);
                let refused = |messages| LoadError::Settings { policy: twin.identity.to_string(), messages };
                twin.symbols = S::twin_settings(&binding.settings).map_err(refused)?;
                twin.settings.clone_from(&binding.settings);
                return Ok(twin);
            }
            Source::File { path, sha256 } => {
                let unreadable = |source| LoadError::Unreadable { path: path.clone(), source };
                let policy = path.display().to_string();
                // The size is looked at before the bytes are, so that a wrong path cannot fill the memory.
                let size = std::fs::metadata(path).map_err(unreadable)?.len();
                within(&policy, size, limits)?;
                (policy, Arc::from(std::fs::read(path).map_err(unreadable)?), sha256)
            }
            Source::Bytes { name, bytes, sha256 } => (name.clone(), Arc::clone(bytes), sha256),
        };
        within(&policy, bytes.len() as u64, limits)?;
        let seen = sha256(&bytes);
        if let Some(expected) = pin.as_ref().filter(|pin| !pin.eq_ignore_ascii_case(&seen)) {
            return Err(LoadError::DigestMismatch { policy, expected: expected.clone(), seen });
        }
        let component = Loaded::<S>::new(sandbox()?, &policy, &bytes)?;
        let probe = |call| {
            let policy = policy.clone();
            move |source| LoadError::Probe { policy, call, source }
        };
        let info = component.describe().map_err(probe("describe"))?;
        if info.kind != S::KIND {
            return Err(LoadError::WrongKind { policy, wanted: S::KIND, seen: info.kind });
        }
        let mut codes: Vec<u32> = info.reasons.iter().map(|reason| reason.code).collect();
        codes.sort_unstable();
        let reserved = codes.iter().find(|code| **code < sdk::gate::FIRST_OWN);
        let twice = codes.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
        if let Some(code) = reserved.or(twice) {
            return Err(LoadError::BadReason { policy, code: *code });
        }
        let symbols = component
            .validate_settings(&binding.settings)
            .map_err(probe("validate-settings"))?
            .map_err(|messages| LoadError::Settings { policy, messages })?;
        let identity =
            Identity { name: info.name.clone(), version: info.version.clone(), sha256: Some(seen), generation };
        Ok(Holder {
            identity,
            info,
            settings: binding.settings.clone(),
            on_failure: binding.on_failure,
            symbols,
            component: Some(component),
            notes: limits.notes,
        })
    }

    /// Asks the policy; the answer has still to be checked.
    pub(crate) fn ask(
        &self,
        input: &Snapshot<S::Table>,
        check: impl FnOnce(&S::Answer, &sdk::Info) -> Result<(), OutputError>,
    ) -> Result<Answered<S::Answer>, Fault> {
        let ctx = input.context(&self.settings, &self.symbols);
        let (answer, fuel, notes) = match &self.component {
            Some(component) => {
                let (answer, Usage { fuel, notes }) = component.answer(&ctx, &input.claim, &input.table)?;
                (answer, Some(fuel), notes)
            }
            None => {
                let mut notes = Notes::up_to(self.notes);
                (S::twin_answer(&ctx, &input.claim, &input.table, &mut notes), None, notes)
            }
        };
        check(&answer, &self.info)?;
        Ok(Answered { answer, fuel, notes })
    }

    /// The parts of a row's price or score.
    pub(crate) fn explain(&self, input: &Snapshot<S::Table>, row: u32) -> Result<Vec<sdk::Factor>, Fault> {
        let ctx = input.context(&self.settings, &self.symbols);
        match &self.component {
            Some(component) => Ok(component.explain(&ctx, &input.claim, &input.table, row)?),
            None => Ok(S::twin_explain(&ctx, &input.claim, &input.table, row)),
        }
    }
}

fn within(policy: &str, size: u64, limits: &Limits) -> Result<(), LoadError> {
    if size > limits.component_bytes {
        return Err(LoadError::TooLarge { policy: policy.to_owned(), size, limit: limits.component_bytes });
    }
    Ok(())
}

/// A seat with its present holder.
pub(crate) struct Slot<S: Seat> {
    current: ArcSwap<Holder<S>>,
    generation: AtomicU64,
}

impl<S: Seat> Slot<S> {
    pub(crate) fn new(
        binding: &Binding,
        limits: &Limits,
        sandbox: impl FnOnce() -> Result<Arc<Sandbox>, LoadError>,
    ) -> Result<Self, LoadError> {
        let holder = Holder::load(binding, limits, sandbox, 1)?;
        Ok(Slot { current: ArcSwap::from_pointee(holder), generation: AtomicU64::new(1) })
    }

    /// Loads a policy and seats it. When loading fails, the present one stays.
    pub(crate) fn install(
        &self,
        binding: &Binding,
        limits: &Limits,
        sandbox: impl FnOnce() -> Result<Arc<Sandbox>, LoadError>,
    ) -> Result<Identity, LoadError> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let holder = Holder::load(binding, limits, sandbox, generation)?;
        let identity = holder.identity.clone();
        self.current.store(Arc::new(holder));
        Ok(identity)
    }

    pub(crate) fn holder(&self) -> Arc<Holder<S>> {
        self.current.load_full()
    }
}
