//! The phases in which a person has the word: discovered, maintenance, quarantined; and the pause, which is none. Nothing is
//! done there but what a person orders of the power.

use vmetal_model::{Hold, HostPhase, OperationKind, PowerOrder, PowerState, PowerWish, Stage};

use super::Turn;
use super::failing::said;
use crate::grant::{Disruption, Gentle};
use crate::note::Note;

impl Turn<'_> {
    /// True while an operator wants no effect to begin.
    pub(super) fn paused_by_operator(&mut self) -> bool {
        let Some(hold) = &self.status.pause else { return false };
        let reason = format!("an operator: paused, {}", said(hold));
        self.wait(&reason, format!("`vmetal host resume {}`", self.host.name()), None);
        true
    }

    /// The maintenance that is ordered or declared and not over. An order goes before a declaration.
    pub(super) fn wanted_maintenance(&self) -> Option<Hold> {
        let ordered = self.status.maintenance.clone();
        let declared = self.host.spec.maintenance.as_ref().map(|declared| Hold {
            reason: declared.reason.clone(),
            by: "the declaration".to_owned(),
            since: self.status.phase_since,
            until: declared.until,
        });
        [ordered, declared].into_iter().flatten().find(|hold| hold.until.is_none_or(|until| until > self.now))
    }

    /// Takes an unclaimed host that is at rest out of the pool for maintenance; true when it was.
    pub(super) fn heed_maintenance(&mut self) -> bool {
        let at_rest = matches!(self.status.phase, HostPhase::Available | HostPhase::Error);
        if !at_rest || self.status.claim.is_some() || self.status.unerased.is_some() {
            return false;
        }
        let Some(hold) = self.wanted_maintenance() else { return false };
        self.enter(HostPhase::Maintenance, Stage::Idle, &said(&hold));
        true
    }

    pub(super) fn maintenance(&mut self) {
        self.status.observed_generation = self.host.metadata.generation;
        let Some(hold) = self.wanted_maintenance() else {
            self.status.maintenance = None;
            return self.enter(HostPhase::Registering, Stage::Address, "the maintenance is over");
        };
        if self.obeys_power_order() {
            return;
        }
        let name = self.host.name();
        let ends = match (&self.status.maintenance, hold.until) {
            (Some(_), Some(until)) => format!("{until}, or `vmetal host resume {name}`"),
            (Some(_), None) => format!("`vmetal host resume {name}`"),
            (None, Some(until)) => format!("{until}, or it is declared no longer"),
            (None, None) => "it is declared no longer".to_owned(),
        };
        self.wait(&format!("maintenance to end: {}", said(&hold)), ends, None);
        if let Some(until) = hold.until {
            self.look_again_at(until);
        }
    }

    pub(super) fn quarantined(&mut self) {
        if self.status.stage != Stage::Idle {
            if self.off() {
                self.stage(Stage::Idle);
            }
            return;
        }
        self.status.observed_generation = self.host.metadata.generation;
        if self.obeys_power_order() {
            return;
        }
        let why = self.status.quarantine.as_ref().map_or_else(|| "quarantined".to_owned(), said);
        let name = self.host.name();
        let then = match &self.status.unerased {
            Some(ended) => format!("what tenant node {} left is then erased", ended.node),
            None => "the host is then registered and inspected anew".to_owned(),
        };
        self.wait(
            &format!("an operator: quarantined, {why}"),
            format!("`vmetal host unquarantine {name}`; {then}"),
            None,
        );
    }

    pub(super) fn discovered(&mut self) {
        self.status.observed_generation = self.host.metadata.generation;
        let unblocks = "the host is applied with bmc.password (Terraform: bmc.password_wo)".to_owned();
        self.wait("the password of its BMC", unblocks, None);
    }

    /// Takes the next step of an ordered change of power; true while one is left to take.
    fn obeys_power_order(&mut self) -> bool {
        let Some(order) = self.status.power_order.as_deref().cloned() else { return false };
        match order.power {
            PowerWish::On if !self.on() => true,
            PowerWish::Off | PowerWish::Cycle if !self.off() => true,
            PowerWish::Cycle => {
                self.status.power_order = Some(Box::new(PowerOrder { power: PowerWish::On, ..order }));
                self.look_again_at(self.now);
                true
            }
            PowerWish::On | PowerWish::Off => {
                let message = format!("power {} as ordered: {}", order.power.as_str(), said(&order.hold));
                self.notes.push(Note::info("power", message));
                self.status.power_order = None;
                false
            }
        }
    }

    /// Makes sure that the host runs; true once it does.
    fn on(&mut self) -> bool {
        match self.status.power {
            PowerState::On | PowerState::PoweringOn => return true,
            PowerState::Off => self.disrupt(Disruption::PowerOn),
            // It was read, and is neither: a BMC that says nothing usable, or a server that is still on its way down.
            _ if self.done(OperationKind::ReadPower) => self.disrupt(Disruption::PowerOn),
            PowerState::PoweringOff | PowerState::Unknown => self.gently(Gentle::ReadPower),
        }
        false
    }
}
