//! Inspecting, and waiting in the pool.

use vmetal_model::agent::BootPurpose;
use vmetal_model::{HostPhase, OperationKind, PowerState, Stage};

use super::installer::Run;
use super::{Turn, declaration};

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
            self.status.boot = None;
            self.enter(HostPhase::Available, Stage::Idle, &format!("inspected: {what}"));
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
        self.status.observed_generation = self.host.metadata.generation;
        self.wait("a claim", "a tenant node whose type selects this host".to_owned(), None);
    }

    fn declared_anew(&self) -> bool {
        self.status.registered_as.as_ref().is_some_and(|seen| *seen != declaration(self.host))
    }

    /// Makes sure that the host is off; true once it is.
    pub(super) fn off(&mut self) -> bool {
        match self.status.power {
            PowerState::Off => true,
            PowerState::On | PowerState::PoweringOn => {
                self.effect(OperationKind::PowerOff);
                false
            }
            PowerState::PoweringOff if self.last_is(OperationKind::ReadPower) => {
                self.effect(OperationKind::PowerOff);
                false
            }
            PowerState::Unknown if self.done(OperationKind::ReadPower) => {
                // The BMC answers, but with nothing that means on or off: switching off is the safe reading.
                self.effect(OperationKind::PowerOff);
                false
            }
            PowerState::PoweringOff | PowerState::Unknown => {
                self.effect(OperationKind::ReadPower);
                false
            }
        }
    }
}
