//! The life of a claim: choose, reserve, prepare the join, wait for the Node, and give everything back in the right order.
//!
//! Release follows one order, each step only after the one before is known to be done: cordon and drain, revoke the token,
//! power off, delete the Node by uid, erase, back to the pool. Power goes off before the Node is deleted because a running
//! kubelet could create it again.

mod elsewhere;
mod join;
mod leave;

use vmetal_model::{
    Cause, ClaimState, Decision as Choice, Failure, Host, Recourse, TenantNode, TenantNodePhase as Phase,
    TenantNodeStatus, Timestamp, Uid, Wait,
};

use crate::host::Fate;
use crate::limits::{Limits, after};
use crate::note::Note;
use crate::transitions::node_may;

/// How much of one line of a host's log is kept: the host writes it, the store keeps it.
const LOG_LINE_CHARS: usize = 300;

/// What the engine can do for a claim. Each can be repeated without harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Ask the policies for a type and a host, and reserve the host.
    Decide,
    /// Make the join token and the user data.
    PrepareJoin,
    /// Look at the Node.
    CheckNode,
    /// Delete the join token.
    RevokeToken,
    /// Cordon, and ask pods to leave; one pass.
    Drain,
    /// Delete the Node, if it is ours.
    DeleteNode,
}

/// What a successful effect brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effected {
    /// A choice; with a host when one was reserved in the same commit.
    Decided(Choice, Option<(String, Uid)>),
    /// No choice: the claim's group cannot be placed yet, for this reason.
    Gathering(String),
    /// The join is prepared.
    Prepared {
        /// Public half of the token.
        token_id: String,
        /// The Node's name.
        node_name: String,
        /// The Node's provider id.
        provider_id: String,
        /// Digest of the image that the claim runs.
        image: String,
    },
    /// What the Node looks like.
    Seen(Sight),
    /// The token is gone.
    Revoked,
    /// One drain pass.
    Drained(DrainPass),
    /// The Node is gone.
    Deleted,
}

/// What the Node of a claim looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// There is no Node of that name.
    Absent,
    /// It is ours but not ready: why.
    NotReady(Vec<String>),
    /// It is ours and Ready.
    Ready {
        /// The Node's uid.
        uid: String,
    },
    /// A Node of that name exists and is not ours: how that shows.
    Foreign(String),
}

/// What a drain pass found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainPass {
    /// Nothing is left to evict.
    Empty,
    /// Pods that are still there, and those that a disruption budget holds.
    Remaining {
        /// Pods on their way out.
        leaving: Vec<String>,
        /// Pods that may not be disturbed now.
        held: Vec<String>,
    },
}

/// What the step may look at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The claim.
    pub node: &'a TenantNode,
    /// The host that it names, by identity, whether the claim still holds it or not.
    pub host: Option<&'a Host>,
}

impl<'a> View<'a> {
    /// The host, while the claim holds it.
    pub fn held(&self) -> Option<&'a Host> {
        let uid = &self.node.metadata.uid;
        self.host.filter(|host| host.status.claim.as_ref().is_some_and(|claim| claim.uid == *uid))
    }
}

/// What to do about a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// To be committed.
    pub status: TenantNodeStatus,
    /// To be committed with it.
    pub notes: Vec<Note>,
    /// To be set on the host's claim in the same commit.
    pub claim: Option<ClaimState>,
    /// To be set on it too, with [`ClaimState::Install`]: digest of the image that the claim runs.
    pub image: Option<String>,
    /// To be performed after the commit.
    pub effect: Option<Effect>,
    /// When to look again if nothing happens before.
    pub next: Option<Timestamp>,
    /// What becomes of the object.
    pub fate: Fate,
}

/// Decides what happens next.
pub fn step(view: View<'_>, limits: &Limits, now: Timestamp) -> Decision {
    let mut turn = Turn::new(view, limits, now);
    let fate = turn.run();
    turn.finish(fate)
}

/// Takes in the outcome of an effect.
pub fn outcome(
    view: View<'_>,
    limits: &Limits,
    effect: Effect,
    result: Result<Effected, Failure>,
    now: Timestamp,
) -> Decision {
    let mut turn = Turn::new(view, limits, now);
    // The host may have reported a failed join while the Node was looked at: what it said stands.
    if effect == Effect::CheckNode && turn.status.phase == Phase::Failed {
        return turn.finish(Fate::Keep);
    }
    match result {
        Ok(effected) => {
            turn.status.failures = 0;
            turn.status.not_before = None;
            // The cluster answers: what it did not answer before is over, and must not count against its pods.
            if turn.status.phase == Phase::Draining {
                turn.status.failure.take_if(|failure| failure.cause != Cause::Drain);
            }
            turn.effected(effected);
        }
        Err(failure) if effect == Effect::Decide && turn.status.phase == Phase::Failed => turn.not_told(&failure),
        Err(failure) => turn.failed(effect, failure),
    }
    turn.finish(Fate::Keep)
}

/// The installed system reports that joining failed.
pub fn join_failed(view: View<'_>, limits: &Limits, log: &str, now: Timestamp) -> Option<Decision> {
    // A host that was given up may still run what was installed there: its word is not about the present one.
    if !matches!(view.node.status.phase, Phase::Provisioning | Phase::Joining) || view.held().is_none() {
        return None;
    }
    let mut turn = Turn::new(view, limits, now);
    let tail = log.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(6);
    let tail: Vec<String> = tail.map(|line| line.chars().take(LOG_LINE_CHARS).collect()).collect();
    let tail: Vec<String> = tail.into_iter().rev().collect();
    turn.give_up(Failure {
        cause: Cause::Join,
        message: format!("joining the cluster failed on the host; the end of its log: {}", tail.join(" | ")),
        advice: "correct what the log names (image, network, cluster), then delete the tenant node and create it again"
            .to_owned(),
        at: now,
    });
    Some(turn.finish(Fate::Keep))
}

