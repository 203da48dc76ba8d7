//! Emptying a node, one pass at a time.
//!
//! A pass asks every pod that is in the way to leave and reports how things stand; the engine repeats it until the node is
//! empty or its deadline decides otherwise. Nothing is remembered between passes: a pod is gone when the list has no pod
//! with its uid any more, so a pod of the same name on the same node (a StatefulSet's next one) is a new pod.
//!
//! Evictions go through a client that does not retry: "429, a disruption budget forbids it" is an answer that an operator
//! must see, not a failure to paper over.

use std::collections::BTreeSet;
use std::fmt;

use futures::{StreamExt, TryStreamExt, stream};
use http::{Request, header};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::{Status, response::StatusDetails};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::client::TenantClient;
use crate::error::TenantError;

/// Marks a pod that the kubelet runs from a file: the API object is only its reflection.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// How many requests are under way at once.
const PARALLEL: usize = 8;
/// Pods per page of a list.
const PAGE: u32 = 500;

/// How pods are made to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DrainMode {
    /// By eviction: disruption budgets are honoured.
    #[default]
    Evict,
    /// By deletion: budgets are overruled. For when the deadline has passed and the claim says so.
    Delete,
}

/// How to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainOptions {
    /// How pods are made to leave.
    pub mode: DrainMode,
    /// Seconds a pod gets to end; its own setting when `None`.
    pub grace_period_seconds: Option<u32>,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod that may not be disturbed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedPod {
    /// The pod.
    pub pod: PodRef,
    /// Why, in the server's words: they name the budget and its numbers.
    pub reason: String,
}

impl fmt::Display for BlockedPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pod, self.reason)
    }
}

/// How far a drain is after one pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DrainProgress {
    /// Pods that were asked to leave in this pass.
    pub evicted: Vec<PodRef>,
    /// Pods that are on their way out, or could not be asked because the server was busy.
    pub waiting: Vec<PodRef>,
    /// Pods that a disruption budget holds.
    pub blocked_by_budget: Vec<BlockedPod>,
    /// Pods that stay by design: DaemonSets' and static ones.
    pub staying: usize,
}

impl DrainProgress {
    /// True when no pod is in the way any more.
    pub fn done(&self) -> bool {
        self.evicted.is_empty() && self.waiting.is_empty() && self.blocked_by_budget.is_empty()
    }
}

/// What is to be done about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Stays,
    Leaving,
    Evict,
}

/// What an eviction brought.
enum Answer {
    Accepted,
    Gone,
    Later,
    Blocked(String),
}

impl TenantClient {
    /// Asks every pod on the node that is in the way to leave, once, and reports.
    ///
    /// # Errors
    /// What reaching the cluster may bring. A blocked pod is no error. When one request fails, others may have been made;
    /// the next pass finds out.
    pub async fn drain_pass(&self, node: &str, options: &DrainOptions) -> Result<DrainProgress, TenantError> {
        let mut progress = DrainProgress::default();
        let mut to_evict = Vec::new();
        for pod in self.pods_on(node).await? {
            match treatment(&pod) {
                Treatment::Stays => progress.staying += 1,
                Treatment::Leaving => progress.waiting.push(reference(&pod)),
                Treatment::Evict => to_evict.push(reference(&pod)),
            }
        }
        let mut answers = stream::iter(to_evict)
            .map(|pod| async move { self.ask_to_leave(&pod, options).await.map(|answer| (pod, answer)) })
            .buffer_unordered(PARALLEL);
        while let Some((pod, answer)) = answers.try_next().await? {
            match answer {
                Answer::Accepted => progress.evicted.push(pod),
                Answer::Later => progress.waiting.push(pod),
                Answer::Blocked(reason) => progress.blocked_by_budget.push(BlockedPod { pod, reason }),
                Answer::Gone => {}
            }
        }
        // Answers come in any order; reports should not.
        progress.evicted.sort();
        progress.waiting.sort();
        progress.blocked_by_budget.sort_by(|a, b| a.pod.cmp(&b.pod));
        Ok(progress)
    }

    async fn pods_on(&self, node: &str) -> Result<Vec<Pod>, TenantError> {
        let mut params = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(PAGE);
        let (mut pods, mut seen) = (Vec::new(), BTreeSet::new());
        loop {
            let page =
                self.pods().list(&params).await.map_err(|e| self.error(format!("list the pods on Node {node}"), e))?;
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            pods.extend(page.items.into_iter().filter(|pod| seen.insert(pod.uid())));
            match next {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(pods),
            }
        }
    }

    /// The request is built here because the kube crate's own eviction sends its delete options under a name that the
    /// server ignores, precondition and all.
    async fn ask_to_leave(&self, pod: &PodRef, options: &DrainOptions) -> Result<Answer, TenantError> {
        let mut delete_options =
            json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": pod.uid } });
        if let Some(seconds) = options.grace_period_seconds {
            delete_options["gracePeriodSeconds"] = seconds.into();
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
        let (request, body) = match options.mode {
            DrainMode::Delete => (Request::delete(path), delete_options),
            DrainMode::Evict => (
                Request::post(format!("{path}/eviction")),
                json!({
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": { "name": pod.name, "namespace": pod.namespace },
                    "deleteOptions": delete_options,
                }),
            ),
        };
        let action = || format!("evict pod {pod}");
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())
            .map_err(|e| self.error(action(), kube::Error::HttpError(e)))?;
        match self.direct().request::<Value>(request).await {
            Ok(_) => Ok(Answer::Accepted),
            Err(kube::Error::Api(status)) => match refusal(&status) {
                Some(answer) => Ok(answer),
                None => Err(self.error(action(), kube::Error::Api(status))),
            },
            Err(error) => Err(self.error(action(), error)),
        }
    }
}

