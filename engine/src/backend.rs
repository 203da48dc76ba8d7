//! The API's questions and orders: admission first, then one commit. What the engine does about a declaration happens later,
//! in the loop.

mod action;
mod admission;
mod credentials;
mod notes;
mod policies;
mod preview;
mod reading;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use vmetal_api::{
    Annotate, AnyObject, Apply, Backend, BackendError, BmcCredential, Caller, EventEntry, EventsQuery, JoinToken,
    JoinTokenRequest, Listing, LogPart, ObjectRef, Secret, Secrets, WatchItem, WatchQuery,
};
use vmetal_lifecycle::Note;
use vmetal_model::tenant_cluster::TenantClusterStatus;
use vmetal_model::{
    Decision, Explanation, Host, HostAction, HostStatus, Image, ImageStatus, Kind, Network, NetworkStatus, NodeType,
    NodeTypeStatus, Policy, PolicyCheck, PolicySpec, PolicyStatus, Replay, TenantCluster, TenantNode, TenantNodeSpec,
    TenantNodeStatus, Uid,
};
use vmetal_store::{CommitError, Key, ReadError, Revision, Store as _};

use self::admission::{Find, Rules};
use crate::engine::{Engine, ObjectKey};
use crate::fleet::Entry;
use crate::ledger::{Batch, Record, new_metadata, new_object};
use crate::ownership::{Author, Hold};

/// How often a deleted object that is still in use is looked at.
const USED_AGAIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
/// How soon a deleted object is looked at again when the news up to its deletion is not complete yet.
const NEWS_AGAIN: jiff::SignedDuration = jiff::SignedDuration::from_millis(50);

/// The API's view of the engine.
pub struct ApiBackend(pub Arc<Engine>);

/// Names an object in an error.
pub(crate) fn reference(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef { kind, name: name.to_owned() }
}

/// An object as the API shows it.
pub(crate) fn show(entry: &Entry) -> AnyObject {
    fn any<S: serde::Serialize, T: serde::Serialize>(kind: Kind, object: &vmetal_model::Object<S, T>) -> AnyObject {
        // The model's types are plain data with string keys: they always serialise.
        AnyObject {
            kind,
            metadata: object.metadata.clone(),
            spec: serde_json::to_value(&object.spec).unwrap_or_default(),
            status: serde_json::to_value(&object.status).unwrap_or_default(),
        }
    }
    match entry {
        Entry::Host(o) => any(Kind::Host, o),
        Entry::NodeType(o) => any(Kind::NodeType, o),
        Entry::TenantNode(o) => any(Kind::TenantNode, o),
        Entry::TenantCluster(o) => any(Kind::TenantCluster, o),
        Entry::Image(o) => any(Kind::Image, o),
        Entry::Network(o) => any(Kind::Network, o),
        Entry::Policy(o) => any(Kind::Policy, o),
    }
}

/// A lost commit in the API's words.
fn commit_error(error: CommitError, object: ObjectRef, value_of: impl Fn(&str) -> String) -> BackendError {
    match error {
        CommitError::Unique { index, held_by, .. } => {
            let kind = held_by.kind.as_str().parse().unwrap_or(Kind::Host);
            let value = value_of(&index);
            let field = crate::ledger::field_of(&index).to_owned();
            BackendError::Unique { field, value, object, holder: reference(kind, &held_by.name) }
        }
        error if error.is_retryable() => BackendError::Unavailable { message: error.to_string() },
        error => BackendError::Internal { message: error.to_string() },
    }
}

impl Backend for ApiBackend {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    async fn get(&self, kind: Kind, name: &str) -> Result<AnyObject, BackendError> {
        let entry = self.0.fleet.entry(kind, name);
        entry.as_ref().map(show).ok_or_else(|| BackendError::NotFound { object: reference(kind, name) })
    }

    async fn list(&self, kind: Kind, labels: &BTreeMap<String, String>) -> Result<Listing, BackendError> {
        let revision = self.0.fleet.revision();
        let has = |entry: &Entry| labels.iter().all(|(k, v)| entry.metadata().labels.get(k) == Some(v));
        let objects = self.0.fleet.entries(kind).iter().filter(|entry| has(entry)).map(show).collect();
        Ok(Listing { objects, revision })
    }

