//! The users' side: what the Terraform provider and the command line call.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};
use vmetal_model::{Decision, Explanation, HostAction, Kind, PolicyCheck, PolicySpec, Replay, TenantNodeSpec, Uid};

use crate::convert::{self, Malformed};
use crate::credential::{ApiToken, ApiTokenRequest, BmcCredential, IssuedToken, JoinToken, JoinTokenRequest};
use crate::error::ApiError;
use crate::proto;
use crate::proto::vmetal_client::VmetalClient;
use crate::resource::{AnyObject, Resource};
use crate::types::{
    Annotate, Apply, EventEntry, EventsQuery, Listing, LogPart, Secret, VersionInfo, WatchItem, WatchQuery,
};

mod credentials;

use credentials::{Again, Credentials};
pub use credentials::{IdentitySource, TokenSource};

/// How long one unary call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// How long a call may take in which the engine compiles a component: it gives up after two minutes itself.
const COMPILE_DEADLINE: Duration = Duration::from_secs(150);
/// The slowest that a component may go over the wire, in bytes a millisecond, on top of [`CALL_DEADLINE`].
const SLOWEST_UPLOAD: u64 = 128;
/// How long a connection may take to come about.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The first pause between tries; doubles up to [`LONGEST_PAUSE`], with full jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How to reach the engine.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `http://host:port` or `https://host:port`.
    pub endpoint: String,
    /// The bearer token.
    pub token: TokenSource,
    /// For `https`: the roots to trust, in PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// How long a call goes on trying while the engine is away. Zero: one try.
    pub patience: Duration,
}

impl ClientConfig {
    /// A configuration without TLS roots and with 15 s of patience.
    pub fn new(endpoint: impl Into<String>, token: TokenSource) -> Self {
        ClientConfig { endpoint: endpoint.into(), token, ca_pem: None, patience: Duration::from_secs(15) }
    }
}

/// What became of objects of one type.
pub type Following<R> = BoxStream<'static, Result<WatchItem<R>, ApiError>>;

/// A connection to one engine. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    channel: Channel,
    rpc: VmetalClient<Channel>,
    patience: Duration,
}

#[derive(Debug)]
struct Shared {
    endpoint: String,
    credentials: Credentials,
}

impl Client {
    /// Makes a client that connects when it is first used. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ApiError::Config`] when the endpoint is not a URL that can be used.
    pub fn connect_lazy(config: ClientConfig) -> Result<Self, ApiError> {
        let bad = |reason: String| ApiError::Config {
            message: format!("the endpoint {:?} cannot be used: {reason}", config.endpoint),
            advice: "give http://host:port or https://host:port, for example http://127.0.0.1:7600".into(),
        };
        let text = config.endpoint.trim().trim_end_matches('/');
        let uri: http::Uri = text.parse().map_err(|e: http::uri::InvalidUri| bad(e.to_string()))?;
        if uri.host().is_none_or(str::is_empty) || !matches!(uri.path(), "" | "/") {
            return Err(bad("expected a scheme, a host and a port, and nothing else".into()));
        }
        let mut endpoint = Endpoint::from(uri.clone())
            .user_agent(concat!("vmetal/", env!("CARGO_PKG_VERSION")))
            .map_err(|e| bad(e.to_string()))?
            .connect_timeout(CONNECT_DEADLINE)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true);
        match (uri.scheme_str(), config.ca_pem) {
            (Some("http"), None) => {}
            (Some("http"), Some(_)) => return Err(bad("a CA is given, but the scheme is http".into())),
            (Some("https"), Some(pem)) => {
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                endpoint = endpoint.tls_config(tls).map_err(|e| bad(deepest(&e)))?;
            }
            (Some("https"), None) => return Err(bad("https needs the certificate of the CA to trust".into())),
            _ => return Err(bad("the scheme is neither http nor https".into())),
        }
        let channel = endpoint.connect_lazy();
        let rpc = VmetalClient::new(channel.clone())
            .max_decoding_message_size(crate::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(crate::MAX_MESSAGE_BYTES);
        let shared = Shared { endpoint: text.to_owned(), credentials: Credentials::new(config.token) };
        Ok(Client { shared: Arc::new(shared), channel, rpc, patience: config.patience })
    }

