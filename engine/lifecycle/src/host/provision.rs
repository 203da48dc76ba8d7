//! Provisioning: the image goes to the disk, the installed system boots and phones home. For a claim on a host that is on
//! standby with its image, all that is left of this is the last word.

use vmetal_model::agent::BootPurpose;
use vmetal_model::{Cause, ClaimState, Failure, HostPhase, Stage};

use super::Turn;
use super::installer::Run;

impl Turn<'_> {
    pub(super) fn provision(&mut self) {
        match self.status.stage {
            Stage::Seed => self.await_seed(),
            Stage::FirstBoot => self.await_first_boot(),
            Stage::HandOver => self.await_hand_over(),
            _ => {
                if self.status.claim.is_some() {
                    // From here on the disk is the claim's.
                    self.status.standby = None;
                }
                if self.installer(BootPurpose::Install, self.limits.install) == Run::Done {
                    self.stage(Stage::FirstBoot);
                }
            }
        }
    }

    fn await_seed(&mut self) {
        let Some(claim) = &self.status.claim else { return self.stage(Stage::Off) };
        if claim.state == ClaimState::Install {
            return self.begin_for_claim();
        }
        let unblocks = format!("tenant node {} has its join token and user data", claim.node);
        // The deadline is the tenant node's, which ends in `failed`; the host loses nothing by waiting for what comes then.
        self.wait("join token and user data", unblocks, None);
    }

    fn await_first_boot(&mut self) {
        if let Some(boot) = &self.status.boot
            && boot.phoned_home.is_some()
        {
            let why = "the installed system booted and phoned home";
            return match self.status.claim {
                Some(_) => self.enter(HostPhase::Provisioned, Stage::Idle, why),
                None => self.stand_by(why),
            };
        }
        let deadline = self.deadline(self.limits.first_boot);
        if self.now < deadline {
            return self.wait("the installed system to phone home", "its first boot".to_owned(), Some(deadline));
        }
        let limit = self.limits.first_boot;
        self.breached(deadline);
        self.fail(Failure {
            cause: Cause::BootSilent,
            message: format!("the image was written, but the installed system did not phone home within {limit:#}"),
            advice: "look at the host's console: firmware boot order, boot loader, network, cloud-init".to_owned(),
            at: self.now,
        });
    }

    pub(super) fn provisioned(&mut self) {
        self.status.observed_generation = self.host.metadata.generation;
        let node = self.status.claim.as_ref().map_or("", |claim| claim.node.as_str());
        let then = match self.wanted_maintenance() {
            Some(hold) => format!("; then maintenance: {}", super::failing::said(&hold)),
            None => String::new(),
        };
        let unblocks = format!("tenant node {node} is deleted{then}");
        self.wait("the end of the tenancy", unblocks, None);
    }
}
