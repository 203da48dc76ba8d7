//! The engine's side: [`Backend`] is what it implements, [`serve`] puts it on a socket.
//!
//! One choke point decides who may call: the interceptor that every request passes before its body is read. A request
//! without a known bearer token gets `UNAUTHENTICATED` whatever it asks for, so that nothing can be found out without one.
//! Calls that change something ask for more: [`Role::Operator`]. Beside it stands the service that gives tokens to workloads
//! ([`crate::identity`]).
//!
//! Shutdown: streams end with `UNAVAILABLE` (clients come back by themselves), calls under way are finished, and after
//! [`ServerConfig::grace`] what is left is dropped.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::metadata::MetadataMap;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use vmetal_model::{Decision, Explanation, HostAction, Kind, PolicyCheck, PolicySpec, Replay, TenantNodeSpec, Uid};

use crate::component;
use crate::convert;
use crate::credential::{BmcCredential, JoinToken, JoinTokenRequest};
use crate::error::BackendError;
use crate::identity::{self, Issuers, Nobody};
use crate::proto;
use crate::proto::vmetal_server::{Vmetal, VmetalServer};
use crate::resource::AnyObject;
use crate::token::{Holder, Role, TokenStore};
use crate::types::{Annotate, Apply, EventEntry, EventsQuery, Listing, LogPart, Secret, WatchItem, WatchQuery};

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token that was presented.
    pub token: Arc<str>,
}