    /// The same connection with another patience: how long a call goes on trying while the engine is away.
    #[must_use]
    pub fn with_patience(&self, patience: Duration) -> Self {
        Client { patience, ..self.clone() }
    }

    /// Where the engine is.
    pub fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    /// The engine's version and protocol level.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn version(&self) -> Result<VersionInfo, ApiError> {
        let answer = self
            .call(proto::GetVersionRequest {}, |mut rpc, request| async move { rpc.get_version(request).await })
            .await?;
        Ok(VersionInfo { version: answer.version, level: answer.level })
    }

    /// One object, if it exists.
    ///
    /// # Errors
    /// [`ApiError`]; a missing object is not an error.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Option<AnyObject>, ApiError> {
        let request = proto::GetRequest { kind: kind.as_str().into(), name: name.to_owned() };
        let answer = self.call(request, |mut rpc, request| async move { rpc.get(request).await }).await;
        self.optional(answer)
    }

    /// One object of a known type, if it exists.
    ///
    /// # Errors
    /// [`ApiError`]; a missing object is not an error.
    pub async fn get_as<R: Resource>(&self, name: &str) -> Result<Option<R>, ApiError> {
        let request = proto::GetRequest { kind: R::KIND.as_str().into(), name: name.to_owned() };
        match self.call(request, |mut rpc, request| async move { rpc.get(request).await }).await {
            Ok(object) => convert::typed(&object).map(Some).map_err(incompatible),
            Err(ApiError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects of a kind that have all these labels, by name.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list(&self, kind: Kind, labels: &BTreeMap<String, String>) -> Result<Listing, ApiError> {
        let answer = self.pages(kind, labels).await?;
        let objects = answer.objects.into_iter().map(|object| self.object(object)).collect::<Result<_, _>>()?;
        Ok(Listing { objects, revision: answer.revision })
    }

    async fn pages(&self, kind: Kind, labels: &BTreeMap<String, String>) -> Result<proto::ListPage, ApiError> {
        let request = proto::ListRequest { kind: kind.as_str().into(), labels: labels.clone() };
        // A listing that breaks off in the middle is asked for again from its beginning: half of one is never returned.
        let whole = |mut rpc: VmetalClient<Channel>, request| async move {
            let mut pages = rpc.list(request).await?.into_inner();
            let mut whole = proto::ListPage::default();
            while let Some(page) = pages.message().await? {
                whole.revision = page.revision;
                whole.objects.extend(page.objects);
            }
            Ok(Response::new(whole))
        };
        self.call(request, whole).await
    }

    /// The objects of a known type that have all these labels, by name.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list_as<R: Resource>(&self, labels: &BTreeMap<String, String>) -> Result<Vec<R>, ApiError> {
        let listing = self.pages(R::KIND, labels).await?;
        listing.objects.iter().map(convert::typed).collect::<Result<_, _>>().map_err(incompatible)
    }

    /// Creates or replaces the spec, labels and annotations of one object. Safe to repeat: an empty `request_id` is
    /// replaced by a random one that all tries of this call share.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn apply(&self, apply: Apply) -> Result<AnyObject, ApiError> {
        let answer = self.applied(apply).await?;
        self.object(answer)
    }

    async fn applied(&self, apply: Apply) -> Result<proto::Object, ApiError> {
        let request = self.apply_request(apply)?;
        self.call(request, |mut rpc, request| async move { rpc.apply(request).await }).await
    }

    fn apply_request(&self, mut apply: Apply) -> Result<proto::ApplyRequest, ApiError> {
        if apply.request_id.is_empty() {
            apply.request_id = self.new_request_id()?;
        }
        Ok(apply.into())
    }

    /// Creates or replaces one object of a known type.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn apply_as<R: Resource>(&self, apply: Apply) -> Result<R, ApiError> {
        convert::typed(&self.applied(apply).await?).map_err(incompatible)
    }

    /// The same, and then the object whenever it changes, as [`WatchItem::Changed`] and at last [`WatchItem::Deleted`], until the
    /// connection breaks (the last item is then an error): one call for a declaration and for the wait that follows it. Steps that
    /// were passed while nobody took them may be left out.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn apply_and_follow<R: Resource>(&self, apply: Apply) -> Result<(R, Following<R>), ApiError> {
        let request = self.apply_request(apply)?;
        let (first, rest) = self
            .call(request, |mut rpc, request| async move {
                let mut stream = rpc.apply_and_follow(request).await?.into_inner();
                let first = stream.message().await?;
                let broken = || Status::unavailable("the stream ended before it told what was applied");
                Ok(Response::new((first.ok_or_else(broken)?, stream)))
            })
            .await?;
        match convert::watched(first, |object| convert::typed::<R>(&object)).map_err(incompatible)? {
            WatchItem::Changed(applied) => Ok((applied, self.followed(rest))),
            _ => Err(incompatible(Malformed("the stream did not begin with what was applied".into()))),
        }
    }

    /// Writes or removes annotations of an object. What it is declared to be stays as it is, generation included.
    ///
    /// # Errors
    /// [`ApiError`]; a missing object is one.
    pub async fn annotate(&self, annotate: &Annotate) -> Result<(), ApiError> {
        let request = proto::AnnotateRequest::from(annotate);
        self.call(request, |mut rpc, request| async move { rpc.annotate(request).await }).await.map(drop)
    }

    /// Asks for deletion and returns the object as it is then; `None` when it is gone already. The object stays until its
    /// release is complete: [`Client::wait_gone`] waits for that. With `uid`, only that very object is deleted.
    ///
    /// # Errors
    /// [`ApiError`]; a missing object is not an error.
    pub async fn delete(&self, kind: Kind, name: &str, uid: Option<&Uid>) -> Result<Option<AnyObject>, ApiError> {
        let uid = uid.map(|uid| uid.0.clone()).unwrap_or_default();
        let request = proto::DeleteRequest { kind: kind.as_str().into(), name: name.to_owned(), uid };
        let answer = self.call(request, |mut rpc, request| async move { rpc.delete(request).await }).await;
        self.optional(answer)
    }

    /// Gives an order about a host and returns the host as it is then. With `uid`, only to that very host.
    ///
    /// # Errors
    /// [`ApiError`]; a missing host is one.
    pub async fn act_on_host(&self, name: &str, uid: Option<&Uid>, action: &HostAction) -> Result<AnyObject, ApiError> {
        let uid = uid.map(|uid| uid.0.clone()).unwrap_or_default();
        // Plain data with string keys: it always serialises.
        let action_json = serde_json::to_vec(action).unwrap_or_default();
        let request = proto::ActOnHostRequest { name: name.to_owned(), uid, action_json };
        let answer = self.call(request, |mut rpc, request| async move { rpc.act_on_host(request).await }).await?;
        self.object(answer)
    }

    /// What would be decided now for `count` tenant nodes like this one, each as if those before it had their hosts. Nothing
    /// is reserved.
    ///
    /// # Errors
    /// [`ApiError`]; that nothing fits is none.
    pub async fn preview_placement(&self, spec: &TenantNodeSpec, count: u32) -> Result<Vec<Decision>, ApiError> {
        // Plain data with string keys: it always serialises.
        let spec_json = serde_json::to_vec(spec).unwrap_or_default();
        let request = proto::PreviewPlacementRequest { spec_json, count };
        let answer = self.call(request, |mut rpc, request| async move { rpc.preview_placement(request).await }).await?;
        let decisions = answer.decision_json.iter().map(|json| convert::decision(json));
        decisions.collect::<Result<_, _>>().map_err(incompatible)
    }

    /// Makes a token that lets nodes join a tenant's cluster for a short time. Safe to repeat: an empty `request_id` is
    /// replaced by a random one that all tries of this call share. Asked for again with the same id, it lasts longer.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn create_join_token(&self, request: &JoinTokenRequest) -> Result<JoinToken, ApiError> {
        let mut request = proto::CreateJoinTokenRequest::from(request);
        if request.request_id.is_empty() {
            request.request_id = self.new_request_id()?;
        }
        let answer = self.call(request, |mut rpc, request| async move { rpc.create_join_token(request).await }).await?;
        answer.try_into().map_err(incompatible)
    }

    /// Ends such a token. One that is gone already is no error.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn revoke_join_token(&self, cluster: &str, token_id: &str) -> Result<(), ApiError> {
        let request = proto::RevokeJoinTokenRequest { cluster: cluster.to_owned(), token_id: token_id.to_owned() };
        self.call(request, |mut rpc, request| async move { rpc.revoke_join_token(request).await }).await.map(|_| ())
    }

    /// Makes a token of the API for a while. Safe to repeat: an empty `request_id` is replaced by a random one that all tries of
    /// this call share.
    ///
    /// # Errors
    /// [`ApiError`]; [`ApiError::Forbidden`] for more than the caller may do.
    pub async fn create_api_token(&self, request: &ApiTokenRequest) -> Result<ApiToken, ApiError> {
        let mut request = proto::CreateApiTokenRequest::from(request);
        if request.request_id.is_empty() {
            request.request_id = self.new_request_id()?;
        }
        let answer = self.call(request, |mut rpc, request| async move { rpc.create_api_token(request).await }).await?;
        let missing = || incompatible(Malformed("a token without what is known of it".to_owned()));
        let issued = answer.token.ok_or_else(missing)?.try_into().map_err(incompatible)?;
        Ok(ApiToken { token: Secret::new(answer.secret), issued })
    }

    /// Gives a token that the caller made a longer life, from now on.
    ///
    /// # Errors
    /// [`ApiError`]; [`ApiError::Precondition`] when it has ended.
    pub async fn prolong_api_token(&self, id: &str, ttl: Duration) -> Result<IssuedToken, ApiError> {
        let request = proto::ProlongApiTokenRequest { id: id.to_owned(), ttl_seconds: ttl.as_secs() };
        let answer = self.call(request, |mut rpc, request| async move { rpc.prolong_api_token(request).await }).await?;
        answer.try_into().map_err(incompatible)
    }

    /// Ends such a token. One that is gone already is no error.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn revoke_api_token(&self, id: &str) -> Result<(), ApiError> {
        let request = proto::RevokeApiTokenRequest { id: id.to_owned() };
        self.call(request, |mut rpc, request| async move { rpc.revoke_api_token(request).await }).await.map(|_| ())
    }

    /// The made tokens that are good now, by id; none of their secrets.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn api_tokens(&self) -> Result<Vec<IssuedToken>, ApiError> {
        let request = proto::ListApiTokensRequest {};
        let answer = self.call(request, |mut rpc, request| async move { rpc.list_api_tokens(request).await }).await?;
        answer.tokens.into_iter().map(|token| token.try_into().map_err(incompatible)).collect()
    }

    /// How to sign in to a host's BMC, where the engine hands that out. Who asked and why is on the host's record.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn bmc_credential(&self, host: &str, reason: &str) -> Result<BmcCredential, ApiError> {
        let request = proto::GetBmcCredentialRequest { host: host.to_owned(), reason: reason.to_owned() };
        let answer =
            self.call(request, |mut rpc, request| async move { rpc.get_bmc_credential(request).await }).await?;
        answer.try_into().map_err(incompatible)
    }

    /// Why a tenant node got what it got.
    ///
    /// # Errors
    /// [`ApiError`]; a missing tenant node is one.
    pub async fn explain_placement(&self, node: &str) -> Result<Explanation, ApiError> {
        let request = proto::ExplainPlacementRequest { name: node.to_owned() };
        let answer = self.call(request, |mut rpc, request| async move { rpc.explain_placement(request).await }).await?;
        convert::read("explanation", &answer.explanation_json).map_err(incompatible)
    }

    /// Takes a logged decision again and compares.
    ///
    /// # Errors
    /// [`ApiError`]; a decision that the log does not have is one.
    pub async fn replay_decision(&self, decision: &str) -> Result<Replay, ApiError> {
        let request = proto::ReplayDecisionRequest { decision: decision.to_owned() };
        let answer = self.call(request, |mut rpc, request| async move { rpc.replay_decision(request).await }).await?;
        convert::read("replay", &answer.replay_json).map_err(incompatible)
    }

    /// The log of decisions, oldest first, a packed round at a time. Opening the stream is repeated like every call.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn decision_log(&self) -> Result<Vec<Vec<u8>>, ApiError> {
        let request = proto::DecisionLogRequest {};
        let stream = self.call(request, |mut rpc, request| async move { rpc.decision_log(request).await }).await?;
        let mut parts: BoxStream<'static, Result<LogPart, ApiError>> = self.incoming(stream);
        let (mut rounds, mut round) = (Vec::new(), Vec::new());
        while let Some(part) = parts.next().await {
            let part = part?;
            round.extend(part.bytes);
            if part.ends_round {
                rounds.push(std::mem::take(&mut round));
            }
        }
        Ok(rounds)
    }

    /// Hands over the component of a policy. Safe to repeat.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn put_component(&self, sha256: &str, bytes: Arc<[u8]>) -> Result<(), ApiError> {
        let within = CALL_DEADLINE + Duration::from_millis(bytes.len() as u64 / SLOWEST_UPLOAD);
        let upload = |mut rpc: VmetalClient<Channel>, request: Request<(String, Arc<[u8]>)>| async move {
            let (metadata, extensions, (sha256, bytes)) = request.into_parts();
            let parts = futures::stream::iter(convert::component_parts(sha256, bytes));
            rpc.put_component(Request::from_parts(metadata, extensions, parts)).await
        };
        self.call_within(within, (sha256.to_owned(), bytes), upload).await.map(|_| ())
    }

    /// What would become of a policy. The engine may have to compile its component first, which takes as long as it takes.
    ///
    /// # Errors
    /// [`ApiError`]; [`ApiError::Invalid`] says what would be refused.
    pub async fn check_policy(&self, spec: &PolicySpec) -> Result<PolicyCheck, ApiError> {
        // Plain data with string keys: it always serialises.
        let spec_json = serde_json::to_vec(spec).unwrap_or_default();
        let request = proto::CheckPolicyRequest { spec_json };
        let check = |mut rpc: VmetalClient<Channel>, request| async move { rpc.check_policy(request).await };
        let answer = self.call_within(COMPILE_DEADLINE, request, check).await?;
        convert::read("check", &answer.check_json).map_err(incompatible)
    }

    /// Orders another password for a host's BMC and returns the host as it is then. `status.rotation` goes when the BMC has
    /// taken it.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn rotate_bmc_password(
        &self,
        host: &str,
        password: &Secret,
        reason: &str,
    ) -> Result<AnyObject, ApiError> {
        let (host, reason, password) = (host.to_owned(), reason.to_owned(), password.expose().to_owned());
        let request = proto::RotateBmcPasswordRequest { host, password, reason };
        let answer =
            self.call(request, |mut rpc, request| async move { rpc.rotate_bmc_password(request).await }).await?;
        self.object(answer)
    }

    /// The present state, a bookmark, then every change in order, until the connection breaks (the last item is then an
    /// error). Opening the stream is repeated like every call.
    ///
    /// # Errors
    /// [`ApiError`] when the stream cannot be opened.
    pub async fn watch(&self, query: WatchQuery) -> Result<BoxStream<'static, Result<WatchItem, ApiError>>, ApiError> {
        let request = proto::WatchRequest::from(&query);
        let stream = self.call(request, |mut rpc, request| async move { rpc.watch(request).await }).await?;
        Ok(self.incoming(stream))
    }

    /// The same for objects of a known type, all or one of them.
    ///
    /// # Errors
    /// [`ApiError`] when the stream cannot be opened.
    pub async fn watch_as<R: Resource>(&self, name: Option<&str>) -> Result<Following<R>, ApiError> {
        let query = WatchQuery { kind: Some(R::KIND), name: name.map(str::to_owned) };
        let request = proto::WatchRequest::from(&query);
        let stream = self.call(request, |mut rpc, request| async move { rpc.watch(request).await }).await?;
        Ok(self.followed(stream))
    }

    fn followed<R: Resource>(&self, stream: tonic::Streaming<proto::WatchEvent>) -> Following<R> {
        let shared = Arc::clone(&self.shared);
        stream
            .map(move |item| match item {
                Ok(event) => convert::watched(event, |object| convert::typed(&object)).map_err(incompatible),
                Err(status) => Err(ApiError::from_status(&shared.endpoint, &status)),
            })
            .boxed()
    }

    /// Events, oldest first. Opening the stream is repeated like every call.
    ///
    /// # Errors
    /// [`ApiError`] when the stream cannot be opened.
    pub async fn events(
        &self,
        query: EventsQuery,
    ) -> Result<BoxStream<'static, Result<EventEntry, ApiError>>, ApiError> {
        let request = proto::EventsRequest::from(&query);
        let stream = self.call(request, |mut rpc, request| async move { rpc.events(request).await }).await?;
        Ok(self.incoming(stream))
    }

    /// Watches one object until `done` returns a value. `done` sees every state from the present one on; `None` stands for
    /// an object that does not exist. A broken watch is opened again, so that an engine may restart in between.
    ///
    /// # Errors
    /// [`WaitError::Deadline`] with the last state seen; [`WaitError::Api`] when the engine stays away for longer than the
    /// client's patience or refuses.
    pub async fn wait_for<T>(
        &self,
        kind: Kind,
        name: &str,
        within: Duration,
        mut done: impl FnMut(Option<&AnyObject>) -> Option<T>,
    ) -> Result<T, WaitError> {
        let mut last = None;
        let waiting = async {
            loop {
                let query = WatchQuery { kind: Some(kind), name: Some(name.to_owned()) };
                let mut stream = self.watch(query).await?;
                let mut present = None;
                while let Some(item) = stream.next().await {
                    let synced = match item {
                        Ok(WatchItem::Sync(object)) => {
                            present = Some(object);
                            continue;
                        }
                        // The bookmark says that nothing more is there; only then is "no object" known.
                        Ok(WatchItem::Bookmark { .. }) => present.take(),
                        Ok(WatchItem::Changed(object)) => Some(object),
                        Ok(WatchItem::Deleted(_)) => None,
                        Err(error) if error.is_transient() => break,
                        Err(error) => return Err(error),
                    };
                    let outcome = done(synced.as_ref());
                    last = synced;
                    if let Some(value) = outcome {
                        return Ok(value);
                    }
                }
                // Never spin on an engine that opens streams and ends them at once.
                tokio::time::sleep(FIRST_PAUSE).await;
            }
        };
        match tokio::time::timeout(within, waiting).await {
            Ok(result) => result.map_err(WaitError::Api),
            Err(_) => Err(WaitError::Deadline { kind, name: name.to_owned(), within, last: last.map(Box::new) }),
        }
    }

    /// Waits until the object with this identity is gone (another one of the same name does not count).
    ///
    /// # Errors
    /// As [`Client::wait_for`].
    pub async fn wait_gone(&self, kind: Kind, name: &str, uid: &Uid, within: Duration) -> Result<(), WaitError> {
        let gone = |object: Option<&AnyObject>| object.is_none_or(|o| o.metadata.uid != *uid).then_some(());
        self.wait_for(kind, name, within, gone).await
    }

    /// A random id for a request that its caller repeats, such as a token that is prolonged.
    ///
    /// # Errors
    /// [`ApiError::Other`] when the operating system gives no random bytes.
    pub fn new_request_id(&self) -> Result<String, ApiError> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes).map_err(|e| ApiError::Other {
            endpoint: self.endpoint().to_owned(),
            message: format!("no random bytes for a request id: {e}"),
        })?;
        Ok(hex::encode(bytes))
    }

    fn object(&self, object: proto::Object) -> Result<AnyObject, ApiError> {
        AnyObject::try_from(object).map_err(incompatible)
    }

    fn optional(&self, answer: Result<proto::Object, ApiError>) -> Result<Option<AnyObject>, ApiError> {
        match answer {
            Ok(object) => self.object(object).map(Some),
            Err(ApiError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn incoming<W, T>(&self, stream: tonic::Streaming<W>) -> BoxStream<'static, Result<T, ApiError>>
    where
        W: Send + 'static,
        T: TryFrom<W, Error = Malformed> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        stream
            .map(move |item| match item {
                Ok(message) => T::try_from(message).map_err(incompatible),
                Err(status) => Err(ApiError::from_status(&shared.endpoint, &status)),
            })
            .boxed()
    }

    /// One call, repeated while the engine is away and patience lasts. Every call of this API may be repeated: reads and
    /// deletes by nature, an apply by its request id. Credentials that the engine has forgotten are asked for anew, once.
    async fn call<M, R, F, Fut>(&self, message: M, rpc: F) -> Result<R, ApiError>
    where
        M: Clone,
        F: Fn(VmetalClient<Channel>, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.call_within(CALL_DEADLINE, message, rpc).await
    }

    /// The same with another deadline for each attempt.
    async fn call_within<M, R, F, Fut>(&self, within: Duration, message: M, rpc: F) -> Result<R, ApiError>
    where
        M: Clone,
        F: Fn(VmetalClient<Channel>, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut renewal = Again::Yes;
        loop {
            let error = match self.attempt(within, &message, &rpc, &mut renewal).await {
                Ok(Some(response)) => return Ok(response),
                Ok(None) => continue,
                Err(error) => error,
            };
            let wait = jittered(pause);
            let repeat = matches!(error, ApiError::EngineUnreachable { .. } | ApiError::Unavailable { .. });
            if !repeat || started.elapsed() + wait > self.patience {
                return Err(error);
            }
            tracing::debug!(%error, pause_ms = wait.as_millis(), "the engine is away; trying again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One attempt; `None` when the engine did not know the credentials and others are worth another.
    async fn attempt<M, R, F, Fut>(
        &self,
        within: Duration,
        message: &M,
        rpc: &F,
        renewal: &mut Again,
    ) -> Result<Option<R>, ApiError>
    where
        M: Clone,
        F: Fn(VmetalClient<Channel>, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let credentials = &self.shared.credentials;
        let authorization = credentials.authorization(&self.channel, self.endpoint()).await?;
        let mut request = Request::new(message.clone());
        request.metadata_mut().insert("authorization", authorization.clone());
        match tokio::time::timeout(within, rpc(self.rpc.clone(), request)).await {
            Ok(Ok(response)) => Ok(Some(response.into_inner())),
            Ok(Err(status)) if status.code() == Code::DeadlineExceeded => Err(self.timed_out(within)),
            Ok(Err(status)) => {
                let unknown = status.code() == Code::Unauthenticated;
                if unknown
                    && std::mem::replace(renewal, Again::No) == Again::Yes
                    && credentials.refused(&authorization).await == Again::Yes
                {
                    return Ok(None);
                }
                Err(ApiError::from_status(self.endpoint(), &status))
            }
            Err(_) => Err(self.timed_out(within)),
        }
    }

    fn timed_out(&self, within: Duration) -> ApiError {
        ApiError::Timeout { endpoint: self.endpoint().to_owned(), seconds: within.as_secs() }
    }
}

/// Why waiting for an object ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WaitError {
    /// The engine could not be asked.
    #[error(transparent)]
    Api(ApiError),
    /// Time is up. What is being waited for goes on.
    #[error("{kind} {name:?} did not get there within {} s", .within.as_secs())]
    Deadline {
        /// The object's kind.
        kind: Kind,
        /// The object's name.
        name: String,
        /// How long was waited.
        within: Duration,
        /// The last state seen; `None` when the object did not exist.
        last: Option<Box<AnyObject>>,
    },
}

fn incompatible(error: Malformed) -> ApiError {
    ApiError::Incompatible { message: format!("the engine's answer is not understood: {error}") }
}

/// Between half the pause and the pause. Falls back to the pause itself without randomness.
fn jittered(pause: Duration) -> Duration {
    let fraction = getrandom::u32().map_or(1.0, |random| 0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0);
    pause.mul_f64(fraction)
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
