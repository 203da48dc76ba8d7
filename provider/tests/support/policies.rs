//! Policies in the world of the tests. What a component is, is what stands in it: `wasi`, `cost`, `broken`.

use sha2::{Digest as _, Sha256};
use vmetal_api::{AnyObject, Apply, BackendError, ObjectRef};
use vmetal_model::{
    Cause, Duty, FieldError, InForce, Kind, Policy, PolicyCheck, PolicyFacts, PolicyKind, PolicyPhase, PolicySpec,
    PolicyStatus,
};

use super::{Inner, World, failure};

fn invalid(path: &str, message: &str) -> BackendError {
    BackendError::Invalid { errors: vec![FieldError::new(path, message)] }
}

fn facts(spec: &PolicySpec) -> PolicyFacts {
    PolicyFacts {
        name: "place-mine".into(),
        version: "1".into(),
        world: format!("vmetal:policy/{}-policy@0.1.0", spec.kind),
        reasons: vec!["1000: too far away".into()],
    }
}

impl World {
    /// How many components were handed over and are kept.
    pub(crate) fn components(&self) -> usize {
        self.lock().components.len()
    }

    /// Forgets all components, as the engine does with those that nobody refers to.
    pub(crate) fn forget_components(&self) {
        self.lock().components.clear();
    }

    /// Changes a policy, as somebody else might.
    pub(crate) fn change_policy(&self, name: &str, change: impl FnOnce(&mut PolicySpec)) {
        let mut inner = self.lock();
        let mut policy: Policy = inner.objects[&(Kind::Policy, name.to_owned())].typed().unwrap();
        change(&mut policy.spec);
        policy.metadata.generation += 1;
        inner.store(AnyObject::from_typed(&policy).unwrap());
    }
}

impl Inner {
    pub(super) fn keep(&mut self, sha256: &str, bytes: Vec<u8>) -> Result<(), BackendError> {
        if hex::encode(Sha256::digest(&bytes)) != sha256 {
            return Err(invalid("component", "has another digest"));
        }
        self.components.insert(sha256.to_owned(), bytes);
        Ok(())
    }

    pub(super) fn check(&self, spec: &PolicySpec) -> Result<PolicyCheck, BackendError> {
        let Some(bytes) = self.components.get(&spec.sha256) else { return Ok(PolicyCheck::ComponentMissing) };
        let text = String::from_utf8_lossy(bytes);
        if text.contains("wasi") {
            return Err(invalid("spec.sha256", "policy mine imports \"wasi:clocks\"; a policy may import nothing"));
        }
        if text.contains("cost") != (spec.kind == PolicyKind::Cost) {
            return Err(invalid("spec.kind", "policy mine is a Cost policy, its place needs a Placement policy"));
        }
        for (name, value) in &spec.settings {
            let path = format!("spec.settings.{name}");
            match name.as_str() {
                "max_skew" if value.is_u64() => {}
                "max_skew" => return Err(invalid(&path, &format!("is {value}; expected integer"))),
                _ => return Err(invalid(&path, "is not a setting of the policy; expected max_skew")),
            }
        }
        let decided_by = self.deciding(spec.kind, None);
        Ok(PolicyCheck::Accepted { facts: facts(spec), settings_schema: "{}".into(), decided_by })
    }

    fn deciding(&self, kind: PolicyKind, but: Option<&str>) -> Option<String> {
        let decides = |policy: &Policy| {
            policy.spec.duty == Duty::Decides
                && policy.spec.kind == kind
                && policy.metadata.deleted.is_none()
                && Some(policy.metadata.name.as_str()) != but
        };
        self.all::<Policy>().into_iter().find(decides).map(|policy| policy.metadata.name)
    }

    pub(super) fn admit_policy(&self, apply: &Apply) -> Result<(), BackendError> {
        let spec: PolicySpec = serde_json::from_value(apply.spec.clone()).unwrap();
        if !self.components.contains_key(&spec.sha256) {
            let message = "the engine does not have the component".to_owned();
            return Err(BackendError::Precondition { message, advice: "hand it over".to_owned() });
        }
        let other = self.deciding(spec.kind, Some(&apply.name)).filter(|_| spec.duty == Duty::Decides);
        match other {
            Some(other) => Err(BackendError::Unique {
                field: "spec.duty".into(),
                value: format!("decides {}", spec.kind),
                object: ObjectRef { kind: Kind::Policy, name: apply.name.clone() },
                holder: ObjectRef { kind: Kind::Policy, name: other },
            }),
            None => Ok(()),
        }
    }

    pub(super) fn tick_policies(&mut self) {
        for mut policy in self.moving::<Policy>() {
            let generation = policy.metadata.generation;
            if policy.metadata.deleted.is_some() {
                self.remove(Kind::Policy, &policy.metadata.name);
                continue;
            }
            if policy.status.observed_generation == generation {
                continue;
            }
            let broken = self.components.get(&policy.spec.sha256).is_some_and(|bytes| bytes.ends_with(b"broken"));
            let decides = policy.spec.duty == Duty::Decides;
            let in_force = InForce { generation, spec: policy.spec.clone() };
            let refused =
                || failure(Cause::Policy, "policy mine fails its own case \"a\"; generation 1 goes on", "mend it");
            policy.status = PolicyStatus {
                phase: match (broken, decides) {
                    (true, _) => PolicyPhase::Failed,
                    (false, true) => PolicyPhase::Active,
                    (false, false) => PolicyPhase::Resting,
                },
                in_force: if broken { policy.status.in_force.take() } else { decides.then_some(in_force) },
                facts: Some(facts(&policy.spec)),
                failure: broken.then(refused),
                observed_generation: generation,
            };
            self.put(&policy, "tried");
        }
    }
}
