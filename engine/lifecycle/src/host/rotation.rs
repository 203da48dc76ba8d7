//! A new password for a BMC.
//!
//! The order's password is kept beside the one that holds until it is known that the BMC takes it, so that a crash at any
//! moment leaves the engine with the right one among two. Whether it was given already is asked of the BMC before it is given
//! again, and where the old one is refused: somebody else may have been faster. A failure touches nothing that the host is
//! doing: a tenant's server is not in `error` because a password could not be changed. A success lets a host go on that is in
//! `error` because its BMC let nobody in.

use vmetal_model::{Cause, Failure, HostPhase, OperationState, Rotation, Stage, Timestamp};

use super::operator::ActionRefused;
use super::{Change, Effected, Setback, Turn};
use crate::grant::Gentle;
use crate::limits::{Limits, after};
use crate::note::Note;

/// Takes in the order. The new password has to be kept with the change.
///
/// # Errors
/// [`ActionRefused`] when no reason is given, no password is known yet, or another change is under way.
pub fn order(
    host: &vmetal_model::Host,
    limits: &Limits,
    reason: &str,
    by: &str,
    now: Timestamp,
) -> Result<Change, ActionRefused> {
    let refuse = |message: String, advice: &str| Err(ActionRefused { message, advice: advice.to_owned() });
    let name = host.name();
    if reason.trim().is_empty() {
        return refuse("a new password needs a reason".to_owned(), "give one with --reason");
    }
    let mut turn = Turn::new(host, limits, now);
    if turn.goes() {
        return refuse(format!("host {name} is being deleted"), "its BMC's password stays as it is");
    }
    if host.status.phase == HostPhase::Discovered {
        return refuse(format!("no BMC password is known for host {name}"), "apply the host with the one that holds");
    }
    if let Some(under_way) = host.status.rotation.as_ref().filter(|rotation| !rotation.ended) {
        let message = format!("a new password is on its way to the BMC of host {name} since {}", under_way.hold.since);
        return refuse(message, "wait until it is known what became of it: `vmetal describe host`");
    }
    let hold = vmetal_model::Hold { reason: reason.to_owned(), by: by.to_owned(), since: now, until: None };
    turn.notes.push(Note::info("ordered", format!("a new BMC password ordered by {by}: {reason}")));
    let rotation = Rotation { hold, tries: 0, not_before: None, failure: None, ended: false };
    turn.status.rotation = Some(Box::new(rotation));
    Ok(turn.change())
}

impl Turn<'_> {
    /// Begins a try when one is due and the host is at rest or waits for somebody else; true when it did.
    pub(super) fn rotates(&mut self) -> bool {
        // Elsewhere a step relies on what the operation before it was.
        let waits = matches!(
            self.status.stage,
            Stage::Idle
                | Stage::Seed
                | Stage::Agent
                | Stage::Work
                | Stage::FirstBoot
                | Stage::HandOver
                | Stage::NodeRemoval
        );
        let Some(rotation) = self.status.rotation.as_mut().filter(|rotation| waits && !rotation.ended) else {
            return false;
        };
        match rotation.not_before.filter(|at| *at > self.now) {
            Some(at) => {
                self.look_again_at(at);
                false
            }
            None => {
                rotation.tries += 1;
                rotation.not_before = None;
                self.aside(Gentle::ChangePassword);
                true
            }
        }
    }

    /// What became of a try.
    pub(super) fn rotated(&mut self, result: Result<Effected, Setback>) {
        let (done, failed) = match result {
            Ok(_) => (OperationState::Succeeded, None),
            Err(setback) => (OperationState::Failed { failure: setback.failure.clone() }, Some(setback)),
        };
        if let Some(operation) = &mut self.status.operation {
            operation.state = done;
        }
        self.look_again_at(self.now);
        let Some(Setback { failure, not_before }) = failed else {
            self.notes.push(Note::info("password_changed", "the BMC has its new password, and lets us in with it"));
            self.status.rotation = None;
            let locked_out = self.status.failure.as_ref().is_some_and(|failure| failure.cause == Cause::BmcCredentials);
            if self.status.phase == HostPhase::Error && locked_out {
                self.go_on("the BMC lets us in");
            }
            return;
        };
        let limits = self.limits;
        let uid = &self.host.metadata.uid;
        let now = self.now;
        let Some(rotation) = &mut self.status.rotation else { return };
        if may_have_happened(&failure) {
            let pause = after(now, limits.pause(rotation.tries, uid));
            rotation.not_before = Some(not_before.map_or(pause, |asked| asked.max(pause)));
            self.notes.push(Note::warning("password_change", format!("{failure}; it is looked at again")));
        } else {
            rotation.ended = true;
            self.notes
                .push(Note::error("password_change", format!("{failure}; the engine goes on with the old password")));
        }
        rotation.failure = Some(failure);
    }
}

/// Whether a failure leaves it open which password holds: everything but a plain no of the BMC.
fn may_have_happened(failure: &Failure) -> bool {
    !matches!(failure.cause, Cause::BmcCredentials | Cause::BmcProtocol | Cause::BmcNotApplied)
}
