//! Tokens that change while a client works: replaced in a file, taken away, exchanged, run out, forgotten.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vmetal_api::identity::{Issuers, Refusal, Verified, Verifying};
use vmetal_api::{
    ApiError, Client, ClientConfig, Holder, IdentitySource, JoinTokenRequest, Role, Secret, ServerConfig, TokenSource,
    TokenStore, token,
};
use vmetal_model::Kind;

#[path = "support/memory.rs"]
mod memory;

use memory::{Memory, Running, node_type};

/// Believes `good`, and counts how often it is asked.
#[derive(Debug)]
struct Platform {
    asked: AtomicUsize,
    role: Role,
    lifetime: Duration,
}

impl Platform {
    fn new(role: Role, lifetime: Duration) -> Arc<Self> {
        Arc::new(Self { asked: AtomicUsize::new(0), role, lifetime })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Issuers for Platform {
    fn verify<'a>(&'a self, identity_token: &'a str) -> Verifying<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            match identity_token {
                "good" => Ok(Verified {
                    holder: Holder { name: "ci (run 7)".into(), role: self.role },
                    lifetime: self.lifetime,
                }),
                _ => Err(Refusal::NotBelieved("its signature is not the issuer's".into())),
            }
        })
    }
}

async fn engine(address: &str, issuers: Arc<dyn Issuers>) -> (Running, Arc<Memory>) {
    let backend = Memory::new();
    let config = ServerConfig { issuers, ..ServerConfig::default() };
    (Running::start_with(Arc::clone(&backend), address, TokenStore::default(), config).await, backend)
}

fn client(server: &Running, token: TokenSource) -> Client {
    let mut config = ClientConfig::new(format!("http://{}", server.address), token);
    config.patience = Duration::ZERO;
    Client::connect_lazy(config).unwrap()
}

fn identity(token: &str) -> TokenSource {
    TokenSource::Identity(IdentitySource::Literal(Secret::new(token)))
}

fn listed(path: &Path, token: &str) {
    std::fs::write(path, format!("ci {}\n", hex::encode(token::hash(token)))).unwrap();
}

/// Both sides of a rotation in the middle of a run: the engine takes the new token and no longer the old one, the client reads
/// the new one for its next call.
#[tokio::test]
async fn a_token_is_replaced_while_a_client_works() {
    let dir = tempfile::tempdir().unwrap();
    let (hashes, file) = (dir.path().join("tokens"), dir.path().join("token"));
    listed(&hashes, "vmt_old");
    std::fs::write(&file, "vmt_old\n").unwrap();
    let tokens = TokenStore::load(&hashes).unwrap();
    let server = Running::start_with(Memory::new(), "127.0.0.1:0", tokens.clone(), ServerConfig::default()).await;
    let client = client(&server, TokenSource::File(file.clone()));
    client.apply(node_type("before")).await.unwrap();
    listed(&hashes, "vmt_new");
    tokens.reload(&hashes).unwrap();
    let error = client.version().await.unwrap_err();
    assert!(matches!(error, ApiError::Unauthenticated { .. }), "{error:?}");
    std::fs::write(&file, "vmt_new\n").unwrap();
    client.apply(node_type("after")).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn who_may_only_look_changes_nothing_and_gets_no_credential() {
    let (server, backend) = engine("127.0.0.1:0", Platform::new(Role::Reader, Duration::from_secs(60))).await;
    let client = client(&server, identity("good"));
    assert_eq!(client.get(Kind::NodeType, "a").await.unwrap(), None);
    let join = JoinTokenRequest {
        cluster: "acme".into(),
        ttl: Duration::from_secs(600),
        reason: "a test".into(),
        request_id: String::new(),
    };
    for error in [
        client.apply(node_type("a")).await.unwrap_err(),
        client.delete(Kind::NodeType, "a", None).await.unwrap_err(),
        client.act_on_host("a", None, &vmetal_model::HostAction::Resume).await.unwrap_err(),
        client.create_join_token(&join).await.map(|_| ()).unwrap_err(),
        client.revoke_join_token("acme", "abcdef").await.unwrap_err(),
        client.bmc_credential("a", "a test").await.map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(&error, ApiError::Forbidden { reason, .. } if reason.contains("reader")), "{error:?}");
        assert!(error.advice().contains("operator"), "{}", error.advice());
    }
    assert!(backend.state.lock().unwrap().objects.is_empty());
    server.stop().await;
}

/// One exchange serves many calls, also those that begin at the same time; what is done is on record under the name.
#[tokio::test]
async fn an_identity_token_is_exchanged_once() {
    let platform = Platform::new(Role::Operator, Duration::from_secs(60));
    let (server, backend) = engine("127.0.0.1:0", platform.clone()).await;
    let client = client(&server, identity(" good\n"));
    let calls = (0..8).map(|i| {
        let client = client.clone();
        async move { client.apply(node_type(&format!("n{i}"))).await.unwrap() }
    });
    futures::future::join_all(calls).await;
    assert_eq!(platform.asked(), 1);
    assert_eq!(&*backend.state.lock().unwrap().callers[0].token, "ci (run 7)");
    server.stop().await;
}

/// A token is renewed when two thirds of its time are over; nobody notices.
#[tokio::test]
async fn a_granted_token_is_renewed_in_time() {
    let platform = Platform::new(Role::Operator, Duration::from_hours(3));
    let (server, _) = engine("127.0.0.1:0", platform.clone()).await;
    let client = client(&server, identity("good"));
    client.version().await.unwrap();
    assert_eq!(platform.asked(), 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_hours(2)).await;
    tokio::time::resume();
    client.version().await.unwrap();
    assert_eq!(platform.asked(), 2);
    server.stop().await;
}

/// An engine that restarts knows no granted token. The client asks for another within the same call.
#[tokio::test]
async fn a_token_that_the_engine_forgot_is_asked_for_again() {
    let platform = Platform::new(Role::Operator, Duration::from_secs(60));
    let (server, _) = engine("127.0.0.1:0", platform.clone()).await;
    let mut config = ClientConfig::new(format!("http://{}", server.address), identity("good"));
    config.patience = Duration::from_mins(1);
    let client = Client::connect_lazy(config).unwrap();
    client.version().await.unwrap();
    let address = server.address.to_string();
    server.stop().await;
    let (server, _) = engine(&address, platform.clone()).await;
    client.apply(node_type("a")).await.unwrap();
    assert_eq!(platform.asked(), 2);
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_believed_is_refused_with_the_reason() {
    let platform = Platform::new(Role::Operator, Duration::from_secs(60));
    let (server, _) = engine("127.0.0.1:0", platform.clone()).await;
    let error = client(&server, identity("bad")).version().await.unwrap_err();
    assert!(
        matches!(&error, ApiError::Unauthenticated { reason, .. } if reason.contains("signature is not")),
        "{error:?}"
    );
    assert_eq!(platform.asked(), 1, "asking again would not help");
    let long = "x".repeat(40_000);
    assert!(client(&server, identity(&long)).version().await.is_err());
    assert_eq!(platform.asked(), 1, "a message that long is not even looked at");
    let error = client(&server, identity(" ")).version().await.unwrap_err();
    assert!(error.advice().contains("TFC_WORKLOAD_IDENTITY_AUDIENCE"), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_engine_that_trusts_nobody_says_so() {
    let server = Running::start(Memory::new(), "127.0.0.1:0").await;
    let error = client(&server, identity("good")).version().await.unwrap_err();
    assert!(matches!(error, ApiError::Precondition { .. }) && error.advice().contains("[[oidc]]"), "{error:?}");
    server.stop().await;
}
