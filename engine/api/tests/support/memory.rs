//! An engine that keeps its objects in memory, on a real socket.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, oneshot};
use vmetal_api::types::Follow;
use vmetal_api::{
    Annotate, AnyObject, Apply, Backend, BackendError, BmcCredential, Caller, Client, ClientConfig, EventEntry,
    EventsQuery, JoinToken, JoinTokenRequest, Listing, ObjectRef, Precondition, Secret, Secrets, ServerConfig,
    TokenSource, TokenStore, WatchItem, WatchQuery, serve, token,
};
use vmetal_model::{
    Decision, Event, FieldError, HostAction, Kind, Metadata, NodeType, Severity, TenantNodeSpec, Timestamp, Uid,
    node_type::NodeTypeSpec,
};

pub(crate) const TOKEN: &str = "vmt_test";

pub(crate) struct State {
    pub(crate) revision: u64,
    pub(crate) objects: BTreeMap<(Kind, String), AnyObject>,
    /// Objects by the request that made them.
    pub(crate) requests: BTreeMap<String, AnyObject>,
    pub(crate) callers: Vec<Caller>,
    pub(crate) secrets: Secrets,
}

pub(crate) struct Memory {
    pub(crate) state: Mutex<State>,
    pub(crate) changes: broadcast::Sender<WatchItem>,
    pub(crate) slow: Slow,
}

/// What is applied under the name "slow" says when it begins, and waits until it may go on.
#[derive(Default)]
pub(crate) struct Slow {
    pub(crate) began: Notify,
    pub(crate) go_on: Notify,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            revision: 0,
            objects: BTreeMap::new(),
            requests: BTreeMap::new(),
            callers: Vec::new(),
            secrets: Secrets::new(),
        };
        Arc::new(Memory { state: Mutex::new(state), changes: broadcast::channel(64).0, slow: Slow::default() })
    }
}

pub(crate) fn reference(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef { kind, name: name.into() }
}

impl Backend for Memory {
    fn version(&self) -> String {
        "1.2.3".into()
    }

    async fn get(&self, kind: Kind, name: &str) -> Result<AnyObject, BackendError> {
        let found = self.state.lock().unwrap().objects.get(&(kind, name.to_owned())).cloned();
        found.ok_or(BackendError::NotFound { object: reference(kind, name) })
    }

    async fn list(&self, kind: Kind, labels: &BTreeMap<String, String>) -> Result<Listing, BackendError> {
        let state = self.state.lock().unwrap();
        let wanted = |o: &&AnyObject| o.kind == kind && labels.iter().all(|(k, v)| o.metadata.labels.get(k) == Some(v));
        Ok(Listing { objects: state.objects.values().filter(wanted).cloned().collect(), revision: state.revision })
    }

    async fn apply(&self, caller: &Caller, apply: Apply) -> Result<AnyObject, BackendError> {
        if apply.name == "slow" {
            self.slow.began.notify_one();
            self.slow.go_on.notified().await;
        }
        assert_ne!(apply.name, "panic", "as if the engine had a fault");
        let mut state = self.state.lock().unwrap();
        if let Some(object) = state.requests.get(&apply.request_id) {
            return Ok(object.clone());
        }
        let object = reference(apply.kind, &apply.name);
        if apply.spec.get("selector").is_none() {
            let errors = vec![FieldError::new("spec.selector", "is missing"), FieldError::new("spec.resources", "too")];
            return Err(BackendError::Invalid { errors });
        }
        let old = state.objects.get(&(apply.kind, apply.name.clone()));
        match (&apply.precondition, old) {
            (Precondition::MustNotExist, Some(_)) => return Err(BackendError::AlreadyExists { object }),
            (Precondition::Revision(wanted), Some(old)) if old.metadata.revision != *wanted => {
                return Err(BackendError::Conflict {
                    object,
                    expected: format!("revision {wanted}"),
                    found: format!("revision {}", old.metadata.revision),
                });
            }
            _ => {}
        }
        state.revision += 1;
        let made = AnyObject {
            kind: apply.kind,
            metadata: Metadata {
                name: apply.name.clone(),
                uid: Uid::from_random([state.revision as u8; 16]),
                generation: 1,
                revision: state.revision,
                labels: apply.labels,
                annotations: apply.annotations,
                created: Timestamp::UNIX_EPOCH,
                deleted: None,
            },
            spec: apply.spec,
            status: serde_json::json!({"cost": 7, "of_a_later_release": true}),
        };
        state.callers.push(caller.clone());
        state.secrets.extend(apply.secrets);
        state.requests.insert(apply.request_id, made.clone());
        state.objects.insert((apply.kind, apply.name), made.clone());
        let _ = self.changes.send(WatchItem::Changed(made.clone()));
        Ok(made)
    }

