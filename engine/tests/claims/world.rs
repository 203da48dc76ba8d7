//! One or two engines over one store, with hosts that are available for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::task::JoinSet;
use vmetal_api::{AnyObject, Apply, Backend, BackendError, Caller, EventsQuery};
use vmetal_bmc::{AddressGuard, Gateways};
use vmetal_lifecycle::Limits;
use vmetal_model::{
    Host, HostPhase, HostStatus, Inventory, Kind, NodeType, TenantCluster, TenantNode, TenantNodeSpec,
    TenantNodeStatus, Timestamp,
};
use vmetal_policy::{Compiler, Kept, PolicyEngine};
use vmetal_runtime::{Clock, SystemClock, SystemEntropy};
use vmetal_store::{AnyStore, Change, ObjectChange, Revision, Selector, Store, Stored};
use vmetald::Engine;
use vmetald::backend::ApiBackend;
use vmetald::engine::Parts;
use vmetald::fleet::Fleet;
use vmetald::ledger::{Batch, Ledger, Record, key, new_metadata, new_object};
use vmetald::ownership::{Author, Ownership, Shared, Terms};
use vmetald::tenants::{OverNetwork, Tenants};

pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
const CONFIG: &str =
    "[network]\nrange_start = \"172.22.0.10\"\nrange_end = \"172.22.255.250\"\nurl = \"http://172.22.0.1:8080\"\n";

pub(crate) struct World {
    engines: Vec<Arc<Engine>>,
    store: AnyStore,
    tasks: JoinSet<()>,
}

/// What engines that have ended left in their store.
pub(crate) struct Left(Vec<Stored>);

impl Left {
    /// The objects of a kind.
    pub(crate) fn all<R: Record>(&self) -> Vec<R> {
        let of_kind = self.0.iter().filter(|stored| stored.key.kind.as_str() == R::KIND.as_str());
        of_kind.map(|stored| serde_json::from_slice(&stored.value).unwrap()).collect()
    }
}

pub(crate) fn caller() -> Caller {
    Caller { token: "test".into() }
}

pub(crate) async fn apply(backend: &ApiBackend, name: &str, spec: &TenantNodeSpec) -> Result<AnyObject, BackendError> {
    let apply = Apply::from_json(Kind::TenantNode, name, serde_json::to_value(spec).unwrap());
    backend.apply(&caller(), apply).await
}

/// What the events of a query say for one reason.
pub(crate) async fn messages(backend: &ApiBackend, query: EventsQuery, reason: &str) -> Vec<String> {
    let events: Vec<_> = backend.events(query).map(|entry| entry.unwrap().event).collect().await;
    events.into_iter().filter(|event| event.reason == reason).map(|event| event.message).collect()
}

/// Until a decision is in the log: it is written beside what it leads to.
#[allow(dead_code, reason = "for the engine's own tests")]
pub(crate) async fn until_logged(backend: &ApiBackend, id: &str) {
    let missing = |error: &BackendError| error.to_string().contains("the log has no decision");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while backend.replay_decision(id).await.is_err_and(|error| missing(&error)) {
        assert!(tokio::time::Instant::now() < deadline, "decision {id} is not in the log");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The numbers below `n` in an order that depends on nothing but the seed.
pub(crate) fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = seed;
    for i in (1..n).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
    }
    order
}

/// Components are compiled once for all tests, and kept for the next run.
fn policies() -> vmetal_policy::Config {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("policy-cache");
    let cache = Some(Kept { directory, compiler: Compiler::Here });
    vmetal_policy::Config { cache, ..vmetal_policy::Config::native() }
}

