//! Deprovisioning: off, then the Node object goes, then every disk is erased, then back to the pool.

use vmetal_model::agent::BootPurpose;
use vmetal_model::{ClaimState, HostPhase, Stage};

use super::Turn;
use super::installer::Run;

impl Turn<'_> {
    pub(super) fn deprovision(&mut self) {
        let Some(claim) = &self.status.claim else {
            // The claim went with the erase record; only the power is left.
            return self.back_to_pool();
        };
        let node_gone = claim.state == ClaimState::Erase;
        match self.status.stage {
            Stage::Off if !node_gone => {
                if self.off() {
                    self.stage(Stage::NodeRemoval);
                }
            }
            Stage::NodeRemoval if !node_gone => {
                let unblocks = format!("tenant node {} has deleted its Node from the tenant's cluster", claim.node);
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
        if self.off() {
            self.status.boot = None;
            self.enter(HostPhase::Available, Stage::Idle, "erased and off");
        }
    }
}
