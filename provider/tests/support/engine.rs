//! An engine for tests: the real API server over a small world in memory in which hardware is quick and obedient.
//!
//! It keeps the API's promises (preconditions, unique values, generations, watches, events) and walks objects through the
//! same phases as the real engine, one per tick. What goes wrong is chosen by data: a wrong BMC password, an image that
//! does not exist, a host that a test holds back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures::stream::{BoxStream, StreamExt as _};
use tokio::{net::TcpListener, runtime::Runtime, sync::broadcast, sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::BroadcastStream;
use vmetal_api::identity::{Issuers, Nobody};
use vmetal_api::{
    Annotate, AnyObject, Apply, Backend, BackendError, BmcCredential, Caller, EventEntry, EventsQuery, JoinToken,
    JoinTokenRequest, Listing, ObjectRef, Precondition, Resource, Secret, ServerConfig, TokenStore, WatchItem,
    WatchQuery, token,
};
use vmetal_model::{
    BmcSpec, Cause, Decision, Event, Failure, FieldError, Hold, Host, HostAction, HostPhase, HostStatus, Image,
    ImagePhase, Inventory, Kind, Metadata, NodeType, PolicyCheck, PolicySpec, PowerOrder, PowerState, PowerWish,
    Rotation, Severity, TenantCluster, TenantNode, TenantNodePhase, TenantNodeSpec, TenantNodeStatus, Timestamp, Uid,
};

#[path = "networks.rs"]
mod networks;
#[path = "others.rs"]
mod others;
#[path = "placement.rs"]
mod placement;
#[path = "policies.rs"]
mod policies;

/// The only token this engine knows.
pub(crate) const TOKEN: &str = "vmt_for_tests_only";
/// The only BMC password that works.
pub(crate) const PASSWORD: &str = "the-right-password";

/// The secret half of every join token.
pub(crate) const JOIN_SECRET: &str = "0123456789abcdef";

/// So many were started by this process.
static ENGINES: AtomicU8 = AtomicU8::new(0);

const TICK: Duration = Duration::from_millis(15);

type Change = (u64, WatchItem);

struct Inner {
    objects: BTreeMap<(Kind, String), AnyObject>,
    secrets: BTreeMap<(Kind, String, String), String>,
    answered: BTreeMap<String, AnyObject>,
    events: Vec<EventEntry>,
    held: BTreeSet<String>,
    orders: Vec<(String, HostAction)>,
    /// Join tokens by the request that made them, with their ids and how often they were made or prolonged.
    tokens: BTreeMap<String, (String, usize)>,
    revoked: Vec<String>,
    made: usize,
    /// How often each object was declared.
    asked: BTreeMap<(Kind, String), usize>,
    /// Deletions of hosts that were refused because a tenant node holds them.
    refusals: usize,
    /// Components of policies by digest.
    components: BTreeMap<String, Vec<u8>>,
    revision: u64,
    changes: broadcast::Sender<Change>,
    calls: BTreeMap<&'static str, usize>,
}

/// What the engine knows; survives restarts of its server.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Inner>>);

impl World {
    fn new() -> Self {
        let inner = Inner {
            objects: BTreeMap::new(),
            secrets: BTreeMap::new(),
            answered: BTreeMap::new(),
            events: Vec::new(),
            held: BTreeSet::new(),
            orders: Vec::new(),
            tokens: BTreeMap::new(),
            revoked: Vec::new(),
            made: 0,
            asked: BTreeMap::new(),
            refusals: 0,
            components: BTreeMap::new(),
            revision: 0,
            changes: broadcast::channel(4096).0,
            calls: BTreeMap::new(),
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn counted(&self, call: &'static str) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        *inner.calls.entry(call).or_default() += 1;
        inner
    }

    /// How often the calls of the API were made since this was asked last, by name. What an apply asks for beside the object
    /// itself (`follow`) comes in the same call.
    pub(crate) fn calls(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut self.lock().calls)
    }

    /// Keeps an object as it is: a host from finishing its inspection, a tenant node from being released, anything else from
    /// being looked at.
    pub(crate) fn hold(&self, name: &str) {
        self.lock().held.insert(name.to_owned());
    }

    /// Lets it go on.
    pub(crate) fn release(&self, name: &str) {
        self.lock().held.remove(name);
    }

    /// An object, if there is one.
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<AnyObject> {
        self.lock().objects.get(&(kind, name.to_owned())).cloned()
    }

    /// A write-only value that was sent.
    pub(crate) fn secret(&self, kind: Kind, name: &str, field: &str) -> Option<String> {
        self.lock().secrets.get(&(kind, name.to_owned(), field.to_owned())).cloned()
    }

    /// Operators' orders, in order.
    pub(crate) fn orders(&self) -> Vec<(String, HostAction)> {
        self.lock().orders.clone()
    }

    /// The ids of join tokens and how often each was made or prolonged; and those that were revoked.
    pub(crate) fn tokens(&self) -> (Vec<(String, usize)>, Vec<String>) {
        let inner = self.lock();
        (inner.tokens.values().cloned().collect(), inner.revoked.clone())
    }

    /// How many objects there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().objects.len()
    }

    /// How many deletions of held hosts were refused.
    pub(crate) fn refusals(&self) -> usize {
        self.lock().refusals
    }

    /// How many objects were ever created.
    pub(crate) fn made(&self) -> usize {
        self.lock().made
    }

    /// Asks for an object's deletion, as somebody else might.
    pub(crate) fn delete(&self, kind: Kind, name: &str) {
        let mut inner = self.lock();
        let mut found = inner.objects.get(&(kind, name.to_owned())).cloned().unwrap();
        found.metadata.deleted.get_or_insert(Timestamp::now());
        inner.store(found);
    }

    /// Removes an object as if it had never been.
    pub(crate) fn vanish(&self, kind: Kind, name: &str) {
        self.lock().remove(kind, name);
    }
}

impl Inner {
    fn store(&mut self, mut object: AnyObject) -> AnyObject {
        self.revision += 1;
        object.metadata.revision = self.revision;
        self.objects.insert((object.kind, object.metadata.name.clone()), object.clone());
        let _ = self.changes.send((self.revision, WatchItem::Changed(object.clone())));
        object
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        if let Some(object) = self.objects.remove(&(kind, name.to_owned())) {
            self.revision += 1;
            let _ = self.changes.send((self.revision, WatchItem::Deleted(object)));
        }
    }

    fn say(&mut self, object: &Metadata, kind: Kind, message: &str) {
        let event = Event {
            at: Timestamp::now(),
            kind,
            name: object.name.clone(),
            uid: object.uid.clone(),
            severity: Severity::Info,
            reason: "phase_changed".into(),
            message: message.to_owned(),
        };
        self.events.push(EventEntry { revision: self.revision, event });
    }

    fn all<R: Resource>(&self) -> Vec<R> {
        self.objects.values().filter(|o| o.kind == R::KIND).map(|o| o.typed().unwrap()).collect()
    }

    fn put<R: Resource>(&mut self, object: &R, message: &str) {
        let object = AnyObject::from_typed(object).unwrap();
        let stored = self.store(object);
        self.say(&stored.metadata, stored.kind, message);
    }

    fn apply(&mut self, apply: Apply) -> Result<AnyObject, BackendError> {
        *self.asked.entry((apply.kind, apply.name.clone())).or_default() += 1;
        if let Some(answer) = self.answered.get(&apply.request_id) {
            return Ok(answer.clone());
        }
        let object = ObjectRef { kind: apply.kind, name: apply.name.clone() };
        let existing = self.objects.get(&(apply.kind, apply.name.clone())).cloned();
        let conflict =
            |expected: String, found: String| BackendError::Conflict { object: object.clone(), expected, found };
        match (&apply.precondition, &existing) {
            (Precondition::MustNotExist, Some(_)) => return Err(BackendError::AlreadyExists { object }),
            (Precondition::Uid(uid), Some(found)) if found.metadata.uid != *uid => {
                return Err(conflict(uid.to_string(), found.metadata.uid.to_string()));
            }
            (Precondition::Revision(revision), Some(found)) if found.metadata.revision != *revision => {
                return Err(conflict(format!("revision {revision}"), format!("revision {}", found.metadata.revision)));
            }
            (Precondition::Declared { uid, generation }, Some(found))
                if (uid, generation) != (&found.metadata.uid, &found.metadata.generation) =>
            {
                return Err(conflict(format!("generation {generation}"), format!("{}", found.metadata.generation)));
            }
            (Precondition::Uid(_) | Precondition::Revision(_) | Precondition::Declared { .. }, None) => {
                return Err(BackendError::NotFound { object });
            }
            _ => {}
        }
        if apply.kind == Kind::Host {
            let wanted: vmetal_model::HostSpec = serde_json::from_value(apply.spec.clone()).unwrap();
            for other in self.all::<Host>().into_iter().filter(|host| host.metadata.name != apply.name) {
                if other.spec.boot_mac == wanted.boot_mac {
                    return Err(BackendError::Unique {
                        field: "spec.boot_mac".into(),
                        value: wanted.boot_mac.to_string(),
                        object,
                        holder: ObjectRef { kind: Kind::Host, name: other.metadata.name },
                    });
                }
            }
        }
        if apply.kind == Kind::Policy {
            self.admit_policy(&apply)?;
        }
        if let Some(found) = existing.as_ref().filter(|_| apply.kind == Kind::TenantNode) {
            self.stays(found, &apply)?;
        }
        for (field, value) in &apply.secrets {
            let key = (apply.kind, apply.name.clone(), field.clone());
            self.secrets.insert(key, value.expose().to_owned());
        }
        let made = match existing {
            Some(mut found) => {
                let same = found.spec == apply.spec
                    && found.metadata.labels == apply.labels
                    && found.metadata.annotations == apply.annotations;
                if same {
                    return Ok(found);
                }
                found.spec = apply.spec;
                found.metadata.labels = apply.labels;
                found.metadata.annotations = apply.annotations;
                found.metadata.generation += 1;
                found
            }
            None => {
                self.made += 1;
                let mut seed = [0u8; 16];
                seed[..8].copy_from_slice(&(self.made as u64).to_be_bytes());
                let metadata = Metadata {
                    name: apply.name,
                    uid: Uid::from_random(seed),
                    generation: 1,
                    revision: 0,
                    labels: apply.labels,
                    annotations: apply.annotations,
                    created: Timestamp::now(),
                    deleted: None,
                };
                let now = Timestamp::now();
                let status = match apply.kind {
                    Kind::Host => serde_json::to_value(HostStatus::new(now)),
                    Kind::TenantNode => serde_json::to_value(TenantNodeStatus::new(now)),
                    Kind::NodeType => serde_json::to_value(vmetal_model::NodeTypeStatus::default()),
                    Kind::TenantCluster => serde_json::to_value(vmetal_model::TenantClusterStatus::default()),
                    Kind::Image => serde_json::to_value(vmetal_model::ImageStatus::default()),
                    Kind::Network => serde_json::to_value(vmetal_model::NetworkStatus::default()),
                    Kind::Policy => serde_json::to_value(vmetal_model::PolicyStatus::default()),
                };
                AnyObject { kind: apply.kind, metadata, spec: apply.spec, status: status.unwrap() }
            }
        };
        let stored = self.store(made);
        let stored = self.taken_up(stored);
        self.answered.insert(apply.request_id, stored.clone());
        Ok(stored)
    }

    /// What a test holds gets as far as it can in the answer to its declaration: whoever waits for it sees nothing else until
    /// time is up, however little that is.
    fn taken_up(&mut self, stored: AnyObject) -> AnyObject {
        if !self.held.contains(&stored.metadata.name) {
            return stored;
        }
        match stored.kind {
            Kind::Host => self.tick_host(stored.typed().unwrap()),
            Kind::TenantNode => self.tick_node(stored.typed().unwrap()),
            _ => {}
        }
        self.objects.get(&(stored.kind, stored.metadata.name.clone())).cloned().unwrap_or(stored)
    }

    /// One tick of the world.
    fn tick(&mut self) {
        for host in self.all::<Host>() {
            self.tick_host(host);
        }
        for mut node_type in self.moving::<NodeType>() {
            let selected =
                |host: &Host| node_type.spec.selector.iter().all(|(k, v)| host.metadata.labels.get(k) == Some(v));
            let total = u32::try_from(self.all::<Host>().iter().filter(|host| selected(host)).count()).unwrap();
            let status = &mut node_type.status;
            if node_type.metadata.deleted.is_some() {
                self.remove(Kind::NodeType, &node_type.metadata.name);
            } else if status.observed_generation != node_type.metadata.generation || status.capacity.total != total {
                status.observed_generation = node_type.metadata.generation;
                status.cost = node_type.spec.cost.unwrap_or(4242);
                status.cost_micros = Some(node_type.spec.cost.map_or(4_241_500_000, |cost| cost * 1_000_000));
                status.capacity.total = total;
                self.put(&node_type, "counted");
            }
        }
        for mut cluster in self.moving::<TenantCluster>() {
            if cluster.metadata.deleted.is_some() {
                self.remove(Kind::TenantCluster, &cluster.metadata.name);
            } else if cluster.status.observed_generation != cluster.metadata.generation {
                cluster.status.observed_generation = cluster.metadata.generation;
                cluster.status.reachable = true;
                cluster.status.version = Some("v1.36.0".into());
                self.put(&cluster, "reached");
            }
        }
        self.tick_networks();
        for mut image in self.moving::<Image>() {
            if image.metadata.deleted.is_some() {
                self.remove(Kind::Image, &image.metadata.name);
            } else if image.status.observed_generation != image.metadata.generation {
                image.status.observed_generation = image.metadata.generation;
                if image.spec.source.starts_with("/missing") {
                    image.status.phase = ImagePhase::Failed;
                    image.status.failure = Some(failure(Cause::Image, "the source does not exist", "correct the path"));
                } else {
                    image.status.failure = None;
                    image.status.phase = ImagePhase::Ready;
                    image.status.digest = Some("d1".into());
                    image.status.size_bytes = 3 << 30;
                    image.status.stored_bytes = 1 << 30;
                }
                self.put(&image, "imported");
            }
        }
        for node in self.all::<TenantNode>() {
            self.tick_node(node);
        }
        self.tick_policies();
    }

    fn tick_host(&mut self, mut host: Host) {
        let name = host.metadata.name.clone();
        if host.metadata.deleted.is_some() && host.status.claim.is_none() {
            return self.remove(Kind::Host, &name);
        }
        let generation = host.metadata.generation;
        let password = self.secrets.get(&(Kind::Host, name.clone(), "bmc.password".into()));
        let right = password.is_some_and(|password| password == PASSWORD);
        if let Some(order) = host.status.power_order.take() {
            // The BMC of a host of this name does not do what it is told.
            let stuck = name.starts_with("stuck");
            host.status.failure =
                stuck.then(|| failure(Cause::BmcNotApplied, "the power stayed as it was", "pull the plug"));
            if !stuck {
                let on = order.power != PowerWish::Off;
                host.status.power = if on { PowerState::On } else { PowerState::Off };
            }
            return self.put(&host, "switched");
        }
        if let Some(rotation) = host.status.rotation.take_if(|rotation| !rotation.ended) {
            // As above: the BMC of a host of this name says no.
            if name.starts_with("stuck") {
                let failure = Some(failure(Cause::BmcProtocol, "the BMC does not take it", "order a longer one"));
                host.status.rotation = Some(Box::new(Rotation { failure, ended: true, ..*rotation }));
            }
            return self.put(&host, "a new password");
        }
        let status = &mut host.status;
        let phase = match status.phase {
            HostPhase::Registering if right => {
                status.failure = None;
                status.registered_as = Some("registered".into());
                HostPhase::Inspecting
            }
            HostPhase::Registering => {
                let message = format!("the BMC at {} refused user name and password", host.spec.bmc.address);
                status.failure = Some(failure(Cause::BmcCredentials, &message, "correct the password"));
                status.failed_phase = Some(HostPhase::Registering);
                HostPhase::Error
            }
            HostPhase::Error if generation > status.observed_generation => HostPhase::Registering,
            HostPhase::Inspecting if !self.held.contains(&name) => {
                status.inventory = Some(Inventory { memory_bytes: 8 << 30, ..Inventory::default() });
                HostPhase::Available
            }
            HostPhase::Available if status.claim.is_some() => HostPhase::Provisioning,
            HostPhase::Provisioning => HostPhase::Provisioned,
            HostPhase::Available if status.observed_generation != generation => HostPhase::Available,
            _ => return,
        };
        status.phase = phase;
        if phase != HostPhase::Registering {
            status.observed_generation = generation;
        }
        self.put(&host, &format!("now {}", phase.as_str()));
    }

    fn tick_node(&mut self, mut node: TenantNode) {
        use TenantNodePhase as Phase;
        let claimed = node.status.host.clone().and_then(|name| self.objects.get(&(Kind::Host, name)).cloned());
        let claimed: Option<Host> = claimed.map(|host| host.typed().unwrap());
        if node.metadata.deleted.is_some() {
            if self.held.contains(&node.metadata.name) {
                return;
            }
            if let Some(mut host) = claimed {
                host.status.claim = None;
                host.status.phase = HostPhase::Available;
                self.put(&host, "given back");
            }
            return self.remove(Kind::TenantNode, &node.metadata.name);
        }
        node.status.observed_generation = node.metadata.generation;
        let phase = match node.status.phase {
            Phase::Pending => return self.decide(node),
            Phase::Scheduled => {
                node.status.node_name = Some(node.metadata.name.clone());
                Phase::Provisioning
            }
            Phase::Provisioning if claimed.is_some_and(|host| host.status.phase == HostPhase::Provisioned) => {
                Phase::Joining
            }
            Phase::Joining => Phase::Ready,
            _ => return,
        };
        node.status.phase = phase;
        self.put(&node, &format!("now {}", phase.as_str()));
    }
}

fn failure(cause: Cause, message: &str, advice: &str) -> Failure {
    Failure { cause, message: message.into(), advice: advice.into(), at: Timestamp::now() }
}

impl Backend for World {
    fn version(&self) -> String {
        "0.0.0-test".into()
    }

    async fn get(&self, kind: Kind, name: &str) -> Result<AnyObject, BackendError> {
        let object = ObjectRef { kind, name: name.to_owned() };
        drop(self.counted("get"));
        World::get(self, kind, name).ok_or(BackendError::NotFound { object })
    }

    async fn list(&self, kind: Kind, labels: &BTreeMap<String, String>) -> Result<Listing, BackendError> {
        let inner = self.counted("list");
        let has = |o: &&AnyObject| o.kind == kind && labels.iter().all(|(k, v)| o.metadata.labels.get(k) == Some(v));
        let objects = inner.objects.values().filter(has).cloned().collect();
        Ok(Listing { objects, revision: inner.revision })
    }

    async fn apply(&self, _: &Caller, apply: Apply) -> Result<AnyObject, BackendError> {
        self.counted("apply").apply(apply)
    }

    async fn annotate(&self, _: &Caller, annotate: Annotate) -> Result<(), BackendError> {
        let object = ObjectRef { kind: annotate.kind, name: annotate.name.clone() };
        let mut inner = self.counted("annotate");
        let found = inner.objects.get(&(annotate.kind, annotate.name.clone())).cloned();
        let mut found = found.ok_or(BackendError::NotFound { object: object.clone() })?;
        if let Some(uid) = annotate.uid.as_ref().filter(|uid| **uid != found.metadata.uid) {
            let (expected, found) = (uid.to_string(), found.metadata.uid.to_string());
            return Err(BackendError::Conflict { object, expected, found });
        }
        if let Some(annotations) = annotate.of(&found.metadata.annotations) {
            found.metadata.annotations = annotations;
            inner.store(found);
        }
        Ok(())
    }

    async fn put_component(&self, _: &Caller, sha256: &str, bytes: Vec<u8>) -> Result<(), BackendError> {
        self.lock().keep(sha256, bytes)
    }

    async fn check_policy(&self, spec: &PolicySpec) -> Result<PolicyCheck, BackendError> {
        self.lock().check(spec)
    }

    async fn act_on_host(
        &self,
        _: &Caller,
        name: &str,
        _: Option<&Uid>,
        action: &HostAction,
    ) -> Result<AnyObject, BackendError> {
        let object = ObjectRef { kind: Kind::Host, name: name.to_owned() };
        let mut inner = self.lock();
        let found = inner.all::<Host>().into_iter().find(|host| host.metadata.name == name);
        let mut host = found.ok_or(BackendError::NotFound { object })?;
        if matches!(action, HostAction::Retire { .. }) {
            inner.orders.push((name.to_owned(), action.clone()));
            host.metadata.deleted.get_or_insert(Timestamp::now());
            return Ok(inner.store(AnyObject::from_typed(&host).unwrap()));
        }
        if host.status.claim.is_some() {
            let message = format!("host {name} cannot be told to {} while it is claimed", action.verb());
            return Err(BackendError::Precondition { message, advice: "delete the tenant node first".into() });
        }
        inner.orders.push((name.to_owned(), action.clone()));
        if let HostAction::Power { power, reason } = action {
            let hold = Hold { reason: reason.clone(), by: "tests".into(), since: Timestamp::now(), until: None };
            host.status.power_order = Some(Box::new(PowerOrder { power: *power, hold }));
            return Ok(inner.store(AnyObject::from_typed(&host).unwrap()));
        }
        host.status.phase = match action {
            HostAction::Maintenance { .. } => HostPhase::Maintenance,
            _ => HostPhase::Registering,
        };
        Ok(inner.store(AnyObject::from_typed(&host).unwrap()))
    }

    async fn create_join_token(&self, _: &Caller, request: &JoinTokenRequest) -> Result<JoinToken, BackendError> {
        let object = ObjectRef { kind: Kind::TenantCluster, name: request.cluster.clone() };
        World::get(self, Kind::TenantCluster, &request.cluster).ok_or(BackendError::NotFound { object })?;
        let mut inner = self.lock();
        let next = format!("t{:05}", inner.tokens.len());
        let (id, times) = inner.tokens.entry(request.request_id.clone()).or_insert((next, 0));
        *times += 1;
        Ok(JoinToken {
            token: Secret::new(format!("{id}.{JOIN_SECRET}")),
            ca_cert_hash: "sha256:00ff".into(),
            endpoint: "10.0.0.1:6443".into(),
            expires_at: Timestamp::UNIX_EPOCH + request.ttl,
        })
    }

    async fn revoke_join_token(&self, _: &Caller, _: &str, token_id: &str) -> Result<(), BackendError> {
        self.lock().revoked.push(token_id.to_owned());
        Ok(())
    }

    async fn rotate_bmc_password(
        &self,
        _: &Caller,
        name: &str,
        password: &Secret,
        reason: &str,
    ) -> Result<AnyObject, BackendError> {
        if password.expose().is_empty() {
            return Err(BackendError::Invalid { errors: vec![FieldError::new("password", "is empty")] });
        }
        let object = ObjectRef { kind: Kind::Host, name: name.to_owned() };
        let mut inner = self.lock();
        let found = inner.all::<Host>().into_iter().find(|host| host.metadata.name == name);
        let mut host = found.ok_or(BackendError::NotFound { object })?;
        let hold = Hold { reason: reason.into(), by: "tests".into(), since: Timestamp::now(), until: None };
        let rotation = Rotation { hold, tries: 0, not_before: None, failure: None, ended: false };
        host.status.rotation = Some(Box::new(rotation));
        let key = (Kind::Host, name.to_owned(), "bmc.password".to_owned());
        if !name.starts_with("stuck") {
            inner.secrets.insert(key, password.expose().to_owned());
        }
        Ok(inner.store(AnyObject::from_typed(&host).unwrap()))
    }

    async fn bmc_credential(&self, _: &Caller, host: &str, _: &str) -> Result<BmcCredential, BackendError> {
        let object = ObjectRef { kind: Kind::Host, name: host.to_owned() };
        let found: Host = World::get(self, Kind::Host, host).ok_or(BackendError::NotFound { object })?.typed().unwrap();
        let password = self.secret(Kind::Host, host, "bmc.password").unwrap_or_default();
        let BmcSpec { address, username, .. } = found.spec.bmc;
        Ok(BmcCredential { address, username, password: Secret::new(password) })
    }

    async fn preview_placement(&self, spec: &TenantNodeSpec, count: u32) -> Result<Vec<Decision>, BackendError> {
        let inner = self.lock();
        let mut taken = BTreeSet::new();
        let mut next = || {
            let (decision, host) = inner.choice(spec, &taken);
            taken.extend(host.map(|host| host.metadata.name));
            decision
        };
        let mut decisions: Vec<Decision> = (0..count).map(|_| next()).collect();
        let placed = decisions.iter().filter(|decision| decision.host.is_some()).count();
        if let Some(group) = spec.group.as_ref().filter(|_| placed < decisions.len()) {
            let why = format!("{placed} of the {count} hosts that group {} waits for can be had", group.name);
            decisions.iter_mut().for_each(|one| (one.host, one.reason) = (None, why.clone()));
        }
        Ok(decisions)
    }

    async fn delete(&self, _: &Caller, kind: Kind, name: &str, uid: Option<&Uid>) -> Result<AnyObject, BackendError> {
        let mut inner = self.lock();
        let object = ObjectRef { kind, name: name.to_owned() };
        let found = inner.objects.get(&(kind, name.to_owned())).cloned();
        let mut found = found.ok_or(BackendError::NotFound { object: object.clone() })?;
        if let Some(uid) = uid.filter(|uid| **uid != found.metadata.uid) {
            return Err(BackendError::Conflict {
                object,
                expected: uid.to_string(),
                found: found.metadata.uid.to_string(),
            });
        }
        if kind == Kind::Network {
            inner.may_remove_network(name)?;
        }
        if kind == Kind::Host
            && let Some(claim) = found.typed::<Host>().unwrap().status.claim
        {
            let message = format!("{object} is used by tenant node {}", claim.node);
            inner.refusals += 1;
            return Err(BackendError::Precondition { message, advice: "delete the tenant node first".into() });
        }
        found.metadata.deleted.get_or_insert(Timestamp::now());
        Ok(inner.store(found))
    }

    fn follow(&self, known: AnyObject) -> BoxStream<'static, Result<WatchItem, BackendError>> {
        let inner = self.counted("follow");
        let of = (known.kind, known.metadata.name.clone());
        let first = match inner.objects.get(&of) {
            Some(now) if now.metadata.revision > known.metadata.revision => Some(WatchItem::Changed(now.clone())),
            Some(_) => None,
            None => Some(WatchItem::Deleted(known)),
        };
        let mine = move |object: &AnyObject| (object.kind, &object.metadata.name) == (of.0, &of.1);
        let changes = BroadcastStream::new(inner.changes.subscribe()).filter_map(move |change| {
            let item = change.ok().map(|(_, item)| item).filter(|item| item.object().is_some_and(&mine));
            std::future::ready(item.map(Ok))
        });
        futures::stream::iter(first.map(Ok)).chain(changes).boxed()
    }

    fn watch(&self, query: WatchQuery) -> BoxStream<'static, Result<WatchItem, BackendError>> {
        let inner = self.counted("watch");
        let wanted = move |object: &AnyObject| {
            query.kind.is_none_or(|kind| kind == object.kind)
                && query.name.as_ref().is_none_or(|name| *name == object.metadata.name)
        };
        let mut first: Vec<_> =
            inner.objects.values().filter(|o| wanted(o)).map(|o| Ok(WatchItem::Sync(o.clone()))).collect();
        first.push(Ok(WatchItem::Bookmark { revision: inner.revision }));
        let changes = BroadcastStream::new(inner.changes.subscribe()).filter_map(move |change| {
            let item = change.ok().map(|(_, item)| item).filter(|item| item.object().is_some_and(&wanted));
            std::future::ready(item.map(Ok))
        });
        futures::stream::iter(first).chain(changes).boxed()
    }

    fn events(&self, query: EventsQuery) -> BoxStream<'static, Result<EventEntry, BackendError>> {
        let inner = self.lock();
        let wanted = |e: &&EventEntry| {
            query.kind.is_none_or(|kind| kind == e.event.kind)
                && query.name.as_ref().is_none_or(|name| *name == e.event.name)
        };
        let all: Vec<_> = inner.events.iter().filter(wanted).cloned().collect();
        let skip = query.limit.map_or(0, |limit| all.len().saturating_sub(limit as usize));
        futures::stream::iter(all.into_iter().skip(skip).map(Ok)).boxed()
    }
}

