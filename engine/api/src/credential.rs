//! Credentials that are handed out for a short time, each on the record with who asked and why.

use std::fmt;
use std::time::Duration;

use vmetal_model::{BmcAddress, Timestamp};

use crate::convert::Malformed;
use crate::proto;
use crate::token::Role;
use crate::types::Secret;

/// A wish for a token that lets nodes join a tenant's cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenRequest {
    /// The tenant cluster's name.
    pub cluster: String,
    /// How long it shall work: [`JoinTokenRequest::SHORTEST`] to [`JoinTokenRequest::LONGEST`].
    pub ttl: Duration,
    /// Why; it goes on the record.
    pub reason: String,
    /// Repeating a call with the same id gives the same token a longer life. The client makes one when it is empty.
    pub request_id: String,
}

impl JoinTokenRequest {
    /// The shortest life of a token.
    pub const SHORTEST: Duration = Duration::from_secs(60);
    /// The longest life of a token; one that is needed for longer is asked for again.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
}

/// A token that lets nodes join, and what they need besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// `id.secret`, as kubeadm takes it.
    pub token: Secret,
    /// The pin of the cluster's authority, in kubeadm's form.
    pub ca_cert_hash: String,
    /// `host:port` of the API server.
    pub endpoint: String,
    /// When the token stops working.
    pub expires_at: Timestamp,
}

impl JoinToken {
    /// The public half, by which it is revoked.
    pub fn id(&self) -> &str {
        self.token.expose().split('.').next().unwrap_or_default()
    }
}

/// How to sign in to a host's BMC.
#[derive(Clone, PartialEq, Eq)]
pub struct BmcCredential {
    /// Where it is.
    pub address: BmcAddress,
    /// The account.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

impl fmt::Debug for BmcCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {:?} (password redacted)", self.address, self.username)
    }
}

/// A wish for a token of the API, for a while and for one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTokenRequest {
    /// What it shall be good for; no more than what the caller may do.
    pub role: Role,
    /// How long it shall work: [`ApiTokenRequest::SHORTEST`] to [`ApiTokenRequest::LONGEST`].
    pub ttl: Duration,
    /// Why; it goes on the record, and into the token's name.
    pub reason: String,
    /// Repeating a call with the same id ends the token that was made before. The client makes one when it is empty.
    pub request_id: String,
}

impl ApiTokenRequest {
    /// The shortest life of a token.
    pub const SHORTEST: Duration = Duration::from_secs(60);
    /// The longest life of a token; one that is needed for longer is prolonged.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
}

/// A token that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// For `authorization: Bearer <token>`; shown this once.
    pub token: Secret,
    /// What is known of it.
    pub issued: IssuedToken,
}

/// What is known of a made token by everybody who may look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// By which it is prolonged and revoked.
    pub id: String,
    /// Under which the engine records what is done with it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Under which name the token is known that made it.
    pub by: String,
    /// Why it was made.
    pub reason: String,
    /// How long it still works.
    pub expires_in: Duration,
}

impl From<&ApiTokenRequest> for proto::CreateApiTokenRequest {
    fn from(request: &ApiTokenRequest) -> Self {
        let ApiTokenRequest { role, ttl, reason, request_id } = request.clone();
        let role = role.as_str().to_owned();
        proto::CreateApiTokenRequest { role, ttl_seconds: ttl.as_secs(), reason, request_id }
    }
}

impl TryFrom<proto::CreateApiTokenRequest> for ApiTokenRequest {
    type Error = Malformed;
    fn try_from(request: proto::CreateApiTokenRequest) -> Result<Self, Malformed> {
        let proto::CreateApiTokenRequest { role, ttl_seconds, reason, request_id } = request;
        Ok(ApiTokenRequest { role: role_of(&role)?, ttl: Duration::from_secs(ttl_seconds), reason, request_id })
    }
}

impl From<IssuedToken> for proto::ApiToken {
    fn from(issued: IssuedToken) -> Self {
        let IssuedToken { id, name, role, by, reason, expires_in } = issued;
        let role = role.as_str().to_owned();
        proto::ApiToken { id, name, role, by, reason, expires_in_seconds: expires_in.as_secs() }
    }
}

impl TryFrom<proto::ApiToken> for IssuedToken {
    type Error = Malformed;
    fn try_from(token: proto::ApiToken) -> Result<Self, Malformed> {
        let proto::ApiToken { id, name, role, by, reason, expires_in_seconds } = token;
        let expires_in = Duration::from_secs(expires_in_seconds);
        Ok(IssuedToken { id, name, role: role_of(&role)?, by, reason, expires_in })
    }
}

fn role_of(name: &str) -> Result<Role, Malformed> {
    name.parse().map_err(|()| Malformed(format!("{name:?} is no role; expected reader or operator")))
}

impl From<&JoinTokenRequest> for proto::CreateJoinTokenRequest {
    fn from(request: &JoinTokenRequest) -> Self {
        let JoinTokenRequest { cluster, ttl, reason, request_id } = request.clone();
        proto::CreateJoinTokenRequest { cluster, ttl_seconds: ttl.as_secs(), reason, request_id }
    }
}

impl From<proto::CreateJoinTokenRequest> for JoinTokenRequest {
    fn from(request: proto::CreateJoinTokenRequest) -> Self {
        let proto::CreateJoinTokenRequest { cluster, ttl_seconds, reason, request_id } = request;
        JoinTokenRequest { cluster, ttl: Duration::from_secs(ttl_seconds), reason, request_id }
    }
}

impl From<JoinToken> for proto::CreateJoinTokenResponse {
    fn from(made: JoinToken) -> Self {
        proto::CreateJoinTokenResponse {
            token: made.token.expose().to_owned(),
            ca_cert_hash: made.ca_cert_hash,
            endpoint: made.endpoint,
            expires_at: made.expires_at.to_string(),
        }
    }
}

impl TryFrom<proto::CreateJoinTokenResponse> for JoinToken {
    type Error = Malformed;
    fn try_from(made: proto::CreateJoinTokenResponse) -> Result<Self, Malformed> {
        let bad = |e| Malformed(format!("the token's end {:?} is not a time: {e}", made.expires_at));
        let expires_at = made.expires_at.parse().map_err(bad)?;
        let proto::CreateJoinTokenResponse { token, ca_cert_hash, endpoint, .. } = made;
        Ok(JoinToken { token: Secret::new(token), ca_cert_hash, endpoint, expires_at })
    }
}

impl From<BmcCredential> for proto::GetBmcCredentialResponse {
    fn from(credential: BmcCredential) -> Self {
        proto::GetBmcCredentialResponse {
            address: credential.address.to_string(),
            username: credential.username,
            password: credential.password.expose().to_owned(),
        }
    }
}

impl TryFrom<proto::GetBmcCredentialResponse> for BmcCredential {
    type Error = Malformed;
    fn try_from(credential: proto::GetBmcCredentialResponse) -> Result<Self, Malformed> {
        let proto::GetBmcCredentialResponse { address, username, password } = credential;
        let address = address.parse().map_err(|e| Malformed(format!("the BMC's address does not read as one: {e}")))?;
        Ok(BmcCredential { address, username, password: Secret::new(password) })
    }
}
