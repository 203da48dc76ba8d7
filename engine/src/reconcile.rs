//! The loop: wake, decide, commit, act. Everything else is data for it.

mod hardware;
mod hosts;
mod images;
mod networks;
mod nodes;
mod policies;
mod standby;
mod types;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::SignedDuration;
use tokio::task::JoinSet;
use vmetal_lifecycle::host::runs_installer;
use vmetal_model::{Host, HostPhase, Kind, TenantNode, TenantNodePhase, Timestamp, Uid};
use vmetal_store::{Change, CommitError, ReadError, Revision, Selector, Shard, Store};

use crate::engine::{Engine, ObjectKey};
use crate::fleet::{Entry, Update};
use crate::ledger::{decode_news, decode_token};
use crate::ownership::ENGINES;
use crate::secrets;

/// How many objects are decided on at the same time. Decisions are short; effects run apart.
const WORKERS: usize = 128;
/// How long changes of hosts are gathered before the classes are counted again: so long, and as long again for each
/// [`COUNT_SLOWER`] hosts, because counting looks at all of them.
const COUNT_PAUSE: Duration = Duration::from_millis(200);
/// See [`COUNT_PAUSE`].
const COUNT_SLOWER: usize = 2_000;

impl Engine {
    /// Looks at every object once, then at each when it is due or something happened to it. Runs until dropped.
    ///
    /// Each worker is a task of its own: a decision that computes for long holds up its worker and nobody else.
    pub async fn reconcile_forever(self: Arc<Self>) {
        self.wake_all(|_| true);
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let engine = Arc::clone(&self);
            workers.spawn(async move {
                while !engine.is_stopping() {
                    let lease = engine.scheduler.next().await;
                    engine.reconcile(lease.key()).await;
                    lease.done();
                }
            });
        }
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended.map_err(tokio::task::JoinError::try_into_panic)
                && let Ok(panic) = error
            {
                // A decision that panics is a defect that would come again with every look at the object.
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// Shares the store with other engines. Runs until dropped; for ever where there are none.
    pub async fn take_part_forever(&self) {
        match &self.membership {
            Some(membership) => membership.take_part(|shards| self.begin(shards)).await,
            None => std::future::pending().await,
        }
    }

    /// Looks at all objects of these shards.
    pub(crate) fn begin(&self, shards: &[Shard]) {
        self.wake_all(|key| shards.contains(&self.ownership.shard_of(key)));
    }

    fn wake_all(&self, wanted: impl Fn(&ObjectKey) -> bool) {
        // Before any other host is let in: those that boot already count.
        for host in self.fleet.hosts().iter().filter(|host| runs_installer(&host.status)) {
            if wanted(&ObjectKey::new(Kind::Host, host.name())) {
                self.lanes.boot().resume(host.name());
            }
        }
        for kind in Kind::ALL {
            for entry in self.fleet.entries(kind) {
                let key = ObjectKey::new(kind, entry.metadata().name.clone());
                if wanted(&key) {
                    self.scheduler.wake(key);
                }
            }
        }
    }

    async fn reconcile(self: &Arc<Self>, key: &ObjectKey) {
        let result = match key.kind {
            Kind::Host => self.reconcile_host(&key.name).await,
            Kind::TenantNode => self.reconcile_node(&key.name).await,
            Kind::NodeType => self.reconcile_node_type(&key.name).await,
            Kind::Image => self.reconcile_image(&key.name).await,
            Kind::Network => self.reconcile_network(&key.name).await,
            Kind::Policy => self.reconcile_policy(&key.name).await,
            Kind::TenantCluster => self.reconcile_cluster(&key.name).await,
        };
        match result {
            Ok(()) => {}
            // Somebody else changed the object first: decide again on what it is now.
            Err(CommitError::Conflict { .. }) => self.scheduler.wake(key.clone()),
            Err(error @ CommitError::Fenced { .. }) => {
                tracing::warn!(kind = %key.kind, name = %key.name, %error, "another engine owns this now; the decision is dropped");
                self.ownership.heed(&error);
            }
            Err(error) => {
                tracing::error!(kind = %key.kind, name = %key.name, %error, "could not commit a decision; trying again");
                self.wake_in(key.clone(), SignedDuration::from_secs(1));
            }
        }
    }

    pub(crate) fn wake_in(&self, key: ObjectKey, pause: SignedDuration) {
        self.wake_at(key, self.now().saturating_add(pause).unwrap_or(Timestamp::MAX));
    }

    pub(crate) fn wake_at(&self, key: ObjectKey, when: Timestamp) {
        if when <= self.now() {
            self.scheduler.wake(key);
        } else {
            self.scheduler.wake_at(key, when);
        }
    }

    /// Follows the store and wakes whatever a change concerns. Runs until dropped.
    pub async fn follow_forever(self: Arc<Self>) {
        let mut seen = Seen::default();
        loop {
            self.boots.fill(&self.fleet);
            let after = Revision(self.fleet.revision());
            let mut changes = self.ledger.store().watch(Selector::All, after);
            while let Some(change) = changes.next().await {
                match change {
                    Ok(Change::Committed(committed)) => {
                        let revision = committed.revision.0;
                        // First: the boot table that follows from a host needs its token, whoever made it.
                        for (host, token) in committed.objects.iter().filter_map(decode_token) {
                            self.fleet.set_token(&host, token);
                        }
                        if let Some(membership) = &self.membership {
                            let said = committed.objects.iter().filter(|object| object.key().kind.as_str() == ENGINES);
                            said.for_each(|said| membership.hear(said));
                        }
                        for update in committed.objects.iter().map(|change| decode_news(change, &self.fleet)) {
                            match update {
                                Ok(Some(update)) => {
                                    self.fleet.take(revision, [update.clone()]);
                                    self.changed(&update, &mut seen, revision);
                                }
                                Ok(None) => {}
                                Err(error) => tracing::error!(%error, "a change cannot be read"),
                            }
                        }
                        self.fleet.settle(revision);
                    }
                    Ok(Change::Progress(revision)) => self.fleet.settle(revision.0),
                    Err(error) => {
                        tracing::warn!(%error, "lost the store's changes; looking at everything again");
                        break;
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            // Perhaps history that was needed is gone, as after a long pause of this process.
            if let Err(error) = self.ledger.read_all().await {
                tracing::error!(%error, "the store cannot be read; trying again");
            }
            if let Err(error) = self.restore_boot_tokens().await {
                tracing::error!(%error, "the boot tokens cannot be read; trying again");
            }
            self.wake_all(|_| true);
        }
    }

    /// Reads the tokens of the boots that are under way.
    pub async fn restore_boot_tokens(&self) -> Result<(), ReadError> {
        for host in self.fleet.hosts().iter().filter(|host| host.status.boot.is_some()) {
            let token = self.ledger.secret(&secrets::boot_token(&host.metadata.uid)).await?;
            self.fleet.set_token(&host.metadata.uid, token.and_then(|bytes| String::from_utf8(bytes).ok()));
        }
        Ok(())
    }

    fn changed(&self, update: &Update, seen: &mut Seen, revision: u64) {
        let (kind, name) = match update {
            Update::Put(entry) => (entry.kind(), entry.metadata().name.as_str()),
            Update::Gone(kind, name) => (*kind, name.as_str()),
        };
        self.scheduler.wake(ObjectKey::new(kind, name));
        match update {
            Update::Put(Entry::Host(host)) => {
                self.boots.update(host, &self.fleet, revision);
                let pool = seen.host(host);
                if let Some(node) = pool.claimant {
                    self.scheduler.wake(ObjectKey::new(Kind::TenantNode, node));
                }
                if pool.changed {
                    self.classes_changed();
                }
                if pool.leases {
                    self.networks_changed();
                }
                if pool.free {
                    self.wake_nodes(&[TenantNodePhase::Pending, TenantNodePhase::Failed, TenantNodePhase::Released]);
                }
            }
            Update::Gone(Kind::Host, name) => {
                self.boots.remove(name, revision);
                seen.hosts.remove(name);
                self.classes_changed();
                self.networks_changed();
                self.wake_nodes(&[TenantNodePhase::Released]);
            }
            Update::Put(Entry::TenantNode(node)) => {
                if let Some(host) = &node.status.host {
                    self.scheduler.wake(ObjectKey::new(Kind::Host, host.clone()));
                }
                if seen.gathers(node) {
                    self.wake_group(node);
                }
            }
            Update::Put(Entry::NodeType(node_type)) => {
                // Its status is written by the engine itself: only a new declaration is news to claims.
                let generation = node_type.metadata.generation;
                if seen.node_types.insert(name.to_owned(), generation) != Some(generation) {
                    self.wake_pending();
                }
            }
            Update::Put(Entry::Network(network)) => {
                let generation = network.metadata.generation;
                if seen.networks.insert(name.to_owned(), generation) != Some(generation) {
                    self.wake_pending();
                }
            }
            Update::Put(Entry::Image(_)) => {
                self.wake_scheduled();
                self.classes_changed();
            }
            Update::Put(Entry::TenantCluster(_)) => self.wake_scheduled(),
            // What it leads to is known when it has the seat.
            Update::Put(Entry::Policy(_)) | Update::Gone(Kind::Policy, _) => {}
            Update::Gone(kind, name) => {
                if *kind == Kind::TenantNode {
                    seen.members.remove(name);
                }
                self.wake_pending();
            }
        }
    }

    /// Has the classes counted again, soon: ten thousand hosts that move at once must not have them counted each time.
    fn classes_changed(&self) {
        let slower = u32::try_from(self.fleet.host_count() / COUNT_SLOWER).unwrap_or(u32::MAX);
        let pause = COUNT_PAUSE.saturating_mul(slower.saturating_add(1));
        for node_type in self.fleet.node_types() {
            self.scheduler.wake_after(ObjectKey::new(Kind::NodeType, node_type.name()), pause);
        }
    }

    /// Has the addresses of networks counted again, soon.
    fn networks_changed(&self) {
        for network in self.fleet.networks() {
            self.scheduler.wake_after(ObjectKey::new(Kind::Network, network.name()), COUNT_PAUSE);
        }
    }

    /// A member of a group came, or said something new: the others may be placed now.
    fn wake_group(&self, node: &TenantNode) {
        let group = |node: &TenantNode| node.spec.group.as_ref().map(|group| group.name.clone());
        let (cluster, name) = (&node.spec.cluster, group(node));
        let waits = |other: &TenantNode| {
            other.status.phase == TenantNodePhase::Pending && other.spec.cluster == *cluster && group(other) == name
        };
        for other in self.fleet.nodes().iter().filter(|other| waits(other)) {
            self.questions.forget(&other.metadata.uid);
            self.scheduler.wake(ObjectKey::new(Kind::TenantNode, other.name()));
        }
    }

    fn wake_pending(&self) {
        self.wake_nodes(&[TenantNodePhase::Pending]);
    }

    fn wake_scheduled(&self) {
        self.wake_nodes(&[TenantNodePhase::Pending, TenantNodePhase::Scheduled]);
    }

    fn wake_nodes(&self, phases: &[TenantNodePhase]) {
        if phases.contains(&TenantNodePhase::Pending) {
            self.questions.pool_changed();
        }
        for node in self.fleet.nodes().iter().filter(|node| phases.contains(&node.status.phase)) {
            self.scheduler.wake(ObjectKey::new(Kind::TenantNode, node.name()));
        }
    }
}

/// A host's phase, the claim on it, the generation of its declaration, and its address of a network.
type Standing = (HostPhase, Option<(String, Uid)>, u64, Option<Ipv4Addr>);

/// What was last seen, to tell news from repetition.
#[derive(Default)]
struct Seen {
    hosts: HashMap<String, Standing>,
    node_types: HashMap<String, u64>,
    networks: HashMap<String, u64>,
    /// Members of groups, with the generation of their declarations.
    members: HashMap<String, (Uid, u64)>,
}

struct PoolNews {
    /// The claim that holds the host, or held it before.
    claimant: Option<String>,
    /// Whether the classes that the host may belong to count differently.
    changed: bool,
    /// Whether it has got or given back an address of a network.
    leases: bool,
    /// Whether it is news to claims that look for a host or give one back: it was declared, is free, or is out of reach.
    free: bool,
}

impl Seen {
    /// Whether a claim is news to the rest of its group.
    fn gathers(&mut self, node: &TenantNode) -> bool {
        if node.spec.group.is_none() {
            return false;
        }
        let now = (node.metadata.uid.clone(), node.metadata.generation);
        self.members.insert(node.name().to_owned(), now.clone()) != Some(now)
    }

    fn host(&mut self, host: &Host) -> PoolNews {
        let claim = host.status.claim.as_ref().map(|claim| (claim.node.clone(), claim.uid.clone()));
        let leased = host.status.leases().next().map(|lease| lease.address);
        let now = (host.status.phase, claim.clone(), host.metadata.generation, leased);
        let before = self.hosts.insert(host.name().to_owned(), now.clone());
        let declared = before.as_ref().map(|(_, _, generation, _)| *generation) != Some(host.metadata.generation);
        let free = claim.is_none() && (host.status.phase.is_claimable() || host.status.phase == HostPhase::Error);
        let claimant = claim
            .or_else(|| before.as_ref().and_then(|(_, claim, ..)| claim.clone()))
            .map(|(node, _)| node)
            // What an engine hears of a host first may be that it ended its tenancy.
            .or_else(|| host.status.unerased.as_ref().map(|ended| ended.node.clone()));
        let had = before.as_ref().and_then(|(.., leased)| *leased);
        // What was given back may be what others wait for.
        let given_back = had.is_some() && had != leased;
        let changed = before != Some(now);
        PoolNews { claimant, changed, leases: had != leased, free: declared || changed && free || given_back }
    }
}
