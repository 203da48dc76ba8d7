//! What goes into `authorization`: a token as it is, or one that an identity token was exchanged for.
//!
//! An exchanged token is kept until two thirds of its time are over and then exchanged anew; while that fails, the old one is
//! used until its end. An engine that no longer knows it (it restarted, or another one took over) is asked for another, once
//! per call.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::error::ApiError;
use crate::proto;
use crate::proto::identity_client::IdentityClient;
use crate::types::Secret;

/// How long an exchange may take. The platform's keys may have to be fetched for it.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(20);
/// After a failed renewal, the next one is tried no sooner.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// Where the bearer token comes from.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// This very token.
    Literal(Secret),
    /// A file, read for every call, so that a rotated token is used at once.
    File(PathBuf),
    /// The engine, in exchange for what the platform says about this workload.
    Identity(IdentitySource),
}

/// Where the identity token comes from: a JWT that the platform signed.
#[derive(Debug, Clone)]
pub enum IdentitySource {
    /// This very token.
    Literal(Secret),
    /// A file, read for every exchange: platforms replace it before it runs out.
    File(PathBuf),
}

pub(super) type Authorization = MetadataValue<Ascii>;

#[derive(Debug)]
pub(super) struct Credentials {
    source: TokenSource,
    session: Mutex<Option<Session>>,
}

#[derive(Debug, Clone)]
struct Session {
    authorization: Authorization,
    renew: Instant,
    expires: Instant,
}

/// Whether another attempt with other credentials makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Yes,
    No,
}

impl Credentials {
    pub(super) fn new(source: TokenSource) -> Self {
        Credentials { source, session: Mutex::default() }
    }

    /// For one call.
    pub(super) async fn authorization(&self, channel: &Channel, endpoint: &str) -> Result<Authorization, ApiError> {
        match &self.source {
            TokenSource::Literal(token) => bearer(token.expose(), "the token"),
            TokenSource::File(path) => bearer(&read("token", path)?, &format!("the token in {}", path.display())),
            TokenSource::Identity(identity) => self.exchanged(identity, channel, endpoint).await,
        }
    }

    /// The engine does not know what was presented.
    pub(super) async fn refused(&self, presented: &Authorization) -> Again {
        if !matches!(self.source, TokenSource::Identity(_)) {
            return Again::No;
        }
        let mut session = self.session.lock().await;
        // Another call may have exchanged anew in between.
        if session.as_ref().is_some_and(|session| session.authorization == *presented) {
            *session = None;
        }
        Again::Yes
    }

    /// One exchange at a time: calls that come meanwhile wait for it and share it.
    async fn exchanged(
        &self,
        identity: &IdentitySource,
        channel: &Channel,
        endpoint: &str,
    ) -> Result<Authorization, ApiError> {
        let mut session = self.session.lock().await;
        let now = Instant::now();
        if let Some(session) = session.as_ref().filter(|session| session.renew > now) {
            return Ok(session.authorization.clone());
        }
        match exchange(identity, channel, endpoint, now).await {
            Ok(new) => Ok(session.insert(new).authorization.clone()),
            Err(error) => match session.as_mut().filter(|session| session.expires > now) {
                Some(session) => {
                    tracing::warn!(%error, "the token could not be renewed; the old one is still good");
                    session.renew = (now + RENEWAL_PAUSE).min(session.expires);
                    Ok(session.authorization.clone())
                }
                None => Err(error),
            },
        }
    }
}

async fn exchange(
    identity: &IdentitySource,
    channel: &Channel,
    endpoint: &str,
    now: Instant,
) -> Result<Session, ApiError> {
    let identity_token = match identity {
        IdentitySource::Literal(token) => token.expose().trim().to_owned(),
        IdentitySource::File(path) => read("identity token", path)?.trim().to_owned(),
    };
    if identity_token.is_empty() {
        return Err(ApiError::Config {
            message: "the identity token is empty".into(),
            advice: "see that the platform gives this workload one (HCP Terraform: TFC_WORKLOAD_IDENTITY_AUDIENCE)"
                .into(),
        });
    }
    let mut rpc = IdentityClient::new(channel.clone());
    let asked = rpc.exchange(proto::ExchangeRequest { identity_token });
    let answer = match tokio::time::timeout(EXCHANGE_DEADLINE, asked).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(ApiError::from_status(endpoint, &status)),
        Err(_) => {
            return Err(ApiError::Timeout { endpoint: endpoint.to_owned(), seconds: EXCHANGE_DEADLINE.as_secs() });
        }
    };
    tracing::debug!(
        name = answer.name,
        role = answer.role,
        seconds = answer.expires_in_seconds,
        "exchanged an identity token"
    );
    let lifetime = Duration::from_secs(answer.expires_in_seconds.into());
    let authorization = bearer(&answer.token, "the engine's token")?;
    Ok(Session { authorization, renew: now + lifetime * 2 / 3, expires: now + lifetime })
}

fn read(what: &str, path: &Path) -> Result<String, ApiError> {
    std::fs::read_to_string(path).map_err(|e| ApiError::Config {
        message: format!("the {what} file {} cannot be read: {e}", path.display()),
        advice: format!("give the file that holds the {what}, and the right to read it"),
    })
}

fn bearer(token: &str, place: &str) -> Result<Authorization, ApiError> {
    let token = token.trim();
    let unusable = |why: &str| ApiError::Config {
        message: format!("{place} {why}"),
        advice: "give the token that vmetald wrote at its first start".into(),
    };
    if token.is_empty() {
        return Err(unusable("is empty"));
    }
    let mut value: Authorization =
        format!("Bearer {token}").parse().map_err(|_| unusable("has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}