struct Turn<'a> {
    view: View<'a>,
    limits: &'a Limits,
    now: Timestamp,
    status: TenantNodeStatus,
    notes: Vec<Note>,
    claim: Option<ClaimState>,
    image: Option<String>,
    effect: Option<Effect>,
    next: Option<Timestamp>,
}

impl<'a> Turn<'a> {
    fn new(view: View<'a>, limits: &'a Limits, now: Timestamp) -> Self {
        let status = view.node.status.clone();
        Turn { view, limits, now, status, notes: Vec::new(), claim: None, image: None, effect: None, next: None }
    }

    fn finish(self, fate: Fate) -> Decision {
        let Turn { status, notes, claim, image, effect, next, .. } = self;
        Decision { status, notes, claim, image, effect, next, fate }
    }

    fn run(&mut self) -> Fate {
        let deleted = self.view.node.is_deleted();
        if deleted && !matches!(self.status.phase, Phase::Draining | Phase::Released) {
            if self.status.host.is_none() {
                return Fate::Remove;
            }
            self.enter(Phase::Draining, "deletion was asked for");
        }
        self.status.observed_generation = self.view.node.metadata.generation;
        let on_host =
            matches!(self.status.phase, Phase::Scheduled | Phase::Provisioning | Phase::Joining | Phase::Ready);
        // Also during a pause: the host's record of how the tenancy ended lasts only until it is erased.
        if on_host && self.view.held().is_none() {
            self.host_lost();
            return Fate::Keep;
        }
        if let Some(until) = self.paused_until() {
            self.look_again_at(until);
            return Fate::Keep;
        }
        match self.status.phase {
            Phase::Pending => self.pending(),
            Phase::Scheduled => self.scheduled(),
            Phase::Provisioning => self.provisioning(),
            Phase::Joining => self.joining(),
            Phase::Ready => self.ready(),
            Phase::Failed => self.failed_node(),
            Phase::Draining => self.draining(),
            Phase::Released => return self.released(),
        }
        Fate::Keep
    }

    /// The end of the pause, after a failure or until the next look. One that is further away than any was set by a clock
    /// that was wrong.
    fn paused_until(&self) -> Option<Timestamp> {
        let (_, longest) = self.limits.backoff;
        let longest = after(self.now, longest.max(self.limits.ready_poll));
        self.status.not_before.filter(|until| *until > self.now && *until <= longest)
    }

    fn enter(&mut self, phase: Phase, why: &str) {
        let from = self.status.phase;
        debug_assert!(node_may(from, phase), "{from:?} -> {phase:?} is not in the list of transitions");
        self.notes.push(Note::info("phase_changed", format!("{} -> {}: {why}", from.as_str(), phase.as_str())));
        self.status.phase = phase;
        self.status.phase_since = self.now;
        self.status.wait = None;
        self.status.recourse = None;
        self.status.failure = None;
        self.status.failures = 0;
        self.status.not_before = None;
        self.look_again_at(self.now);
    }

    fn give_up(&mut self, failure: Failure) {
        self.notes.push(Note::error("failed", failure.to_string()));
        if self.status.phase != Phase::Failed {
            self.enter(Phase::Failed, &failure.message);
        }
        self.status.recourse = self.may_move(&failure).then_some(Recourse::Looking);
        self.status.failure = Some(failure);
    }

    fn wait(&mut self, reason: &str, unblocks: String, next_check: Option<Timestamp>, deadline: Option<Timestamp>) {
        let since = self.status.wait.as_ref().filter(|w| w.reason == reason).map_or(self.now, |w| w.since);
        self.status.wait = Some(Wait { reason: reason.to_owned(), unblocks, since, next_check, deadline });
        for when in [next_check, deadline].into_iter().flatten() {
            self.look_again_at(when);
        }
    }

    fn look_again_at(&mut self, when: Timestamp) {
        self.next = Some(self.next.map_or(when, |next| next.min(when)));
    }

    fn pause_until(&mut self, when: Timestamp) {
        self.status.not_before = Some(when);
        self.look_again_at(when);
    }

    /// An effect failed: a pause, and for what no repetition helps, `failed`.
    fn failed(&mut self, effect: Effect, failure: Failure) {
        self.status.failures += 1;
        let pause = self.limits.pause(self.status.failures, &self.view.node.metadata.uid);
        let new = self.status.failure.as_ref().map(|old| old.cause) != Some(failure.cause);
        if new {
            self.notes.push(Note::warning("failed", failure.to_string()));
        }
        let hopeless = matches!(failure.cause, Cause::ForeignNode | Cause::Image | Cause::Join);
        let leaving = matches!(effect, Effect::RevokeToken | Effect::Drain | Effect::DeleteNode);
        if effect == Effect::DeleteNode && self.now >= after(self.status.phase_since, self.limits.node_removal) {
            return self.leave_node_behind(&failure);
        }
        if hopeless && !leaving && self.status.phase != Phase::Pending {
            return self.give_up(failure);
        }
        // The same trouble again keeps the time when it began.
        let since = self.status.failure.as_ref().filter(|_| !new).map_or(failure.at, |old| old.at);
        self.status.failure = Some(Failure { at: since, ..failure });
        self.pause_until(after(self.now, pause));
    }
}

#[cfg(test)]
mod tests;
