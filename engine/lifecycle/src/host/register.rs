//! Registering: an address on the provisioning network, then the BMC. Nothing is changed on the server.

use vmetal_model::{HostPhase, OperationKind, Stage};

use super::{Turn, declaration};
use crate::grant::Gentle;

impl Turn<'_> {
    pub(super) fn register(&mut self) {
        match self.status.stage {
            Stage::Probe => self.probe(),
            _ => self.address(),
        }
    }

    fn address(&mut self) {
        let wanted = self.host.spec.address;
        let settled = self.status.address.is_some() && wanted.is_none_or(|wanted| self.status.address == Some(wanted));
        if settled {
            self.stage(Stage::Probe);
        } else {
            self.gently(Gentle::AllocateAddress);
        }
    }

    fn probe(&mut self) {
        if !self.done(OperationKind::ProbeBmc) {
            return self.gently(Gentle::ProbeBmc);
        }
        self.status.registered_as = Some(declaration(self.host));
        self.status.observed_generation = self.host.metadata.generation;
        let who = self.status.bmc.as_ref().map_or_else(String::new, |bmc| {
            let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
            format!("{} {}, serial number {}", part(&bmc.manufacturer), part(&bmc.model), part(&bmc.serial))
        });
        self.enter(HostPhase::Inspecting, Stage::Off, &format!("BMC answers for {who}"));
    }
}
