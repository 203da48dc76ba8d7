//! Credentials that are handed out. Who asked and why is on the record before anything is made or shown.

use std::sync::Arc;

use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use vmetal_api::{AnyObject, BackendError, BmcCredential, Caller, JoinToken, JoinTokenRequest, Secret};
use vmetal_lifecycle::Note;
use vmetal_lifecycle::host::rotation;
use vmetal_model::{Failure, FieldError, Kind, TenantCluster};
use vmetal_store::CommitError;
use vmetal_tenant::JoinRequest;

use super::{commit_error, reference, show};
use crate::engine::Engine;
use crate::fleet::Entry;
use crate::ledger::{Batch, Record};
use crate::ownership::Author;
use crate::secrets;

/// What the request needs besides what it names.
fn with_reason(reason: &str, mut errors: Vec<FieldError>) -> Result<(), BackendError> {
    if reason.trim().is_empty() {
        errors.push(FieldError::new("reason", "is empty; it goes on the record with the name of the token"));
    }
    if errors.is_empty() { Ok(()) } else { Err(BackendError::Invalid { errors }) }
}

impl Engine {
    pub(super) async fn create_join_token(
        &self,
        caller: &Caller,
        request: &JoinTokenRequest,
    ) -> Result<JoinToken, BackendError> {
        let JoinTokenRequest { cluster, ttl, reason, request_id } = request;
        let (shortest, longest) = (JoinTokenRequest::SHORTEST, JoinTokenRequest::LONGEST);
        let length = (*ttl < shortest || *ttl > longest).then(|| {
            let (from, to) = (shortest.as_secs(), longest.as_secs());
            FieldError::new("ttl", format!("{} s is not between {from} s and {to} s", ttl.as_secs()))
        });
        with_reason(reason, length.into_iter().collect())?;
        let cluster = self.cluster_named(cluster)?;
        if cluster.is_deleted() {
            return Err(BackendError::Precondition {
                message: format!("tenant cluster {} is being deleted", cluster.name()),
                advice: "take another one".to_owned(),
            });
        }
        let asked = format!("a join token for {} s asked for by {}: {reason}", ttl.as_secs(), caller.token);
        self.remark(&*cluster, Note::info("join_token", asked)).await?;
        let client = self.tenant(&cluster).await.map_err(refused)?;
        let wish = JoinRequest {
            claim_uid: asker(caller, request_id),
            claim_name: format!("(asked for by {})", caller.token),
            ttl: SignedDuration::try_from(*ttl).unwrap_or(SignedDuration::ZERO),
            now: self.now(),
            entropy: self.random(),
        };
        let grant = client.prepare_join(&wish).await.map_err(|error| refused(error.to_failure(self.now())))?;
        let told = format!("join token {} made for {}; it ends at {}", grant.token_id, caller.token, grant.expires_at);
        self.remark(&*cluster, Note::info("join_token", told)).await?;
        Ok(JoinToken {
            token: Secret::new(format!("{}.{}", grant.token_id, grant.token_secret.expose())),
            ca_cert_hash: grant.ca_cert_hash,
            endpoint: grant.api_endpoint,
            expires_at: grant.expires_at,
        })
    }

    pub(super) async fn revoke_join_token(
        &self,
        caller: &Caller,
        cluster: &str,
        token_id: &str,
    ) -> Result<(), BackendError> {
        let cluster = self.cluster_named(cluster)?;
        let nodes = self.fleet.nodes();
        let own = |node: &&Arc<vmetal_model::TenantNode>| {
            node.spec.cluster == cluster.name() && node.status.token_id.as_deref() == Some(token_id)
        };
        if let Some(node) = nodes.iter().find(own) {
            return Err(BackendError::Precondition {
                message: format!("join token {token_id} is that of tenant node {}", node.name()),
                advice: "it is revoked once the node is Ready, or with the tenant node".to_owned(),
            });
        }
        let client = self.tenant(&cluster).await.map_err(refused)?;
        client.revoke_token(token_id).await.map_err(|error| refused(error.to_failure(self.now())))?;
        let told = format!("join token {token_id} revoked by {}", caller.token);
        self.remark(&*cluster, Note::info("join_token", told)).await
    }