/// The engine, as the API sees it.
///
/// The API has checked the token and the shape of the message; everything else is the backend's: names, admission,
/// uniqueness, preconditions, idempotence by `request_id`.
pub trait Backend: Send + Sync + 'static {
    /// The engine's version.
    fn version(&self) -> String;

    /// One object.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] and the general ones.
    fn get(&self, kind: Kind, name: &str) -> impl Future<Output = Result<AnyObject, BackendError>> + Send;

    /// The objects of a kind that have all these labels, by name, at one revision.
    ///
    /// # Errors
    /// The general ones.
    fn list(
        &self,
        kind: Kind,
        labels: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<Listing, BackendError>> + Send;

    /// Creates or replaces. Durable when it returns.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn apply(&self, caller: &Caller, apply: Apply) -> impl Future<Output = Result<AnyObject, BackendError>> + Send;

    /// Writes or removes annotations; the generation stays what it is. Durable when it returns.
    ///
    /// # Errors
    /// Any [`BackendError`]; [`BackendError::Conflict`] when `uid` is another object's.
    fn annotate(&self, caller: &Caller, annotate: Annotate) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Asks for deletion and returns the object as it is then. Asking again is not an error.
    ///
    /// # Errors
    /// Any [`BackendError`]; [`BackendError::Conflict`] when `uid` is another object's.
    fn delete(
        &self,
        caller: &Caller,
        kind: Kind,
        name: &str,
        uid: Option<&Uid>,
    ) -> impl Future<Output = Result<AnyObject, BackendError>> + Send;

    /// Takes an operator's order about a host and returns the host as it is then. The caller's name goes on the record.
    ///
    /// # Errors
    /// Any [`BackendError`]; [`BackendError::Precondition`] when the host is not in a state for it.
    fn act_on_host(
        &self,
        caller: &Caller,
        name: &str,
        uid: Option<&Uid>,
        action: &HostAction,
    ) -> impl Future<Output = Result<AnyObject, BackendError>> + Send;

    /// What would be decided now for `count` tenant nodes like this one, each as if those before it had their hosts.
    /// Computes only.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] for a declaration that would be refused, and the general ones; that nothing fits is none.
    fn preview_placement(
        &self,
        spec: &TenantNodeSpec,
        count: u32,
    ) -> impl Future<Output = Result<Vec<Decision>, BackendError>> + Send;

    /// Makes a token that lets nodes join a tenant's cluster, or makes the one that this request has made last longer. The
    /// caller's name goes on the record.
    ///
    /// # Errors
    /// Any [`BackendError`]; [`BackendError::Precondition`] also where the cluster cannot take nodes now.
    fn create_join_token(
        &self,
        caller: &Caller,
        request: &JoinTokenRequest,
    ) -> impl Future<Output = Result<JoinToken, BackendError>> + Send;

    /// Ends such a token. One that is gone already is no error.
    ///
    /// # Errors
    /// Any [`BackendError`]; [`BackendError::Precondition`] for a token of a tenant node's own.
    fn revoke_join_token(
        &self,
        caller: &Caller,
        cluster: &str,
        token_id: &str,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// How to sign in to a host's BMC. The caller's name goes on the record before anything is handed out.
    ///
    /// # Errors
    /// Any [`BackendError`]; [`BackendError::Precondition`] where the engine hands out no such credentials.
    fn bmc_credential(
        &self,
        caller: &Caller,
        host: &str,
        reason: &str,
    ) -> impl Future<Output = Result<BmcCredential, BackendError>> + Send;

    /// Why a tenant node got what it got. Computes only. A backend without a log of decisions has no answer.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn explain_placement(&self, _: &str) -> impl Future<Output = Result<Explanation, BackendError>> + Send {
        std::future::ready(Err(BackendError::Unavailable { message: NO_LOG.to_owned() }))
    }

    /// Takes a logged decision again. Computes only. A backend without a log of decisions has no answer.
    ///
    /// # Errors
    /// Any [`BackendError`]; [`BackendError::Precondition`] when there is no such decision, or its policy is gone.
    fn replay_decision(&self, _: &str) -> impl Future<Output = Result<Replay, BackendError>> + Send {
        std::future::ready(Err(BackendError::Unavailable { message: NO_LOG.to_owned() }))
    }

    /// The log of decisions, oldest first, a part of a round at a time; empty for a backend that keeps none.
    ///
    /// # Errors
    /// Any [`BackendError`].
    fn decision_log(&self) -> impl Future<Output = Result<Vec<LogPart>, BackendError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Keeps the component of a policy. The bytes are as many as was said before, and not compared with the digest yet. A
    /// backend without policies has no place for it.
    ///
    /// # Errors
    /// Any [`BackendError`]; [`BackendError::Invalid`], and nothing is kept, when the bytes are not those of the digest.
    fn put_component(
        &self,
        _caller: &Caller,
        _sha256: &str,
        _bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), BackendError>> + Send {
        std::future::ready(Err(BackendError::Unavailable { message: NO_POLICIES.to_owned() }))
    }

    /// What would become of a policy. Seats nothing. A backend without policies has no answer.
    ///
    /// # Errors
    /// [`BackendError::Invalid`] for a declaration that would be refused, and the general ones.
    fn check_policy(&self, _: &PolicySpec) -> impl Future<Output = Result<PolicyCheck, BackendError>> + Send {
        std::future::ready(Err(BackendError::Unavailable { message: NO_POLICIES.to_owned() }))
    }

    /// Orders another password for a host's BMC and returns the host as it is then. The caller's name goes on the record.
    ///
    /// # Errors
    /// Any [`BackendError`]; [`BackendError::Precondition`] while another change is under way.
    fn rotate_bmc_password(
        &self,
        caller: &Caller,
        host: &str,
        password: &Secret,
        reason: &str,
    ) -> impl Future<Output = Result<AnyObject, BackendError>> + Send;

    /// The present state, a bookmark, then every change in order. An item that is an error ends the stream.
    fn watch(&self, query: WatchQuery) -> BoxStream<'static, Result<WatchItem, BackendError>>;

    /// One object, as `Changed` and at last `Deleted`, after the state that is given. May leave out what was passed meanwhile.
    fn follow(&self, known: AnyObject) -> BoxStream<'static, Result<WatchItem, BackendError>>;

    /// Events, oldest first. An item that is an error ends the stream.
    fn events(&self, query: EventsQuery) -> BoxStream<'static, Result<EventEntry, BackendError>>;
}