    async fn act_on_host(
        &self,
        caller: &Caller,
        name: &str,
        uid: Option<&Uid>,
        action: &HostAction,
    ) -> Result<AnyObject, BackendError> {
        if *action == HostAction::Resume {
            return Err(BackendError::Precondition { message: "it is not paused".into(), advice: "nothing".into() });
        }
        let mut object = self.get(Kind::Host, name).await?;
        object.status = serde_json::json!({ "by": &*caller.token, "uid": uid, "action": action });
        Ok(object)
    }

    async fn preview_placement(&self, spec: &TenantNodeSpec, count: u32) -> Result<Vec<Decision>, BackendError> {
        if spec.cluster.is_empty() {
            let errors = vec![FieldError::new("spec.cluster", "is empty")];
            return Err(BackendError::Invalid { errors });
        }
        let decision = |number: u32| Decision {
            node_type: spec.node_type.clone(),
            host: Some(format!("h{number}")),
            cost: Some(7),
            reason: "it fits".into(),
            node_types: Vec::new(),
            hosts: Vec::new(),
            policies: Vec::new(),
            input_digest: String::new(),
            at: Timestamp::UNIX_EPOCH,
            log: None,
        };
        Ok((0..count).map(decision).collect())
    }

    async fn create_join_token(&self, caller: &Caller, request: &JoinTokenRequest) -> Result<JoinToken, BackendError> {
        assert_eq!((&*caller.token, &*request.reason), ("admin", "a test"));
        let end = Timestamp::UNIX_EPOCH + request.ttl;
        let (ca_cert_hash, endpoint) = ("sha256:00".to_owned(), request.cluster.clone());
        // The same request, the same token.
        let token = Secret::new(format!("abcdef.{:.16}", request.request_id));
        Ok(JoinToken { token, ca_cert_hash, endpoint, expires_at: end })
    }

    async fn revoke_join_token(&self, _: &Caller, cluster: &str, token_id: &str) -> Result<(), BackendError> {
        assert_eq!(cluster, "acme");
        match token_id {
            "abcdef" => Ok(()),
            _ => Err(BackendError::Precondition { message: "not ours".into(), advice: "nothing".into() }),
        }
    }

    async fn rotate_bmc_password(
        &self,
        caller: &Caller,
        host: &str,
        password: &Secret,
        reason: &str,
    ) -> Result<AnyObject, BackendError> {
        assert_eq!((password.expose(), reason), ("another", "a test"));
        let mut object = self.get(Kind::Host, host).await?;
        object.status = serde_json::json!({ "by": &*caller.token });
        Ok(object)
    }

    async fn bmc_credential(&self, _: &Caller, host: &str, reason: &str) -> Result<BmcCredential, BackendError> {
        assert_eq!(reason, "a test");
        let address = format!("redfish://{host}").parse().unwrap();
        Ok(BmcCredential { address, username: "root".into(), password: Secret::new("hidden") })
    }

    async fn delete(&self, _: &Caller, kind: Kind, name: &str, _: Option<&Uid>) -> Result<AnyObject, BackendError> {
        let gone = self.state.lock().unwrap().objects.remove(&(kind, name.to_owned()));
        let gone = gone.ok_or(BackendError::NotFound { object: reference(kind, name) })?;
        let _ = self.changes.send(WatchItem::Deleted(gone.clone()));
        Ok(gone)
    }