    pub(super) async fn bmc_credential(
        &self,
        caller: &Caller,
        name: &str,
        reason: &str,
    ) -> Result<BmcCredential, BackendError> {
        with_reason(reason, Vec::new())?;
        let host = self.fleet.host(name);
        let host = host.ok_or_else(|| BackendError::NotFound { object: reference(Kind::Host, name) })?;
        if !self.config.bmc.hand_out_passwords {
            return Err(BackendError::Precondition {
                message: "this engine hands out no BMC passwords".to_owned(),
                advice: "who runs the engine can allow it: hand_out_passwords = true in [bmc] of its configuration"
                    .to_owned(),
            });
        }
        let told = format!("the password of its BMC handed out to {}: {reason}", caller.token);
        self.remark(&*host, Note::warning("bmc_password", told)).await?;
        let secret = self.ledger.secret(&secrets::bmc_password(&host.metadata.uid)).await;
        let secret = secret.map_err(|error| BackendError::Unavailable { message: error.to_string() })?;
        let password = secret.and_then(|bytes| String::from_utf8(bytes).ok());
        let password = password.ok_or_else(|| BackendError::Precondition {
            message: format!("no BMC password is known for host {name}"),
            advice: "apply the host with its password".to_owned(),
        })?;
        let (address, username) = (host.spec.bmc.address.clone(), host.spec.bmc.username.clone());
        Ok(BmcCredential { address, username, password: Secret::new(password) })
    }

    pub(super) async fn rotate_bmc_password(
        &self,
        caller: &Caller,
        name: &str,
        password: &Secret,
        reason: &str,
    ) -> Result<AnyObject, BackendError> {
        if password.expose().is_empty() {
            return Err(BackendError::Invalid { errors: vec![FieldError::new("password", "is empty")] });
        }
        let object = || reference(Kind::Host, name);
        loop {
            let host = self.fleet.host(name).ok_or_else(|| BackendError::NotFound { object: object() })?;
            let now = self.now();
            let change = rotation::order(&host, &self.limits, reason, &caller.token, now)
                .map_err(|refused| BackendError::Precondition { message: refused.message, advice: refused.advice })?;
            let mut changed = (*host).clone();
            changed.status = change.status;
            let mut batch = Batch::by(Author::Outside);
            batch.secret(secrets::next_bmc_password(&host.metadata.uid), password.expose().as_bytes());
            batch.notes(&*host, now, change.notes);
            batch.replace(changed.clone());
            match self.ledger.commit(batch).await {
                Ok(_) => {
                    let now = self.fleet.entry(Kind::Host, name).unwrap_or_else(|| Entry::Host(changed.into()));
                    return Ok(show(&now));
                }
                // The host changed in between: judged anew.
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(commit_error(error, object(), |_| String::new())),
            }
        }
    }

    fn cluster_named(&self, name: &str) -> Result<Arc<TenantCluster>, BackendError> {
        let found = self.fleet.cluster(name);
        found.ok_or_else(|| BackendError::NotFound { object: reference(Kind::TenantCluster, name) })
    }

    /// Puts a remark on an object's record, and nothing else.
    async fn remark<R: Record>(&self, object: &R, note: Note) -> Result<(), BackendError> {
        let mut batch = Batch::by(Author::Outside);
        batch.notes(object, self.now(), [note]);
        let committed = self.ledger.commit(batch).await;
        let at = || reference(R::KIND, &object.metadata().name);
        committed.map(|_| ()).map_err(|error| commit_error(error, at(), |_| String::new()))
    }
}

/// Who a token is for, in the place of a claim: it follows from the request, so that a repeated one finds its own token.
fn asker(caller: &Caller, request_id: &str) -> String {
    let digest = Sha256::new()
        .chain_update(b"vmetal join token by request\0")
        .chain_update(caller.token.as_bytes())
        .chain_update([0])
        .chain_update(request_id.as_bytes())
        .finalize();
    // A label's value has at most 63 characters.
    format!("request-{}", hex::encode(&digest[..16]))
}

/// What a tenant's cluster says, in the API's words.
fn refused(failure: Failure) -> BackendError {
    let Failure { message, advice, .. } = failure;
    BackendError::Precondition { message, advice }
}