/// Sorts a refused eviction; `None` for what is a failure.
fn refusal(status: &Status) -> Option<Answer> {
    let causes = status.details.as_ref().map(|StatusDetails { causes, .. }| causes.as_slice()).unwrap_or_default();
    let because = |reason: &str| causes.iter().find(|cause| cause.reason == reason);
    match status.code {
        404 => Some(Answer::Gone),
        // The uid precondition: another pod has the name by now. The next list tells whether it is here.
        409 => Some(Answer::Later),
        429 => Some(match because("DisruptionBudget") {
            Some(cause) if cause.message.is_empty() => Answer::Blocked(status.message.clone()),
            Some(cause) => Answer::Blocked(cause.message.clone()),
            None => Answer::Later,
        }),
        // Several budgets over one pod: Kubernetes supports none of them then, and an operator has to remove one.
        500 if status.message.contains("PodDisruptionBudget") => Some(Answer::Blocked(status.message.clone())),
        403 if because("NamespaceTerminating").is_some() => Some(Answer::Later),
        _ => None,
    }
}

fn treatment(pod: &Pod) -> Treatment {
    let owned_by_daemon_set = pod.owner_references().iter().any(|owner| {
        owner.controller == Some(true) && owner.kind == "DaemonSet" && owner.api_version.starts_with("apps/")
    });
    if pod.annotations().contains_key(MIRROR_ANNOTATION) || owned_by_daemon_set {
        Treatment::Stays
    } else if pod.meta().deletion_timestamp.is_some() {
        Treatment::Leaving
    } else {
        Treatment::Evict
    }
}

fn reference(pod: &Pod) -> PodRef {
    PodRef { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any(), uid: pod.uid().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn pod(metadata: Value) -> Pod {
        serde_json::from_value(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata })).unwrap()
    }

    fn owner(kind: &str, api: &str, controller: bool) -> Value {
        json!({ "ownerReferences": [{ "apiVersion": api, "kind": kind, "name": "o", "uid": "u", "controller": controller }] })
    }

    #[test]
    fn only_daemons_and_static_pods_stay() {
        for (metadata, expected) in [
            (json!({}), Treatment::Evict),
            (owner("ReplicaSet", "apps/v1", true), Treatment::Evict),
            (owner("DaemonSet", "apps/v1", true), Treatment::Stays),
            (owner("DaemonSet", "apps/v1", false), Treatment::Evict),
            (owner("DaemonSet", "example.com/v1", true), Treatment::Evict),
            (json!({ "annotations": { MIRROR_ANNOTATION: "hash" } }), Treatment::Stays),
            (json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }), Treatment::Leaving),
        ] {
            assert_eq!(treatment(&pod(metadata.clone())), expected, "{metadata}");
        }
    }

    fn status(code: u16, message: &str, cause: Option<(&str, &str)>) -> Status {
        let causes: Vec<Value> =
            cause.iter().map(|(reason, message)| json!({ "reason": reason, "message": message })).collect();
        serde_json::from_value(json!({
            "status": "Failure", "code": code, "message": message, "reason": "R", "details": { "causes": causes },
        }))
        .unwrap()
    }

    #[test]
    fn a_budget_is_told_from_a_busy_server() {
        let budget = "The disruption budget web needs 2 healthy pods and has 2 currently";
        let blocked = refusal(&status(429, "Cannot evict pod", Some(("DisruptionBudget", budget))));
        assert!(matches!(blocked, Some(Answer::Blocked(reason)) if reason == budget));
        assert!(matches!(refusal(&status(429, "too many requests", None)), Some(Answer::Later)));
        let several =
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        assert!(matches!(refusal(&status(500, several, None)), Some(Answer::Blocked(_))));
        assert!(refusal(&status(500, "etcd is away", None)).is_none());
        assert!(refusal(&status(403, "no", None)).is_none());
        assert!(matches!(refusal(&status(403, "no", Some(("NamespaceTerminating", "")))), Some(Answer::Later)));
        assert!(matches!(refusal(&status(404, "gone", None)), Some(Answer::Gone)));
    }

    #[test]
    fn done_means_nothing_is_in_the_way() {
        let pod = PodRef { namespace: "n".into(), name: "p".into(), uid: "u".into() };
        assert!(DrainProgress { staying: 3, ..DrainProgress::default() }.done());
        assert!(!DrainProgress { evicted: vec![pod.clone()], ..DrainProgress::default() }.done());
        assert!(!DrainProgress { waiting: vec![pod.clone()], ..DrainProgress::default() }.done());
        let blocked = BlockedPod { pod, reason: "budget".into() };
        assert!(!DrainProgress { blocked_by_budget: vec![blocked], ..DrainProgress::default() }.done());
    }
}
