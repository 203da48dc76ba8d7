//! Hosts: the step.

use std::sync::Arc;

use jiff::SignedDuration;
use vmetal_lifecycle::Note;
use vmetal_lifecycle::grant::Effect;
use vmetal_lifecycle::host::{self, Change, Fate};
use vmetal_lifecycle::storm::{self, Storm};
use vmetal_model::{Host, HostPhase, Kind, OperationKind, OperationState, Timestamp, Wait};
use vmetal_store::CommitError;

use crate::engine::{Engine, ObjectKey};
use crate::lanes::{Place, PlacedLane, Urgency};
use crate::ledger::Batch;
use crate::ownership::{Author, Grip, Hold, Refusal};
use crate::secrets;

/// How often a host that is held back by a storm is looked at.
const STORM_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// How the wait of such a host begins.
const STORM_WAIT: &str = "the end of a storm of failures";

/// A wait for a turn that ends within this time is not told of: in a fleet that is declared all at once it would be a commit
/// for each host and turn.
const SHORT_WAIT: SignedDuration = SignedDuration::from_secs(30);

/// What a host waits for its turn to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Register,
    Boot,
}

/// What comes of a decision.
enum Opening {
    /// There is nothing to begin.
    Nothing,
    /// This may begin.
    Effect(OperationKind, Grip),
    /// Too many hosts fail.
    HeldBack(OperationKind, Storm),
    /// Others are before it.
    Queued(Turn, Timestamp),
    /// The lease is not in force for long enough.
    Refused(Refusal),
}

impl Engine {
    pub(super) async fn reconcile_host(self: &Arc<Self>, name: &str) -> Result<(), CommitError> {
        let key = ObjectKey::new(Kind::Host, name);
        if self.is_under_way(&key) {
            return Ok(());
        }
        let Some(hold) = self.ownership.hold(&key) else {
            self.leave_lanes(name);
            return Ok(());
        };
        let limits = self.limits_since(hold);
        let open = |host: &Host| host.status.operation.as_ref().is_some_and(|op| op.state == OperationState::Intended);
        if self.fleet.host(name).is_some_and(|host| open(&host)) {
            // An intent that nobody in this process works on: the engine was stopped in between.
            let recover = |host: &Host| host::recover(host, &limits, self.now());
            self.change_host(Author::Owner(hold), name, recover, |_, _| {}).await?;
        }
        let Some(host) = self.fleet.host(name) else {
            self.leave_lanes(name);
            return Ok(());
        };
        let now = self.now();
        let decision = host::decide(&host, &limits, now);
        if decision.fate == Fate::Remove {
            self.leave_lanes(name);
            let uid = &host.metadata.uid;
            self.fleet.set_token(uid, None);
            let kept = [secrets::bmc_password(uid), secrets::next_bmc_password(uid), secrets::boot_token(uid)];
            self.remove(hold, &*host, &kept, now).await?;
            self.gateways.forget(&host.spec.bmc.address);
            return Ok(());
        }
        if let Some(next) = decision.next {
            self.wake_at(key.clone(), next);
        }
        // Before the intent is committed: an intent that nobody may act on would have to be looked after.
        let begun = match self.opening(hold, &host, &decision, now) {
            Opening::Nothing => None,
            Opening::Effect(kind, grip) => Some((kind, grip)),
            Opening::HeldBack(kind, storm) => {
                self.wake_in(key, STORM_PAUSE);
                return self.hold_back(hold, &host, kind, &storm).await;
            }
            Opening::Queued(turn, since) => return self.say_queued(hold, &host, turn, since).await,
            Opening::Refused(refusal) => {
                self.refused(key, &refusal);
                return Ok(());
            }
        };
        let mut batch = Batch::by(Author::Owner(hold));
        batch.notes(&*host, now, decision.notes);
        if decision.status != host.status {
            batch.replace(host.with_status(decision.status));
        }
        if !batch.is_empty() {
            self.ledger.commit(batch).await?;
        }
        if let (Some((kind, grip)), Some(host)) = (begun, self.fleet.host(name)) {
            let engine = Arc::clone(self);
            self.run(key, grip, |grip| async move { engine.perform(grip, host, kind).await });
        }
        Ok(())
    }

    /// What a decision has begun now, if anything may be.
    fn opening(&self, hold: Hold, host: &Host, decision: &host::Decision, now: Timestamp) -> Opening {
        let effect = decision.effect.map(Effect::kind);
        if let Some(kind) = effect.filter(|kind| storm::is_destructive(host, *kind))
            && let Some(storm) = self.storm()
        {
            return Opening::HeldBack(kind, storm);
        }
        if let Some((turn, since)) = self.queued(host, decision, now) {
            return Opening::Queued(turn, since);
        }
        match effect.map(|kind| self.ownership.grip(hold).map(|grip| (kind, grip))) {
            None => Opening::Nothing,
            Some(Ok((kind, grip))) => Opening::Effect(kind, grip),
            Some(Err(refusal)) => Opening::Refused(refusal),
        }
    }

