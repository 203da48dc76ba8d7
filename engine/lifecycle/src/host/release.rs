//! Deprovisioning: off, then the Node object goes, then every disk is erased, then back to the pool.

use vmetal_model::agent::BootPurpose;
use vmetal_model::{ClaimState, HostPhase, Stage};

use super::Turn;
use super::installer::Run;
use crate::grant::Vacancy;

impl Turn<'_> {
    pub(super) fn deprovision(&mut self) {
        let (node_gone, node) = match (&self.status.claim, &self.status.unerased) {
            (Some(claim), _) => (claim.state == ClaimState::Erase, claim.node.as_str()),
            // The Node of a tenancy that ended without a release is the tenant node's affair.
            (None, Some(ended)) => (true, ended.node.as_str()),
            // Nobody's: no Node was ever made of it.
            (None, None) if self.status.standby.is_some() => (true, ""),
            // What was there went with the erase record; only the power is left.
            (None, None) => return self.back_to_pool(),
        };
        match self.status.stage {
            Stage::Off if !node_gone => {
                if self.off() {
                    self.stage(Stage::NodeRemoval);
                }
            }
            Stage::NodeRemoval if !node_gone => {
                let unblocks = format!("tenant node {node} has deleted its Node from the tenant's cluster");
                self.wait("the Node object to go", unblocks, None);
            }
            Stage::NodeRemoval => self.stage(Stage::Open),
            _ => {
                if self.installer(BootPurpose::Erase, self.limits.erase) == Run::Done {
                    self.stage(Stage::OffAgain);
                }
            }
        }
    }

    fn back_to_pool(&mut self) {
        if self.status.stage != Stage::OffAgain {
            return self.stage(Stage::OffAgain);
        }
        if !self.off() {
            return;
        }
        match Vacancy::of(&self.status) {
            // After a quarantine nothing that was known before is believed.
            Some(_) if self.status.registered_as.is_none() => {
                self.status.boot = None;
                self.enter(HostPhase::Registering, Stage::Address, "erased after a quarantine");
            }
            Some(vacancy) => self.enter_pool(vacancy, "erased and off"),
            None => self.stage(Stage::Off),
        }
    }
}
