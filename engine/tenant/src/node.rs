//! The Node object of a claim: is it the one that was ordered, is it ready, and how it is taken out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use vmetal_model::Taint;

use crate::client::TenantClient;
use crate::error::TenantError;

/// Under this name vmetal owns fields of tenants' objects.
pub(crate) const FIELD_MANAGER: &str = "vmetal-engine";

/// The Node that a claim is to become.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeExpectation {
    /// Its name.
    pub name: String,
    /// The provider id that our user data gave to the kubelet.
    pub provider_id: String,
    /// The uid of a Node of this name that existed before the claim, if there was one.
    pub not_uid: Option<String>,
    /// Labels that it must carry.
    pub labels: BTreeMap<String, String>,
    /// Taints that it must carry.
    pub taints: Vec<Taint>,
}

/// What a look at the Node brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// There is no Node of that name.
    Absent,
    /// There is one, and it is not ours. It is never adopted, changed or deleted.
    Foreign {
        /// How that shows, and what to do.
        reason: String,
    },
    /// It is ours and not ready to be used.
    NotReady {
        /// Its uid.
        uid: String,
        /// All that is missing.
        reasons: Vec<String>,
    },
    /// It is ours and ready.
    Ready {
        /// Its uid.
        uid: String,
    },
}

/// What became of a cordon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CordonOutcome {
    /// No new pods are placed on it.
    Cordoned,
    /// There is no Node of that name.
    AlreadyGone,
    /// A Node of that name exists and has another uid; it was left alone.
    Replaced,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The Node was deleted.
    Deleted,
    /// There is no Node of that name.
    AlreadyGone,
    /// A Node of that name exists and has another uid; it was left alone.
    Replaced,
}

impl TenantClient {
    /// Looks at the Node and changes nothing.
    ///
    /// # Errors
    /// What reaching the cluster may bring.
    pub async fn node_state(&self, expectation: &NodeExpectation) -> Result<NodeState, TenantError> {
        let node = self
            .nodes()
            .get_opt(&expectation.name)
            .await
            .map_err(|e| self.error(format!("read Node {}", expectation.name), e))?;
        Ok(node.map_or(NodeState::Absent, |node| judge(&node, expectation)))
    }

    /// Looks at the Node; when it is ours and lacks labels that a kubelet may not give itself, sets them and looks again.
    ///
    /// # Errors
    /// What reaching the cluster may bring.
    pub async fn observe_node(&self, expectation: &NodeExpectation) -> Result<NodeState, TenantError> {
        let name = &expectation.name;
        let node = self.nodes().get_opt(name).await.map_err(|e| self.error(format!("read Node {name}"), e))?;
        let Some(node) = node else { return Ok(NodeState::Absent) };
        let state = judge(&node, expectation);
        let (NodeState::NotReady { uid, .. } | NodeState::Ready { uid }) = &state else { return Ok(state) };
        let (_, restricted) = split_labels(&expectation.labels);
        if restricted.iter().all(|(key, value)| node.labels().get(key) == Some(value)) {
            return Ok(state);
        }
        self.apply_restricted_labels(name, uid, &restricted).await?;
        self.node_state(expectation).await
    }

