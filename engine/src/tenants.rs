//! The tenants' clusters: connections, and what is done for a claim there.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use vmetal_bmc::Fence as _;
use vmetal_lifecycle::node::{DrainPass, Effect, Effected, Sight};
use vmetal_model::agent::Seed;
use vmetal_model::{
    Cause, Failure, Host, Image, ImagePhase, Lease, Network, Standby, TenantCluster, TenantNode, Timestamp, Uid,
};
use vmetal_tenant::{
    Attachment, Callback, DeleteOutcome, DrainMode, DrainOptions, JoinGrant, JoinRequest, NodeExpectation,
    NodeRegistration, NodeState, StandbyInput, TenantClient, TenantError, TokenSecret, UserDataInput, render_meta_data,
    render_network_config, render_standby, render_user_data,
};

use crate::engine::Engine;
use crate::ledger::Batch;
use crate::ownership::{Author, Grip, Hold};
use crate::secrets;

/// How long a join token works: longer than installing, booting and joining may take together, which by the deadlines' defaults
/// is three times 2 h 35 min and 20 min. It is revoked as soon as it has been used.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(12);

/// How clusters are reached.
pub trait Connect: Send + Sync {
    /// The connection that a kubeconfig describes. Makes no call yet.
    ///
    /// # Errors
    /// [`TenantError::Kubeconfig`] when it cannot be used.
    fn connect<'a>(&'a self, kubeconfig: &'a str) -> BoxFuture<'a, Result<TenantClient, TenantError>>;
}

/// Over the network, as the kubeconfig says.
pub struct OverNetwork;

impl Connect for OverNetwork {
    fn connect<'a>(&'a self, kubeconfig: &'a str) -> BoxFuture<'a, Result<TenantClient, TenantError>> {
        Box::pin(TenantClient::connect(kubeconfig))
    }
}

/// Connections to clusters, one per declaration, and when each was last looked at.
pub struct Tenants {
    connect: Arc<dyn Connect>,
    clients: Mutex<HashMap<Uid, (u64, Arc<TenantClient>)>>,
    looked: Mutex<HashMap<Uid, (u64, Timestamp)>>,
}

impl Tenants {
    /// Clusters that are reached like this.
    pub fn new(connect: Arc<dyn Connect>) -> Self {
        Tenants { connect, clients: Mutex::default(), looked: Mutex::default() }
    }

    fn client(&self, uid: &Uid, generation: u64) -> Option<Arc<TenantClient>> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(uid).filter(|(known, _)| *known == generation).map(|(_, client)| Arc::clone(client))
    }

    fn keep(&self, uid: &Uid, generation: u64, client: Arc<TenantClient>) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), (generation, client));
    }

    /// Forgets a cluster.
    pub fn forget(&self, uid: &Uid) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// When the cluster is to be looked at next; `None` when now.
    pub fn due(&self, uid: &Uid, generation: u64, now: Timestamp, every: SignedDuration) -> Option<Timestamp> {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, at) = looked.get(uid)?;
        let due = at.saturating_add(every).unwrap_or(Timestamp::MAX);
        (*seen == generation && due > now).then_some(due)
    }

    /// Notes that the cluster was looked at.
    pub fn looked(&self, uid: &Uid, generation: u64, now: Timestamp) {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), (generation, now));
    }
}

/// A [`JoinGrant`] as it is kept between its making and the node's first boot.
#[derive(Serialize, Deserialize)]
struct KeptGrant {
    token_id: String,
    token_secret: String,
    ca_cert_hash: String,
    api_endpoint: String,
    expires_at: Timestamp,
}

impl KeptGrant {
    fn of(grant: &JoinGrant) -> Self {
        KeptGrant {
            token_id: grant.token_id.clone(),
            token_secret: grant.token_secret.expose().to_owned(),
            ca_cert_hash: grant.ca_cert_hash.clone(),
            api_endpoint: grant.api_endpoint.clone(),
            expires_at: grant.expires_at,
        }
    }

