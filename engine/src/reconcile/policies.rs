//! Policies: every engine seats the ones that are to decide; the owner of an object says what became of it.

use std::sync::Arc;

use jiff::SignedDuration;
use vmetal_lifecycle::Note;
use vmetal_model::{Cause, Duty, Failure, InForce, Kind, Policy, PolicyKind, PolicyPhase, PolicyStatus, Timestamp};
use vmetal_store::CommitError;

use crate::engine::{Engine, ObjectKey};
use crate::ledger::Batch;
use crate::ownership::{Author, Hold, Terms};
use crate::seats::{AGAIN, Held, Place, Problem, Tried};

/// The pause after which it is tried again what failed for no fault of the policy.
const SOON: SignedDuration = SignedDuration::from_secs(5);

impl Engine {
    pub(super) async fn reconcile_policy(self: &Arc<Self>, name: &str) -> Result<(), CommitError> {
        self.keep_seats().await;
        let key = ObjectKey::new(Kind::Policy, name);
        let Some(hold) = self.ownership.hold(&key) else { return Ok(()) };
        let Some(policy) = self.fleet.policy(name) else { return Ok(()) };
        if policy.is_deleted() {
            return self.remove_unused(hold, &*policy, &[]).await.map(|_| ());
        }
        match policy.spec.duty {
            Duty::Decides => match self.deciding_status(&policy) {
                Some(status) => self.set_policy(hold, &policy, status).await,
                None => Ok(()),
            },
            Duty::Rests => self.try_out(hold, &policy).await,
        }
    }

    /// Sees that the seats have who is to have them.
    pub async fn keep_seats(self: &Arc<Self>) {
        let _turn = self.seats.turn().await;
        for kind in PolicyKind::ALL {
            self.keep_seat(kind).await;
        }
    }

    async fn keep_seat(self: &Arc<Self>, kind: PolicyKind) {
        let place = self.seats.place(kind);
        let Some(policy) = self.fleet.deciding(kind) else {
            self.seats.set(kind, self.vacated(kind, place));
            return;
        };
        let key = ObjectKey::new(Kind::Policy, policy.name());
        let now = self.now();
        if let Some(tried) = place.tried.as_ref().filter(|tried| tried.stands(&policy, now)) {
            if tried.refused.is_some() {
                self.wake_at(key, tried.at.saturating_add(AGAIN).unwrap_or(Timestamp::MAX));
            }
            return;
        }
        let tried = |refused| Tried { uid: policy.metadata.uid.clone(), spec: policy.spec.clone(), at: now, refused };
        match self.seat(&policy.spec).await {
            Ok(portrait) => {
                tracing::info!(policy = policy.name(), "policy {} decides on {kind}", portrait.identity);
                let held =
                    Held { uid: policy.metadata.uid.clone(), in_force: in_force_now(&policy), facts: portrait.facts };
                self.seats.set(kind, Place { held: Some(held), tried: Some(tried(None)) });
                self.decided_by_others();
            }
            Err(problem) if problem.is_passing() => {
                tracing::warn!(policy = policy.name(), %problem, "a policy could not be seated; trying again");
                return self.wake_in(key, SOON);
            }
            Err(problem) => {
                let before = place.tried.as_ref().and_then(|tried| tried.refused.clone());
                let held = self.goes_on(kind, &policy, place).await;
                let failure = self.refusal(kind, &problem, held.as_ref());
                tracing::error!(policy = policy.name(), "a policy is refused: {failure}");
                if before.is_none_or(|before| before.message != failure.message) {
                    self.tell_from_here(&key, &policy, &failure).await;
                }
                self.seats.set(kind, Place { held, tried: Some(tried(Some(failure))) });
                self.wake_in(key.clone(), AGAIN);
            }
        }
        // Its status follows, if this engine is the one to write it.
        self.scheduler.wake(key);
    }

    /// Nobody is declared to decide: the configuration's choice does.
    fn vacated(&self, kind: PolicyKind, place: Place) -> Place {
        if place.held.is_some() {
            let identity = self.policies.restore(kind);
            tracing::info!("policy {identity} decides on {kind} again, as configured");
            self.decided_by_others();
        }
        Place::default()
    }

    /// Who has the seat when a declaration is refused: what the object declared before, and if there is none, the
    /// configuration's choice. After a restart, what was declared before is what the object's status remembers.
    async fn goes_on(self: &Arc<Self>, kind: PolicyKind, policy: &Policy, place: Place) -> Option<Held> {
        if place.held.as_ref().is_some_and(|held| held.uid == policy.metadata.uid) {
            return place.held;
        }
        let before = policy.status.in_force.as_ref().filter(|before| before.spec.kind == kind);
        if let Some(before) = before
            && let Ok(portrait) = self.seat(&before.spec).await
        {
            let (uid, in_force) = (policy.metadata.uid.clone(), before.clone());
            self.decided_by_others();
            return Some(Held { uid, in_force, facts: portrait.facts });
        }
        self.vacated(kind, place).held
    }

    fn refusal(&self, kind: PolicyKind, problem: &Problem, held: Option<&Held>) -> Failure {
        let instead = match held {
            Some(Held { in_force: InForce { generation, spec }, .. }) => {
                format!("generation {generation} (sha256 {}) goes on deciding", spec.sha256)
            }
            None => {
                let [cost, placement] = self.policies.identities();
                let identity = match kind {
                    PolicyKind::Cost => cost,
                    PolicyKind::Placement => placement,
                };
                format!("{identity} decides, as configured")
            }
        };
        refused(format!("{problem}; {instead}"), self.now())
    }

