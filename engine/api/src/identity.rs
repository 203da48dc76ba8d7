//! How a workload that keeps no secret gets a token: it shows what its platform says about it.
//!
//! The engine's side of it implements [`Issuers`], which knows whom to believe; this module puts it on the wire and makes the
//! token. The client's side is [`crate::TokenSource::Identity`].
//!
//! It is the only service that answers without a token, so it is kept small: short messages, few at a time, nothing of the
//! engine's state in an answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::error::BackendError;
use crate::proto;
use crate::proto::identity_server::{Identity, IdentityServer};
use crate::token::{Holder, TokenStore};

/// The most bytes of one request: identity tokens have one to four KiB.
const MAX_REQUEST_BYTES: usize = 32 * 1024;
/// How many are looked at at the same time. Each costs a verification, and perhaps a question to the platform.
const AT_A_TIME: usize = 16;

/// What an identity token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose token it is to be.
    pub holder: Holder,
    /// How long the token is to be good for.
    pub lifetime: Duration,
}

/// Why an identity token is good for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No platform is trusted at all.
    #[error("the engine trusts no issuer of identity tokens")]
    NobodyTrusted,
    /// The token is not one to believe. The reason says what was expected and seen.
    #[error("{0}")]
    NotBelieved(String),
    /// The platform's keys cannot be had now.
    #[error("{0}")]
    Unavailable(String),
}

/// An answer in the future.
pub type Verifying<'a> = Pin<Box<dyn Future<Output = Result<Verified, Refusal>> + Send + 'a>>;

/// Whom the engine believes.
pub trait Issuers: std::fmt::Debug + Send + Sync + 'static {
    /// Who shows this identity token, and what that is good for.
    fn verify<'a>(&'a self, identity_token: &'a str) -> Verifying<'a>;
}

/// Nobody.
#[derive(Debug)]
pub struct Nobody;

impl Issuers for Nobody {
    fn verify<'a>(&'a self, _: &'a str) -> Verifying<'a> {
        Box::pin(std::future::ready(Err(Refusal::NobodyTrusted)))
    }
}

/// The service.
pub(crate) fn service(issuers: Arc<dyn Issuers>, tokens: TokenStore) -> IdentityServer<Exchange> {
    let exchange = Exchange { issuers, tokens, turns: Semaphore::new(AT_A_TIME) };
    IdentityServer::new(exchange).max_decoding_message_size(MAX_REQUEST_BYTES)
}

pub(crate) struct Exchange {
    issuers: Arc<dyn Issuers>,
    tokens: TokenStore,
    turns: Semaphore,
}

#[tonic::async_trait]
impl Identity for Exchange {
    async fn exchange(
        &self,
        request: Request<proto::ExchangeRequest>,
    ) -> Result<Response<proto::ExchangeResponse>, Status> {
        let peer = request.remote_addr();
        let busy = |_| unavailable("too many identity tokens are being looked at".into());
        let _turn = self.turns.try_acquire().map_err(busy)?;
        let Verified { holder, lifetime } =
            self.issuers.verify(request.get_ref().identity_token.trim()).await.map_err(|refusal| {
                tracing::info!(?peer, %refusal, "refused an identity token");
                refused(refusal)
            })?;
        let Holder { name, role } = holder.clone();
        let internal = |error: crate::TokenError| BackendError::Internal { message: error.to_string() }.to_status();
        let token = self.tokens.grant(holder, lifetime).map_err(internal)?;
        tracing::info!(?peer, %name, role = role.as_str(), seconds = lifetime.as_secs(), "granted a token");
        Ok(Response::new(proto::ExchangeResponse {
            token: token.expose().to_owned(),
            expires_in_seconds: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
            name: name.to_string(),
            role: role.as_str().to_owned(),
        }))
    }
}

fn unavailable(message: String) -> Status {
    BackendError::Unavailable { message }.to_status()
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::NobodyTrusted => BackendError::Precondition {
            message: refusal.to_string(),
            advice: "add the platform to the engine's configuration ([[oidc]]), or give a token".into(),
        }
        .to_status(),
        Refusal::NotBelieved(reason) => {
            Status::unauthenticated(format!("the identity token is not believed: {reason}"))
        }
        Refusal::Unavailable(reason) => unavailable(reason),
    }
}
