//! What would be decided for a tenant node that nobody has declared yet: the same rules and policies as for a real claim,
//! over the fleet as it is, and nothing is written.

use std::sync::Arc;

use vmetal_api::BackendError;
use vmetal_model::{Decision, GroupSpec, TenantNode, TenantNodeSpec, TenantNodeStatus, Validate};

use crate::engine::Engine;
use crate::ledger::{new_metadata, new_object};

impl Engine {
    /// Decides for `count` tenant nodes of this declaration, each as if those before it had their hosts; of one that is in a
    /// group, for `count` members of it together. Claims that wait are older and would be served first; they are not looked at,
    /// so that the answer says what the fleet can give.
    pub(super) fn preview_placement(&self, spec: &TenantNodeSpec, count: u32) -> Result<Vec<Decision>, BackendError> {
        let mut errors = spec.validate();
        if count > GroupSpec::LARGEST {
            let message = format!("{count} are too many to look at together; expected at most {}", GroupSpec::LARGEST);
            errors.push(vmetal_model::FieldError::new("count", message));
        }
        if !errors.is_empty() {
            return Err(BackendError::Invalid { errors });
        }
        let now = self.now();
        let claim = |number: u32| -> Arc<TenantNode> {
            let metadata = new_metadata(&format!("preview-{number}"), [0; 16], now);
            Arc::new(new_object(metadata, spec.clone(), TenantNodeStatus::new(now)))
        };
        let claims: Vec<_> = (0..count).map(claim).collect();
        let foreseen = self.foresee(&claims, spec.group.as_ref());
        foreseen.map_err(|failure| BackendError::Unavailable { message: failure.message })
    }
}