    /// Everything that was decided may be decided differently now.
    fn decided_by_others(&self) {
        self.wake_pending();
        self.classes_changed();
    }

    /// Puts on an object's record that this engine, which does not write its status, refuses it: others may not.
    async fn tell_from_here(&self, key: &ObjectKey, policy: &Policy, failure: &Failure) {
        let Terms::Shared(shared) = self.ownership.terms() else { return };
        if self.ownership.hold(key).is_some() {
            return;
        }
        let mut batch = Batch::by(Author::Outside);
        batch.notes(policy, self.now(), [Note::error("refused", format!("engine {}: {failure}", shared.id))]);
        if let Err(error) = self.ledger.commit(batch).await {
            tracing::warn!(policy = policy.name(), %error, "could not record that the policy is refused here");
        }
    }

    /// What became of a policy that is to decide; none while that is not known.
    fn deciding_status(&self, policy: &Policy) -> Option<PolicyStatus> {
        let Place { held, tried } = self.seats.place(policy.spec.kind);
        let tried = tried.filter(|tried| tried.is_of(policy))?;
        let held = held.filter(|held| held.uid == policy.metadata.uid);
        Some(PolicyStatus {
            phase: if tried.refused.is_some() { PolicyPhase::Failed } else { PolicyPhase::Active },
            facts: held.as_ref().map(|held| held.facts.clone()),
            in_force: held.map(|held| held.in_force),
            failure: tried.refused,
            observed_generation: policy.metadata.generation,
        })
    }

    /// Tries a policy that is not to decide, so that it is known before it is.
    async fn try_out(self: &Arc<Self>, hold: Hold, policy: &Arc<Policy>) -> Result<(), CommitError> {
        let key = ObjectKey::new(Kind::Policy, policy.name());
        let current = policy.status.observed_generation == policy.metadata.generation;
        match (policy.status.phase, &policy.status.failure) {
            (PolicyPhase::Resting, _) if current => return Ok(()),
            (PolicyPhase::Failed, Some(failure)) if current => {
                let again = failure.at.saturating_add(AGAIN).unwrap_or(Timestamp::MAX);
                if self.now() < again {
                    self.wake_at(key, again);
                    return Ok(());
                }
            }
            _ => {}
        }
        let examined = self.examine(&policy.spec).await;
        let observed_generation = policy.metadata.generation;
        let status = match examined {
            Ok(portrait) => PolicyStatus {
                phase: PolicyPhase::Resting,
                facts: Some(portrait.facts),
                observed_generation,
                ..PolicyStatus::default()
            },
            Err(problem) if problem.is_passing() => {
                tracing::warn!(policy = policy.name(), %problem, "a policy could not be tried; trying again");
                self.wake_in(key, SOON);
                return Ok(());
            }
            Err(problem) => {
                self.wake_in(key, AGAIN);
                PolicyStatus {
                    phase: PolicyPhase::Failed,
                    failure: Some(refused(format!("{problem}; it is not to decide, so nothing changes"), self.now())),
                    observed_generation,
                    ..PolicyStatus::default()
                }
            }
        };
        self.set_policy(hold, policy, status).await
    }

    async fn set_policy(&self, hold: Hold, policy: &Policy, mut status: PolicyStatus) -> Result<(), CommitError> {
        let before = &policy.status;
        let told = |status: &PolicyStatus| status.failure.as_ref().map(|failure| failure.message.clone());
        let same_failure = told(before) == told(&status);
        if same_failure {
            // The same failure again is not news.
            status.failure.clone_from(&before.failure);
        }
        if status == *before {
            return Ok(());
        }
        let mut batch = Batch::by(Author::Owner(hold));
        if status.phase != before.phase || status.in_force != before.in_force || !same_failure {
            batch.notes(policy, self.now(), [note(policy.spec.kind, &status)]);
        }
        let mut changed = policy.clone();
        changed.status = status;
        batch.replace(changed);
        self.ledger.commit(batch).await.map(|_| ())
    }
}

/// What is in force once a policy is seated. That it is seated again, after a restart, or that only its labels have changed,
/// makes it no other.
fn in_force_now(policy: &Policy) -> InForce {
    let known = policy.status.in_force.as_ref().filter(|known| known.spec.decides_as(&policy.spec));
    known.cloned().unwrap_or_else(|| InForce { generation: policy.metadata.generation, spec: policy.spec.clone() })
}

fn refused(message: String, at: Timestamp) -> Failure {
    let advice =
        "correct the policy or its settings and declare it again; it is tried again every 5 minutes".to_owned();
    Failure { cause: Cause::Policy, message, advice, at }
}

/// What there is to tell of a status.
fn note(kind: PolicyKind, status: &PolicyStatus) -> Note {
    let name = |status: &PolicyStatus| match &status.facts {
        Some(facts) => format!("{}@{}", facts.name, facts.version),
        None => "it".to_owned(),
    };
    match (&status.failure, &status.in_force) {
        (Some(failure), _) => Note::error("refused", failure.to_string()),
        (None, Some(InForce { generation, spec })) => Note::info(
            "seated",
            format!("{} decides on {kind}: generation {generation}, sha256 {}", name(status), spec.sha256),
        ),
        (None, None) => Note::info("resting", format!("{} is accepted and decides nothing", name(status))),
    }
}
