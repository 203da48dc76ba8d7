//! Inspecting, and waiting in the pool.

use vmetal_model::agent::BootPurpose;
use vmetal_model::{HostPhase, OperationKind, PowerState, Stage, StandbyWish};

use super::installer::Run;
use super::{Turn, declaration};
use crate::grant::{Disruption, Gentle, Vacancy};

impl Turn<'_> {
    pub(super) fn inspect(&mut self) {
        if self.declared_anew() {
            return self.enter(HostPhase::Registering, Stage::Address, "BMC or boot interface was declared anew");
        }
        if self.status.stage != Stage::OffAgain {
            if self.installer(BootPurpose::Inspect, self.limits.inspect) == Run::Done {
                self.stage(Stage::OffAgain);
            }
            return;
        }
        if self.off() {
            let what = self.status.inventory.as_ref().map_or_else(String::new, |inventory| {
                let gib = inventory.memory_bytes as f64 / f64::from(1 << 30);
                let (disks, nics) = (inventory.disks.len(), inventory.nics.len());
                format!("{} CPUs, {gib:.1} GiB memory, {disks} disks, {nics} network interfaces", inventory.cpu.threads)
            });
            match Vacancy::of(&self.status) {
                Some(vacancy) => self.enter_pool(vacancy, &format!("inspected: {what}")),
                // What was not erased before is erased now.
                None => {
                    self.enter(HostPhase::Deprovisioning, Stage::Off, "inspected; what was left on it is erased first")
                }
            }
        }
    }

    pub(super) fn available(&mut self) {
        if let Some(claim) = &self.status.claim {
            let why = format!("claimed by tenant node {}", claim.node);
            return self.enter(HostPhase::Provisioning, Stage::Seed, &why);
        }
        if self.declared_anew() {
            return self.enter(HostPhase::Registering, Stage::Address, "BMC or boot interface was declared anew");
        }
        if let Some(standby) = &self.status.standby {
            let why = format!("wanted on standby for node type {}", standby.node_type);
            return match standby.wish {
                StandbyWish::Keep => self.enter(HostPhase::Provisioning, Stage::Off, &why),
                StandbyWish::GiveBack => self.status.standby = None,
            };
        }
        self.status.observed_generation = self.host.metadata.generation;
        self.wait("a claim", "a tenant node whose type selects this host".to_owned(), None);
    }

    /// True when BMC or boot interface are declared differently than they were registered. Where it is another BMC or another
    /// interface altogether, it is another server, and who the old one was does not bind it.
    pub(super) fn declared_anew(&mut self) -> bool {
        let wanted = declaration(self.host);
        let Some(seen) = self.status.registered_as.clone().filter(|seen| *seen != wanted) else { return false };
        let server = |text: &str| {
            let parts: Vec<String> = text.split('|').map(str::to_owned).collect();
            (parts.first().cloned(), parts.get(4).cloned())
        };
        if server(&seen) != server(&wanted) {
            super::identity::forget(&mut self.status);
        }
        true
    }

    /// Makes sure that the host is off; true once it is.
    pub(super) fn off(&mut self) -> bool {
        match self.status.power {
            PowerState::Off => true,
            PowerState::On | PowerState::PoweringOn => {
                self.disrupt(Disruption::PowerOff);
                false
            }
            PowerState::PoweringOff if self.last_is(OperationKind::ReadPower) => {
                self.disrupt(Disruption::PowerOff);
                false
            }
            PowerState::Unknown if self.done(OperationKind::ReadPower) => {
                // The BMC answers, but with nothing that means on or off: switching off is the safe reading.
                self.disrupt(Disruption::PowerOff);
                false
            }
            PowerState::PoweringOff | PowerState::Unknown => {
                self.gently(Gentle::ReadPower);
                false
            }
        }
    }
}
