//! The policy that holds a seat, and how it is exchanged.
//!
//! A new policy is loaded completely (checked, compiled, asked about itself and about its settings) before it takes the
//! seat, in one atomic step. A decision holds on to the policy that it began with, so an exchange neither delays nor
//! fails a decision, and every decision is made by exactly one policy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use vmetal_model::OnFailure;
use vmetal_policy_sdk as sdk;

use crate::component::sandbox::{Limits, Notes, Sandbox, Usage};
use crate::component::{Loaded, sha256};
use crate::error::{Fault, LoadError, OutputError, RunError};
use crate::journal::{Decider, JournalError};
use crate::seat::{Native, Seat};
use crate::settings::refusal;
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
    /// The native twin of a shipped policy.
    pub fn native(name: impl Into<String>) -> Self {
        let source = Source::Native { name: name.into() };
        Binding { source, settings: String::new(), on_failure: OnFailure::Closed }
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
    /// A shipped policy as compiled into this program.
    Native {
        /// Its name, for example `place-balanced`.
        name: String,
    },
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

/// How a policy is run.
enum Runner<S: Seat> {
    Native(&'static Native<S>),
    Component(Arc<Loaded<S>>),
}

/// A policy that is ready to decide.
pub(crate) struct Holder<S: Seat> {
    pub(crate) identity: Identity,
    pub(crate) info: sdk::Info,
    pub(crate) settings: String,
    /// The strings whose symbols it wants.
    symbols: Vec<String>,
    runner: Runner<S>,
    /// Who decides when it fails; none when there is no decision then.
    pub(crate) twin: Option<Arc<Holder<S>>>,
    breaker: Mutex<Breaker>,
    notes: usize,
}

/// Failures in a row after which a policy is not asked for a while: each failure may cost the whole allowance of fuel.
const FAILURES: u32 = 3;
/// For how long, in seconds of the time that decisions are given.
const REST: u64 = 60;

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    rests_until: u64,
}

/// An answer and what it took.
pub(crate) struct Answered<A> {
    pub(crate) answer: A,
    /// None for the native twin.
    pub(crate) fuel: Option<u64>,
    pub(crate) notes: Notes,
}

/// How a holder comes into being: what all of them share.
pub(crate) struct Loader<'a, F> {
    pub(crate) limits: &'a Limits,
    pub(crate) sandbox: F,
}

impl<S: Seat> Holder<S> {
    /// A shipped policy as compiled into this program.
    fn native(native: &'static Native<S>, settings: &str, limits: &Limits, generation: u64) -> Result<Self, LoadError> {
        let info = (native.describe)();
        let identity = Identity { name: info.name.clone(), version: info.version.clone(), sha256: None, generation };
        let symbols = (native.settings)(settings)
            .map_err(|messages| refusal(identity.to_string(), messages, &(native.schema)(), settings))?;
        Ok(Holder {
            identity,
            info,
            settings: settings.to_owned(),
            symbols,
            runner: Runner::Native(native),
            twin: None,
            breaker: Mutex::default(),
            notes: limits.notes,
        })
    }

    /// The stand-in for a component: its own twin with its settings, or the default policy of the seat with none.
    fn twin_of(info: &sdk::Info, settings: &str, limits: &Limits, generation: u64) -> Result<Self, LoadError> {
        match S::shipped(&info.name) {
            Some(native) => Self::native(native, settings, limits, generation),
            None => Self::native(&S::SHIPPED[0], "", limits, generation),
        }
    }