/// What a backend says that has no log of decisions.
const NO_LOG: &str = "this engine keeps no log of decisions";
/// What a backend says that has no policies of its own.
const NO_POLICIES: &str = "this engine takes no policies over the API";

/// How the API is served.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// How long calls under way may take to finish once shutdown is asked for.
    pub grace: Duration,
    /// How often an idle connection is probed; a peer that does not answer within 20 s is gone.
    pub keepalive: Duration,
    /// The most streams and calls at one time on one connection.
    pub max_concurrent_per_connection: u32,
    /// Certificate and key for TLS; `None` serves clear text, which belongs on loopback only.
    pub tls: Option<TlsIdentity>,
    /// Whose identity tokens are exchanged for tokens of the API.
    pub issuers: Arc<dyn Issuers>,
}

/// A certificate with its chain, and its private key, both in PEM.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate, then the issuers up to, but not with, the root.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsIdentity(key redacted)")
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            grace: Duration::from_secs(10),
            keepalive: Duration::from_secs(30),
            max_concurrent_per_connection: 1024,
            tls: None,
            issuers: Arc::new(Nobody),
        }
    }
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("the API server failed: {0}")]
    Transport(#[source] tonic::transport::Error),
    /// The socket could not be made or used.
    #[error("cannot {verb} {what}: {source}")]
    Io {
        /// `listen on`, …
        verb: &'static str,
        /// Which socket.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process serves there.
    #[error("{what} is already served by another process; stop it first")]
    InUse {
        /// Which socket.
        what: String,
    },
}

/// Serves the API on `listener` until `shutdown` completes.
///
/// # Errors
/// [`ServeError`] when the transport fails.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    backend: Arc<B>,
    tokens: TokenStore,
    config: ServerConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (stop, stopping) = watch::channel(Stopping::No);
    let service = Service { backend, tokens: tokens.clone(), stopping: stopping.clone(), uploads: component::lane() };
    let service = VmetalServer::new(service)
        .max_decoding_message_size(crate::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(crate::MAX_MESSAGE_BYTES);
    let mut server = Server::builder();
    if let Some(tls) = &config.tls {
        let identity = Identity::from_pem(&tls.certificate_pem, &tls.key_pem);
        server = server.tls_config(ServerTlsConfig::new().identity(identity)).map_err(ServeError::Transport)?;
    }
    let server = server
        .http2_keepalive_interval(Some(config.keepalive))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .max_concurrent_streams(config.max_concurrent_per_connection)
        .add_service(identity::service(config.issuers, tokens.clone()))
        .add_service(InterceptedService::new(service, authenticate(tokens)))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stopped(stopping));
    run(server, stop, shutdown, config.grace).await
}

/// Whether the server is on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopping {
    No,
    Yes,
}

pub(crate) async fn stopped(mut stopping: watch::Receiver<Stopping>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopping.wait_for(|s| *s == Stopping::Yes).await;
}

/// Runs a server until it ends by itself, or until `shutdown` and then at most `grace` longer.
pub(crate) async fn run(
    server: impl Future<Output = Result<(), tonic::transport::Error>>,
    stop: watch::Sender<Stopping>,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) -> Result<(), ServeError> {
    let mut server = std::pin::pin!(server);
    tokio::select! {
        ended = &mut server => return ended.map_err(ServeError::Transport),
        () = shutdown => {}
    }
    stop.send_replace(Stopping::Yes);
    match tokio::time::timeout(grace, server).await {
        Ok(ended) => ended.map_err(ServeError::Transport),
        Err(_) => {
            tracing::warn!(grace_s = grace.as_secs(), "calls were still under way after the grace period; dropped");
            Ok(())
        }
    }
}

