//! What a policy says of itself.

use vmetal_model::PolicyFacts;
use vmetal_policy_sdk::WIT_VERSION;

use crate::error::LoadError;
use crate::seat::Seat;
use crate::slot::{Holder, Identity};

/// What a policy that was loaded is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portrait {
    /// Name, version, digest.
    pub identity: Identity,
    /// The same for an object's status, with what else it says of itself.
    pub facts: PolicyFacts,
    /// The JSON Schema of its settings, as it gives it.
    pub settings_schema: String,
}

impl Portrait {
    pub(crate) fn of<S: Seat>(holder: &Holder<S>) -> Result<Self, LoadError> {
        let probe = |source| LoadError::Probe { policy: holder.identity.to_string(), call: "settings-schema", source };
        let settings_schema = holder.settings_schema().map_err(probe)?;
        let identity = holder.identity.clone();
        let facts = PolicyFacts {
            name: identity.name.clone(),
            version: identity.version.clone(),
            world: format!("vmetal:policy/{}-policy@{WIT_VERSION}", S::INTERFACE),
            reasons: holder.info.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.text)).collect(),
        };
        Ok(Portrait { identity, facts, settings_schema })
    }
}
