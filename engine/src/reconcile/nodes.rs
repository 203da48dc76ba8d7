//! Claims: the step, and the effects on the tenant's cluster. Decisions are taken in `claims`.

use std::sync::Arc;

use vmetal_lifecycle::host::Fate;
use vmetal_lifecycle::node::{self, Effect, Effected, View};
use vmetal_model::{Failure, Host, Kind, Metadata, TenantNode};
use vmetal_store::CommitError;

use crate::boundary::{Boundary, reached};
use crate::claims::PAUSE;
use crate::engine::{Engine, ObjectKey};
use crate::ledger::Batch;
use crate::ownership::{Author, Grip, Hold};
use crate::secrets;

impl Engine {
    pub(super) async fn reconcile_node(self: &Arc<Self>, name: &str) -> Result<(), CommitError> {
        let key = ObjectKey::new(Kind::TenantNode, name);
        if self.is_under_way(&key) {
            return Ok(());
        }
        let Some(hold) = self.ownership.hold(&key) else { return Ok(()) };
        let Some(current) = self.fleet.node(name) else { return Ok(()) };
        let host = self.fleet.host_of(&current);
        let view = View { node: &current, host: host.as_deref() };
        let decision = node::step(view, &self.limits, self.now());
        if decision.fate == Fate::Remove {
            let uid = &current.metadata.uid;
            let now = self.now();
            self.questions.forget(uid);
            return self.remove(hold, &*current, &[secrets::user_data(uid), secrets::join(uid)], now).await;
        }
        let (mut effect, mut next) = (decision.effect, decision.next);
        if effect == Some(Effect::Decide) {
            let Metadata { uid, generation, .. } = &current.metadata;
            let due = self.questions.due(uid, *generation, self.now(), self.limits.decide_again);
            if due.is_some() {
                (effect, next) = (None, due);
            }
        }
        self.record(hold, &current, host.as_deref(), decision).await?;
        if let Some(next) = next {
            self.wake_at(key.clone(), next);
        }
        if let Some(effect) = effect {
            let grip = match self.ownership.grip(hold) {
                Ok(grip) => grip,
                Err(refusal) => {
                    self.refused(key, &refusal);
                    return Ok(());
                }
            };
            let engine = Arc::clone(self);
            let name = name.to_owned();
            self.run(key, grip, |grip| async move { engine.perform_for_node(&grip, &name, effect).await });
        }
        Ok(())
    }

    /// Commits what was decided about a claim, and about its hold on the host, as one.
    async fn record(
        &self,
        hold: Hold,
        current: &TenantNode,
        host: Option<&Host>,
        decision: node::Decision,
    ) -> Result<(), CommitError> {
        let mut batch = Batch::by(Author::Owner(hold));
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
                claim.image = decision.image.or_else(|| claim.image.take());
            }
            if changed.status != host.status {
                batch.replace(changed);
            }
        }
        if batch.is_empty() { Ok(()) } else { self.ledger.commit(batch).await.map(|_| ()) }
    }

    async fn perform_for_node(self: Arc<Self>, grip: &Grip, name: &str, effect: Effect) {
        let hold = grip.hold();
        if effect == Effect::Decide {
            return self.decide(name).await;
        }
        let Some(current) = self.fleet.node(name) else { return };
        let turn = self.lanes.effect(effect).await;
        reached(Boundary::BeforeEffect, &format_args!("{effect:?}"));
        let result = self.act_for_node(grip, &current, effect).await;
        reached(Boundary::AfterEffect, &format_args!("{effect:?}"));
        drop(turn);
        self.take_outcome(hold, name, effect, result).await;
    }

    /// Records the outcome of an effect, deciding again until the commit wins.
    async fn take_outcome(&self, hold: Hold, name: &str, effect: Effect, result: Result<Effected, Failure>) {
        loop {
            let Some(current) = self.fleet.node(name) else { return };
            let host = self.fleet.host_of(&current);
            let view = View { node: &current, host: host.as_deref() };
            let decision = node::outcome(view, &self.limits, effect, result.clone(), self.now());
            let next = decision.next;
            match self.record(hold, &current, host.as_deref(), decision).await {
                Ok(()) => {
                    if let Some(next) = next {
                        self.wake_at(ObjectKey::new(Kind::TenantNode, name), next);
                    }
                    return;
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) if error.is_retryable() => self.store_trouble(&error).await,
                Err(error @ CommitError::Fenced { .. }) => return self.ownership.heed(&error),
                Err(error) => {
                    tracing::error!(node = name, %error, "an outcome could not be recorded; the effect is repeated");
                    return tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
