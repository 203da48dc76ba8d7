//! On standby: a system that was installed ahead of any claim runs and waits for one.
//!
//! It asks the engine for a claim again and again, which is how it is known to live; its power is read now and then as well.
//! One that is lost is installed anew, by the same ladder as any installation. A claim on the same image takes it over: its
//! first-boot data is given to the waiting system, and nothing is written by an installer or booted. If nothing is heard of
//! that in time, the host is installed for the claim as any other.

use vmetal_model::agent::BootPurpose;
use vmetal_model::{
    Cause, Failure, HostPhase, OperationKind, OperationState, PowerState, Stage, StandbyWish, Timestamp,
};

use super::Turn;
use super::failing::said;
use crate::grant::Gentle;
use crate::limits::after;

impl Turn<'_> {
    /// Begins to wait for a claim. How often the installation was tried stays: one that is lost soon was none.
    pub(super) fn stand_by(&mut self, why: &str) {
        let attempts = self.status.retry.attempts;
        self.enter(HostPhase::Standby, Stage::Idle, why);
        self.status.retry.attempts = attempts;
    }

    pub(super) fn standby(&mut self) {
        if let Some(claim) = &self.status.claim {
            let why = format!("claimed by tenant node {}", claim.node);
            return self.enter(HostPhase::Provisioning, Stage::Seed, &why);
        }
        if self.declared_anew() {
            return self.enter(HostPhase::Registering, Stage::Address, "BMC or boot interface was declared anew");
        }
        self.status.observed_generation = self.host.metadata.generation;
        let silence = self.limits.standby_silence;
        let silent_at = after(self.last_heard(), silence);
        if self.now >= silent_at {
            return self.lost(format!("the system on standby has not been heard of for {silence:#}"));
        }
        let (read, due) = self.power_reading();
        if read && self.status.power == PowerState::Off {
            return self.lost("the host was on standby, and the BMC says that it is off".to_owned());
        }
        if self.now >= due {
            return self.gently(Gentle::ReadPower);
        }
        let class = self.status.standby.as_ref().map_or("", |standby| standby.node_type.as_str());
        let reason = format!("a claim, on standby for node type {class}");
        self.wait(&reason, "a tenant node whose type selects this host".to_owned(), None);
        self.look_again_at(due.min(silent_at));
    }

    fn last_heard(&self) -> Timestamp {
        let told = self.status.boot.as_ref().and_then(|boot| boot.last_seen.max(boot.phoned_home));
        told.unwrap_or(Timestamp::MIN).max(self.status.phase_since).max(self.limits.listening_since)
    }

    /// Whether the power was read while on standby, and when it is to be read next.
    fn power_reading(&self) -> (bool, Timestamp) {
        let since = self.status.phase_since;
        let last = self.status.operation.as_ref().filter(|operation| {
            operation.kind == OperationKind::ReadPower
                && operation.state == OperationState::Succeeded
                && operation.started >= since
        });
        let finished = last.and_then(|operation| operation.finished);
        (finished.is_some(), finished.map_or(self.now, |at| after(at, self.limits.standby_check)))
    }

    /// What was installed is of no use any more: the same as an installation that failed.
    fn lost(&mut self, message: String) {
        let steady = self.now >= after(self.status.phase_since, self.limits.standby_steady);
        let attempts = if steady { 0 } else { self.status.retry.attempts };
        self.enter(HostPhase::Provisioning, Stage::FirstBoot, &message);
        self.status.retry.attempts = attempts;
        self.fail(Failure {
            cause: Cause::BootSilent,
            message,
            advice: "the host is installed anew; if this repeats, look at its console and at the image".to_owned(),
            at: self.now,
        });
    }

    /// The claim's first-boot data is ready: it goes to the system on standby if that is what the claim wants, else the host
    /// is installed.
    pub(super) fn begin_for_claim(&mut self) {
        if !self.is_what_is_wanted() {
            return self.stage(Stage::Off);
        }
        if let Some(boot) = &mut self.status.boot {
            boot.phoned_home = None;
        }
        self.stage(Stage::HandOver);
    }

    fn is_what_is_wanted(&self) -> bool {
        // A system that runs keeps the network that it was installed with.
        let wanted = self.status.claim.as_ref().filter(|claim| claim.lease.is_none());
        let wanted = wanted.and_then(|claim| claim.image.as_ref());
        let there = self.status.standby.as_ref().map(|standby| &standby.image);
        let boot = self.status.boot.as_ref();
        let runs = boot.is_some_and(|boot| boot.purpose == BootPurpose::Install && boot.work_done.is_some());
        wanted.is_some() && wanted == there && runs && self.status.power != PowerState::Off
    }

    pub(super) fn await_hand_over(&mut self) {
        if self.status.boot.as_ref().is_some_and(|boot| boot.phoned_home.is_some()) {
            let why = "the system on standby took over the claim's first-boot data and phoned home";
            return self.enter(HostPhase::Provisioned, Stage::Idle, why);
        }
        let deadline = self.deadline(self.limits.hand_over);
        if self.now < deadline {
            let unblocks = "its next question for a claim, and its first word with the claim's data".to_owned();
            return self.wait("the system on standby to take over the claim", unblocks, Some(deadline));
        }
        let limit = self.limits.hand_over;
        self.breached(deadline);
        self.fail(Failure {
            cause: Cause::BootSilent,
            message: format!("the system on standby did not take over the claim within {limit:#}"),
            advice: "the host is installed for the claim as if it had not been on standby; look at its console"
                .to_owned(),
            at: self.now,
        });
    }

    /// What is installed ahead of a claim and not wanted any more is erased, wherever it is.
    pub(super) fn heed_give_back(&mut self) {
        let Some(standby) = self.status.on_standby() else { return };
        let class = &standby.node_type;
        let why = match (standby.wish, self.wanted_maintenance()) {
            (StandbyWish::GiveBack, _) => format!("not wanted on standby for node type {class} any more"),
            (StandbyWish::Keep, Some(hold)) => format!("off standby for maintenance: {}", said(&hold)),
            (StandbyWish::Keep, None) => return,
        };
        let begun = |phase| matches!(phase, HostPhase::Provisioning | HostPhase::Standby);
        let here = match self.status.phase {
            HostPhase::Error => self.status.failed_phase.is_some_and(begun),
            phase => begun(phase),
        };
        if !here {
            return;
        }
        if let Some(standby) = &mut self.status.standby {
            standby.wish = StandbyWish::GiveBack;
        }
        self.enter(HostPhase::Deprovisioning, Stage::Off, &why);
    }
}
