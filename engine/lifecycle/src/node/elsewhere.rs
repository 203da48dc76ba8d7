//! A claim that failed on one host, and goes to another.
//!
//! First it is asked whether there is another host: a claim that has nowhere to go stays where it is, so that an operator
//! finds things as they were. Then the first host is left as at any release: the token is revoked, the host switched off,
//! the Node deleted. Only then is the claim decided on again, without the hosts it was given up on. The first host is erased
//! by itself; the claim does not wait for that.

use vmetal_model::TenantNodePhase as Phase;
use vmetal_model::{Cause, ClaimState, Decision as Choice, Failure, HostPhase, Recourse, Stage, TriedHost};

use super::{Effect, Turn};
use crate::limits::after;
use crate::note::Note;

impl Turn<'_> {
    /// Whether another host can help, and the claim may still try one.
    pub(super) fn may_move(&self, failure: &Failure) -> bool {
        let lost = self.view.held().is_none();
        let installed = self.status.provider_id.is_some();
        (lost || installed && elsewhere_helps(failure.cause))
            && self.status.tried.len() + 1 < self.limits.hosts_per_claim
    }

    /// The host is not the claim's any more, without its doing: installing failed for good, somebody took the host away, or
    /// it was removed.
    pub(super) fn host_lost(&mut self) {
        let name = self.status.host.clone().unwrap_or_default();
        let ended = self.view.host.and_then(|host| host.status.lost_by(&self.view.node.metadata.uid));
        self.give_up(match ended {
            Some(ended) => {
                Failure { message: format!("host {name}: {}", ended.failure.message), ..ended.failure.clone() }
            }
            // Put in order before this was heard: its record of the tenancy ended with the erasure.
            None if self.view.host.is_some() => Failure {
                cause: Cause::Forced,
                message: format!("host {name} was taken from this tenant node, and its disks have been erased since"),
                advice: format!("`vmetal events host {name}` tells why"),
                at: self.now,
            },
            None => Failure {
                cause: Cause::MissingReference,
                message: format!("the reserved host {name} is gone"),
                advice: "delete the tenant node and create it again".to_owned(),
                at: self.now,
            },
        });
    }

    /// A failed claim goes on when its host does, or on another host.
    pub(super) fn failed_node(&mut self) {
        if self.status.recourse == Some(Recourse::Leaving) {
            return self.leave();
        }
        let failure = self.status.failure.clone();
        // A claim whose join was never prepared has nothing to go on with: its host waits for it, not it for the host.
        let prepared = self.status.provider_id.is_some();
        let by_host = prepared && !matches!(failure.as_ref().map(|f| f.cause), Some(Cause::Join | Cause::ForeignNode));
        match self.view.held().map(|host| host.status.phase) {
            Some(HostPhase::Provisioned) if by_host => return self.enter(Phase::Joining, "the host went on"),
            Some(HostPhase::Provisioning) if by_host => return self.enter(Phase::Provisioning, "the host goes on"),
            _ => {}
        }
        let movable = failure.as_ref().is_some_and(|failure| self.may_move(failure));
        match self.status.recourse {
            Some(_) => self.wait("another host", "the policies say whether there is one".to_owned(), None, None),
            None if self.status.wait.is_none() => self.stuck(match movable {
                true => "no other host is free",
                false if self.status.tried.is_empty() => "another host would not help",
                false => "no more hosts are tried",
            }),
            None => {}
        }
        if movable {
            self.effect = Some(Effect::Decide);
            self.look_again_at(after(self.now, self.limits.decide_again));
        }
    }

    fn stuck(&mut self, why: &str) {
        let unblocks = format!("the host goes on, or the tenant node is deleted ({why})");
        self.wait("an operator", unblocks, None, None);
    }

    /// The policies said whether there is another host.
    pub(super) fn told(&mut self, choice: &Choice) {
        if self.status.recourse == Some(Recourse::Leaving) {
            return;
        }
        let (Some(other), Some(host), Some(host_uid), Some(failure)) =
            (&choice.host, self.status.host.clone(), self.status.host_uid.clone(), self.status.failure.clone())
        else {
            self.status.recourse = None;
            let why = format!("no other host is free: {}", choice.reason);
            return self.stuck(&why);
        };
        self.status.recourse = Some(Recourse::Leaving);
        // A host that was lost may have been put in order since. Then it is as good as any.
        if *other == host {
            self.notes.push(Note::info("moving", format!("host {host} is free again")));
        } else {
            let (nth, of) = (self.status.tried.len() + 1, self.limits.hosts_per_claim);
            let message =
                format!("host {host} is given up for this tenant node, try {nth} of {of}; host {other} is free");
            self.notes.push(Note::warning("moving", message));
            self.status.tried.push(TriedHost { host, host_uid, failure });
        }
        self.look_again_at(self.now);
    }

    /// The policies gave no usable answer about another host. What failed before is what the operator must see.
    pub(super) fn not_told(&mut self, failure: &Failure) {
        self.status.failures += 1;
        if self.status.failures == 1 {
            self.notes.push(Note::warning("failed", failure.to_string()));
        }
        let pause = self.limits.pause(self.status.failures, &self.view.node.metadata.uid);
        self.pause_until(after(self.now, pause));
    }

    /// Gives the host back as at any release, but for the pods: there are none on a Node that never was Ready.
    fn leave(&mut self) {
        if self.status.token_id.is_some() {
            self.effect = Some(Effect::RevokeToken);
            return;
        }
        let Some(host) = self.view.held() else {
            // Nobody waits for the Node's end but this claim.
            return match self.status.provider_id {
                Some(_) => self.effect = Some(Effect::DeleteNode),
                None => self.free_to_go(),
            };
        };
        let state = host.status.claim.as_ref().map(|claim| claim.state);
        // Not before: the kubelet of a running server makes its Node again, and under this name the next one could not join.
        let off = host.status.stage == Stage::NodeRemoval;
        match state {
            Some(ClaimState::Erase) => self.free_to_go(),
            Some(ClaimState::Release) if off => self.effect = Some(Effect::DeleteNode),
            Some(ClaimState::Release) => {
                let name = host.name();
                let unblocks = format!(
                    "the BMC reports it off; if the server is dead: vmetal host release {name} --force --reason ..."
                );
                self.wait(&format!("host {name} to be off"), unblocks, None, None);
            }
            _ => self.claim = Some(ClaimState::Release),
        }
    }

    fn free_to_go(&mut self) {
        let host = self.status.host.take().unwrap_or_default();
        self.status.host_uid = None;
        self.status.lease = None;
        self.status.token_id = None;
        self.status.node_name = None;
        self.status.provider_id = None;
        self.status.node_uid = None;
        self.status.decision = None;
        self.enter(Phase::Pending, &format!("host {host} was given up; another is looked for"));
    }
}

/// Whether the failure may be the host's, so that another host is worth trying. The others would fail anywhere.
fn elsewhere_helps(cause: Cause) -> bool {
    match cause {
        Cause::Image
        | Cause::ImagePending
        | Cause::NoCandidate
        | Cause::Policy
        | Cause::TenantUnreachable
        | Cause::TenantSetup
        | Cause::ForeignNode
        | Cause::Drain
        | Cause::MissingReference
        | Cause::Internal => false,
        Cause::BmcUnreachable
        | Cause::BmcCredentials
        | Cause::BmcCertificate
        | Cause::BmcForbidden
        | Cause::BmcProtocol
        | Cause::BmcSystem
        | Cause::BmcBusy
        | Cause::BmcNotApplied
        | Cause::AddressExhausted
        | Cause::AgentSilent
        | Cause::WrongMachine
        | Cause::Inspection
        | Cause::RootDevice
        | Cause::ImageDigest
        | Cause::Disk
        | Cause::BootSilent
        | Cause::Erase
        | Cause::Join
        | Cause::Forced => true,
    }
}