    /// Sets labels on a Node by server-side apply, as their owner. The uid keeps it from touching a Node of the same name
    /// that came later, and from creating one.
    ///
    /// # Errors
    /// [`TenantError::Refused`] with 409 when the Node has another uid; otherwise what reaching the cluster may bring.
    pub async fn apply_restricted_labels(
        &self,
        name: &str,
        uid: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), TenantError> {
        let patch = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name, "uid": uid, "labels": labels },
        });
        self.nodes()
            .patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch))
            .await
            .map(drop)
            .map_err(|e| self.error(format!("set labels on Node {name}"), e))
    }

    /// Keeps new pods away from the Node.
    ///
    /// # Errors
    /// What reaching the cluster may bring.
    pub async fn cordon(&self, name: &str, uid: &str) -> Result<CordonOutcome, TenantError> {
        let action = || format!("cordon Node {name}");
        let patch = json!({ "metadata": { "uid": uid }, "spec": { "unschedulable": true } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match self.nodes().patch(name, &params, &Patch::Merge(patch)).await {
            Ok(_) => Ok(CordonOutcome::Cordoned),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(CordonOutcome::AlreadyGone),
            Err(error) => Ok(match self.uid_conflict(name, uid, action(), error).await? {
                Conflict::Gone => CordonOutcome::AlreadyGone,
                Conflict::Replaced => CordonOutcome::Replaced,
            }),
        }
    }

    /// Deletes the Node, if it is still the one with that uid. To be called when the server is off: a running kubelet may
    /// create its Node again.
    ///
    /// # Errors
    /// What reaching the cluster may bring.
    pub async fn delete_node(&self, name: &str, uid: &str) -> Result<DeleteOutcome, TenantError> {
        let action = || format!("delete Node {name}");
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.nodes().delete(name, &params).await {
            Ok(_) => Ok(DeleteOutcome::Deleted),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(DeleteOutcome::AlreadyGone),
            Err(error) => Ok(match self.uid_conflict(name, uid, action(), error).await? {
                Conflict::Gone => DeleteOutcome::AlreadyGone,
                Conflict::Replaced => DeleteOutcome::Replaced,
            }),
        }
    }

    /// The server says 409 to a deletion and 422 to a patch when the uid is another one, and says both for other reasons
    /// too; so either is believed to be about the uid only after a look.
    async fn uid_conflict(
        &self,
        name: &str,
        uid: &str,
        action: String,
        error: kube::Error,
    ) -> Result<Conflict, TenantError> {
        if !matches!(&error, kube::Error::Api(status) if matches!(status.code, 409 | 422)) {
            return Err(self.error(action, error));
        }
        match self.nodes().get_opt(name).await.map_err(|e| self.error(format!("read Node {name}"), e))? {
            None => Ok(Conflict::Gone),
            Some(node) if node.uid().as_deref() != Some(uid) => Ok(Conflict::Replaced),
            Some(_) => Err(self.error(action, error)),
        }
    }
}

enum Conflict {
    Gone,
    Replaced,
}

/// Decides whose Node it is and what it lacks. Identity comes first: of a foreign Node nothing else is of interest.
fn judge(node: &Node, expectation: &NodeExpectation) -> NodeState {
    let uid = node.uid().unwrap_or_default();
    if expectation.not_uid.as_deref() == Some(uid.as_str()) {
        return NodeState::Foreign {
            reason: format!(
                "Node {} (uid {uid}) existed before the claim; delete it if its server is gone, or choose another node name",
                expectation.name
            ),
        };
    }
    let spec = node.spec.clone().unwrap_or_default();
    let provider_id = spec.provider_id.unwrap_or_default();
    if !provider_id.is_empty() && provider_id != expectation.provider_id {
        return NodeState::Foreign {
            reason: format!(
                "Node {} has provider id {provider_id:?}, expected {:?}: another machine uses the name; remove that machine \
                 from the cluster, or choose another node name",
                expectation.name, expectation.provider_id
            ),
        };
    }

    let mut reasons = Vec::new();
    if node.metadata.deletion_timestamp.is_some() {
        reasons.push("it is being deleted".to_owned());
    }
    if provider_id.is_empty() {
        reasons.push(format!("it has no provider id yet, expected {:?}", expectation.provider_id));
    }
    reasons.extend(unready(node));
    for (key, value) in &expectation.labels {
        match node.labels().get(key) {
            Some(found) if found == value => {}
            Some(found) => reasons.push(format!("label {key} is {found:?}, expected {value:?}")),
            None => reasons.push(format!("label {key}={value} is missing")),
        }
    }
    let taints = spec.taints.unwrap_or_default();
    for expected in &expectation.taints {
        let carried = taints.iter().any(|taint| {
            taint.key == expected.key
                && taint.value.as_deref().unwrap_or_default() == expected.value
                && taint.effect == expected.effect.as_str()
        });
        if !carried {
            reasons.push(format!("taint {expected} is missing"));
        }
    }
    // Kubernetes takes these away a moment after the condition turned; until then pods are refused.
    for taint in &taints {
        if matches!(taint.key.as_str(), "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable") {
            reasons.push(format!("it still carries taint {}:{}", taint.key, taint.effect));
        }
    }
    if reasons.is_empty() { NodeState::Ready { uid } } else { NodeState::NotReady { uid, reasons } }
}

/// Why the Ready condition is not True, in the kubelet's or the node controller's words.
fn unready(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let Some(ready) = conditions.iter().find(|condition| condition.type_ == "Ready") else {
        return Some("its kubelet has not reported yet".to_owned());
    };
    (ready.status != "True").then(|| {
        let reason = ready.reason.as_deref().unwrap_or("no reason given");
        let message = ready.message.as_deref().unwrap_or_default();
        format!("its Ready condition is {} ({reason}): {message}", ready.status)
    })
}

/// Splits labels into those that a kubelet may give its own Node and those that only somebody else may (plugin
/// NodeRestriction and the kubelet's own check: `node-restriction.kubernetes.io` and everything under `kubernetes.io` and
/// `k8s.io` that is not on a short list).
pub fn split_labels(labels: &BTreeMap<String, String>) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    labels.clone().into_iter().partition(|(key, _)| kubelet_may_set(key))
}

fn kubelet_may_set(key: &str) -> bool {
    const ALLOWED_KEYS: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
    ];
    let Some((domain, _)) = key.split_once('/') else { return true };
    let under = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    if !under("kubernetes.io") && !under("k8s.io") {
        return true;
    }
    ALLOWED_KEYS.contains(&key) || under("kubelet.kubernetes.io") || under("node.kubernetes.io")
}

#[cfg(test)]
mod tests;
