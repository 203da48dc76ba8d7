//! The bootstrap token of a claim: made before the server is powered on, deleted once its node is Ready.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use crate::client::TenantClient;
use crate::discovery;
use crate::error::TenantError;
use crate::node::FIELD_MANAGER;
use crate::token::{self, TokenSecret};

/// Marks what vmetal made.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "vmetal");
/// Names the claim that a token belongs to.
const CLAIM_LABEL: &str = "vmetal.dev/claim-uid";
/// The group that kubeadm's rules allow to join.
const JOIN_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// How long the bootstrap signer may take. It takes a second when it runs.
const SIGNING_LIMIT: Duration = Duration::from_secs(30);
/// How many ids a claim tries. Two billion ids make the second a rarity.
const ID_ATTEMPTS: u32 = 4;

/// A wish to let one node in.
#[derive(Clone)]
pub struct JoinRequest {
    /// The claim's uid: the token id follows from it.
    pub claim_uid: String,
    /// The claim's name, for people who look at the Secret.
    pub claim_name: String,
    /// How long the token shall work; longer than installing, booting and joining may take together.
    pub ttl: SignedDuration,
    /// The present time.
    pub now: Timestamp,
    /// Fresh random bytes from the operating system.
    pub entropy: [u8; 32],
}

/// The right to let one node in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGrant {
    /// Public half of the token.
    pub token_id: String,
    /// Secret half.
    pub token_secret: TokenSecret,
    /// The pin of the cluster's authority, in kubeadm's form.
    pub ca_cert_hash: String,
    /// `host:port` of the API server.
    pub api_endpoint: String,
    /// When the token stops working.
    pub expires_at: Timestamp,
}

/// What became of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRevocation {
    /// It was deleted; the API server refuses it from now on.
    Revoked,
    /// There was none.
    AlreadyGone,
}

impl TenantClient {
    /// Makes the claim's token, or finds the one that an earlier call made, and returns what a node needs to join.
    ///
    /// Returns only when a join would be answered: the token is signed, one authority is pinned, and the address is
    /// unambiguous. A repeated call gives the same id, and the same secret as long as its Secret exists.
    ///
    /// # Errors
    /// [`TenantError::NoBootstrapSigner`], [`TenantError::SeveralAuthorities`], [`TenantError::AuthorityMismatch`],
    /// [`TenantError::EndpointMismatch`] and missing or malformed objects where the cluster could not take a node;
    /// otherwise what reaching it may bring.
    pub async fn prepare_join(&self, request: &JoinRequest) -> Result<JoinGrant, TenantError> {
        let target = discovery::read(self).await?;
        let (token_id, token_secret, expires_at) = self.ensure_token(request).await?;
        discovery::wait_until_signed(self, &token_id, SIGNING_LIMIT).await?;
        Ok(JoinGrant {
            token_id,
            token_secret,
            ca_cert_hash: target.ca_cert_hash,
            api_endpoint: target.endpoint,
            expires_at,
        })
    }

