//! What would be decided for a tenant node that nobody has declared yet: the same rules and policies as for a real claim,
//! over the fleet as it is, and nothing is written.

use vmetal_api::BackendError;
use vmetal_model::{Decision, GroupSpec, TenantNode, TenantNodeSpec, TenantNodeStatus, Validate};
use vmetal_policy::{Bars, Round};

use crate::engine::Engine;
use crate::ledger::{new_metadata, new_object};

impl Engine {
    /// Decides for `count` tenant nodes of this declaration, each as if those before it had their hosts. Claims that wait are
    /// older and would be served first; they are not looked at, so that the answer says what the fleet can give.
    pub(super) fn preview_placement(&self, spec: &TenantNodeSpec, count: u32) -> Result<Vec<Decision>, BackendError> {
        let mut errors = spec.validate();
        if count > GroupSpec::LARGEST {
            let message = format!("{count} are too many to look at together; expected at most {}", GroupSpec::LARGEST);
            errors.push(vmetal_model::FieldError::new("count", message));
        }
        if !errors.is_empty() {
            return Err(BackendError::Invalid { errors });
        }
        let (_, fleet) = self.fleet.look();
        let now = self.now();
        let mut round = Round::new(&self.fleet.node_types(), fleet, now).within(self.quotas());
        let mut decisions = Vec::new();
        for number in 0..count {
            let metadata = new_metadata(&format!("preview-{number}"), [0; 16], now);
            let node: TenantNode = new_object(metadata, spec.clone(), TenantNodeStatus::new(now));
            let outcome = round.decide(&self.policies, &node, &Bars::none());
            let outcome = outcome.map_err(|error| BackendError::Unavailable {
                message: format!("the policy gave no usable answer: {error}"),
            })?;
            if let Some(host) = &outcome.host {
                round.take(host, &node, outcome.decision.node_type.as_deref());
            }
            decisions.push(outcome.decision);
        }
        Ok(decisions)
    }
}