    async fn apply(&self, caller: &Caller, apply: Apply) -> Result<AnyObject, BackendError> {
        let engine = &self.0;
        match apply.kind {
            Kind::Host => engine.apply_as(caller, apply, HostStatus::new).await,
            Kind::NodeType => engine.apply_as(caller, apply, |_| NodeTypeStatus::default()).await,
            Kind::TenantNode => engine.apply_as(caller, apply, TenantNodeStatus::new).await,
            Kind::TenantCluster => engine.apply_as(caller, apply, |_| TenantClusterStatus::default()).await,
            Kind::Image => engine.apply_as(caller, apply, |_| ImageStatus::default()).await,
            Kind::Network => engine.apply_as(caller, apply, |_| NetworkStatus::default()).await,
            Kind::Policy => engine.apply_as(caller, apply, |_| PolicyStatus::default()).await,
        }
    }

    async fn annotate(&self, caller: &Caller, annotate: Annotate) -> Result<(), BackendError> {
        let engine = &self.0;
        match annotate.kind {
            Kind::Host => engine.annotate_as::<Host>(caller, &annotate).await,
            Kind::NodeType => engine.annotate_as::<NodeType>(caller, &annotate).await,
            Kind::TenantNode => engine.annotate_as::<TenantNode>(caller, &annotate).await,
            Kind::TenantCluster => engine.annotate_as::<TenantCluster>(caller, &annotate).await,
            Kind::Image => engine.annotate_as::<Image>(caller, &annotate).await,
            Kind::Network => engine.annotate_as::<Network>(caller, &annotate).await,
            Kind::Policy => engine.annotate_as::<Policy>(caller, &annotate).await,
        }
    }

    async fn delete(
        &self,
        caller: &Caller,
        kind: Kind,
        name: &str,
        uid: Option<&Uid>,
    ) -> Result<AnyObject, BackendError> {
        match kind {
            Kind::Host => self.0.delete_as(caller, self.0.fleet.host(name), name, uid).await,
            Kind::NodeType => self.0.delete_as(caller, self.0.fleet.node_type(name), name, uid).await,
            Kind::TenantNode => self.0.delete_as(caller, self.0.fleet.node(name), name, uid).await,
            Kind::TenantCluster => self.0.delete_as(caller, self.0.fleet.cluster(name), name, uid).await,
            Kind::Image => self.0.delete_as(caller, self.0.fleet.image(name), name, uid).await,
            Kind::Network => self.0.delete_as(caller, self.0.fleet.network(name), name, uid).await,
            Kind::Policy => self.0.delete_as(caller, self.0.fleet.policy(name), name, uid).await,
        }
    }

    async fn act_on_host(
        &self,
        caller: &Caller,
        name: &str,
        uid: Option<&Uid>,
        action: &HostAction,
    ) -> Result<AnyObject, BackendError> {
        self.0.act_on_host(caller, name, uid, action).await
    }

    async fn preview_placement(&self, spec: &TenantNodeSpec, count: u32) -> Result<Vec<Decision>, BackendError> {
        self.0.preview_placement(spec, count)
    }

    async fn create_join_token(&self, caller: &Caller, request: &JoinTokenRequest) -> Result<JoinToken, BackendError> {
        self.0.create_join_token(caller, request).await
    }

    async fn revoke_join_token(&self, caller: &Caller, cluster: &str, token_id: &str) -> Result<(), BackendError> {
        self.0.revoke_join_token(caller, cluster, token_id).await
    }

    async fn rotate_bmc_password(
        &self,
        caller: &Caller,
        host: &str,
        password: &Secret,
        reason: &str,
    ) -> Result<AnyObject, BackendError> {
        self.0.rotate_bmc_password(caller, host, password, reason).await
    }

    async fn bmc_credential(&self, caller: &Caller, host: &str, reason: &str) -> Result<BmcCredential, BackendError> {
        self.0.bmc_credential(caller, host, reason).await
    }

    async fn explain_placement(&self, node: &str) -> Result<Explanation, BackendError> {
        self.0.explain_node(node).await
    }

    async fn replay_decision(&self, decision: &str) -> Result<Replay, BackendError> {
        self.0.replay_decision(decision).await
    }

    async fn decision_log(&self) -> Result<Vec<LogPart>, BackendError> {
        self.0.decision_log().await
    }

