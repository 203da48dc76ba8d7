//! From deletion to a host that is back in the pool.

use jiff::SignedDuration;
use vmetal_model::tenant_node::DrainTimeout;
use vmetal_model::{Cause, ClaimState, Failure, HostPhase, Stage, TenantNodePhase as Phase};

use super::{DrainPass, Effect, Turn};
use crate::host::Fate;
use crate::limits::after;
use crate::note::Note;

impl Turn<'_> {
    pub(super) fn draining(&mut self) {
        // A token that is out of use must not outlive the claim, whatever happens later.
        if self.now >= self.drain_deadline() && self.cluster_is_lost() {
            return self.release_host("the tenant's cluster does not answer and the drain deadline has passed");
        }
        if self.status.token_id.is_some() {
            self.effect = Some(Effect::RevokeToken);
        } else if self.status.node_uid.is_none() {
            self.release_host("the Node never became Ready: nothing runs there");
        } else {
            self.effect = Some(Effect::Drain);
        }
    }

    /// True when the cluster has not answered for so long that the host does not wait for it. Where pods are to be waited
    /// for, one lost call after the deadline is not that long.
    fn cluster_is_lost(&self) -> bool {
        let Some(failure) = self.status.failure.as_ref().filter(|failure| failure.cause != Cause::Drain) else {
            return false;
        };
        match self.view.node.spec.drain.on_timeout {
            DrainTimeout::Force => true,
            DrainTimeout::Wait => self.now >= after(failure.at, self.limits.node_removal),
        }
    }

    fn drain_deadline(&self) -> vmetal_model::Timestamp {
        let timeout = SignedDuration::from_secs(i64::from(self.view.node.spec.drain.timeout_seconds));
        after(self.status.phase_since, timeout)
    }

    fn release_host(&mut self, why: &str) {
        self.claim = Some(ClaimState::Release);
        self.enter(Phase::Released, why);
    }

    pub(super) fn drained(&mut self, pass: DrainPass) {
        let (leaving, held) = match pass {
            DrainPass::Empty => return self.release_host("every pod has left"),
            DrainPass::Remaining { leaving, held } => (leaving, held),
        };
        let deadline = self.drain_deadline();
        let over = self.now >= deadline;
        if over && self.view.node.spec.drain.on_timeout == DrainTimeout::Force {
            let left = [leaving, held].concat().join(", ");
            self.notes.push(Note::warning("drain", format!("the drain deadline has passed with pods left: {left}")));
            return self.release_host("the drain deadline has passed");
        }
        let held_text =
            if held.is_empty() { String::new() } else { format!("; held by a disruption budget: {}", held.join(", ")) };
        if over {
            let message = format!("pods are still there after the drain deadline: {}{held_text}", leaving.join(", "));
            if self.status.failure.as_ref().map(|failure| &failure.message) != Some(&message) {
                self.notes.push(Note::warning("drain", message.clone()));
                let advice = "free the pods, or set drain.on_timeout to force".to_owned();
                self.status.failure = Some(Failure { cause: Cause::Drain, message, advice, at: self.now });
            }
        }
        let next = after(self.now, SignedDuration::from_secs(5));
        self.wait(
            "pods to leave",
            format!("{} pods on their way{held_text}", leaving.len()),
            None,
            (!over).then_some(deadline),
        );
        self.pause_until(next);
    }

    /// The tenant's cluster cannot be reached for good: the host must not wait for it.
    pub(super) fn leave_node_behind(&mut self, failure: &Failure) {
        let node = self.status.node_name.clone().unwrap_or_default();
        let message =
            format!("Node {node} could not be deleted ({}); its host is erased all the same", failure.message);
        self.notes.push(Note::warning("node_left", message));
        self.claim = Some(ClaimState::Erase);
        if self.view.held().is_none() {
            self.status.provider_id = None;
        }
        self.look_again_at(self.now);
    }

    /// Erased, and the claim is off the host: it only has to reach the pool.
    fn given_back(&mut self) -> Fate {
        match self
            .view
            .host
            .filter(|host| host.status.phase == HostPhase::Deprovisioning && host.status.claim.is_none())
        {
            Some(host) => {
                let reason = format!("host {} to be back in the pool", host.name());
                self.wait(&reason, "the BMC reports it off".to_owned(), None, None);
                Fate::Keep
            }
            None => {
                self.notes.push(Note::info("released", "the host is back in the pool"));
                Fate::Remove
            }
        }
    }

    pub(super) fn released(&mut self) -> Fate {
        let Some(host) = self.view.held() else {
            let lost = self.view.host.is_some_and(|host| host.status.lost_by(&self.view.node.metadata.uid).is_some());
            if lost && self.status.provider_id.is_some() {
                self.effect = Some(Effect::DeleteNode);
                return Fate::Keep;
            }
            return self.given_back();
        };
        let state = host.status.claim.as_ref().map(|claim| claim.state);
        let off = host.status.stage == Stage::NodeRemoval;
        match state {
            Some(ClaimState::Erase) => {
                let reason = format!("host {} to be erased", host.name());
                let unblocks = host.status.wait.as_ref().map_or_else(String::new, |wait| wait.reason.clone());
                self.wait(&reason, unblocks, None, None);
            }
            Some(ClaimState::Release) if off && self.status.provider_id.is_none() => {
                self.claim = Some(ClaimState::Erase)
            }
            Some(ClaimState::Release) if off => self.effect = Some(Effect::DeleteNode),
            Some(ClaimState::Release) => {
                let reason = format!("host {} to be off", host.name());
                self.wait(&reason, "the BMC reports it off".to_owned(), None, None);
            }
            _ => self.claim = Some(ClaimState::Release),
        }
        Fate::Keep
    }
}