    /// An outcome with what follows from it: where the host goes on at once, the next intent is committed with the outcome of
    /// the operation before, which halves the commits of a host on its way. What cannot begin now is left to the next look.
    pub(super) fn conclude(&self, hold: Hold, host: &Host, outcome: Change) -> (Change, Option<(OperationKind, Grip)>) {
        if self.is_stopping() {
            return (outcome, None);
        }
        let after = host.with_status(outcome.status.clone());
        let now = self.now();
        let decision = host::decide(&after, &self.limits_since(hold), now);
        if decision.fate != Fate::Keep {
            return (outcome, None);
        }
        let next = match self.opening(hold, &after, &decision, now) {
            Opening::Nothing => None,
            Opening::Effect(kind, grip) => Some((kind, grip)),
            Opening::HeldBack(..) | Opening::Queued(..) | Opening::Refused(_) => return (outcome, None),
        };
        let notes = outcome.notes.into_iter().chain(decision.notes).collect();
        (Change { status: decision.status, notes }, next)
    }

    /// Says on the host that something destructive is not begun, and why.
    async fn hold_back(&self, hold: Hold, host: &Host, kind: OperationKind, storm: &Storm) -> Result<(), CommitError> {
        let told = host.status.wait.as_ref().is_some_and(|wait| wait.reason.starts_with(STORM_WAIT));
        if told {
            return Ok(());
        }
        let now = self.now();
        let reason = format!("{STORM_WAIT}: {}", storm.reason());
        let mut batch = Batch::by(Author::Owner(hold));
        batch.notes(
            host,
            now,
            [Note::warning("held_back", format!("{} is not begun: {}", kind.describe(), storm.reason()))],
        );
        let mut changed = host.clone();
        let deadline = None;
        changed.status.wait =
            Some(Wait { reason, unblocks: storm.remedy(), since: storm.since, next_check: None, deadline });
        batch.replace(changed);
        self.ledger.commit(batch).await.map(|_| ())
    }

    /// Keeps the lanes in step with what a host does, and asks for a place where it is to begin something. What it waits for
    /// and since when, when there is none.
    fn queued(&self, host: &Host, decision: &host::Decision, now: Timestamp) -> Option<(Turn, Timestamp)> {
        let (name, effect) = (host.name(), decision.effect.map(Effect::kind));
        let registers = decision.status.phase == HostPhase::Registering && effect.is_some();
        if !registers {
            self.leave(self.lanes.register(), name);
        }
        let boots = effect == Some(OperationKind::OpenBoot);
        match host::runs_installer(&decision.status) {
            // Its place is asked for, not taken.
            _ if boots => {}
            true => self.lanes.boot().resume(name),
            false => self.leave(self.lanes.boot(), name),
        }
        let urgency = if host.status.claim.is_some() { Urgency::Claimed } else { Urgency::Pool };
        if registers && let Place::Queued { since } = self.lanes.register().enter(name, urgency, now) {
            return Some((Turn::Register, since));
        }
        if boots && let Place::Queued { since } = self.lanes.boot().enter(name, urgency, now) {
            return Some((Turn::Boot, since));
        }
        None
    }

    fn leave_lanes(&self, name: &str) {
        for lane in [self.lanes.register(), self.lanes.boot()] {
            self.leave(lane, name);
        }
    }

    fn leave(&self, lane: &PlacedLane, name: &str) {
        if let Some(next) = lane.leave(name) {
            self.scheduler.wake(ObjectKey::new(Kind::Host, next));
        }
    }

    /// Says on the host that it waits for its turn, once it has waited for a while. Whoever leaves the lane wakes it.
    async fn say_queued(&self, hold: Hold, host: &Host, turn: Turn, since: Timestamp) -> Result<(), CommitError> {
        let lanes = &self.config.lanes;
        let (reason, unblocks) = match turn {
            Turn::Register => (
                "its turn to be registered",
                format!("fewer than {} others are being registered (lanes.register)", lanes.register),
            ),
            Turn::Boot => (
                "its turn to boot from the network",
                format!("fewer than {} others boot or run the installer (lanes.boot)", lanes.boot),
            ),
        };
        match &host.status.wait {
            Some(wait) if wait.reason == reason => return Ok(()),
            // What it says of another wait is over.
            Some(_) => {}
            None if self.now().duration_since(since) < SHORT_WAIT => {
                let due = since.saturating_add(SHORT_WAIT).unwrap_or(Timestamp::MAX);
                self.wake_at(ObjectKey::new(Kind::Host, host.name()), due);
                return Ok(());
            }
            None => {}
        }
        let mut changed = host.clone();
        let reason = reason.to_owned();
        changed.status.wait = Some(Wait { reason, unblocks, since, next_check: None, deadline: None });
        let mut batch = Batch::by(Author::Owner(hold));
        batch.replace(changed);
        self.ledger.commit(batch).await.map(|_| ())
    }
}