    async fn put_component(&self, caller: &Caller, sha256: &str, bytes: Vec<u8>) -> Result<(), BackendError> {
        self.0.put_component(caller, sha256, bytes).await
    }

    async fn check_policy(&self, spec: &PolicySpec) -> Result<PolicyCheck, BackendError> {
        self.0.check_policy(spec).await
    }

    fn watch(&self, query: WatchQuery) -> BoxStream<'static, Result<WatchItem, BackendError>> {
        reading::watch(Arc::clone(&self.0), query)
    }

    fn follow(&self, known: AnyObject) -> BoxStream<'static, Result<WatchItem, BackendError>> {
        reading::follow(Arc::clone(&self.0), known)
    }

    fn events(&self, query: EventsQuery) -> BoxStream<'static, Result<EventEntry, BackendError>> {
        reading::events(Arc::clone(&self.0), query)
    }
}

impl Engine {
    async fn apply_as<S, T>(
        &self,
        caller: &Caller,
        apply: Apply,
        fresh: impl Fn(vmetal_model::Timestamp) -> T,
    ) -> Result<AnyObject, BackendError>
    where
        S: serde::Serialize + serde::de::DeserializeOwned + Clone + PartialEq + vmetal_model::Validate + Send + Sync,
        T: Clone + Send + Sync,
        vmetal_model::Object<S, T>: Rules + Find,
    {
        type Of<S, T> = vmetal_model::Object<S, T>;
        let kind = <Of<S, T> as Record>::KIND;
        let object = reference(kind, &apply.name);
        let spec: S = admission::check(&apply)?;
        loop {
            // Before anything is looked at: what passed before is known from here on, and who passes after it is found out.
            let passed = match <Of<S, T> as Rules>::turnstile() {
                Some(at) => Some(self.pass_turnstile(at).await?),
                None => None,
            };
            let current = <Of<S, T> as Find>::find(&self.fleet, &apply.name);
            admission::precondition(&apply, current.as_deref())?;
            let given = match &current {
                Some(current) if <Of<S, T> as Rules>::SECRETS_STAY => {
                    self.unlike_kept(&**current, &apply.secrets).await?
                }
                _ => apply.secrets.clone(),
            };
            if let Some(current) = &current {
                let same = current.spec == spec
                    && current.metadata.labels == apply.labels
                    && current.metadata.annotations == apply.annotations;
                if same && given.is_empty() {
                    return Ok(show(&Arc::clone(current).entry()));
                }
                if current.is_deleted() {
                    return Err(BackendError::Precondition {
                        message: format!("{object} is being deleted"),
                        advice: "wait until it is gone, then apply it again".to_owned(),
                    });
                }
            }
            let wanted = match &current {
                Some(current) => {
                    let mut wanted = (**current).clone();
                    wanted.metadata.generation += 1;
                    wanted
                }
                None => {
                    let now = self.now();
                    new_object(new_metadata(&apply.name, self.random(), now), spec.clone(), fresh(now))
                }
            };
            let mut wanted = wanted;
            wanted.spec = spec.clone();
            wanted.metadata.labels = apply.labels.clone();
            wanted.metadata.annotations = apply.annotations.clone();
            // Seen before they are judged: a deletion that comes in between makes the commit fail, and is judged then.
            let seen = |(_, kind, name): (_, Kind, &str)| {
                let entry = self.fleet.entry(kind, name)?;
                Some((kind, name.to_owned(), entry.metadata().revision))
            };
            let referred: Vec<_> = wanted.refers().into_iter().filter_map(seen).collect();
            wanted.admit(self, current.as_deref(), &given)?;
            let follows = wanted.settle(self, current.as_deref(), &given);
            let mut batch = Batch::by(Author::Outside);
            batch.request(&apply.request_id);
            for (field, secret) in &given {
                batch.secret(wanted.secret_name(field), secret.expose().as_bytes());
            }
            let (reason, verb) = if current.is_some() { ("changed", "changed") } else { ("created", "declared") };
            let note = Note::info(reason, format!("{verb} by {}", caller.token));
            batch.notes(&wanted, self.now(), std::iter::once(note).chain(follows));
            for (kind, name, revision) in referred {
                batch.needs(kind, &name, revision);
            }
            if let Some(sha256) = wanted.component() {
                batch.beside(policies::held(self, sha256).await?);
            }
            if let Some((at, read)) = passed {
                batch.replace_value(at, read, apply.name.as_bytes());
            }
            let uniques = wanted.unique();
            match current {
                Some(_) => batch.replace(wanted),
                None => batch.create(wanted),
            }
            match self.ledger.commit(batch).await {
                Ok(_) => {
                    let now = self.fleet.entry(kind, &apply.name);
                    return now.as_ref().map(show).ok_or(BackendError::NotFound { object });
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => {
                    let value = |index: &str| {
                        uniques.iter().find(|u| u.index == index).map_or_else(String::new, |u| u.key.clone())
                    };
                    return Err(commit_error(error, object, value));
                }
            }
        }
    }

    /// Of write-only values those that are not what is kept.
    async fn unlike_kept<R: Rules>(&self, object: &R, secrets: &Secrets) -> Result<Secrets, BackendError> {
        let mut unlike = Secrets::new();
        for (field, secret) in secrets {
            let kept = self.ledger.secret(&object.secret_name(field)).await;
            let kept = kept.map_err(|error| BackendError::Unavailable { message: error.to_string() })?;
            if kept.as_deref() != Some(secret.expose().as_bytes()) {
                unlike.insert(field.clone(), secret.clone());
            }
        }
        Ok(unlike)
    }

    /// What a declaration that is judged against others of its kind has to write, at the revision at which it was read, once
    /// everything up to that revision is known.
    async fn pass_turnstile(&self, at: Key) -> Result<(Key, Option<Revision>), BackendError> {
        let unread = |error: ReadError| BackendError::Unavailable { message: error.to_string() };
        let read = self.ledger.store().get(&at).await.map_err(unread)?.map(|stored| stored.revision);
        let known = read.map_or(0, |revision| revision.0);
        if !self.hears_of(known).await {
            let message = format!("the store did not tell of the changes up to revision {known} in time");
            return Err(BackendError::Unavailable { message });
        }
        Ok((at, read))
    }

    /// Removes a deleted object once nothing refers to it any more.
    ///
    /// Deletion has two steps. From the commit of the first on nobody can refer to the object anew, because whoever does
    /// holds it at the revision at which it was not deleted. Whoever came before is known once everything up to that commit
    /// is, and then the object waits for them.
    pub(crate) async fn remove_unused<R: Rules>(
        &self,
        hold: Hold,
        object: &R,
        secrets: &[String],
    ) -> Result<bool, CommitError> {
        let known = self.fleet.revision() >= object.metadata().revision;
        if known && object.may_go(self).is_ok() {
            return self.remove(hold, object, secrets, self.now()).await.map(|()| true);
        }
        let pause = if known { USED_AGAIN } else { NEWS_AGAIN };
        self.wake_in(ObjectKey::new(R::KIND, object.metadata().name.clone()), pause);
        Ok(false)
    }

    async fn delete_as<R: Rules>(
        &self,
        caller: &Caller,
        found: Option<Arc<R>>,
        name: &str,
        uid: Option<&Uid>,
    ) -> Result<AnyObject, BackendError> {
        let object = reference(R::KIND, name);
        let Some(mut current) = found else { return Err(BackendError::NotFound { object }) };
        loop {
            if let Some(uid) = uid.filter(|uid| **uid != current.metadata().uid) {
                let (expected, found) = (format!("uid {uid}"), format!("uid {}", current.metadata().uid));
                return Err(BackendError::Conflict { object, expected, found });
            }
            if current.metadata().deleted.is_some() {
                return Ok(show(&current.entry()));
            }
            current.may_go(self)?;
            let now = self.now();
            let mut changed = (*current).clone();
            changed.metadata_mut().deleted = Some(now);
            let mut batch = Batch::by(Author::Outside);
            batch.notes(&changed, now, [Note::info("deleting", format!("deletion asked for by {}", caller.token))]);
            batch.replace(changed.clone());
            match self.ledger.commit(batch).await {
                Ok(revision) => {
                    changed.metadata_mut().revision = revision;
                    return Ok(show(&Arc::new(changed).entry()));
                }
                Err(CommitError::Conflict { .. }) => match R::again(&self.fleet, name) {
                    Some(newer) => current = newer,
                    None => return Err(BackendError::NotFound { object }),
                },
                Err(error) => return Err(commit_error(error, object, |_| String::new())),
            }
        }
    }
}