/// The world behind a socket.
pub(crate) struct Engine {
    pub(crate) world: World,
    /// Whom it serves.
    pub(crate) tokens: TokenStore,
    /// Whose identity tokens it believes, from the next time it is up.
    pub(crate) issuers: Arc<dyn Issuers>,
    address: SocketAddr,
    runtime: Runtime,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Engine {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let world = World::new();
        let ticking = world.clone();
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                ticking.lock().tick();
            }
        });
        // An address of its own: nobody takes its port while it is down, not even for a connection to it.
        let (number, process) = (ENGINES.fetch_add(1, Ordering::Relaxed), std::process::id().to_be_bytes());
        let address = SocketAddr::from(([127, 64 + number % 128, process[2], process[3]], 0));
        let tokens = TokenStore::new([("tests", token::hash(TOKEN))]);
        let mut engine = Self { world, tokens, issuers: Arc::new(Nobody), address, runtime, serving: None };
        engine.up();
        engine
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Begins to serve, where it served before.
    pub(crate) fn up(&mut self) {
        let listener = self.runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let world = Arc::new(self.world.clone());
        let (tokens, issuers) = (self.tokens.clone(), Arc::clone(&self.issuers));
        let serving = self.runtime.spawn(async move {
            let config = ServerConfig { grace: Duration::from_millis(50), issuers, ..ServerConfig::default() };
            let stopped = async {
                let _ = stopped.await;
            };
            vmetal_api::serve(listener, world, tokens, config, stopped).await.unwrap();
        });
        self.serving = Some((stop, serving));
    }

    /// Stops serving, and waits until the address is free; the world goes on.
    pub(crate) fn down(&mut self) {
        if let Some((stop, serving)) = self.serving.take() {
            let _ = stop.send(());
            self.runtime.block_on(serving).unwrap();
        }
    }
}