/// Lets only known tokens pass and notes who calls.
fn authenticate(tokens: TokenStore) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |mut request| {
        let refused = |why| {
            tracing::debug!(peer = ?request.remote_addr(), why, "refused an API call");
            Status::unauthenticated(why)
        };
        if request.metadata().get("authorization").is_none() {
            return Err(refused("no token was given"));
        }
        let Some(token) = bearer(request.metadata()) else {
            return Err(refused("the authorization header is not `Bearer <token>`"));
        };
        match tokens.identify(token) {
            Some(Holder { name, role }) => {
                request.extensions_mut().insert(Caller { token: name });
                request.extensions_mut().insert(role);
                Ok(request)
            }
            None => Err(refused("the token is not known")),
        }
    }
}

/// What was presented.
pub(crate) fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let (scheme, token) = metadata.get("authorization")?.to_str().ok()?.split_once(' ')?;
    // The scheme's name is case-insensitive (RFC 9110 section 11.1).
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

struct Service<B> {
    backend: Arc<B>,
    tokens: TokenStore,
    stopping: watch::Receiver<Stopping>,
    /// Components are held in memory while they come.
    uploads: Semaphore,
}

type Outgoing<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

/// Who asks for a change, when they may.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let refused = || Status::unauthenticated("no token was given");
    let caller = request.extensions().get::<Caller>().cloned().ok_or_else(refused)?;
    match request.extensions().get::<Role>() {
        Some(Role::Operator) => Ok(caller),
        _ => {
            let message = format!("the token {:?} is for looking only (role reader)", caller.token);
            Err(BackendError::Forbidden { message }.to_status())
        }
    }
}

fn answer<T, U>(result: Result<T, BackendError>, wire: impl FnOnce(T) -> U) -> Result<Response<U>, Status> {
    match result {
        Ok(value) => Ok(Response::new(wire(value))),
        Err(error) => {
            if let BackendError::Internal { message } = &error {
                tracing::error!(message, "an API call failed");
            }
            Err(error.to_status())
        }
    }
}

/// Runs a change to its end even if the client goes away in the middle: a change happens whole or not at all, and never
/// depends on who still listens.
async fn uncancelled<T: Send + 'static>(
    change: impl Future<Output = Result<T, BackendError>> + Send + 'static,
) -> Result<T, BackendError> {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|error| Err(BackendError::Internal { message: format!("the change did not finish: {error}") }))
}

/// Cuts a listing into pages of about [`crate::PAGE_BYTES`], each made when the one before it was sent. A page has at least
/// one object, however large, and a listing at least one page, which tells its revision.
fn pages(listing: Listing) -> impl Iterator<Item = proto::ListPage> + Send {
    let Listing { objects, revision } = listing;
    let mut rest = Some(objects.into_iter().peekable());
    std::iter::from_fn(move || {
        let mut objects = Vec::new();
        let mut bytes = 0;
        let from = rest.as_mut()?;
        while bytes < crate::PAGE_BYTES
            && let Some(object) = from.next()
        {
            let object = proto::Object::from(&object);
            bytes += object.json.len();
            objects.push(object);
        }
        if from.peek().is_none() {
            rest = None;
        }
        Some(proto::ListPage { objects, revision })
    })
}

fn malformed(error: convert::Malformed) -> Status {
    BackendError::from(error).to_status()
}

impl<B: Backend> Service<B> {
    /// A stream that ends after its first error, and with `UNAVAILABLE` when the server stops.
    fn outgoing<T: Send + 'static>(
        &self,
        stream: impl futures::Stream<Item = Result<T, BackendError>> + Send + 'static,
    ) -> Response<Outgoing<T>> {
        let stopping = Box::pin(stopped(self.stopping.clone()));
        let open = Some((stream.boxed(), stopping));
        let outgoing = futures::stream::unfold(open, |open| async move {
            let (mut stream, mut stopping) = open?;
            tokio::select! {
                item = stream.next() => match item? {
                    Ok(message) => Some((Ok(message), Some((stream, stopping)))),
                    Err(error) => Some((Err(error.to_status()), None)),
                },
                () = &mut stopping => {
                    let goodbye = BackendError::Unavailable { message: "the engine is stopping".into() };
                    Some((Err(goodbye.to_status()), None))
                }
            }
        });
        Response::new(Box::pin(outgoing))
    }
}

