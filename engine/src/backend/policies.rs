//! Policies before they are declared: their components come in, and they are tried.

use std::sync::Arc;

use vmetal_api::{BackendError, Caller};
use vmetal_model::{FieldError, PolicyCheck, PolicySpec, Validate as _};
use vmetal_store::{Guard, Write};

use crate::components::{self, ComponentError};
use crate::engine::Engine;
use crate::seats::Problem;

impl From<ComponentError> for BackendError {
    fn from(error: ComponentError) -> Self {
        let message = error.to_string();
        match error {
            ComponentError::Missing { .. } => BackendError::Precondition {
                message,
                advice: "hand the component over, then declare the policy".to_owned(),
            },
            ComponentError::Digest { .. } => {
                BackendError::Invalid { errors: vec![FieldError::new("component", message)] }
            }
            ComponentError::Damaged { .. } => BackendError::Internal { message },
            ComponentError::Read(_) | ComponentError::Commit(_) => BackendError::Unavailable { message },
        }
    }
}

/// What a commit needs that declares a policy with this component.
pub(super) async fn held(engine: &Engine, sha256: &str) -> Result<(Guard, Write), BackendError> {
    Ok(components::hold(engine.ledger.store(), sha256).await?)
}

impl Engine {
    /// Keeps a component for a policy that is to be declared.
    pub(super) async fn put_component(
        &self,
        caller: &Caller,
        sha256: &str,
        bytes: Vec<u8>,
    ) -> Result<(), BackendError> {
        components::keep(self.ledger.store(), sha256, &bytes).await?;
        tracing::info!(by = %caller.token, sha256, bytes = bytes.len(), "a component was handed over");
        Ok(())
    }

    /// What would become of a policy, were it declared now.
    pub(super) async fn check_policy(self: &Arc<Self>, spec: &PolicySpec) -> Result<PolicyCheck, BackendError> {
        let errors = spec.validate();
        if !errors.is_empty() {
            return Err(BackendError::Invalid { errors });
        }
        match self.examine(spec).await {
            Ok(portrait) => Ok(PolicyCheck::Accepted {
                facts: portrait.facts,
                settings_schema: portrait.settings_schema,
                decided_by: self.fleet.deciding(spec.kind).map(|policy| policy.name().to_owned()),
            }),
            // Handed over again, a damaged one is mended.
            Err(Problem::Component(ComponentError::Missing { .. } | ComponentError::Damaged { .. })) => {
                Ok(PolicyCheck::ComponentMissing)
            }
            Err(Problem::Component(error)) => Err(error.into()),
            Err(problem @ Problem::Untrusted(_)) => {
                Err(BackendError::Invalid { errors: vec![FieldError::new("spec.signature", problem.to_string())] })
            }
            Err(Problem::Refused(error)) => Err(BackendError::Invalid { errors: error.field_errors() }),
            Err(Problem::BrokeOff(message)) => Err(BackendError::Internal { message }),
        }
    }
}
