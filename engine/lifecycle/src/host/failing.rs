//! What follows a failure: a pause, another try, a rung of the ladder, and in the end `error` or quarantine.

use vmetal_model::host::Retry;
use vmetal_model::{Breach, Cause, Failure, Hold, HostPhase, OperationKind, Stage, TenancyEnd, Timestamp};

use super::Turn;
use crate::grant::{Disruption, Vacancy, end_tenancy};
use crate::ladder::{Blame, Deadline, Remedy, Rung, line, next_rung, treatment};
use crate::limits::after;
use crate::note::Note;

/// The name under which the engine itself orders things.
pub(crate) const ENGINE: &str = "vmetald";

impl Turn<'_> {
    /// Takes a failure and chooses what follows.
    pub(crate) fn fail(&mut self, failure: Failure) {
        let cause = failure.cause;
        let retry = &mut self.status.retry;
        if retry.cause != Some(cause) {
            retry.failures = 0;
            retry.since = None;
        }
        retry.cause = Some(cause);
        retry.failures += 1;
        retry.since.get_or_insert(self.now);
        self.status.failure = Some(failure.clone());
        match treatment(cause).remedy {
            Remedy::Retry if self.status.retry.failures < self.limits.failures => {
                let pause = self.limits.pause(self.status.retry.failures, &self.host.metadata.uid);
                self.status.retry.not_before = Some(after(self.now, pause));
                self.notes.push(Note::warning("failed", format!("{failure}; trying again")));
            }
            Remedy::Retry => self.escalate(failure),
            Remedy::Restart if self.status.retry.attempts + 1 < self.limits.attempts => self.boot_again(failure),
            Remedy::Restart | Remedy::Operator => self.give_up(failure),
        }
    }

    /// Boots the installer again; before the last time the power is drained, where that may help.
    fn boot_again(&mut self, failure: Failure) {
        self.status.retry.attempts += 1;
        let (attempt, of) = (self.status.retry.attempts + 1, self.limits.attempts);
        let rung = next_rung(self.status.stage, failure.cause, self.status.retry.rung).filter(|_| attempt == of);
        let first = rung.map_or_else(String::new, |rung| format!(" after {}", rung.describe()));
        let message = format!("{failure}; booting the installer again{first}, attempt {attempt} of {of}");
        self.notes.push(Note::warning("failed", message));
        match rung {
            Some(rung) => self.climb(rung),
            None => self.stage(Stage::Off),
        }
    }

    /// Repeating did not help: the next rung, or the end.
    fn escalate(&mut self, failure: Failure) {
        match next_rung(self.status.stage, failure.cause, self.status.retry.rung) {
            Some(rung) if !matches!(self.status.phase, HostPhase::Quarantined | HostPhase::Maintenance) => {
                self.notes.push(Note::warning("escalated", format!("{failure}; {}", rung.describe())));
                self.climb(rung);
            }
            _ => self.give_up(failure),
        }
    }

    fn climb(&mut self, rung: Rung) {
        self.status.retry.rung = rung.used();
        self.status.retry.failures = 0;
        self.status.retry.not_before = None;
        self.stage(match rung {
            Rung::ResetBmc => Stage::ResetBmc,
            Rung::PowerDrain => Stage::Drain,
        });
    }

    /// The end of the ladder. A server that is to blame loses its claim and is quarantined; everything else stops in `error`.
    fn give_up(&mut self, failure: Failure) {
        let phase = self.status.phase;
        let Treated { again, condemned } = self.verdict(&failure);
        self.notes.push(Note::error("failed", failure.to_string()));
        match phase {
            HostPhase::Error => return,
            HostPhase::Quarantined | HostPhase::Maintenance => {
                // Nothing more can be done to it from here; what was tried stays to be seen.
                self.status.power_order = None;
                self.stage(Stage::Idle);
                self.status.failure = Some(failure);
                return;
            }
            _ if condemned => return self.condemn(failure),
            _ => {}
        }
        let Retry { rung, since, .. } = self.status.retry;
        self.enter(HostPhase::Error, Stage::Idle, &failure.message);
        self.status.failed_phase = Some(phase);
        self.status.retry.cause = Some(failure.cause);
        self.status.retry.not_before = again;
        self.status.retry.rung = rung;
        self.status.retry.since = since;
        self.status.failure = Some(failure);
    }

    fn verdict(&self, failure: &Failure) -> Treated {
        let treatment = treatment(failure.cause);
        let heals = treatment.remedy == Remedy::Retry;
        let another_machine = failure.cause == Cause::WrongMachine;
        let condemned = !heals
            && treatment.blame == Blame::Server
            && match self.status.phase {
                HostPhase::Provisioning => true,
                HostPhase::Registering | HostPhase::Inspecting => another_machine,
                _ => false,
            };
        Treated { again: heals.then(|| after(self.now, self.limits.error_retry)), condemned }
    }

    /// Ends the claim, if any, and quarantines the host. The server is switched off if it still can be, so that nothing of
    /// the tenancy goes on there; another machine than the one that was inspected is not touched at all.
    pub(crate) fn condemn(&mut self, failure: Failure) {
        let mine = failure.cause != Cause::WrongMachine;
        if let Some(claim) = &self.status.claim {
            let message = format!("tenant node {} loses the host, which is quarantined: {failure}", claim.node);
            self.notes.push(Note::error("claim_ended", message));
        }
        let runs = self.status.claim.is_some() || self.status.standby.is_some();
        end_tenancy(&mut self.status, TenancyEnd::Failed, &failure, self.now);
        let stage = if runs && mine { Stage::Off } else { Stage::Idle };
        self.quarantine(&failure.message, ENGINE, stage);
        self.status.failure = Some(failure);
    }

    /// Takes the host out of everything until a person says otherwise.
    pub(crate) fn quarantine(&mut self, reason: &str, by: &str, stage: Stage) {
        self.enter(HostPhase::Quarantined, stage, reason);
        self.status.boot = None;
        let (reason, by) = (reason.to_owned(), by.to_owned());
        self.status.quarantine = Some(Hold { reason, by, since: self.now, until: None });
        self.notes.push(Note::error("quarantined", self.status.quarantine.as_ref().map_or_else(String::new, said)));
    }

    /// By when the present stage must be done, where it has a deadline of its own.
    pub(crate) fn stage_deadline(&self) -> Option<Timestamp> {
        match line(self.status.stage).deadline {
            Deadline::Within(limit) => Some(self.deadline(limit(self.limits))),
            Deadline::Order | Deadline::TenantNode | Deadline::Operator => None,
        }
    }

    /// Puts a deadline that has passed on the record.
    pub(crate) fn breached(&mut self, deadline: Timestamp) {
        let breach = Breach { phase: self.status.phase, stage: self.status.stage, deadline };
        if self.status.breach.as_ref() != Some(&breach) {
            let message = format!("{} was not done by {deadline}", super::wait::stage(self.status.stage));
            self.notes.push(Note::warning("deadline", message));
            self.status.breach = Some(breach);
        }
    }

    /// A stage that only calls the BMC or the engine itself, and is not done in time with all its retries: what repeating did
    /// not bring, the next rung may. True when that was so.
    pub(crate) fn overdue(&mut self) -> bool {
        // Those for which somebody else is heard have their own words for it.
        if matches!(self.status.stage, Stage::Agent | Stage::Work | Stage::FirstBoot | Stage::HandOver) {
            return false;
        }
        // A stage that nothing has gone wrong in is only late because its turn came late: after a restart, or in a long queue.
        if self.status.failure.as_ref().is_none_or(|failure| failure.at < self.status.stage_since) {
            return false;
        }
        let Some(deadline) = self.stage_deadline() else { return false };
        if self.now < deadline {
            self.look_again_at(deadline);
            return false;
        }
        self.breached(deadline);
        let last = self.status.failure.take();
        let what = super::wait::stage(self.status.stage);
        let said = last.as_ref().map_or_else(String::new, |failure| format!(": {}", failure.message));
        let failure = Failure {
            cause: last.as_ref().map_or(Cause::BmcUnreachable, |failure| failure.cause),
            message: format!("{what} was not done by {deadline}{said}"),
            advice: last.map_or_else(|| "look at the BMC; it is tried again by itself".to_owned(), |f| f.advice),
            at: self.now,
        };
        self.status.failure = Some(failure.clone());
        self.status.retry.cause = Some(failure.cause);
        self.status.retry.since.get_or_insert(self.now);
        self.escalate(failure);
        true
    }

    /// The rung of restarting the BMC.
    pub(super) fn reset_bmc(&mut self) {
        if !self.done(OperationKind::ResetBmc) {
            return self.disrupt(Disruption::ResetBmc);
        }
        let back = after(self.now, self.limits.bmc_restart);
        self.begin_again();
        self.status.retry.not_before = Some(back);
    }

    /// The rung of draining the power.
    pub(super) fn drain(&mut self) {
        if !self.off() {
            return;
        }
        let off_since = self.status.operation.as_ref().and_then(|op| op.finished).unwrap_or(self.status.stage_since);
        let until = after(off_since.max(self.status.stage_since), self.limits.drain);
        if self.now >= until {
            return self.begin_again();
        }
        let unblocks = format!("the time is over; the {} then begins anew", self.status.phase.as_str());
        let deadline = self.stage_deadline();
        self.wait("the power to have been off for a while", unblocks, deadline);
        self.look_again_at(until);
    }

    /// The phase's sequence from its first step that has something to do.
    fn begin_again(&mut self) {
        let settled = Vacancy::of(&self.status).is_some();
        self.stage(match self.status.phase {
            HostPhase::Registering => Stage::Address,
            HostPhase::Deprovisioning if settled => Stage::OffAgain,
            _ => Stage::Off,
        });
    }
}

struct Treated {
    again: Option<Timestamp>,
    condemned: bool,
}

/// A hold in words.
pub(crate) fn said(hold: &Hold) -> String {
    format!("{} (by {})", hold.reason, hold.by)
}