async fn engine(store: AnyStore, id: usize, engines: usize, settings: &str) -> Arc<Engine> {
    let fleet = Arc::new(Fleet::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let terms = match engines {
        1 => Terms::Alone,
        _ => Terms::Shared(Shared {
            id: format!("engine-{id}"),
            lease: Duration::from_secs(20),
            longest_call: Duration::from_millis(10),
            margin: Duration::from_millis(10),
        }),
    };
    let ownership = Ownership::open(&store, terms, Arc::clone(&clock)).await.unwrap();
    let ledger = Ledger::open(store, Arc::clone(&fleet)).await.unwrap();
    let guard = AddressGuard::parse(["10.0.0.0/8"]).unwrap();
    Engine::new(Parts {
        config: toml::from_str(&format!("{CONFIG}{settings}")).unwrap(),
        gateways: Gateways::new(vmetal_bmc::Config::new(guard)),
        tenants: Tenants::new(Arc::new(OverNetwork)),
        policies: PolicyEngine::new(policies()).unwrap(),
        fleet,
        ledger,
        // What comes late is news all the same.
        limits: Limits { news: jiff::SignedDuration::from_hours(1), ..Limits::default() },
        ownership,
        clock,
        entropy: Arc::new(SystemEntropy),
    })
}

impl World {
    /// An engine that does nothing yet, with a cluster and a node type.
    pub(crate) async fn prepare(store: AnyStore, count: usize) -> Self {
        World::prepare_with(store, count, "").await
    }

    /// The same with settings besides those that every engine here has.
    async fn prepare_with(store: AnyStore, count: usize, settings: &str) -> Self {
        let mut engines = Vec::new();
        for id in 0..count {
            engines.push(engine(store.clone(), id, count, settings).await);
        }
        let world = World { engines, store, tasks: JoinSet::new() };
        let now = Timestamp::UNIX_EPOCH;
        let mut batch = Batch::by(Author::Outside);
        let cluster: TenantCluster =
            new_object(new_metadata("c", [1; 16], now), Default::default(), Default::default());
        batch.create(cluster);
        let spec = vmetal_model::NodeTypeSpec {
            selector: BTreeMap::from([("class".into(), "t".into())]),
            ..Default::default()
        };
        let node_type: NodeType = new_object(new_metadata("t", [2; 16], now), spec, Default::default());
        batch.create(node_type);
        world.engines[0].ledger.commit(batch).await.unwrap();
        world
    }

    /// Running engines over one store.
    pub(crate) async fn start(store: AnyStore, engines: usize) -> Self {
        let mut world = World::prepare(store, engines).await;
        world.run();
        world
    }

    /// One running engine with more settings.
    #[allow(dead_code, reason = "for the command's tests, which share this file")]
    pub(crate) async fn configured(store: AnyStore, settings: &str) -> Self {
        let mut world = World::prepare_with(store, 1, settings).await;
        world.run();
        world
    }

    pub(crate) fn run(&mut self) {
        for engine in &self.engines {
            self.tasks.spawn(Arc::clone(engine).reconcile_forever());
            self.tasks.spawn(Arc::clone(engine).follow_forever());
            let engine = Arc::clone(engine);
            self.tasks.spawn(async move { engine.take_part_forever().await });
        }
    }

    /// Until every engine decides on something.
    pub(crate) async fn shared(&self) {
        self.until("the engines to share the shards", |world| {
            let owned = world.engines.iter().map(|engine| engine.ownership.owned());
            owned.clone().all(|owned| owned > 0)
                && owned.sum::<usize>() == usize::from(world.engines[0].ownership.shards())
        })
        .await;
    }

    /// Declares the quota of the cluster.
    pub(crate) async fn quota(&self, quota: &vmetal_model::Quota) {
        let spec = serde_json::json!({ "quota": quota });
        let apply = Apply::from_json(Kind::TenantCluster, "c", spec);
        self.backend(0).apply(&caller(), apply).await.unwrap();
    }

    /// The most hosts that claims have held at any moment since the store was made.
    pub(crate) async fn most_held(&self) -> usize {
        let store = self.engines[0].ledger.store();
        let end = store.revision().await.unwrap();
        let mut changes = store.watch(Selector::All, Revision::ZERO);
        let is_node = |object: &&ObjectChange| object.key().kind.as_str() == Kind::TenantNode.as_str();
        let (mut held, mut most) = (BTreeSet::new(), 0);
        while let Some(change) = changes.next().await {
            let at = match change.unwrap() {
                Change::Progress(at) => at,
                Change::Committed(committed) => {
                    for object in committed.objects.iter().filter(is_node) {
                        let name = object.key().name.clone();
                        let placed = match object {
                            ObjectChange::Put(stored) => {
                                let node: TenantNode = serde_json::from_slice(&stored.value).unwrap();
                                node.status.host.is_some()
                            }
                            ObjectChange::Deleted(_) => false,
                        };
                        if placed {
                            held.insert(name)
                        } else {
                            held.remove(&name)
                        };
                    }
                    most = most.max(held.len());
                    committed.revision
                }
            };
            if at >= end {
                break;
            }
        }
        most
    }

    /// An engine that starts on the same store, as after a restart, up to its first decision.
    pub(crate) async fn again(&self) -> Arc<Engine> {
        // One of several: it takes nothing away from the one that runs.
        let engine = engine(self.store.clone(), 9, 2, "").await;
        engine.keep_seats().await;
        engine
    }

    /// Exchanges a policy of every engine, as its configuration would.
    #[allow(dead_code, reason = "for the engine's own tests")]
    pub(crate) fn seat(&self, kind: vmetal_model::PolicyKind, binding: &vmetal_policy::Binding) {
        for engine in &self.engines {
            engine.policies.install(kind, binding).unwrap();
        }
    }

    /// What the log of decisions says of a claim, oldest first.
    #[allow(dead_code, reason = "for the engine's own tests")]
    pub(crate) async fn logged(&self, node: &str) -> Vec<String> {
        let journals = vmetald::decisions::journals(&self.store).await.unwrap();
        let of_node = |one: &&vmetal_policy::journal::Decided| one.wanted.name == node;
        let reasons = |journal: &vmetal_policy::journal::Journal| {
            journal.decisions().filter(of_node).map(|one| one.reason.clone()).collect::<Vec<_>>()
        };
        journals.iter().flat_map(reasons).collect()
    }

    /// Who chooses hosts, engine by engine.
    pub(crate) fn deciders(&self) -> Vec<String> {
        self.engines.iter().map(|engine| engine.policies.identities()[1].to_string()).collect()
    }

    /// What is on an object's record.
    pub(crate) async fn reasons(&self, kind: Kind, name: &str) -> Vec<String> {
        let subject = Selector::Key(key(kind, name));
        let page = self.store.events(&subject, vmetal_store::Revision::ZERO, 1000).await.unwrap();
        let reason =
            |event: &vmetal_store::Event| serde_json::from_slice::<vmetal_model::Event>(&event.value).unwrap().reason;
        page.events.iter().map(reason).collect()
    }

    pub(crate) async fn hosts_of(&self, n: usize, rack: impl Fn(usize) -> String) {
        let mut batch = Batch::by(Author::Outside);
        for i in 0..n {
            let spec = serde_json::json!({
                "bmc": { "address": format!("redfish://10.0.{}.{}", i / 250, i % 250 + 1), "username": "u" },
                "boot_mac": format!("52:54:00:00:{:02x}:{:02x}", i / 256, i % 256),
            });
            let now = Timestamp::UNIX_EPOCH;
            let mut entropy = [3; 16];
            entropy[..8].copy_from_slice(&u64::try_from(i).unwrap().to_le_bytes());
            let mut metadata = new_metadata(&format!("h{i:03}"), entropy, now);
            metadata.labels = BTreeMap::from([("class".into(), "t".into()), ("rack".into(), rack(i))]);
            let mut status = HostStatus::new(now);
            status.phase = HostPhase::Available;
            status.stage = vmetal_model::Stage::Idle;
            status.inventory = Some(Inventory::default());
            let host: Host = new_object(metadata, serde_json::from_value(spec).unwrap(), status);
            // What an engine would say of it at its first look, it says now: nothing happens to it by itself.
            let status = vmetal_lifecycle::host::decide(&host, &self.engines[0].limits, now).status;
            batch.create(host.with_status(status));
        }
        self.engines[0].ledger.commit(batch).await.unwrap();
        self.until("the hosts to be known", |world| world.engines.iter().all(|engine| engine.fleet.hosts().len() == n))
            .await;
    }

    /// Changes every host.
    #[allow(dead_code, reason = "for the command's tests, which share this file")]
    pub(crate) async fn alter(&self, change: impl Fn(&mut Host)) {
        let mut batch = Batch::by(Author::Outside);
        for mut host in self.hosts() {
            change(&mut host);
            batch.replace(host);
        }
        self.engines[0].ledger.commit(batch).await.unwrap();
    }

    /// Changes one host, whoever else does.
    #[allow(dead_code, reason = "for the tests of networks, and this file is shared")]
    pub(crate) async fn change(&self, name: &str, change: impl Fn(&mut Host)) {
        loop {
            let mut host = self.host(name).unwrap();
            change(&mut host);
            let mut batch = Batch::by(Author::Outside);
            batch.replace(host);
            match self.engines[0].ledger.commit(batch).await {
                Ok(_) => return,
                Err(vmetal_store::CommitError::Conflict { .. }) => {}
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }

    /// A claim of a given age, in seconds since 1970.
    pub(crate) async fn declare(&self, name: &str, created: i64, spec: TenantNodeSpec) {
        let created = Timestamp::from_second(created).unwrap();
        let entropy: [u8; 16] = std::array::from_fn(|i| name.as_bytes().get(i).copied().unwrap_or(0));
        let node: TenantNode = new_object(new_metadata(name, entropy, created), spec, TenantNodeStatus::new(created));
        let mut batch = Batch::by(Author::Outside);
        batch.create(node);
        self.engines[0].ledger.commit(batch).await.unwrap();
    }

    pub(crate) fn backend(&self, engine: usize) -> Arc<ApiBackend> {
        Arc::new(ApiBackend(Arc::clone(&self.engines[engine % self.engines.len()])))
    }

    #[allow(clippy::disallowed_methods, reason = "waits for a running engine")]
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&World) -> bool) {
        let start = std::time::Instant::now();
        while !done(self) {
            let waited = start.elapsed();
            let said = || self.nodes().into_iter().take(3).map(|node| node.status).collect::<Vec<_>>();
            assert!(waited < PATIENCE, "waited in vain for {what}; the first claims: {:#?}", said());
            // What takes long is looked at less often: a look at many claims takes its time, too.
            tokio::time::sleep((waited / 10).clamp(Duration::from_millis(20), Duration::from_millis(200))).await;
        }
    }

    pub(crate) fn nodes(&self) -> Vec<TenantNode> {
        self.engines[0].fleet.nodes().iter().map(|node| (**node).clone()).collect()
    }

    pub(crate) fn node(&self, name: &str) -> Option<TenantNode> {
        self.engines[0].fleet.node(name).map(|node| (*node).clone())
    }

    pub(crate) fn hosts(&self) -> Vec<Host> {
        self.engines[0].fleet.hosts().iter().map(|host| (**host).clone()).collect()
    }

    pub(crate) fn host(&self, name: &str) -> Option<Host> {
        self.engines[0].fleet.host(name).map(|host| (*host).clone())
    }

    #[allow(dead_code, reason = "for the tests of networks, and this file is shared")]
    pub(crate) fn entry(&self, kind: Kind, name: &str) -> Option<vmetald::fleet::Entry> {
        self.engines[0].fleet.entry(kind, name)
    }

    #[allow(dead_code, reason = "for the tests of networks, and this file is shared")]
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.engines[0].ledger
    }

    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        self.engines[0].fleet.entry(kind, name).is_some()
    }

    pub(crate) fn placed(&self) -> usize {
        self.nodes().iter().filter(|node| node.status.host.is_some()).count()
    }

    pub(crate) fn racks(&self, nodes: &[&str]) -> Vec<String> {
        let rack = |name: &&str| {
            let host = self.node(name)?.status.host?;
            self.host(&host)?.metadata.labels.get("rack").cloned()
        };
        nodes.iter().map(|name| rack(name).unwrap_or_default()).collect()
    }

    /// Ends the engines. What the store has then, all at one revision.
    pub(crate) async fn end(&mut self) -> Left {
        self.tasks.shutdown().await;
        Left(self.store.list_all(&Selector::All).await.unwrap().items)
    }

    /// Ends the engines and empties the store.
    pub(crate) async fn clear(mut self) {
        self.tasks.shutdown().await;
        let store = self.engines[0].ledger.store();
        let mut txn = vmetal_store::Txn::new();
        for kind in Kind::ALL {
            for stored in store.list_all(&Selector::Kind(kind.as_str().into())).await.unwrap().items {
                txn = txn.delete(stored.key);
            }
        }
        store.commit(txn).await.unwrap();
    }
}
