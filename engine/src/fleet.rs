//! All objects as they are now, in memory: what every decision reads.
//!
//! Fed twice: by the ledger with each commit of this engine, so that a decision never sees an older state than the commits
//! it made itself, and by the loop that follows the store, in order of revision, with everybody's. Older news about an
//! object than what is known is ignored, so the two may overtake each other.

mod held;
mod named;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use vmetal_model::{
    Duty, Host, HostSpec, HostStatus, Image, Kind, Network, NodeType, Policy, PolicyKind, TenantCluster, TenantNode,
    Uid,
};
use vmetal_network::Pool;
use vmetal_policy::{Columns, View};

pub use waiting::Bell;

use held::Held;
use named::Named;
use waiting::Waiting;

/// One object of any kind.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A host.
    Host(Arc<Host>),
    /// A class of hosts.
    NodeType(Arc<NodeType>),
    /// A claim.
    TenantNode(Arc<TenantNode>),
    /// A cluster.
    TenantCluster(Arc<TenantCluster>),
    /// An image.
    Image(Arc<Image>),
    /// A network.
    Network(Arc<Network>),
    /// A policy.
    Policy(Arc<Policy>),
}

impl Entry {
    /// The object's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Entry::Host(_) => Kind::Host,
            Entry::NodeType(_) => Kind::NodeType,
            Entry::TenantNode(_) => Kind::TenantNode,
            Entry::TenantCluster(_) => Kind::TenantCluster,
            Entry::Image(_) => Kind::Image,
            Entry::Network(_) => Kind::Network,
            Entry::Policy(_) => Kind::Policy,
        }
    }

    /// The object's frame.
    pub fn metadata(&self) -> &vmetal_model::Metadata {
        match self {
            Entry::Host(o) => &o.metadata,
            Entry::NodeType(o) => &o.metadata,
            Entry::TenantNode(o) => &o.metadata,
            Entry::TenantCluster(o) => &o.metadata,
            Entry::Image(o) => &o.metadata,
            Entry::Network(o) => &o.metadata,
            Entry::Policy(o) => &o.metadata,
        }
    }
}

/// What a commit did to one object.
#[derive(Debug, Clone)]
pub enum Update {
    /// It is this now.
    Put(Entry),
    /// It is gone.
    Gone(Kind, String),
}

#[derive(Default)]
struct Tables {
    hosts: Named<HostSpec, HostStatus>,
    /// The hosts once more, as policies see them.
    columns: Columns,
    node_types: BTreeMap<String, Arc<NodeType>>,
    nodes: BTreeMap<String, Arc<TenantNode>>,
    clusters: BTreeMap<String, Arc<TenantCluster>>,
    images: BTreeMap<String, Arc<Image>>,
    networks: BTreeMap<String, Arc<Network>>,
    policies: BTreeMap<String, Arc<Policy>>,
    /// What was removed ahead of the one that follows the store, and at which revision: its older news about those must not
    /// bring them back.
    removed: HashMap<(Kind, String), u64>,
    /// Boot tokens in force, by host uid.
    tokens: HashMap<Uid, String>,
    /// Names of hosts by the digest of their boot token: installers are known by nothing else.
    callers: HashMap<String, String>,
    /// Who has which address.
    addresses: Held,
}

/// The objects at one moment.
pub struct Present {
    /// Nothing is missing up to here. Some of the objects may be newer.
    pub revision: u64,
    /// They.
    pub entries: Vec<Entry>,
    /// What was removed after `revision`, and when.
    pub removed: Vec<((Kind, String), u64)>,
}

/// The objects, and a signal that something changed.
pub struct Fleet {
    tables: RwLock<Tables>,
    /// Wakes those who wait in the order in which they came: a simulation must be able to repeat itself.
    changed: Notify,
    /// Those who wait for one host.
    waiting: Waiting,
    settled: AtomicU64,
}

impl Default for Fleet {
    fn default() -> Self {
        Fleet {
            tables: RwLock::default(),
            changed: Notify::new(),
            waiting: Waiting::default(),
            settled: AtomicU64::new(0),
        }
    }
}