#[tonic::async_trait]
impl<B: Backend> Vmetal for Service<B> {
    type ListStream = Outgoing<proto::ListPage>;
    type WatchStream = Outgoing<proto::WatchEvent>;
    type ApplyAndFollowStream = Outgoing<proto::WatchEvent>;
    type EventsStream = Outgoing<proto::EventEntry>;
    type DecisionLogStream = Outgoing<proto::DecisionLogPart>;

    async fn get_version(
        &self,
        _: Request<proto::GetVersionRequest>,
    ) -> Result<Response<proto::GetVersionResponse>, Status> {
        let version = self.backend.version();
        Ok(Response::new(proto::GetVersionResponse { version, level: crate::API_LEVEL }))
    }

    async fn get(&self, request: Request<proto::GetRequest>) -> Result<Response<proto::Object>, Status> {
        let request = request.into_inner();
        let kind = convert::kind(&request.kind).map_err(malformed)?;
        answer(self.backend.get(kind, &request.name).await, |object| (&object).into())
    }

    async fn list(&self, request: Request<proto::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let request = request.into_inner();
        let kind = convert::kind(&request.kind).map_err(malformed)?;
        let listing = self.backend.list(kind, &request.labels).await.map_err(|error| error.to_status())?;
        Ok(self.outgoing(futures::stream::iter(pages(listing).map(Ok))))
    }

    async fn apply(&self, request: Request<proto::ApplyRequest>) -> Result<Response<proto::Object>, Status> {
        let caller = caller(&request)?;
        let apply = request.into_inner().try_into().map_err(malformed)?;
        let backend = Arc::clone(&self.backend);
        let applied = uncancelled(async move { backend.apply(&caller, apply).await }).await;
        answer(applied, |object| (&object).into())
    }

    async fn apply_and_follow(
        &self,
        request: Request<proto::ApplyRequest>,
    ) -> Result<Response<Self::ApplyAndFollowStream>, Status> {
        let caller = caller(&request)?;
        let apply = request.into_inner().try_into().map_err(malformed)?;
        let backend = Arc::clone(&self.backend);
        let applied = uncancelled(async move { backend.apply(&caller, apply).await }).await;
        let applied = applied.map_err(|error| error.to_status())?;
        let first = futures::stream::iter([Ok((&WatchItem::Changed(applied.clone())).into())]);
        let news = self.backend.follow(applied).map(|item| item.map(|item| (&item).into()));
        Ok(self.outgoing(first.chain(news)))
    }

    async fn annotate(
        &self,
        request: Request<proto::AnnotateRequest>,
    ) -> Result<Response<proto::AnnotateResponse>, Status> {
        let caller = caller(&request)?;
        let annotate = request.into_inner().try_into().map_err(malformed)?;
        let backend = Arc::clone(&self.backend);
        let annotated = uncancelled(async move { backend.annotate(&caller, annotate).await });
        answer(annotated.await, |()| proto::AnnotateResponse {})
    }

