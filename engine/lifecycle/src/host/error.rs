//! Error: nothing is done to the server until the declaration changes, or until it is time to see whether the cause went
//! away by itself.

use vmetal_model::{HostPhase, Stage};

use super::Turn;
use crate::limits::{Remedy, remedy};

impl Turn<'_> {
    pub(super) fn error(&mut self) {
        let declared = self.host.metadata.generation > self.status.observed_generation;
        let heals = self.status.failure.as_ref().is_some_and(|failure| remedy(failure.cause) == Remedy::Retry);
        let due = heals && self.status.retry.not_before.is_some_and(|when| when <= self.now);
        if !declared && !due {
            let unblocks = "the declaration changes (any label or annotation counts)".to_owned();
            return self.wait("an operator", unblocks, None);
        }
        let why = if declared { "the declaration changed" } else { "trying again" };
        self.status.observed_generation = self.host.metadata.generation;
        match self.status.failed_phase {
            Some(phase @ (HostPhase::Inspecting | HostPhase::Deprovisioning)) => self.enter(phase, Stage::Off, why),
            Some(phase @ HostPhase::Provisioning) => self.enter(phase, Stage::Seed, why),
            _ => self.enter(HostPhase::Registering, Stage::Address, why),
        }
    }
}
