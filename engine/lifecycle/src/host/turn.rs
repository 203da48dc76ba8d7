//! The working copy of one step: a status being changed, and the words every phase uses to change it.

use jiff::SignedDuration;
use vmetal_model::host::Retry;
use vmetal_model::{Host, HostPhase, HostStatus, Operation, OperationKind, OperationState, Stage, Timestamp, Wait};

use super::wait::{doing, operator_ends_pause};
use super::{Change, Decision, Effected, Fate};
use crate::grant::{Disruption, DisruptionGrant, Effect, Gentle, Vacancy};
use crate::ladder::{Remedy, treatment};
use crate::limits::{Limits, after};
use crate::note::Note;
use crate::transitions::host_may;

pub(crate) struct Turn<'a> {
    pub(crate) host: &'a Host,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Timestamp,
    pub(crate) status: HostStatus,
    pub(crate) notes: Vec<Note>,
    effect: Option<Effect>,
    next: Option<Timestamp>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(host: &'a Host, limits: &'a Limits, now: Timestamp) -> Self {
        Turn { host, limits, now, status: host.status.clone(), notes: Vec::new(), effect: None, next: None }
    }

    pub(crate) fn finish(mut self, fate: Fate) -> Decision {
        // While an installer works, when it is looked at next moves with its every word, which is not worth a commit each.
        let next = self.next.filter(|next| *next > self.now && self.status.stage != Stage::Work);
        if let (Some(wait), Some(next)) = (&mut self.status.wait, next) {
            wait.next_check.get_or_insert(next);
        }
        Decision { status: self.status, notes: self.notes, effect: self.effect, next: self.next, fate }
    }

    pub(crate) fn change(self) -> Change {
        Change { status: self.status, notes: self.notes }
    }

    /// Puts the host into the pool: nothing but the proof that no tenancy is left on it opens the way.
    pub(crate) fn enter_pool(&mut self, vacancy: Vacancy, why: &str) {
        let Vacancy { .. } = vacancy;
        self.status.boot = None;
        self.change_phase(HostPhase::Available, Stage::Idle, why);
    }

    /// Changes the phase; the way into the pool is [`Turn::enter_pool`].
    pub(crate) fn enter(&mut self, phase: HostPhase, stage: Stage, why: &str) {
        debug_assert!(phase != HostPhase::Available, "the pool is entered by enter_pool");
        self.change_phase(phase, stage, why);
    }

    /// Failure, retries and wait belong to the phase that is left.
    fn change_phase(&mut self, phase: HostPhase, stage: Stage, why: &str) {
        let from = self.status.phase;
        debug_assert!(host_may(from, phase), "{from:?} -> {phase:?} is not in the list of transitions");
        self.notes.push(Note::info("phase_changed", format!("{} -> {}: {why}", from.as_str(), phase.as_str())));
        self.status.phase = phase;
        self.status.phase_since = self.now;
        self.status.retry = Retry::default();
        self.status.failure = None;
        self.status.failed_phase = None;
        self.status.breach = None;
        self.status.quarantine = None;
        self.status.power_order = None;
        if from == HostPhase::Available && phase != HostPhase::Provisioning {
            // Ordered, and never begun.
            self.status.standby = None;
        }
        self.stage(stage);
    }

    /// Changes the step inside the phase. Power is read anew before it is relied on.
    pub(crate) fn stage(&mut self, stage: Stage) {
        // Up to power-on the steps may go round in a circle: what failed there counts until something shows that it is over.
        if !matches!(stage, Stage::Off | Stage::Open | Stage::BootDevice | Stage::On | Stage::ResetBmc | Stage::Drain) {
            self.end_failures();
        }
        self.status.stage = stage;
        self.status.stage_since = self.now;
        self.status.wait = None;
        self.status.progress = None;
        if matches!(stage, Stage::Off | Stage::OffAgain | Stage::Drain) {
            self.status.power = vmetal_model::PowerState::Unknown;
        }
        self.look_again_at(self.now);
    }

    /// Asks for an effect that leaves a running server alone.
    pub(crate) fn gently(&mut self, what: Gentle) {
        self.effect(Effect::gentle(what));
    }

    /// Asks for an effect that disrupts the server, with the grant that the host's own record gives. Where it gives none, a
    /// tenant is on the host: nothing is done and a person is asked, for no step should have come here.
    pub(crate) fn disrupt(&mut self, what: Disruption) {
        match DisruptionGrant::on(&self.status) {
            Some(grant) => self.effect(Effect::disrupting(what, grant)),
            None => {
                let holder = self.status.claim.as_ref().map_or("nobody", |claim| claim.node.as_str());
                let reason =
                    format!("a fault of the engine: {what:?} was wanted while tenant node {holder} is on the host");
                self.wait(&reason, "the tenant node is deleted; report this".to_owned(), None);
            }
        }
    }

    /// Asks for an effect that has nothing to do with what the host is doing: neither its wait nor what is known of its
    /// declaration changes.
    pub(crate) fn aside(&mut self, what: Gentle) {
        let effect = Effect::gentle(what);
        let (kind, started) = (effect.kind(), self.now);
        let (reason, unblocks) = doing(self.host, kind);
        let wait = Wait { reason, unblocks, since: started, next_check: None, deadline: None };
        self.status.wait.get_or_insert(wait);
        self.intend(kind, started);
        self.next = None;
        self.effect = Some(effect);
    }

    /// Records an intent. What became of the operation before stays beside it: both may be committed together.
    fn intend(&mut self, kind: OperationKind, started: Timestamp) {
        let id = self.status.operation.as_ref().map_or(1, |op| op.id + 1);
        let intent = Operation { id, kind, state: OperationState::Intended, started, finished: None };
        self.status.previous_operation = self.status.operation.replace(intent);
    }

    /// Records an intent and asks for the effect.
    fn effect(&mut self, effect: Effect) {
        let kind = effect.kind();
        // Never before its stage, though the wall clock be set back in between: it would not count as that stage's.
        let started = self.now.max(self.status.stage_since);
        self.intend(kind, started);
        // What fails from here on, fails for this declaration.
        self.status.observed_generation = self.host.metadata.generation;
        let deadline = self.stage_deadline();
        let (reason, unblocks) = doing(self.host, kind);
        self.status.wait = Some(Wait { reason, unblocks, since: started, next_check: None, deadline });
        // Its outcome wakes the host.
        self.next = None;
        self.effect = Some(effect);
    }

    /// Records what is waited for. The time of the first look is kept while the reason stays the same.
    pub(crate) fn wait(&mut self, reason: &str, unblocks: String, deadline: Option<Timestamp>) {
        let since = self.status.wait.as_ref().filter(|w| w.reason == reason).map_or(self.now, |w| w.since);
        self.status.wait = Some(Wait { reason: reason.to_owned(), unblocks, since, next_check: None, deadline });
        // One that has passed brings nothing new.
        if let Some(deadline) = deadline.filter(|deadline| *deadline > self.now) {
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
        let restarted = self.status.operation.as_ref().is_some_and(|op| op.kind == OperationKind::ResetBmc);
        let what = match &self.status.failure {
            _ if restarted && self.status.phase != HostPhase::Error => {
                "the BMC to come back from its restart".to_owned()
            }
            Some(failure) => format!("the pause after a failure ({})", failure.cause),
            None => "the pause after an interruption".to_owned(),
        };
        let deadline = self.stage_deadline();
        self.wait(&what, operator_ends_pause(self.status.phase).to_owned(), deadline);
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
            Effected::BootDevice | Effected::BmcReset | Effected::PasswordChanged => {}
        }
    }

    /// A success ends the run of failures, unless it is one of the steps that precede each try of another: a BMC that tells
    /// its power and takes a boot device, and never switches on, would otherwise be tried for ever.
    pub(crate) fn succeeded(&mut self, kind: OperationKind) {
        self.status.retry.not_before = None;
        use OperationKind::{OpenBoot, ReadPower, ResetBmc, SetNetworkBoot};
        if !matches!(kind, ReadPower | OpenBoot | SetNetworkBoot | ResetBmc) {
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
        self.status.retry.since = None;
        self.status.failure.take_if(|failure| treatment(failure.cause).remedy == Remedy::Retry);
    }
}