impl Fleet {
    fn read<T>(&self, f: impl FnOnce(&Tables) -> T) -> T {
        f(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, f: impl FnOnce(&mut Tables) -> T) -> T {
        f(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in a commit. Older news about an object than what is known is ignored, and so is everything that is settled:
    /// whoever comes that late was overtaken by the one that follows the store, and what was removed since is forgotten.
    pub fn take(&self, revision: u64, updates: impl IntoIterator<Item = Update>) {
        let mut hosts = Vec::new();
        self.write(|tables| {
            // Under the lock: `settle` must not come between the question and the change.
            if revision <= self.revision() {
                return;
            }
            for update in updates {
                let (kind, name) = match &update {
                    Update::Put(entry) => (entry.kind(), &entry.metadata().name),
                    Update::Gone(kind, name) => (*kind, name),
                };
                if !tables.removed.is_empty()
                    && tables.removed.get(&(kind, name.clone())).is_some_and(|removed| *removed >= revision)
                {
                    continue;
                }
                if kind == Kind::Host {
                    hosts.push(name.clone());
                }
                match update {
                    Update::Put(Entry::Host(o)) => tables.put_host(o),
                    Update::Put(Entry::NodeType(o)) => put(&mut tables.node_types, o, |o| &o.metadata),
                    Update::Put(Entry::TenantNode(o)) => put(&mut tables.nodes, o, |o| &o.metadata),
                    Update::Put(Entry::TenantCluster(o)) => put(&mut tables.clusters, o, |o| &o.metadata),
                    Update::Put(Entry::Image(o)) => put(&mut tables.images, o, |o| &o.metadata),
                    Update::Put(Entry::Network(o)) => tables.put_network(o),
                    Update::Put(Entry::Policy(o)) => put(&mut tables.policies, o, |o| &o.metadata),
                    Update::Gone(kind, name) => tables.remove(kind, &name, revision),
                }
            }
        });
        self.changed.notify_waiters();
        hosts.iter().for_each(|host| self.waiting.ring(host));
    }

    /// Takes in what was heard elsewhere first, unless it is settled already.
    pub fn catch_up(&self, revision: u64, update: impl FnOnce() -> Update) {
        if revision > self.revision() {
            self.take(revision, [update()]);
        }
    }

    /// Says that everything up to a revision was taken in. For the one that follows the store in order.
    pub fn settle(&self, revision: u64) {
        self.write(|tables| {
            self.settled.fetch_max(revision, Ordering::AcqRel);
            tables.removed.retain(|_, removed| *removed > revision);
        });
        self.changed.notify_waiters();
    }

    /// Completes with the next change after this call, and when more is settled; for those who wait for something.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Rings with the changes of one host, and of no other.
    pub fn bell(&self, host: &str) -> Bell<'_> {
        self.waiting.bell(host)
    }

    /// The revision up to which nothing is missing. Single objects may be newer.
    pub fn revision(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// One host.
    pub fn host(&self, name: &str) -> Option<Arc<Host>> {
        self.read(|t| t.hosts.get(name).cloned())
    }

    /// One claim.
    pub fn node(&self, name: &str) -> Option<Arc<TenantNode>> {
        self.read(|t| t.nodes.get(name).cloned())
    }

    /// One class.
    pub fn node_type(&self, name: &str) -> Option<Arc<NodeType>> {
        self.read(|t| t.node_types.get(name).cloned())
    }

    /// One cluster.
    pub fn cluster(&self, name: &str) -> Option<Arc<TenantCluster>> {
        self.read(|t| t.clusters.get(name).cloned())
    }

    /// One image.
    pub fn image(&self, name: &str) -> Option<Arc<Image>> {
        self.read(|t| t.images.get(name).cloned())
    }

    /// One network.
    pub fn network(&self, name: &str) -> Option<Arc<Network>> {
        self.read(|t| t.networks.get(name).cloned())
    }

    /// All networks, by name.
    pub fn networks(&self) -> Vec<Arc<Network>> {
        self.read(|t| t.networks.values().cloned().collect())
    }

    /// One policy.
    pub fn policy(&self, name: &str) -> Option<Arc<Policy>> {
        self.read(|t| t.policies.get(name).cloned())
    }

    /// The policy that is declared to decide; none where the configuration's choice does.
    pub fn deciding(&self, kind: PolicyKind) -> Option<Arc<Policy>> {
        let decides = |policy: &&Arc<Policy>| {
            policy.spec.duty == Duty::Decides && policy.spec.kind == kind && !policy.is_deleted()
        };
        // The store lets no two of a kind be. While the news of a change of hands is on its way there may be two here: the
        // later word counts.
        self.read(|t| t.policies.values().filter(decides).max_by_key(|policy| policy.metadata.revision).cloned())
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.read(|t| t.hosts.iter().map(|(_, host)| Arc::clone(host)).collect())
    }

    /// The hosts as policies see them, at this moment.
    pub fn view(&self) -> View {
        self.write(|t| t.columns.view())
    }

    /// The hosts and, of the same moment, how policies see them.
    pub fn look(&self) -> (BTreeMap<String, Arc<Host>>, View) {
        self.write(|t| {
            let hosts = t.hosts.iter().map(|(name, host)| (name.to_owned(), Arc::clone(host))).collect();
            (hosts, t.columns.view())
        })
    }

    /// Says which labels tell where a host is, from the widest to the narrowest. For the start, before any host.
    pub fn set_levels(&self, levels: Vec<String>) {
        self.write(|t| t.columns = Columns::new(levels));
    }

    /// How many hosts there are.
    pub fn host_count(&self) -> usize {
        self.read(|t| t.hosts.len())
    }

    /// Promises the lowest address of the provisioning network's pool that no host holds or declares, no other promise is
    /// about, and that is not among `taken`. The promise ends when it is dropped: after the commit that keeps it.
    pub fn promise_address(self: &Arc<Self>, pool: &Pool, taken: &[Ipv4Addr]) -> Option<AddressPromise> {
        let address = self.write(|t| t.addresses.provisioning.promise(pool, taken))?;
        Some(AddressPromise { fleet: Arc::clone(self), network: None, address })
    }

    /// Promises the lowest address of a network that no host has and no other promise is about. As above.
    pub fn promise_lease(self: &Arc<Self>, network: &Network) -> Option<AddressPromise> {
        let pool = Pool::of(&network.spec);
        let address = self.write(|t| t.addresses.of(network.name()).promise(&pool, &[]))?;
        Some(AddressPromise { fleet: Arc::clone(self), network: Some(network.name().to_owned()), address })
    }

    /// The addresses of a network that hosts have, in order.
    pub fn leased(&self, network: &str) -> Vec<Ipv4Addr> {
        self.read(|t| t.addresses.networks.get(network).map(|held| held.held().collect()).unwrap_or_default())
    }

    /// All claims, by name.
    pub fn nodes(&self) -> Vec<Arc<TenantNode>> {
        self.read(|t| t.nodes.values().cloned().collect())
    }

    /// All classes, by name.
    pub fn node_types(&self) -> Vec<Arc<NodeType>> {
        self.read(|t| t.node_types.values().cloned().collect())
    }

    /// Any object.
    pub fn entry(&self, kind: Kind, name: &str) -> Option<Entry> {
        match kind {
            Kind::Host => self.host(name).map(Entry::Host),
            Kind::NodeType => self.node_type(name).map(Entry::NodeType),
            Kind::TenantNode => self.node(name).map(Entry::TenantNode),
            Kind::TenantCluster => self.cluster(name).map(Entry::TenantCluster),
            Kind::Image => self.image(name).map(Entry::Image),
            Kind::Network => self.network(name).map(Entry::Network),
            Kind::Policy => self.policy(name).map(Entry::Policy),
        }
    }

    /// All objects of a kind, by name.
    pub fn entries(&self, kind: Kind) -> Vec<Entry> {
        self.read(|t| t.entries(kind))
    }

    /// All objects of these kinds at one moment, by kind and name.
    pub fn present(&self, kinds: &[Kind]) -> Present {
        self.read(|t| {
            let entries = kinds.iter().flat_map(|kind| t.entries(*kind)).collect();
            let removed = t.removed.iter().filter(|((kind, _), _)| kinds.contains(kind));
            Present {
                revision: self.revision(),
                entries,
                removed: removed.map(|(of, revision)| (of.clone(), *revision)).collect(),
            }
        })
    }

    /// The host that a claim names, by identity, whether the claim still holds it or not.
    pub fn host_of(&self, node: &TenantNode) -> Option<Arc<Host>> {
        let host = self.host(node.status.host.as_deref()?)?;
        (Some(&host.metadata.uid) == node.status.host_uid.as_ref()).then_some(host)
    }

    /// The claim that a host serves: the one that holds it and that names it. A claim that went to another host while this
    /// one is still being erased is not it.
    pub fn holder(&self, host: &Host) -> Option<Arc<TenantNode>> {
        let claim = host.status.claim.as_ref()?;
        let names = |node: &TenantNode| {
            node.metadata.uid == claim.uid && node.status.host_uid.as_ref() == Some(&host.metadata.uid)
        };
        self.node(&claim.node).filter(|node| names(node))
    }

    /// Remembers or forgets a boot token.
    pub fn set_token(&self, host: &Uid, token: Option<String>) {
        self.write(|t| match token {
            Some(token) => t.tokens.insert(host.clone(), token),
            None => t.tokens.remove(host),
        });
    }

    /// The host whose boot attempt has the token with this digest.
    pub fn caller(&self, token_sha256: &str) -> Option<Arc<Host>> {
        self.read(|t| t.hosts.get(t.callers.get(token_sha256)?).cloned())
            .filter(|host| host.status.boot.as_ref().is_some_and(|boot| boot.token_sha256 == token_sha256))
    }

    /// The boot token of a host.
    pub fn token(&self, host: &Uid) -> Option<String> {
        self.read(|t| t.tokens.get(host).cloned())
    }
}

fn put<T>(table: &mut BTreeMap<String, Arc<T>>, object: Arc<T>, metadata: impl Fn(&T) -> &vmetal_model::Metadata) {
    let name = metadata(&object).name.clone();
    let newer = table.get(&name).is_none_or(|known| metadata(known).revision < metadata(&object).revision);
    if newer {
        table.insert(name, object);
    }
}

/// An address that is chosen for a host and not committed yet.
pub struct AddressPromise {
    fleet: Arc<Fleet>,
    /// None: the provisioning network.
    network: Option<String>,
    /// The address.
    pub address: Ipv4Addr,
}

impl AddressPromise {
    /// The network that it is an address of; none is the provisioning network.
    pub fn network(&self) -> Option<&str> {
        self.network.as_deref()
    }
}

impl Drop for AddressPromise {
    fn drop(&mut self) {
        self.fleet.write(|t| t.addresses.release(self.network.as_deref(), self.address));
    }
}

impl Tables {
    fn entries(&self, kind: Kind) -> Vec<Entry> {
        match kind {
            Kind::Host => self.hosts.iter().map(|(_, host)| Entry::Host(Arc::clone(host))).collect(),
            Kind::NodeType => self.node_types.values().cloned().map(Entry::NodeType).collect(),
            Kind::TenantNode => self.nodes.values().cloned().map(Entry::TenantNode).collect(),
            Kind::TenantCluster => self.clusters.values().cloned().map(Entry::TenantCluster).collect(),
            Kind::Image => self.images.values().cloned().map(Entry::Image).collect(),
            Kind::Network => self.networks.values().cloned().map(Entry::Network).collect(),
            Kind::Policy => self.policies.values().cloned().map(Entry::Policy).collect(),
        }
    }

    fn put_host(&mut self, host: Arc<Host>) {
        let known = self.hosts.get(host.name());
        if known.is_some_and(|known| known.metadata.revision >= host.metadata.revision) {
            return;
        }
        self.addresses.note(known.map(|known| &**known), Some(&host));
        let caller = |host: &Host| host.status.boot.as_ref().map(|boot| boot.token_sha256.clone());
        let (before, now) = (known.and_then(|known| caller(known)), caller(&host));
        if before != now {
            before.and_then(|digest| self.callers.remove(&digest));
            self.callers.extend(now.map(|digest| (digest, host.name().to_owned())));
        }
        self.columns.update(&host);
        self.hosts.put(host);
    }

    fn put_network(&mut self, network: Arc<Network>) {
        self.addresses.declared(network.name());
        put(&mut self.networks, network, |o| &o.metadata);
    }

    fn remove(&mut self, kind: Kind, name: &str, revision: u64) {
        fn gone<T>(table: &mut BTreeMap<String, Arc<T>>, name: &str, older: impl Fn(&T) -> bool) {
            if table.get(name).is_some_and(|known| older(known)) {
                table.remove(name);
            }
        }
        self.removed.insert((kind, name.to_owned()), revision);
        match kind {
            Kind::Host => self.remove_host(name, revision),
            Kind::NodeType => gone(&mut self.node_types, name, |o| o.metadata.revision < revision),
            Kind::TenantNode => gone(&mut self.nodes, name, |o| o.metadata.revision < revision),
            Kind::TenantCluster => gone(&mut self.clusters, name, |o| o.metadata.revision < revision),
            Kind::Image => gone(&mut self.images, name, |o| o.metadata.revision < revision),
            Kind::Network => gone(&mut self.networks, name, |o| o.metadata.revision < revision),
            Kind::Policy => gone(&mut self.policies, name, |o| o.metadata.revision < revision),
        }
    }

    fn remove_host(&mut self, name: &str, revision: u64) {
        let Some(host) = self.hosts.get(name).filter(|host| host.metadata.revision < revision) else { return };
        self.addresses.note(Some(host), None);
        if let Some(boot) = &host.status.boot {
            self.callers.remove(&boot.token_sha256);
        }
        self.hosts.remove(name);
        self.columns.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use futures::FutureExt as _;
    use vmetal_model::{ImageSpec, ImageStatus, Object, Timestamp};

    fn image(revision: u64) -> Update {
        let mut metadata = crate::ledger::new_metadata("i", [0; 16], Timestamp::UNIX_EPOCH);
        metadata.revision = revision;
        let spec = ImageSpec { source: "/i".to_owned(), checksum: None, format: None };
        Update::Put(Entry::Image(Arc::new(Object { metadata, spec, status: ImageStatus::default() })))
    }

    fn gone() -> Update {
        Update::Gone(Kind::Image, "i".to_owned())
    }

    fn revision(fleet: &Fleet) -> Option<u64> {
        fleet.image("i").map(|image| image.metadata.revision)
    }

    #[test]
    fn older_news_neither_replaces_nor_brings_back() {
        let fleet = Fleet::default();
        fleet.take(5, [image(5)]);
        fleet.take(4, [image(4)]);
        assert_eq!(revision(&fleet), Some(5));
        // Removed and known to be so, while the store's changes are still being read.
        fleet.take(7, [gone()]);
        fleet.take(5, [image(5)]);
        assert_eq!(revision(&fleet), None, "the deleted object is not seen again");
        fleet.take(9, [image(9)]);
        fleet.take(7, [gone()]);
        assert_eq!(revision(&fleet), Some(9), "a new object of the name is not removed by the old one's end");
        fleet.settle(9);
        assert!(fleet.read(|tables| tables.removed.is_empty()), "nothing is kept for ever");
        fleet.take(10, [gone()]);
        fleet.settle(10);
        fleet.take(9, [image(9)]);
        assert_eq!(revision(&fleet), None, "who comes after everything was settled brings nothing back");
    }

    #[test]
    fn what_a_watcher_is_told_is_known_before_and_what_is_settled_is_left_alone() {
        let fleet = Fleet::default();
        fleet.catch_up(3, || image(3));
        assert_eq!(revision(&fleet), Some(3), "heard by a watcher before the one that follows the store");
        fleet.take(4, [gone()]);
        fleet.settle(4);
        fleet.catch_up(3, || panic!("settled long ago"));
        assert_eq!(revision(&fleet), None);
    }

    #[tokio::test]
    async fn news_of_one_host_wakes_nobody_who_waits_for_another() {
        let fleet = Fleet::default();
        let (a, b) = (fleet.bell("a"), fleet.bell("b"));
        let (mut rung_a, mut rung_b) = (Box::pin(a.rung()), Box::pin(b.rung()));
        fleet.take(1, [Update::Gone(Kind::Host, "a".to_owned())]);
        assert!((&mut rung_a).now_or_never().is_some() && (&mut rung_b).now_or_never().is_none());
        fleet.take(2, [Update::Gone(Kind::TenantNode, "b".to_owned())]);
        assert!((&mut rung_b).now_or_never().is_none());
        drop((rung_a, rung_b));
        drop((a, b));
        assert_eq!(fleet.waiting.len(), 0, "nothing is kept for those who are gone");
    }

    #[test]
    fn an_installer_is_known_by_its_present_token_only() {
        let host = |revision: u64, token: Option<&str>| {
            let mut metadata = crate::ledger::new_metadata("h", [0; 16], Timestamp::UNIX_EPOCH);
            metadata.revision = revision;
            let spec = serde_json::json!({
                "bmc": { "address": "redfish://10.0.0.1", "username": "u" }, "boot_mac": "52:54:00:00:00:01"
            });
            let mut status = serde_json::to_value(vmetal_model::HostStatus::new(Timestamp::UNIX_EPOCH)).unwrap();
            if let Some(token) = token {
                let opened = Timestamp::UNIX_EPOCH;
                status["boot"] =
                    serde_json::json!({ "id": "b", "purpose": "inspect", "token_sha256": token, "opened": opened });
            }
            let host = serde_json::json!({ "metadata": metadata, "spec": spec, "status": status });
            Update::Put(Entry::Host(Arc::new(serde_json::from_value(host).unwrap())))
        };
        let fleet = Fleet::default();
        let known = |token: &str| fleet.caller(token).is_some();
        fleet.take(1, [host(1, Some("one"))]);
        assert!(known("one") && !known("two"));
        fleet.take(2, [host(2, Some("two"))]);
        fleet.take(1, [host(1, Some("one"))]);
        assert!(!known("one") && known("two"));
        fleet.take(3, [host(3, None)]);
        assert!(!known("two"));
        fleet.take(4, [host(4, Some("four"))]);
        fleet.take(5, [Update::Gone(Kind::Host, "h".to_owned())]);
        assert!(!known("four") && fleet.read(|tables| tables.callers.is_empty()));
    }
}