    async fn annotate(&self, _: &Caller, annotate: Annotate) -> Result<(), BackendError> {
        let object = reference(annotate.kind, &annotate.name);
        let mut state = self.state.lock().unwrap();
        let State { revision, objects, .. } = &mut *state;
        let Some(found) = objects.get_mut(&(annotate.kind, annotate.name.clone())) else {
            return Err(BackendError::NotFound { object });
        };
        if let Some(annotations) = annotate.of(&found.metadata.annotations) {
            *revision += 1;
            found.metadata.annotations = annotations;
            found.metadata.revision = *revision;
            let _ = self.changes.send(WatchItem::Changed(found.clone()));
        }
        Ok(())
    }

    fn follow(&self, known: AnyObject) -> BoxStream<'static, Result<WatchItem, BackendError>> {
        let query = WatchQuery { kind: Some(known.kind), name: Some(known.name().to_owned()) };
        let newer = move |item: Result<WatchItem, BackendError>| match item {
            Ok(WatchItem::Sync(object) | WatchItem::Changed(object)) => {
                (object.metadata.revision > known.metadata.revision).then_some(Ok(WatchItem::Changed(object)))
            }
            Ok(WatchItem::Bookmark { .. }) => None,
            gone_or_broken => Some(gone_or_broken),
        };
        self.watch(query).filter_map(move |item| std::future::ready(newer(item))).boxed()
    }

    fn watch(&self, query: WatchQuery) -> BoxStream<'static, Result<WatchItem, BackendError>> {
        let changes = self.changes.subscribe();
        let state = self.state.lock().unwrap();
        let mine = move |o: &AnyObject| {
            query.kind.is_none_or(|k| k == o.kind) && query.name.as_deref().is_none_or(|n| n == o.name())
        };
        let mut present: Vec<_> =
            state.objects.values().filter(|o| mine(o)).cloned().map(|o| Ok(WatchItem::Sync(o))).collect();
        present.push(Ok(WatchItem::Bookmark { revision: state.revision }));
        let changes = tokio_stream::wrappers::BroadcastStream::new(changes).filter_map(move |item| {
            let lagged = |_| BackendError::Unavailable { message: "too slow".into() };
            let item = item.map_err(lagged);
            let keep = item.as_ref().map_or(true, |item| item.object().is_some_and(&mine));
            std::future::ready(keep.then_some(item))
        });
        stream::iter(present).chain(changes).boxed()
    }

    fn events(&self, query: EventsQuery) -> BoxStream<'static, Result<EventEntry, BackendError>> {
        assert_eq!((query.follow, query.limit, query.kind), (Follow::Yes, Some(5), Some(Kind::Host)));
        let event = Event {
            at: Timestamp::UNIX_EPOCH,
            kind: Kind::Host,
            name: "a".into(),
            uid: Uid("u".into()),
            severity: Severity::Warning,
            reason: "operation".into(),
            message: "power on failed".into(),
        };
        stream::iter([Ok(EventEntry { revision: 9, event })]).boxed()
    }
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) task: tokio::task::JoinHandle<Result<(), vmetal_api::ServeError>>,
}

impl Running {
    pub(crate) async fn start(backend: Arc<Memory>, address: &str) -> Running {
        let tokens = TokenStore::new([("admin", token::hash(TOKEN))]);
        Self::start_with(backend, address, tokens, ServerConfig::default()).await
    }

    pub(crate) async fn start_with(
        backend: Arc<Memory>,
        address: &str,
        tokens: TokenStore,
        config: ServerConfig,
    ) -> Running {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, backend, tokens, config, shutdown));
        Running { address, stop: Some(stop), task }
    }

    pub(crate) fn client(&self) -> Client {
        client_with(self.address, TOKEN)
    }

    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap().unwrap();
    }
}

pub(crate) fn client_with(address: SocketAddr, token: &str) -> Client {
    let mut config = ClientConfig::new(format!("http://{address}"), TokenSource::Literal(Secret::new(token)));
    config.patience = Duration::ZERO;
    Client::connect_lazy(config).unwrap()
}

pub(crate) fn node_type(name: &str) -> Apply {
    let spec = NodeTypeSpec { selector: [("rack".to_owned(), "1".to_owned())].into(), ..Default::default() };
    Apply::new::<NodeType>(name, &spec).unwrap()
}