    async fn delete(&self, request: Request<proto::DeleteRequest>) -> Result<Response<proto::Object>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let kind = convert::kind(&request.kind).map_err(malformed)?;
        let backend = Arc::clone(&self.backend);
        let deleted = uncancelled(async move {
            let uid = (!request.uid.is_empty()).then_some(Uid(request.uid));
            backend.delete(&caller, kind, &request.name, uid.as_ref()).await
        });
        answer(deleted.await, |object| (&object).into())
    }

    async fn act_on_host(&self, request: Request<proto::ActOnHostRequest>) -> Result<Response<proto::Object>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let action: HostAction = convert::action(&request.action_json).map_err(malformed)?;
        let backend = Arc::clone(&self.backend);
        let acted = uncancelled(async move {
            let uid = (!request.uid.is_empty()).then_some(Uid(request.uid));
            backend.act_on_host(&caller, &request.name, uid.as_ref(), &action).await
        });
        answer(acted.await, |object| (&object).into())
    }

    async fn preview_placement(
        &self,
        request: Request<proto::PreviewPlacementRequest>,
    ) -> Result<Response<proto::PreviewPlacementResponse>, Status> {
        let request = request.into_inner();
        let spec = convert::wish(&request.spec_json).map_err(malformed)?;
        let decided = self.backend.preview_placement(&spec, request.count.max(1)).await;
        answer(decided, |decisions| proto::PreviewPlacementResponse {
            // Plain data with string keys: it always serialises.
            decision_json: decisions.iter().map(|one| serde_json::to_vec(one).unwrap_or_default()).collect(),
        })
    }

    async fn create_join_token(
        &self,
        request: Request<proto::CreateJoinTokenRequest>,
    ) -> Result<Response<proto::CreateJoinTokenResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner().into();
        let backend = Arc::clone(&self.backend);
        answer(uncancelled(async move { backend.create_join_token(&caller, &request).await }).await, Into::into)
    }

    async fn revoke_join_token(
        &self,
        request: Request<proto::RevokeJoinTokenRequest>,
    ) -> Result<Response<proto::RevokeJoinTokenResponse>, Status> {
        let caller = caller(&request)?;
        let proto::RevokeJoinTokenRequest { cluster, token_id } = request.into_inner();
        let backend = Arc::clone(&self.backend);
        let revoked = uncancelled(async move { backend.revoke_join_token(&caller, &cluster, &token_id).await });
        answer(revoked.await, |()| proto::RevokeJoinTokenResponse {})
    }

    async fn create_api_token(
        &self,
        request: Request<proto::CreateApiTokenRequest>,
    ) -> Result<Response<proto::CreateApiTokenResponse>, Status> {
        let presented = bearer(request.metadata()).unwrap_or_default().to_owned();
        let wish = request.into_inner().try_into().map_err(malformed)?;
        answer(self.tokens.make(&presented, &wish), |made| proto::CreateApiTokenResponse {
            secret: made.token.expose().to_owned(),
            token: Some(made.issued.into()),
        })
    }

    async fn prolong_api_token(
        &self,
        request: Request<proto::ProlongApiTokenRequest>,
    ) -> Result<Response<proto::ApiToken>, Status> {
        let presented = bearer(request.metadata()).unwrap_or_default().to_owned();
        let proto::ProlongApiTokenRequest { id, ttl_seconds } = request.into_inner();
        answer(self.tokens.prolong(&presented, &id, Duration::from_secs(ttl_seconds)), Into::into)
    }

    async fn revoke_api_token(
        &self,
        request: Request<proto::RevokeApiTokenRequest>,
    ) -> Result<Response<proto::RevokeApiTokenResponse>, Status> {
        let caller = self.tokens.identify(bearer(request.metadata()).unwrap_or_default());
        let caller = caller.ok_or_else(|| Status::unauthenticated("the token is not known"))?;
        answer(self.tokens.revoke(&caller, &request.into_inner().id), |()| proto::RevokeApiTokenResponse {})
    }

    async fn list_api_tokens(
        &self,
        _: Request<proto::ListApiTokensRequest>,
    ) -> Result<Response<proto::ListApiTokensResponse>, Status> {
        let tokens = self.tokens.issued().into_iter().map(Into::into).collect();
        Ok(Response::new(proto::ListApiTokensResponse { tokens }))
    }

    async fn get_bmc_credential(
        &self,
        request: Request<proto::GetBmcCredentialRequest>,
    ) -> Result<Response<proto::GetBmcCredentialResponse>, Status> {
        let caller = caller(&request)?;
        let proto::GetBmcCredentialRequest { host, reason } = request.into_inner();
        answer(self.backend.bmc_credential(&caller, &host, &reason).await, Into::into)
    }

    async fn explain_placement(
        &self,
        request: Request<proto::ExplainPlacementRequest>,
    ) -> Result<Response<proto::ExplainPlacementResponse>, Status> {
        let explained = self.backend.explain_placement(&request.into_inner().name).await;
        answer(explained, |explanation| proto::ExplainPlacementResponse {
            // Plain data with string keys: it always serialises.
            explanation_json: serde_json::to_vec(&explanation).unwrap_or_default(),
        })
    }

    async fn replay_decision(
        &self,
        request: Request<proto::ReplayDecisionRequest>,
    ) -> Result<Response<proto::ReplayDecisionResponse>, Status> {
        let replayed = self.backend.replay_decision(&request.into_inner().decision).await;
        answer(replayed, |replay| proto::ReplayDecisionResponse {
            // Plain data with string keys: it always serialises.
            replay_json: serde_json::to_vec(&replay).unwrap_or_default(),
        })
    }

    async fn decision_log(
        &self,
        _: Request<proto::DecisionLogRequest>,
    ) -> Result<Response<Self::DecisionLogStream>, Status> {
        let parts = self.backend.decision_log().await.map_err(|error| error.to_status())?;
        let part = |part: LogPart| Ok(proto::DecisionLogPart { data: part.bytes, ends_round: part.ends_round });
        Ok(self.outgoing(futures::stream::iter(parts.into_iter().map(part))))
    }

    async fn put_component(
        &self,
        request: Request<Streaming<proto::ComponentPart>>,
    ) -> Result<Response<proto::PutComponentResponse>, Status> {
        let caller = caller(&request)?;
        // Never closed: a place comes free sooner or later.
        let _place = self.uploads.acquire().await;
        let (sha256, bytes) = component::receive(request.into_inner()).await?;
        let backend = Arc::clone(&self.backend);
        let kept = uncancelled(async move { backend.put_component(&caller, &sha256, bytes).await });
        answer(kept.await, |()| proto::PutComponentResponse {})
    }

    async fn check_policy(
        &self,
        request: Request<proto::CheckPolicyRequest>,
    ) -> Result<Response<proto::CheckPolicyResponse>, Status> {
        let spec: PolicySpec = convert::read("policy", &request.into_inner().spec_json).map_err(malformed)?;
        answer(self.backend.check_policy(&spec).await, |check| proto::CheckPolicyResponse {
            // Plain data with string keys: it always serialises.
            check_json: serde_json::to_vec(&check).unwrap_or_default(),
        })
    }

    async fn rotate_bmc_password(
        &self,
        request: Request<proto::RotateBmcPasswordRequest>,
    ) -> Result<Response<proto::Object>, Status> {
        let caller = caller(&request)?;
        let proto::RotateBmcPasswordRequest { host, password, reason } = request.into_inner();
        let (backend, password) = (Arc::clone(&self.backend), Secret::new(password));
        let ordered = uncancelled(async move { backend.rotate_bmc_password(&caller, &host, &password, &reason).await });
        answer(ordered.await, |object| (&object).into())
    }

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let query = request.into_inner().try_into().map_err(malformed)?;
        Ok(self.outgoing(self.backend.watch(query).map(|item| item.map(|item| (&item).into()))))
    }

    async fn events(&self, request: Request<proto::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let query = request.into_inner().try_into().map_err(malformed)?;
        let internal = |e: convert::Malformed| BackendError::Internal { message: e.to_string() };
        let entry = move |item: Result<EventEntry, _>| {
            item.and_then(|entry| proto::EventEntry::try_from(&entry).map_err(internal))
        };
        Ok(self.outgoing(self.backend.events(query).map(entry)))
    }
}
