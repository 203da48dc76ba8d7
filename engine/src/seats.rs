//! Through which objects this engine's policies are what they are.
//!
//! The configuration says who has a seat when the engine starts. A policy object that decides takes it over, on every engine,
//! and gives it back when it decides no more. Each engine loads for itself; a seat is exchanged only after the new policy is
//! loaded and has decided its own cases, and keeps who it has when that fails. What is in a seat is remembered here; what is to
//! be in it is read from the fleet each time, so a lost message costs time and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use tokio::sync::{MutexGuard, Semaphore};
use vmetal_model::policy::LARGEST_COMPONENT;
use vmetal_model::{Failure, InForce, Policy, PolicyFacts, PolicyKind, PolicySpec, Timestamp, Uid};
use vmetal_policy::{Binding, LoadError, Portrait, Source};
use vmetal_policy_source::{MOST_BYTES, SourceError, Trust};

use crate::causes::whole;
use crate::components::{self, ComponentError};
use crate::engine::Engine;

/// The pause before a policy that was refused is tried again: the machine, not the policy, may have been at fault.
pub(crate) const AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// Policies that are tried at the same time without being seated.
const TRIALS: usize = 2;

// Where a component comes from does not matter to how large it may be.
const _: () = assert!(MOST_BYTES == LARGEST_COMPONENT);

/// What has the seats, and what was tried.
pub struct Seats {
    places: Mutex<BTreeMap<PolicyKind, Place>>,
    /// Held while seats are exchanged.
    turn: tokio::sync::Mutex<()>,
    trials: Semaphore,
}

impl Default for Seats {
    fn default() -> Self {
        Seats { places: Mutex::default(), turn: tokio::sync::Mutex::default(), trials: Semaphore::new(TRIALS) }
    }
}

/// One seat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Who has it; none: the configuration's choice.
    pub(crate) held: Option<Held>,
    /// What was tried last.
    pub(crate) tried: Option<Tried>,
}

/// A policy object that has a seat.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) uid: Uid,
    pub(crate) in_force: InForce,
    pub(crate) facts: PolicyFacts,
}

/// A declaration that was tried.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    pub(crate) uid: Uid,
    pub(crate) spec: PolicySpec,
    pub(crate) at: Timestamp,
    /// Why it is refused; none when it has the seat.
    pub(crate) refused: Option<Failure>,
}

impl Tried {
    /// Whether this is what the object declares.
    pub(crate) fn is_of(&self, policy: &Policy) -> bool {
        self.uid == policy.metadata.uid && self.spec.decides_as(&policy.spec)
    }

    /// Whether nothing is to be tried now.
    pub(crate) fn stands(&self, policy: &Policy, now: Timestamp) -> bool {
        let again = self.at.saturating_add(AGAIN).unwrap_or(Timestamp::MAX);
        self.is_of(policy) && (self.refused.is_none() || now < again)
    }
}

impl Seats {
    pub(crate) fn place(&self, kind: PolicyKind) -> Place {
        self.with(|places| places.get(&kind).cloned().unwrap_or_default())
    }

    pub(crate) fn set(&self, kind: PolicyKind, place: Place) {
        self.with(|places| places.insert(kind, place));
    }

    /// Only one at a time looks and exchanges.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<PolicyKind, Place>) -> T) -> T {
        // Each is set in one step, so it is valid even if a holder of the lock panicked.
        f(&mut self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a policy cannot be seated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// Its component cannot be had.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// Its component is not signed as the configuration wants it.
    #[error("{}", whole(&**.0))]
    Untrusted(#[source] Box<SourceError>),
    /// It is not fit for the seat.
    #[error("{}", .0.whole())]
    Refused(Box<LoadError>),
    /// Loading it was not finished.
    #[error("loading the policy broke off: {0}")]
    BrokeOff(String),
}

impl Problem {
    /// Whether it says nothing about the policy: it is tried again soon.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Problem::Component(ComponentError::Read(_) | ComponentError::Commit(_)) | Problem::BrokeOff(_) => true,
            Problem::Component(_) | Problem::Untrusted(_) | Problem::Refused(_) => false,
        }
    }
}

/// How a declared policy is bound, if whoever made it is trusted. All that comes through the API passes here, at each load.
fn binding(spec: &PolicySpec, bytes: Arc<[u8]>, keys: Option<&[String]>) -> Result<Binding, Box<SourceError>> {
    let short = spec.sha256.get(..12).unwrap_or(&spec.sha256);
    let name = spec.origin.clone().unwrap_or_else(|| format!("sha256:{short}..."));
    Trust::of(keys)?.signer(&name, "spec.signature", spec.signature.as_ref().map(String::as_bytes), &bytes)?;
    Ok(Binding {
        source: Source::Bytes { name, bytes, sha256: Some(spec.sha256.clone()) },
        settings: spec.settings_text(),
        on_failure: spec.on_failure,
    })
}

impl Engine {
    /// Loads a policy and seats it.
    pub(crate) async fn seat(self: &Arc<Self>, spec: &PolicySpec) -> Result<Portrait, Problem> {
        self.load_policy(spec, |engine, kind, binding| engine.policies.install(kind, binding)).await
    }

    /// Loads a policy and seats nothing.
    pub(crate) async fn examine(self: &Arc<Self>, spec: &PolicySpec) -> Result<Portrait, Problem> {
        // Never closed: a place comes free sooner or later.
        let _place = self.seats.trials.acquire().await;
        self.load_policy(spec, |engine, kind, binding| engine.policies.examine(kind, binding)).await
    }

    /// Loading computes, for as long as a compiler may: on a thread for that.
    async fn load_policy(
        self: &Arc<Self>,
        spec: &PolicySpec,
        call: fn(&Engine, PolicyKind, &Binding) -> Result<Portrait, LoadError>,
    ) -> Result<Portrait, Problem> {
        let bytes = components::read(self.ledger.store(), &spec.sha256).await?;
        let (engine, spec) = (Arc::clone(self), spec.clone());
        let load = move || {
            let binding = binding(&spec, bytes, engine.config.policies.keys.as_deref()).map_err(Problem::Untrusted)?;
            call(&engine, spec.kind, &binding).map_err(|error| Problem::Refused(Box::new(error)))
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(loaded) => loaded,
            Err(error) => Err(Problem::BrokeOff(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// What makes a signature hold is tried where signatures are.
    #[test]
    fn where_keys_are_configured_an_unsigned_component_is_not_bound() {
        let declare = |signature: Option<&str>| {
            let spec = serde_json::json!({ "kind": "cost", "sha256": "ab".repeat(32), "signature": signature });
            serde_json::from_value::<PolicySpec>(spec).unwrap()
        };
        let bytes: Arc<[u8]> = Arc::from(*b"component");
        assert!(binding(&declare(None), Arc::clone(&bytes), None).is_ok());
        // P-256's base point is somebody's public key.
        let key = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n\
                   6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n";
        let keys = [key.to_owned()];
        let refused = |signature| *binding(&declare(signature), Arc::clone(&bytes), Some(&keys)).unwrap_err();
        assert!(matches!(refused(None), SourceError::Unsigned { .. }));
        assert!(!matches!(refused(Some("bm90IG9uZQ==")), SourceError::Unsigned { .. }));
        assert!(binding(&declare(None), bytes, Some(&[])).is_err(), "an empty list trusts nobody");
    }
}