    fn load(
        binding: &Binding,
        loader: Loader<'_, impl FnOnce() -> Result<Arc<Sandbox>, LoadError>>,
        generation: u64,
    ) -> Result<Self, LoadError> {
        let limits = loader.limits;
        let (policy, bytes, pin) = match &binding.source {
            Source::Native { name } => {
                let native = S::shipped(name).ok_or_else(|| LoadError::UnknownName {
                    name: name.clone(),
                    known: S::SHIPPED.iter().map(|native| native.name).collect::<Vec<_>>().join(", "),
                })?;
                return Self::native(native, &binding.settings, limits, generation);
            }
            Source::File { path, sha256 } => (path.display().to_string(), read(path, limits)?, sha256),
            Source::Bytes { name, bytes, sha256 } => (name.clone(), Arc::clone(bytes), sha256),
        };
        within(&policy, bytes.len() as u64, limits)?;
        let seen = sha256(&bytes);
        if let Some(expected) = pin.as_ref().filter(|pin| !pin.eq_ignore_ascii_case(&seen)) {
            return Err(LoadError::DigestMismatch { policy, expected: expected.clone(), seen });
        }
        let component = Loaded::<S>::new((loader.sandbox)()?, &policy, &bytes, &seen)?;
        let info = interview(&component, &policy)?;
        let probe = |call| {
            let policy = policy.clone();
            move |source| LoadError::Probe { policy, call, source }
        };
        let settings = component.validate_settings(&binding.settings).map_err(probe("validate-settings"))?;
        let symbols = match settings {
            Ok(symbols) => symbols,
            Err(messages) => {
                let schema = component.settings_schema().map_err(probe("settings-schema"))?;
                return Err(refusal(policy, messages, &schema, &binding.settings));
            }
        };
        let identity =
            Identity { name: info.name.clone(), version: info.version.clone(), sha256: Some(seen), generation };
        let twin = match binding.on_failure {
            OnFailure::Closed => None,
            OnFailure::NativeTwin => Some(Arc::new(Self::twin_of(&info, &binding.settings, limits, generation)?)),
        };
        Ok(Holder {
            identity,
            info,
            settings: binding.settings.clone(),
            symbols,
            runner: Runner::Component(Arc::new(component)),
            twin,
            breaker: Mutex::default(),
            notes: limits.notes,
        })
    }

    /// The same policy with other settings and nobody behind it.
    pub(crate) fn with_settings(&self, settings: &str) -> Result<Self, LoadError> {
        let policy = || self.identity.to_string();
        let (runner, symbols) = match &self.runner {
            Runner::Native(native) => (Runner::Native(native), (native.settings)(settings)),
            Runner::Component(component) => {
                let symbols = component.validate_settings(settings);
                let probe = |source| LoadError::Probe { policy: policy(), call: "validate-settings", source };
                (Runner::Component(Arc::clone(component)), symbols.map_err(probe)?)
            }
        };
        Ok(Holder {
            identity: self.identity.clone(),
            info: self.info.clone(),
            settings: settings.to_owned(),
            symbols: symbols.map_err(|messages| LoadError::Settings {
                policy: policy(),
                messages,
                places: Vec::new(),
            })?,
            runner,
            twin: None,
            breaker: Mutex::default(),
            notes: self.notes,
        })
    }

    /// What the policy says about itself now, asked in a fresh instance.
    pub(crate) fn describe(&self) -> Result<sdk::Info, RunError> {
        match &self.runner {
            Runner::Native(native) => Ok((native.describe)()),
            Runner::Component(component) => component.describe(),
        }
    }

    /// The JSON Schema of its settings, as it gives it.
    pub(crate) fn settings_schema(&self) -> Result<String, RunError> {
        match &self.runner {
            Runner::Native(native) => Ok((native.schema)()),
            Runner::Component(component) => component.settings_schema(),
        }
    }

    /// Which policy this is, and with which settings, for the log.
    pub(crate) fn decider(&self) -> Decider {
        let (policy, settings) = (self.identity.clone(), self.settings.clone());
        Decider { kind: S::INTERFACE.to_owned(), policy, settings }
    }

    /// Whether this is the policy of that name, version and code.
    fn is(&self, identity: &Identity) -> bool {
        let of = |one: &Identity| (one.name.clone(), one.version.clone(), one.sha256.clone());
        of(&self.identity) == of(identity)
    }

    /// The cases that the component brings, as JSON.
    pub(crate) fn embedded_cases(&self) -> Option<&str> {
        match &self.runner {
            Runner::Native(_) => None,
            Runner::Component(component) => component.cases.as_deref(),
        }
    }