    /// Deletes the token; nodes that joined with it stay. Deletes nothing that vmetal did not make.
    ///
    /// # Errors
    /// [`TenantError::BadTokenId`], [`TenantError::ForeignToken`], or what reaching the cluster may bring.
    pub async fn revoke_token(&self, token_id: &str) -> Result<TokenRevocation, TenantError> {
        if !token::is_token_id(token_id) {
            return Err(TenantError::BadTokenId(token_id.to_owned()));
        }
        let (secrets, name) = (self.secrets(), secret_name(token_id));
        let action = || format!("revoke bootstrap token {token_id}");
        let Some(secret) = secrets.get_opt(&name).await.map_err(|e| self.error(action(), e))? else {
            return Ok(TokenRevocation::AlreadyGone);
        };
        if secret.labels().get(MANAGED_BY.0).map(String::as_str) != Some(MANAGED_BY.1) {
            return Err(TenantError::ForeignToken { secret: name });
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: secret.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        match secrets.delete(&name, &params).await {
            Ok(_) => Ok(TokenRevocation::Revoked),
            // The token cleaner, or another engine, was faster.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(TokenRevocation::AlreadyGone),
            Err(error) => Err(self.error(action(), error)),
        }
    }

    async fn ensure_token(&self, request: &JoinRequest) -> Result<(String, TokenSecret, Timestamp), TenantError> {
        let mut last = String::new();
        for attempt in 0..ID_ATTEMPTS {
            let id = token::token_id(&request.claim_uid, attempt);
            let name = secret_name(&id);
            match self.try_token(request, &id, &name).await? {
                Some((secret, expires_at)) => return Ok((id, secret, expires_at)),
                None => last = name,
            }
        }
        Err(TenantError::TokenIdsTaken { secret: last })
    }

    /// Creates or takes over the Secret of one id; `None` when it belongs to somebody else.
    async fn try_token(
        &self,
        request: &JoinRequest,
        id: &str,
        name: &str,
    ) -> Result<Option<(TokenSecret, Timestamp)>, TenantError> {
        let action = || format!("create bootstrap token {id} for claim {}", request.claim_name);
        let secrets = self.secrets();
        let wanted = TokenSecret::from_entropy(&request.entropy);
        // Seconds are all that Kubernetes reads.
        let expires_at = Timestamp::from_second((request.now + request.ttl).as_second()).unwrap_or(Timestamp::MAX);
        let object = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels(request)),
                ..ObjectMeta::default()
            },
            type_: Some("bootstrap.kubernetes.io/token".to_owned()),
            string_data: Some(fields(request, id, &wanted, expires_at)),
            ..Secret::default()
        };
        match secrets
            .create(&PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }, &object)
            .await
        {
            Ok(_) => return Ok(Some((wanted, expires_at))),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(self.error(action(), error)),
        }
        let Some(found) = secrets.get_opt(name).await.map_err(|e| self.error(action(), e))? else {
            // Deleted in this moment, by the token cleaner: the next call creates it.
            return Err(TenantError::Busy {
                server: self.server().to_owned(),
                action: action(),
                code: 409,
                message: format!("Secret {name} was being deleted"),
            });
        };
        if found.labels().get(CLAIM_LABEL) != Some(&request.claim_uid) {
            return Ok(None);
        }
        // Ours, from an earlier try. User data with its secret may be on a disk already, so the secret stays; the rest is
        // made right again, since an operator may have edited it and the time has moved on.
        let secret = text(&found, "token-secret").as_deref().and_then(TokenSecret::parse).unwrap_or(wanted);
        let patch = json!({
            "metadata": { "uid": found.uid(), "labels": labels(request) },
            "stringData": fields(request, id, &secret, expires_at),
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        secrets.patch(name, &params, &Patch::Merge(patch)).await.map_err(|e| self.error(action(), e))?;
        Ok(Some((secret, expires_at)))
    }
}

fn secret_name(token_id: &str) -> String {
    format!("bootstrap-token-{token_id}")
}

fn labels(request: &JoinRequest) -> BTreeMap<String, String> {
    [(MANAGED_BY.0, MANAGED_BY.1), (CLAIM_LABEL, request.claim_uid.as_str())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn fields(request: &JoinRequest, id: &str, secret: &TokenSecret, expires_at: Timestamp) -> BTreeMap<String, String> {
    [
        ("token-id", id.to_owned()),
        ("token-secret", secret.expose().to_owned()),
        ("expiration", expires_at.to_string()),
        ("usage-bootstrap-authentication", "true".to_owned()),
        ("usage-bootstrap-signing", "true".to_owned()),
        ("auth-extra-groups", JOIN_GROUP.to_owned()),
        ("description", format!("vmetal claim {}", request.claim_name)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.clone()).ok()
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("claim_uid", &self.claim_uid)
            .field("claim_name", &self.claim_name)
            .field("ttl", &self.ttl)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}
