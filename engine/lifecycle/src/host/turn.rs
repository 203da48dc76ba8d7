//! The working copy of one step: a status being changed, and the words every phase uses to change it.

use jiff::SignedDuration;
use vmetal_model::host::Retry;
use vmetal_model::{
    Failure, Host, HostPhase, HostStatus, Operation, OperationKind, OperationState, Stage, Timestamp, Wait,
};

use super::{Change, Decision, Effected, Fate};
use crate::limits::{Limits, Remedy, after, remedy};
use crate::note::Note;
use crate::transitions::host_may;

pub(crate) struct Turn<'a> {
    pub(crate) host: &'a Host,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Timestamp,
    pub(crate) status: HostStatus,
    pub(crate) notes: Vec<Note>,
    effect: Option<OperationKind>,
    next: Option<Timestamp>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(host: &'a Host, limits: &'a Limits, now: Timestamp) -> Self {
        Turn { host, limits, now, status: host.status.clone(), notes: Vec::new(), effect: None, next: None }
    }

    pub(crate) fn finish(self, fate: Fate) -> Decision {
        Decision { status: self.status, notes: self.notes, effect: self.effect, next: self.next, fate }
    }

    pub(crate) fn change(self) -> Change {
        Change { status: self.status, notes: self.notes }
    }

    /// Changes the phase. Failure, retries and wait belong to the phase that is left.
    pub(crate) fn enter(&mut self, phase: HostPhase, stage: Stage, why: &str) {
        let from = self.status.phase;
        debug_assert!(host_may(from, phase), "{from:?} -> {phase:?} is not in the list of transitions");
        self.notes.push(Note::info("phase_changed", format!("{} -> {}: {why}", from.as_str(), phase.as_str())));
        self.status.phase = phase;
        self.status.phase_since = self.now;
        self.status.retry = Retry::default();
        self.status.failure = None;
        self.status.failed_phase = None;
        self.stage(stage);
    }

    /// Changes the step inside the phase. Power is read anew before it is relied on.
    pub(crate) fn stage(&mut self, stage: Stage) {
        // Up to power-on the steps may go round in a circle: what failed there counts until something shows that it is over.
        if !matches!(stage, Stage::Off | Stage::Open | Stage::BootDevice | Stage::On) {
            self.end_failures();
        }
        self.status.stage = stage;
        self.status.stage_since = self.now;
        self.status.wait = None;
        self.status.progress = None;
        if matches!(stage, Stage::Off | Stage::OffAgain) {
            self.status.power = vmetal_model::PowerState::Unknown;
        }
        self.look_again_at(self.now);
    }

    /// Records an intent and asks for the effect.
    pub(crate) fn effect(&mut self, kind: OperationKind) {
        let id = self.status.operation.as_ref().map_or(1, |op| op.id + 1);
        // Never before its stage, though the wall clock be set back in between: it would not count as that stage's.
        let started = self.now.max(self.status.stage_since);
        self.status.operation = Some(Operation { id, kind, state: OperationState::Intended, started, finished: None });
        // What fails from here on, fails for this declaration.
        self.status.observed_generation = self.host.metadata.generation;
        self.status.wait = None;
        self.effect = Some(kind);
    }

    /// Records what is waited for. The time of the first look is kept while the reason stays the same.
    pub(crate) fn wait(&mut self, reason: &str, unblocks: String, deadline: Option<Timestamp>) {
        let since = self.status.wait.as_ref().filter(|w| w.reason == reason).map_or(self.now, |w| w.since);
        self.status.wait = Some(Wait { reason: reason.to_owned(), unblocks, since, next_check: None, deadline });
        if let Some(deadline) = deadline {
            self.look_again_at(deadline);
        }
    }

    pub(crate) fn look_again_at(&mut self, when: Timestamp) {
        self.next = Some(self.next.map_or(when, |next| next.min(when)));
    }

    /// The end of the present stage. What was to be heard while the engine was away may be said again.
    pub(crate) fn deadline(&self, limit: SignedDuration) -> Timestamp {
        let heard = after(self.limits.listening_since, self.limits.silence.min(limit));
        after(self.status.stage_since, limit).max(heard)
    }

    /// True while an operation is under way: its outcome wakes the host.
    pub(crate) fn operation_under_way(&self) -> bool {
        self.status.operation.as_ref().is_some_and(|op| op.state == OperationState::Intended)
    }

    /// True when the last operation is of this kind and belongs to the present stage, whatever came of it.
    pub(crate) fn last_is(&self, kind: OperationKind) -> bool {
        self.status.operation.as_ref().is_some_and(|op| op.kind == kind && op.started >= self.status.stage_since)
    }

    /// True when the last operation is of this kind, belongs to the present stage and succeeded.
    pub(crate) fn done(&self, kind: OperationKind) -> bool {
        self.last_is(kind) && self.status.operation.as_ref().is_some_and(|op| op.state == OperationState::Succeeded)
    }

    pub(crate) fn paused_by_backoff(&mut self) -> bool {
        let Some(until) = self.status.retry.not_before.filter(|until| *until > self.now) else { return false };
        if self.status.phase == HostPhase::Error && self.host.metadata.generation > self.status.observed_generation {
            return false;
        }
        let what = self.status.failure.as_ref().map_or("an interruption", |f| match f.cause {
            vmetal_model::Cause::BmcUnreachable => "the BMC not answering",
            _ => "a failure",
        });
        let reason = format!("a pause after {what}");
        let unblocks = match self.status.phase {
            HostPhase::Error => "the pause ends, or the declaration changes",
            _ => "the pause ends",
        };
        self.wait(&reason, unblocks.to_owned(), None);
        if let Some(wait) = &mut self.status.wait {
            wait.next_check = Some(until);
        }
        self.look_again_at(until);
        true
    }

    /// Takes the facts of a successful effect.
    pub(crate) fn effected(&mut self, effected: Effected) {
        match effected {
            Effected::Bmc(facts) => {
                self.status.power = facts.power;
                self.status.bmc = Some(facts);
            }
            Effected::Power(power) => self.status.power = power,
            Effected::Address(address) => self.status.address = Some(address),
            Effected::Boot(attempt) => self.status.boot = Some(attempt),
            Effected::BootDevice | Effected::BmcReset => {}
        }
    }

    /// A success ends the run of failures, unless it is one of the steps that precede each try of another: a BMC that tells
    /// its power and takes a boot device, and never switches on, would otherwise be tried for ever.
    pub(crate) fn succeeded(&mut self, kind: OperationKind) {
        self.status.retry.not_before = None;
        if !matches!(kind, OperationKind::ReadPower | OperationKind::SetNetworkBoot) {
            self.end_failures();
        }
        if !kind.changes_nothing() {
            self.notes.push(Note::info("operation", format!("{}: done", kind.describe())));
        }
    }

    /// The run of failures is over; what a retry was for is not worth showing any more.
    fn end_failures(&mut self) {
        self.status.retry.cause = None;
        self.status.retry.failures = 0;
        self.status.retry.not_before = None;
        self.status.failure.take_if(|failure| remedy(failure.cause) == Remedy::Retry);
    }

    /// Takes a failure and chooses what follows: a pause, another network boot, or `error`.
    pub(crate) fn fail(&mut self, failure: Failure) {
        let cause = failure.cause;
        let retry = &mut self.status.retry;
        if retry.cause != Some(cause) {
            retry.failures = 0;
        }
        retry.cause = Some(cause);
        retry.failures += 1;
        self.status.failure = Some(failure.clone());
        match remedy(cause) {
            Remedy::Retry if self.status.retry.failures < self.limits.failures => {
                let pause = self.limits.pause(self.status.retry.failures, &self.host.metadata.uid);
                self.status.retry.not_before = Some(after(self.now, pause));
                self.notes.push(Note::warning("failed", format!("{failure}; trying again")));
            }
            Remedy::Restart if self.status.retry.attempts + 1 < self.limits.attempts => {
                self.status.retry.attempts += 1;
                let attempt = self.status.retry.attempts + 1;
                let of = self.limits.attempts;
                self.notes.push(Note::warning(
                    "failed",
                    format!("{failure}; booting the installer again, attempt {attempt} of {of}"),
                ));
                self.stage(Stage::Off);
            }
            Remedy::Retry | Remedy::Restart | Remedy::Operator => self.give_up(failure),
        }
    }

    fn give_up(&mut self, failure: Failure) {
        let phase = self.status.phase;
        let again = (remedy(failure.cause) == Remedy::Retry).then(|| after(self.now, self.limits.error_retry));
        self.notes.push(Note::error("failed", failure.to_string()));
        if phase == HostPhase::Error {
            return;
        }
        self.enter(HostPhase::Error, Stage::Idle, &failure.message);
        self.status.failed_phase = Some(phase);
        self.status.retry.cause = Some(failure.cause);
        self.status.retry.not_before = again;
        self.status.failure = Some(failure);
    }
}