    /// Asks the policy; the answer has still to be checked.
    pub(crate) fn ask(
        &self,
        input: &Snapshot<S::Table<'_>>,
        check: impl FnOnce(&S::Answer, &sdk::Info) -> Result<(), OutputError>,
    ) -> Result<Answered<S::Answer>, Fault> {
        if let Some(fault) = self.rests(input.now) {
            return Err(fault);
        }
        let asked = self.ask_now(input, check);
        self.judge(asked.is_ok(), input.now);
        asked
    }

    fn ask_now(
        &self,
        input: &Snapshot<S::Table<'_>>,
        check: impl FnOnce(&S::Answer, &sdk::Info) -> Result<(), OutputError>,
    ) -> Result<Answered<S::Answer>, Fault> {
        let ctx = input.context(&self.settings, &self.symbols);
        let (answer, fuel, notes) = match &self.runner {
            Runner::Component(component) => {
                let (answer, Usage { fuel, notes }) = component.answer(&ctx, &input.claim, &input.table)?;
                (answer, Some(fuel), notes)
            }
            Runner::Native(native) => {
                let mut notes = Notes::up_to(self.notes);
                ((native.answer)(&ctx, &input.claim, &input.table, &mut notes), None, notes)
            }
        };
        check(&answer, &self.info)?;
        Ok(Answered { answer, fuel, notes })
    }

    /// Why the policy is not to be asked now.
    fn rests(&self, now: u64) -> Option<Fault> {
        // Two plain numbers, valid whatever happened to another holder of the lock.
        let breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not make the pause longer than it was meant to be.
        let rests = breaker.failures >= FAILURES && now < breaker.rests_until && now + REST >= breaker.rests_until;
        rests.then_some(Fault::Resting { failures: breaker.failures, until: breaker.rests_until })
    }

    fn judge(&self, well: bool, now: u64) {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        breaker.failures = if well { 0 } else { breaker.failures.saturating_add(1) };
        breaker.rests_until = now.saturating_add(REST);
    }

    /// The parts of a row's price or score.
    pub(crate) fn explain(&self, input: &Snapshot<S::Table<'_>>, row: u32) -> Result<Vec<sdk::Factor>, Fault> {
        let ctx = input.context(&self.settings, &self.symbols);
        match &self.runner {
            Runner::Component(component) => Ok(component.explain(&ctx, &input.claim, &input.table, row)?),
            Runner::Native(native) => Ok((native.explain)(&ctx, &input.claim, &input.table, row)),
        }
    }
}

/// What the policy says about itself, if it is fit for the seat.
fn interview<S: Seat>(component: &Loaded<S>, policy: &str) -> Result<sdk::Info, LoadError> {
    let policy = || policy.to_owned();
    let info =
        component.describe().map_err(|source| LoadError::Probe { policy: policy(), call: "describe", source })?;
    if info.kind != S::KIND {
        return Err(LoadError::WrongKind { policy: policy(), wanted: S::KIND, seen: info.kind });
    }
    let mut codes: Vec<u32> = info.reasons.iter().map(|reason| reason.code).collect();
    codes.sort_unstable();
    let reserved = codes.iter().find(|code| **code < sdk::gate::FIRST_OWN);
    let twice = codes.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
    match reserved.or(twice) {
        Some(code) => Err(LoadError::BadReason { policy: policy(), code: *code }),
        None => Ok(info),
    }
}

/// The bytes of a component's file.
pub(crate) fn read(path: &Path, limits: &Limits) -> Result<Arc<[u8]>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    // The size is looked at before the bytes are, so that a wrong path cannot fill the memory.
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    within(&path.display().to_string(), size, limits)?;
    Ok(Arc::from(std::fs::read(path).map_err(unreadable)?))
}

fn within(policy: &str, size: u64, limits: &Limits) -> Result<(), LoadError> {
    if size > limits.component_bytes {
        return Err(LoadError::TooLarge { policy: policy.to_owned(), size, limit: limits.component_bytes });
    }
    Ok(())
}

