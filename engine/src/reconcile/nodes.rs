//! Claims: the step, the decision and its reservation, and the effects on the tenant's cluster.

use std::sync::Arc;
use std::time::Duration;

use vmetal_lifecycle::host::Fate;
use vmetal_lifecycle::node::{self, Effect, Effected, View};
use vmetal_model::{Cause, Claim, ClaimState, Failure, Host, Kind, Metadata, NodeType, TenantNode, TenantNodePhase};
use vmetal_store::CommitError;

use crate::engine::{Engine, ObjectKey};
use crate::ledger::Batch;
use crate::secrets;

/// The pause after a commit that the store refuses for good: the effect it was about is begun again.
const PAUSE: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) async fn reconcile_node(self: &Arc<Self>, name: &str) -> Result<(), CommitError> {
        let key = ObjectKey::new(Kind::TenantNode, name);
        if self.is_under_way(&key) {
            return Ok(());
        }
        let Some(current) = self.fleet.node(name) else { return Ok(()) };
        let host = self.fleet.host_of(&current);
        let view = View { node: &current, host: host.as_deref() };
        let decision = node::step(view, &self.limits, self.now());
        if decision.fate == Fate::Remove {
            let uid = &current.metadata.uid;
            let now = self.now();
            self.questions.forget(uid);
            return self.remove(&*current, &[secrets::user_data(uid), secrets::join(uid)], now).await;
        }
        let (mut effect, mut next) = (decision.effect, decision.next);
        if effect == Some(Effect::Decide) {
            let Metadata { uid, generation, .. } = &current.metadata;
            let due = self.questions.due(uid, *generation, self.now(), self.limits.decide_again);
            if due.is_some() {
                (effect, next) = (None, due);
            }
        }
        self.record(&current, host.as_deref(), decision).await?;
        if let Some(next) = next {
            self.wake_at(key.clone(), next);
        }
        if let Some(effect) = effect {
            let engine = Arc::clone(self);
            let name = name.to_owned();
            self.run(key, async move { engine.perform_for_node(&name, effect).await });
        }
        Ok(())
    }

    /// Commits what was decided about a claim, and about its hold on the host, as one.
    async fn record(
        &self,
        current: &TenantNode,
        host: Option<&Host>,
        decision: node::Decision,
    ) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        batch.notes(current, self.now(), decision.notes);
        if decision.status != current.status {
            let mut changed = current.clone();
            changed.status = decision.status;
            batch.replace(changed);
        }
        if let (Some(state), Some(host)) = (decision.claim, host) {
            let mut changed = host.clone();
            // Another claim's hold on the host is not ours to change.
            if let Some(claim) = changed.status.claim.as_mut().filter(|claim| claim.uid == current.metadata.uid) {
                claim.state = state;
            }
            if changed.status != host.status {
                batch.replace(changed);
            }
        }
        if batch.is_empty() { Ok(()) } else { self.ledger.commit(batch).await.map(|_| ()) }
    }

    async fn perform_for_node(self: Arc<Self>, name: &str, effect: Effect) {
        if effect == Effect::Decide {
            return self.decide(name).await;
        }
        let Some(current) = self.fleet.node(name) else { return };
        let result = self.act_for_node(&current, effect).await;
        self.take_outcome(name, effect, result).await;
    }

    /// Records the outcome of an effect, deciding again until the commit wins.
    async fn take_outcome(&self, name: &str, effect: Effect, result: Result<Effected, Failure>) {
        loop {
            let Some(current) = self.fleet.node(name) else { return };
            let host = self.fleet.host_of(&current);
            let view = View { node: &current, host: host.as_deref() };
            let decision = node::outcome(view, &self.limits, effect, result.clone(), self.now());
            let next = decision.next;
            match self.record(&current, host.as_deref(), decision).await {
                Ok(()) => {
                    if let Some(next) = next {
                        self.wake_at(ObjectKey::new(Kind::TenantNode, name), next);
                    }
                    return;
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) if error.is_retryable() => self.store_trouble(&error).await,
                Err(error) => {
                    tracing::error!(node = name, %error, "an outcome could not be recorded; the effect is repeated");
                    return tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Asks the policies, and reserves the chosen host in the same commit that records the choice: guarded by both
    /// revisions, so that no host is ever promised twice and no claim gets two hosts.
    async fn decide(&self, name: &str) {
        let alone = self.placing.lock().await;
        loop {
            let Some(current) = self.fleet.node(name) else { return };
            // A commit of unknown outcome may have given it a host; a second one would never be let go.
            if current.status.phase != TenantNodePhase::Pending || current.is_deleted() {
                return;
            }
            let pool = self.questions.pool();
            let hosts = self.fleet.hosts();
            let node_types: Vec<NodeType> = self.fleet.node_types().iter().map(|o| (**o).clone()).collect();
            let now = self.now();
            let outcome = match self.policies.decide(&current, &node_types, &hosts, now) {
                Ok(outcome) => outcome,
                Err(error) => {
                    let failure = Failure {
                        cause: Cause::Policy,
                        message: format!("the policy gave no usable answer: {error}"),
                        advice: "look at the policy; the claim waits and is decided again".to_owned(),
                        at: now,
                    };
                    return self.take_outcome(name, Effect::Decide, Err(failure)).await;
                }
            };
            let chosen = outcome.host.and_then(|index| hosts.get(index));
            let Metadata { uid, generation, .. } = &current.metadata;
            match chosen {
                Some(_) => self.questions.forget(uid),
                None => self.questions.unanswered(uid, *generation, pool, now),
            }
            let reserved = chosen.map(|host| (host.name().to_owned(), host.metadata.uid.clone()));
            let effected = Effected::Decided(outcome.decision, reserved);
            let view = View { node: &current, host: None };
            let decision = node::outcome(view, &self.limits, Effect::Decide, Ok(effected), now);
            let mut batch = Batch::new();
            batch.notes(&*current, now, decision.notes);
            if decision.status != current.status {
                let mut changed = (*current).clone();
                changed.status = decision.status;
                batch.replace(changed);
            }
            if let Some(host) = chosen {
                let mut changed = (**host).clone();
                changed.status.claim = Some(Claim {
                    node: name.to_owned(),
                    uid: current.metadata.uid.clone(),
                    state: ClaimState::Reserved,
                    since: now,
                });
                let note = vmetal_lifecycle::Note::info("claimed", format!("claimed by tenant node {name}"));
                batch.notes(&**host, now, [note]);
                batch.replace(changed);
            }
            if batch.is_empty() {
                return;
            }
            match self.ledger.commit(batch).await {
                Ok(_) => return,
                Err(CommitError::Conflict { .. }) => {}
                Err(error) if error.is_retryable() => self.store_trouble(&error).await,
                Err(error) => {
                    tracing::error!(node = name, %error, "a decision could not be recorded; deciding again");
                    drop(alone);
                    return tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
