//! Error: nothing is done to the server until the declaration changes, or until it is time to see whether the cause went
//! away by itself.

use vmetal_model::host::Retry;
use vmetal_model::{Cause, HostPhase, Stage};

use super::Turn;
use crate::ladder::{Blame, Remedy, treatment};
use crate::limits::after;

impl Turn<'_> {
    pub(super) fn error(&mut self) {
        let declared = self.host.metadata.generation > self.status.observed_generation;
        let treatment = self.status.failure.as_ref().map(|failure| treatment(failure.cause));
        let heals = treatment.is_some_and(|treatment| treatment.remedy == Remedy::Retry);
        let due = heals && self.status.retry.not_before.is_some_and(|when| when <= self.now);
        if !declared && due && treatment.is_some_and(|t| t.blame == Blame::Server) && self.patience_is_over() {
            return;
        }
        if !declared && !due {
            return self.wait("an operator", self.help(), None);
        }
        self.go_on(if declared { "the declaration changed" } else { "trying again" });
        if !declared {
            return;
        }
        // What was tried for another declaration does not count for this one.
        self.status.retry = Retry::default();
    }

    /// What a person can do. What is being deleted is declared no more.
    fn help(&self) -> String {
        let name = self.host.name();
        let retry = format!("`vmetal host retry {name}`");
        match self.status.failure.as_ref().map(|failure| failure.cause) {
            _ if !self.host.is_deleted() => {
                format!("the declaration changes (any label or annotation counts), or {retry}")
            }
            Some(Cause::BmcCredentials) => {
                format!(
                    "`vmetal host rotate-password {name}` with the password that its BMC has or is to have, or {retry}"
                )
            }
            _ => retry,
        }
    }

    /// A claim does not wait for ever for a server that cannot be reached: it moves on. True when it does.
    fn patience_is_over(&mut self) -> bool {
        let waiting = self.status.claim.is_some() && self.status.failed_phase == Some(HostPhase::Provisioning);
        let since = self.status.retry.since.unwrap_or(self.status.phase_since);
        let Some(failure) = self.status.failure.clone().filter(|_| waiting) else { return false };
        if self.now < after(since, self.limits.claim_patience) {
            return false;
        }
        self.condemn(failure);
        true
    }

    /// Goes on with what failed.
    pub(super) fn go_on(&mut self, why: &str) {
        self.status.observed_generation = self.host.metadata.generation;
        let Retry { rung, since, cause, .. } = self.status.retry;
        match self.status.failed_phase {
            Some(phase @ (HostPhase::Inspecting | HostPhase::Deprovisioning)) => self.enter(phase, Stage::Off, why),
            Some(phase @ HostPhase::Provisioning) => self.enter(phase, Stage::Seed, why),
            Some(phase @ HostPhase::Standby) => self.enter(phase, Stage::Idle, why),
            _ => self.enter(HostPhase::Registering, Stage::Address, why),
        }
        // The same trouble again goes on where it was on the ladder, and keeps its beginning.
        self.status.retry = Retry { rung, since, cause, ..Retry::default() };
    }
}