/// A seat with its present holder, the one before, and the first.
pub(crate) struct Slot<S: Seat> {
    current: ArcSwap<Holder<S>>,
    /// Who had the seat first, and has it again when nobody else is to.
    first: Arc<Holder<S>>,
    /// Kept ready, so that going back needs nothing but a pointer. Also the lock that puts exchanges in order.
    previous: Mutex<Option<Arc<Holder<S>>>>,
    generation: AtomicU64,
}

impl<S: Seat> Slot<S> {
    pub(crate) fn new(
        binding: &Binding,
        loader: Loader<'_, impl FnOnce() -> Result<Arc<Sandbox>, LoadError>>,
        trial: impl FnOnce(&Holder<S>) -> Result<(), LoadError>,
    ) -> Result<Self, LoadError> {
        let holder = Holder::load(binding, loader, 1)?;
        trial(&holder)?;
        Ok(Self::held_by(Arc::new(holder)))
    }

    fn held_by(holder: Arc<Holder<S>>) -> Self {
        Slot {
            current: ArcSwap::new(Arc::clone(&holder)),
            first: holder,
            previous: Mutex::new(None),
            generation: AtomicU64::new(1),
        }
    }

    /// Loads a policy, tries it, and seats it. When that fails, the present one stays. Gives what the trial gave.
    pub(crate) fn install<T>(
        &self,
        binding: &Binding,
        loader: Loader<'_, impl FnOnce() -> Result<Arc<Sandbox>, LoadError>>,
        trial: impl FnOnce(&Holder<S>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let holder = Holder::load(binding, loader, generation)?;
        let tried = trial(&holder)?;
        self.take(Arc::new(holder));
        Ok(tried)
    }

    fn take(&self, holder: Arc<Holder<S>>) {
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        *previous = Some(self.current.swap(holder));
    }

    /// Seats the first holder again.
    pub(crate) fn restore(&self) -> Identity {
        self.take(Arc::clone(&self.first));
        self.first.identity.clone()
    }

    /// Seats the holder before the present one again; they change places. None when there was only one.
    pub(crate) fn roll_back(&self) -> Option<Identity> {
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        let back = previous.take()?;
        let identity = back.identity.clone();
        *previous = Some(self.current.swap(back));
        Some(identity)
    }

    pub(crate) fn holder(&self) -> Arc<Holder<S>> {
        self.current.load_full()
    }

    /// A seat whose holder is the policy of another time, with the settings of that time and nobody behind it; the present
    /// holder when none is named.
    pub(crate) fn as_of(&self, decider: Option<&Decider>, limits: &Limits) -> Result<Self, JournalError> {
        let holder = match decider {
            None => self.holder(),
            Some(decider) => Arc::new(self.found(&decider.policy, limits)?.with_settings(&decider.settings)?),
        };
        Ok(Self::held_by(holder))
    }

    /// The policy of this identity: seated now, before or first, standing by for either, or shipped.
    fn found(&self, identity: &Identity, limits: &Limits) -> Result<Arc<Holder<S>>, JournalError> {
        let previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let others = previous.into_iter().chain([Arc::clone(&self.first)]);
        let seated: Vec<Arc<Holder<S>>> = std::iter::once(self.holder()).chain(others).collect();
        let twins = seated.iter().filter_map(|holder| holder.twin.clone());
        if let Some(found) = twins.chain(seated.iter().cloned()).find(|holder| holder.is(identity)) {
            return Ok(found);
        }
        let shipped = S::shipped(&identity.name).map(|native| Holder::native(native, "", limits, 1)).transpose()?;
        match shipped {
            Some(holder) if holder.is(identity) => Ok(Arc::new(holder)),
            Some(holder) if identity.sha256.is_none() => {
                Err(JournalError::OtherVersion { policy: identity.to_string(), shipped: holder.identity.to_string() })
            }
            _ => {
                let present: BTreeSet<String> = seated.iter().map(|holder| holder.identity.to_string()).collect();
                let present = present.into_iter().collect::<Vec<_>>().join(", ");
                Err(JournalError::PolicyGone { policy: identity.to_string(), present })
            }
        }
    }
}