    fn grant(self) -> Option<JoinGrant> {
        Some(JoinGrant {
            token_id: self.token_id,
            token_secret: TokenSecret::parse(&self.token_secret)?,
            ca_cert_hash: self.ca_cert_hash,
            api_endpoint: self.api_endpoint,
            expires_at: self.expires_at,
        })
    }
}

/// The provider id of a host's Node: it names the host for good, whatever the Node is called.
pub fn provider_id(host: &Uid) -> String {
    format!("vmetal://{host}")
}

/// True when a token that stops working at `expires` is still good for one installation with its boot and join.
fn lasts(expires: Timestamp, limits: &vmetal_lifecycle::Limits, now: Timestamp) -> bool {
    let needed = [limits.install, limits.first_boot, limits.join];
    let until = needed.into_iter().try_fold(now, |at, span| at.checked_add(span));
    until.is_ok_and(|until| until <= expires)
}

impl Engine {
    /// The client for a cluster.
    pub(crate) async fn tenant(&self, cluster: &TenantCluster) -> Result<Arc<TenantClient>, Failure> {
        let (uid, generation) = (&cluster.metadata.uid, cluster.metadata.generation);
        if let Some(client) = self.tenants.client(uid, generation) {
            return Ok(client);
        }
        let secret = self.ledger.secret(&secrets::kubeconfig(uid)).await;
        let secret = secret.map_err(|error| self.internal("the kubeconfig cannot be read from the store", error))?;
        let Some(kubeconfig) = secret.and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return Err(self.missing(format!("no kubeconfig is known for tenant cluster {}", cluster.name())));
        };
        let client = self.tenants.connect.connect(&kubeconfig).await.map_err(|error| self.tenant_failure(&error))?;
        let client = Arc::new(client);
        self.tenants.keep(uid, generation, Arc::clone(&client));
        Ok(client)
    }

    fn tenant_failure(&self, error: &TenantError) -> Failure {
        error.to_failure(self.now())
    }

    fn missing(&self, message: String) -> Failure {
        let advice = "apply what is missing; the engine tries again".to_owned();
        Failure { cause: Cause::MissingReference, message, advice, at: self.now() }
    }

    async fn tenant_of(&self, node: &TenantNode) -> Result<(Arc<TenantCluster>, Arc<TenantClient>), Failure> {
        let name = &node.spec.cluster;
        let cluster = self.fleet.cluster(name);
        let cluster = cluster.ok_or_else(|| self.missing(format!("tenant cluster {name} does not exist")))?;
        let client = self.tenant(&cluster).await?;
        Ok((cluster, client))
    }

    /// Performs one effect for a claim.
    pub(crate) async fn act_for_node(
        &self,
        grip: &Grip,
        node: &TenantNode,
        effect: Effect,
    ) -> Result<Effected, Failure> {
        grip.check().map_err(|why| self.internal("nothing was asked of the tenant's cluster", why))?;
        match effect {
            Effect::Decide => Err(self.internal("a decision is not an effect on a cluster", "wrong call")),
            Effect::PrepareJoin => self.prepare(grip.hold(), node).await,
            Effect::CheckNode => self.check(node).await,
            Effect::RevokeToken => {
                let Some(token) = &node.status.token_id else { return Ok(Effected::Revoked) };
                let (_, client) = self.tenant_of(node).await?;
                client.revoke_token(token).await.map_err(|error| self.tenant_failure(&error))?;
                Ok(Effected::Revoked)
            }
            Effect::Drain => self.drain(node).await,
            Effect::DeleteNode => self.delete(node).await,
        }
    }

    /// Makes the claim's join token, or makes the one that it has last longer, and keeps what joining needs.
    async fn let_in(&self, author: Author, node: &TenantNode) -> Result<JoinGrant, Failure> {
        let (_, client) = self.tenant_of(node).await?;
        let request = JoinRequest {
            claim_uid: node.metadata.uid.0.clone(),
            claim_name: node.name().to_owned(),
            ttl: TOKEN_LIFE,
            now: self.now(),
            entropy: self.random(),
        };
        let grant = client.prepare_join(&request).await.map_err(|error| self.tenant_failure(&error))?;
        let kept = serde_json::to_vec(&KeptGrant::of(&grant))
            .map_err(|error| self.internal("the join credentials cannot be kept", error))?;
        let mut batch = Batch::by(author);
        batch.secret(secrets::join(&node.metadata.uid), kept);
        let committed = self.ledger.commit(batch).await;
        committed.map_err(|error| self.internal("the join credentials cannot be kept", error))?;
        Ok(grant)
    }

    /// The claim's join credentials, good for as long as installing, booting and joining may still take: a host that waited
    /// for hours in `error` is not installed with a token that has run out, or soon will.
    async fn join_grant(&self, node: &TenantNode) -> Result<JoinGrant, Failure> {
        let unreadable = |error: vmetal_store::ReadError| self.internal("the claim's secrets cannot be read", error);
        let kept = self.ledger.secret(&secrets::join(&node.metadata.uid)).await.map_err(unreadable)?;
        let grant = kept.and_then(|bytes| serde_json::from_slice::<KeptGrant>(&bytes).ok()).and_then(KeptGrant::grant);
        let grant = grant.ok_or_else(|| self.missing("the claim's join credentials are missing".to_owned()))?;
        match lasts(grant.expires_at, &self.limits, self.now()) {
            true => Ok(grant),
            // The installer that asks is this host's own, whichever engine it reached; a longer life is all that changes.
            false => self.let_in(Author::Outside, node).await,
        }
    }

    async fn prepare(&self, hold: Hold, node: &TenantNode) -> Result<Effected, Failure> {
        let image = self.image_for(node)?;
        let Some(host) = self.fleet.host_of(node) else {
            return Err(self.missing("the reserved host is gone".to_owned()));
        };
        let grant = self.let_in(Author::Owner(hold), node).await?;
        Ok(Effected::Prepared {
            token_id: grant.token_id,
            node_name: node.name().to_owned(),
            provider_id: provider_id(&host.metadata.uid),
            image: image.status.digest.clone().unwrap_or_default(),
        })
    }

    /// The image that a claim installs, once it is ready.
    pub(crate) fn image_for(&self, node: &TenantNode) -> Result<Arc<Image>, Failure> {
        let chosen = node.status.decision.as_ref().and_then(|decision| decision.node_type.as_deref());
        let of_type = chosen.and_then(|name| self.fleet.node_type(name)).and_then(|t| t.spec.image.clone());
        let Some(name) = node.spec.image.clone().or(of_type) else {
            return Err(self.missing("neither the tenant node nor its node type names an image".to_owned()));
        };
        let image = self.fleet.image(&name).ok_or_else(|| self.missing(format!("image {name} does not exist")))?;
        match image.status.phase {
            ImagePhase::Ready => Ok(image),
            ImagePhase::Failed => {
                let why = image.status.failure.as_ref().map_or_else(String::new, |failure| failure.message.clone());
                Err(self.missing(format!("image {name} could not be imported: {why}")))
            }
            ImagePhase::Pending | ImagePhase::Importing => Err(Failure {
                cause: Cause::ImagePending,
                message: format!("image {name} is still being imported"),
                advice: "nothing; the claim goes on once it is imported".to_owned(),
                at: self.now(),
            }),
        }
    }

    fn expectation(&self, node: &TenantNode, cluster: &TenantCluster) -> NodeExpectation {
        let mut labels = cluster.spec.labels.clone();
        labels.extend(node.spec.labels.clone());
        let mut taints = cluster.spec.taints.clone();
        taints.extend(node.spec.taints.clone());
        taints.sort();
        taints.dedup();
        NodeExpectation {
            name: node.status.node_name.clone().unwrap_or_else(|| node.name().to_owned()),
            provider_id: node.status.provider_id.clone().unwrap_or_default(),
            not_uid: None,
            labels,
            taints,
        }
    }

    async fn check(&self, node: &TenantNode) -> Result<Effected, Failure> {
        let (cluster, client) = self.tenant_of(node).await?;
        let seen = client.observe_node(&self.expectation(node, &cluster)).await.map_err(|e| self.tenant_failure(&e))?;
        Ok(Effected::Seen(match seen {
            NodeState::Absent => Sight::Absent,
            NodeState::Foreign { reason } => Sight::Foreign(reason),
            NodeState::NotReady { reasons, .. } => Sight::NotReady(reasons),
            NodeState::Ready { uid } => Sight::Ready { uid },
        }))
    }

    async fn drain(&self, node: &TenantNode) -> Result<Effected, Failure> {
        let (Some(name), Some(uid)) = (&node.status.node_name, &node.status.node_uid) else {
            return Ok(Effected::Drained(DrainPass::Empty));
        };
        let (_, client) = self.tenant_of(node).await?;
        client.cordon(name, uid).await.map_err(|error| self.tenant_failure(&error))?;
        let options = DrainOptions { mode: DrainMode::Evict, grace_period_seconds: None };
        let progress = client.drain_pass(name, &options).await.map_err(|error| self.tenant_failure(&error))?;
        if progress.done() {
            return Ok(Effected::Drained(DrainPass::Empty));
        }
        let leaving = progress.evicted.iter().chain(&progress.waiting).map(ToString::to_string).collect();
        let held = progress.blocked_by_budget.iter().map(ToString::to_string).collect();
        Ok(Effected::Drained(DrainPass::Remaining { leaving, held }))
    }

    async fn delete(&self, node: &TenantNode) -> Result<Effected, Failure> {
        let (cluster, client) = match self.tenant_of(node).await {
            Ok(found) => found,
            // Without its cluster there is no Node to delete, and the host must not wait for one.
            Err(failure) if failure.cause == Cause::MissingReference => return Ok(Effected::Deleted),
            Err(failure) => return Err(failure),
        };
        // A Node that registered but never was Ready is known by its provider id only.
        let uid = match &node.status.node_uid {
            Some(uid) => Some(uid.clone()),
            None => {
                match client.node_state(&self.expectation(node, &cluster)).await.map_err(|e| self.tenant_failure(&e))? {
                    NodeState::NotReady { uid, .. } | NodeState::Ready { uid } => Some(uid),
                    NodeState::Absent | NodeState::Foreign { .. } => None,
                }
            }
        };
        let name = node.status.node_name.as_deref().unwrap_or(node.name());
        if let Some(uid) = uid {
            match client.delete_node(name, &uid).await.map_err(|error| self.tenant_failure(&error))? {
                DeleteOutcome::Deleted | DeleteOutcome::AlreadyGone => {}
                DeleteOutcome::Replaced => {
                    tracing::warn!(node = name, "a Node of that name belongs to somebody else now; it was left alone");
                }
            }
        }
        Ok(Effected::Deleted)
    }

    /// The first-boot data of a claim's host. Holds join credentials and the boot token.
    pub(crate) async fn seed(&self, node: &TenantNode, host: &Host) -> Result<Seed, Failure> {
        let cluster = self.fleet.cluster(&node.spec.cluster);
        let cluster =
            cluster.ok_or_else(|| self.missing(format!("tenant cluster {} does not exist", node.spec.cluster)))?;
        let unreadable = |error: vmetal_store::ReadError| self.internal("the claim's secrets cannot be read", error);
        let grant = self.join_grant(node).await?;
        let user_data = self.ledger.secret(&secrets::user_data(&node.metadata.uid)).await.map_err(unreadable)?;
        let user_data = user_data.and_then(|bytes| String::from_utf8(bytes).ok());
        let callback = self.callbacks(host)?;
        let expectation = self.expectation(node, &cluster);
        let attached = self.attached(host)?;
        let input = UserDataInput {
            layers: user_data.into_iter().map(|text| ("the tenant node".to_owned(), text)).collect(),
            ssh_authorized_keys: cluster.spec.ssh_authorized_keys.clone(),
            phone_home: Some(callback(&format!("/agent/v1/phone-home?instance={}", node.metadata.uid))),
            join_failed: Some(callback("/agent/v1/join-failed")),
            registration: Some(NodeRegistration {
                grant,
                name: expectation.name.clone(),
                provider_id: provider_id(&host.metadata.uid),
                address: attached.as_ref().map(|(_, address)| *address).or(host.status.address),
                labels: expectation.labels,
                taints: expectation.taints,
                cri_socket: None,
            }),
        };
        let user_data = render_user_data(&input).map_err(|error| self.bad_user_data(&error))?;
        self.seed_of(host, user_data, &node.metadata.uid, &expectation.name, attached)
    }

    /// The network that the host's claim is for, and its address there.
    fn attached(&self, host: &Host) -> Result<Option<(Arc<Network>, Ipv4Addr)>, Failure> {
        let lease = host.status.claim.as_ref().and_then(|claim| claim.lease.as_ref());
        let Some(Lease { network, address }) = lease else { return Ok(None) };
        let found = self.fleet.network(network);
        let found = found.ok_or_else(|| self.missing(format!("network {network} does not exist")))?;
        Ok(Some((found, *address)))
    }

    /// The first-boot data of an installation ahead of any claim: it waits for one. Holds the boot token and nothing else
    /// that is secret.
    pub(crate) fn standby_seed(&self, standby: &Standby, host: &Host) -> Result<Seed, Failure> {
        let callback = self.callbacks(host)?;
        let user_data = render_standby(&StandbyInput {
            phone_home: callback(&format!("/agent/v1/phone-home?instance={}", standby.uid)),
            claim: callback("/agent/v1/claim?wait=25"),
        });
        let user_data = user_data.map_err(|error| self.bad_user_data(&error))?;
        self.seed_of(host, user_data, &standby.uid, host.name(), None)
    }

    /// How the installed system reaches the engine: with the boot attempt's token.
    fn callbacks(&self, host: &Host) -> Result<impl Fn(&str) -> Callback, Failure> {
        let token = self.fleet.token(&host.metadata.uid);
        let token = token.ok_or_else(|| self.missing("the boot token is missing".to_owned()))?;
        let url = self.config.network.url.to_string();
        Ok(move |path: &str| Callback { url: format!("{url}{path}"), token: token.clone() })
    }

    fn seed_of(
        &self,
        host: &Host,
        user_data: String,
        instance: &Uid,
        name: &str,
        attached: Option<(Arc<Network>, Ipv4Addr)>,
    ) -> Result<Seed, Failure> {
        let bad = |error: vmetal_tenant::UserDataError| self.bad_user_data(&error);
        let attachment =
            attached.as_ref().map(|(network, address)| Attachment { network: &network.spec, address: *address });
        Ok(Seed {
            user_data,
            meta_data: render_meta_data(&instance.0, name).map_err(bad)?,
            network_config: render_network_config(&host.spec.boot_mac.to_string(), attachment).map_err(bad)?,
        })
    }

    fn bad_user_data(&self, error: &vmetal_tenant::UserDataError) -> Failure {
        Failure {
            cause: Cause::Image,
            message: format!("the user data cannot be made: {error}"),
            advice: "correct the tenant node's user data".to_owned(),
            at: self.now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_would_run_out_during_the_installation_is_not_used() {
        let limits = vmetal_lifecycle::Limits::default();
        let now = Timestamp::UNIX_EPOCH;
        let made = |ago: SignedDuration| now - ago + TOKEN_LIFE;
        assert!(lasts(made(SignedDuration::ZERO), &limits, now));
        assert!(lasts(made(SignedDuration::from_hours(9)), &limits, now));
        assert!(!lasts(made(SignedDuration::from_hours(10)), &limits, now), "an installation may take 2 h 40 min");
        assert!(!lasts(made(SignedDuration::from_hours(13)), &limits, now));
    }
}
