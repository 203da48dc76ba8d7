//! From wish to Ready node.

use vmetal_model::{Cause, ClaimState, Failure, HostPhase, TenantNodePhase as Phase};

use super::{Effect, Effected, Sight, Turn};
use crate::limits::after;
use crate::note::Note;

impl Turn<'_> {
    pub(super) fn pending(&mut self) {
        self.effect = Some(Effect::Decide);
        self.look_again_at(after(self.now, self.limits.decide_again));
    }

    pub(super) fn scheduled(&mut self) {
        // Each obstacle has its own time, from when it was first met; the import of an image takes as long as it takes.
        let obstacle = self.status.failure.as_ref();
        let (limit, whole) = match obstacle.map(|failure| failure.cause) {
            Some(Cause::ImagePending) => (self.limits.import, self.limits.import),
            _ => (self.limits.seed, self.limits.import + self.limits.seed),
        };
        let met = obstacle.map_or(self.status.phase_since, |failure| failure.at.max(self.status.phase_since));
        if self.now < after(met, limit).min(after(self.status.phase_since, whole)) {
            self.effect = Some(Effect::PrepareJoin);
            return;
        }
        let last = self.status.failure.clone();
        let why = last.as_ref().map_or_else(String::new, |failure| format!(": {}", failure.message));
        self.give_up(Failure {
            cause: last.as_ref().map_or(Cause::Internal, |failure| failure.cause),
            message: format!("join token and user data were not ready within {limit:#}{why}"),
            advice: last.map_or_else(
                || "look at the engine's log; then delete the tenant node and create it again".to_owned(),
                |failure| format!("{}; then delete the tenant node and create it again", failure.advice),
            ),
            at: self.now,
        });
    }

    pub(super) fn effected(&mut self, effected: Effected) {
        match effected {
            Effected::Decided(choice, Some((host, uid))) => {
                let reason = choice.reason.clone();
                self.status.decision = Some(choice);
                self.status.host = Some(host);
                self.status.host_uid = Some(uid);
                self.enter(Phase::Scheduled, &reason);
            }
            Effected::Decided(choice, None) if self.status.phase == Phase::Failed => self.told(&choice),
            Effected::Decided(choice, None) => self.undecided(choice),
            Effected::Gathering(why) => self.gathering(why),
            Effected::Prepared { token_id, node_name, provider_id, image } => {
                self.status.token_id = Some(token_id);
                self.status.node_name = Some(node_name);
                self.status.provider_id = Some(provider_id);
                self.claim = Some(ClaimState::Install);
                self.image = Some(image);
                self.enter(Phase::Provisioning, "join token and user data are ready");
            }
            Effected::Seen(sight) => self.seen(sight),
            Effected::Revoked => {
                self.status.token_id = None;
                self.notes.push(Note::info("token", "the join token was revoked"));
                if self.status.phase == Phase::Joining {
                    self.now_ready();
                }
                self.look_again_at(self.now);
            }
            Effected::Drained(pass) => self.drained(pass),
            Effected::Deleted => {
                self.claim = Some(ClaimState::Erase);
                if self.view.held().is_none() {
                    self.status.provider_id = None;
                }
                self.notes.push(Note::info("node_deleted", "the Node is gone from the tenant's cluster"));
                self.look_again_at(self.now);
            }
        }
    }

    fn undecided(&mut self, choice: vmetal_model::Decision) {
        let said = self.status.decision.as_ref().map(|old| &old.reason) == Some(&choice.reason);
        if !said {
            self.notes.push(Note::warning("unschedulable", choice.reason.clone()));
        }
        let since = self.status.failure.as_ref().filter(|_| said).map_or(self.now, |failure| failure.at);
        self.status.failure = Some(Failure {
            cause: Cause::NoCandidate,
            message: choice.reason.clone(),
            advice: "add or free a host, or ask for less; the claim is decided again when the pool changes".to_owned(),
            at: since,
        });
        let old = self.status.decision.take();
        // The same answer is not news: keep the old one, so that nothing is written. The digest covers the time of asking and
        // always differs.
        let asked_again = |old: &vmetal_model::Decision| vmetal_model::Decision {
            input_digest: old.input_digest.clone(),
            at: old.at,
            log: old.log.clone(),
            ..choice.clone()
        };
        self.status.decision = match old {
            Some(old) if old == asked_again(&old) => Some(old),
            _ => Some(choice),
        };
        let unblocks = "a matching host becomes available, or the claim changes".to_owned();
        self.wait("a host", unblocks, None, None);
        self.look_again_at(after(self.now, self.limits.decide_again));
    }

    /// The claim's group is not whole: nothing failed, and nothing is to be decided.
    fn gathering(&mut self, why: String) {
        self.status.failure = None;
        self.status.decision = None;
        let group = self.view.node.spec.group.as_ref().map_or("", |group| group.name.as_str());
        self.wait(&format!("group {group} to be whole"), why, None, None);
        self.look_again_at(after(self.now, self.limits.decide_again));
    }

    pub(super) fn provisioning(&mut self) {
        let Some(host) = self.view.held() else { return };
        match host.status.phase {
            HostPhase::Provisioned => self.enter(Phase::Joining, &format!("host {} runs its image", host.name())),
            HostPhase::Error => {
                let failure = host.status.failure.clone();
                let message = failure.as_ref().map_or("it is in error".to_owned(), |failure| failure.message.clone());
                self.give_up(Failure {
                    cause: failure.as_ref().map_or(Cause::Internal, |failure| failure.cause),
                    message: format!("host {}: {message}", host.name()),
                    advice: failure.map_or_else(
                        || "look at the host's events; the tenant node goes on when its host does".to_owned(),
                        |failure| failure.advice,
                    ),
                    at: self.now,
                });
            }
            phase => {
                let reason = format!("host {} to be provisioned", host.name());
                let doing =
                    host.status.wait.as_ref().map_or_else(|| phase.as_str().to_owned(), |wait| wait.reason.clone());
                self.wait(&reason, doing, None, None);
            }
        }
    }

    pub(super) fn joining(&mut self) {
        if self.status.node_uid.is_some() {
            // Seen Ready; what is left is the token.
            match self.status.token_id {
                Some(_) => self.effect = Some(Effect::RevokeToken),
                None => self.now_ready(),
            }
            return;
        }
        let deadline = after(self.status.phase_since, self.limits.join);
        if self.now >= deadline {
            let last = self.status.wait.as_ref().map_or_else(String::new, |wait| wait.unblocks.clone());
            let limit = self.limits.join;
            return self.give_up(Failure {
                cause: Cause::Join,
                message: format!("the Node did not become Ready within {limit:#} of the first boot; last seen: {last}"),
                advice: "look at the host's console and at the kubelet's log; then delete the tenant node and create it again".to_owned(),
                at: self.now,
            });
        }
        self.effect = Some(Effect::CheckNode);
    }

    fn now_ready(&mut self) {
        let node = self.status.node_name.clone().unwrap_or_default();
        self.enter(Phase::Ready, &format!("Node {node} is Ready"));
    }

    fn seen(&mut self, sight: Sight) {
        let ready_phase = self.status.phase == Phase::Ready;
        let node = self.status.node_name.clone().unwrap_or_default();
        match sight {
            Sight::Ready { uid } if ready_phase => {
                if self.status.failure.take().is_some() {
                    self.notes.push(Note::info("node_ready", format!("Node {node} is Ready again")));
                }
                self.status.node_uid = Some(uid);
                self.status.wait = None;
                self.pause_until(after(self.now, self.limits.ready_poll));
            }
            Sight::Ready { uid } => {
                self.status.node_uid = Some(uid);
                self.status.failure = None;
                self.look_again_at(self.now);
            }
            // The tenant may do with its Nodes what it likes; the workload on the host goes on.
            Sight::Foreign(how) if ready_phase => self.unready(format!("Node {node} is not ours any more: {how}")),
            Sight::Foreign(how) => self.give_up(Failure {
                cause: Cause::ForeignNode,
                message: format!("a Node named {node} exists and is not ours: {how}"),
                advice: "delete that Node, or give the tenant node another name; it is never adopted".to_owned(),
                at: self.now,
            }),
            Sight::Absent if ready_phase => self.unready(format!("Node {node} is gone from the tenant's cluster")),
            Sight::NotReady(why) if ready_phase => {
                self.unready(format!("Node {node} is not Ready: {}", why.join(", ")))
            }
            Sight::Absent => self.still_joining(format!("Node {node} has not registered yet")),
            Sight::NotReady(why) => self.still_joining(format!("Node {node}: {}", why.join(", "))),
        }
    }

    fn still_joining(&mut self, seen: String) {
        let next = after(self.now, self.limits.join_poll);
        let deadline = after(self.status.phase_since, self.limits.join);
        self.wait("the Node to be Ready", seen, None, Some(deadline));
        self.status.failure = None;
        self.pause_until(next);
    }

    fn unready(&mut self, message: String) {
        if self.status.failure.as_ref().map(|failure| &failure.message) != Some(&message) {
            self.notes.push(Note::warning("node_not_ready", message.clone()));
            let advice = "the tenant's cluster decides; nothing is done to the host".to_owned();
            self.status.failure = Some(Failure { cause: Cause::Join, message, advice, at: self.now });
        }
        self.pause_until(after(self.now, self.limits.ready_poll));
    }

    pub(super) fn ready(&mut self) {
        if self.status.token_id.is_some() {
            self.effect = Some(Effect::RevokeToken);
        } else {
            self.effect = Some(Effect::CheckNode);
        }
    }
}
