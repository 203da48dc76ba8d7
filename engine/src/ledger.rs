//! The only way to change anything: typed objects in, one store transaction out, memory brought up to date after it.
//!
//! A [`Batch`] is built by plain synchronous code and then committed: no lock and no transaction is ever held across I/O.
//! Every write is guarded by the revision that was read, so a lost race changes nothing and is decided again.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use vmetal_lifecycle::Note;
use vmetal_model::{
    Duty, Event, Host, Image, Kind, Network, NodeType, Object, Policy, TenantCluster, TenantNode, Timestamp, Uid,
};
use vmetal_store::{
    AnyStore, CommitError, Guard, Key, ObjectChange, ReadError, Revision, Selector, Store, Stored, Txn, UniqueKey,
    Write,
};

use crate::boundary::{Boundary, reached};
use crate::claims::turnstile;
use crate::fleet::{Entry, Fleet, Update};
use crate::ownership::{Author, Hold};

/// Unique index over BMC systems.
pub const INDEX_BMC: &str = "bmc address";
/// Unique index over boot interfaces.
pub const INDEX_MAC: &str = "boot MAC";
/// Unique index over addresses on the provisioning network.
pub const INDEX_ADDRESS: &str = "provisioning address";
/// Unique index over the addresses of networks that hosts have.
pub const INDEX_LEASE: &str = "network address";
/// Unique index over what a policy decides on.
pub const INDEX_DUTY: &str = "policy duty";

/// The field whose values a unique index holds, as a client declares it: so that a refusal can be shown where the value was
/// written.
pub fn field_of(index: &str) -> &str {
    match index {
        INDEX_BMC => "spec.bmc.address",
        INDEX_MAC => "spec.boot_mac",
        INDEX_ADDRESS => "spec.address",
        INDEX_DUTY => "spec.duty",
        other => other,
    }
}

const SECRETS: &str = "secret";
/// The longest that a commit that lost waits to learn against what.
const CATCH_UP: std::time::Duration = std::time::Duration::from_secs(2);

/// A model object that the ledger can keep.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Its kind.
    const KIND: Kind;
    /// Its frame.
    fn metadata(&self) -> &vmetal_model::Metadata;
    /// Its frame, to be changed.
    fn metadata_mut(&mut self) -> &mut vmetal_model::Metadata;
    /// As an entry of the fleet.
    fn entry(self: Arc<Self>) -> Entry;
    /// What no other object may have too.
    fn unique(&self) -> Vec<UniqueKey> {
        Vec::new()
    }
}

macro_rules! record {
    ($type:ty, $kind:ident $(, $unique:item)?) => {
        impl Record for $type {
            const KIND: Kind = Kind::$kind;
            fn metadata(&self) -> &vmetal_model::Metadata {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut vmetal_model::Metadata {
                &mut self.metadata
            }
            fn entry(self: Arc<Self>) -> Entry {
                Entry::$kind(self)
            }
            $($unique)?
        }
    };
}

record!(
    Host,
    Host,
    fn unique(&self) -> Vec<UniqueKey> {
        let address = self.status.address.or(self.spec.address);
        // Networks share no address, so the address alone names the entry. It stays the host's until what its claim left there
        // is erased.
        let leases = self.status.leases().map(|lease| UniqueKey::new(INDEX_LEASE, lease.address.to_string()));
        [
            Some(UniqueKey::new(INDEX_BMC, self.spec.bmc.address.identity())),
            Some(UniqueKey::new(INDEX_MAC, self.spec.boot_mac.to_string())),
            address.map(|address| UniqueKey::new(INDEX_ADDRESS, address.to_string())),
        ]
        .into_iter()
        .flatten()
        .chain(leases)
        .collect()
    }
);
record!(NodeType, NodeType);
record!(TenantNode, TenantNode);
record!(TenantCluster, TenantCluster);
record!(Image, Image);
record!(Network, Network);
record!(
    Policy,
    Policy,
    /// Of each kind at most one decides, whichever engine is told of it. One that is being deleted decides no more.
    fn unique(&self) -> Vec<UniqueKey> {
        match self.spec.duty {
            Duty::Decides if !self.is_deleted() => {
                vec![UniqueKey::new(INDEX_DUTY, format!("decides {}", self.spec.kind))]
            }
            Duty::Decides | Duty::Rests => Vec::new(),
        }
    }
);

/// The store key of an object.
pub fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind.as_str(), name)
}

/// A change to be committed as one.
pub struct Batch {
    txn: Txn,
    updates: Vec<Pending>,
    /// For the log, once they are true.
    told: Vec<Event>,
}

type Pending = Box<dyn FnOnce(u64) -> Update + Send>;

impl Batch {
    /// Nothing yet, on somebody's authority.
    pub fn by(author: Author) -> Self {
        let mut txn = Txn::default();
        if let Author::Owner(hold) = author {
            txn.guards.push(hold.guard());
        }
        Batch { txn, updates: Vec::new(), told: Vec::new() }
    }

    /// Guards it by another hold as well.
    pub fn also(&mut self, hold: Hold) {
        self.txn.guards.push(hold.guard());
    }

    /// True when committing would change nothing.
    pub fn is_empty(&self) -> bool {
        self.txn.writes.is_empty() && self.txn.events.is_empty()
    }

    /// Nothing is committed unless an object, which is not written, is still at the revision it was read at.
    pub fn needs(&mut self, kind: Kind, name: &str, revision: u64) {
        let guard = Guard::Revision(key(kind, name), Revision(revision));
        if !self.txn.guards.contains(&guard) {
            self.txn.guards.push(guard);
        }
    }

    /// Writes an object that must not exist yet.
    pub fn create<R: Record>(&mut self, object: R) {
        let at = key(R::KIND, &object.metadata().name);
        self.txn.guards.push(Guard::Absent(at));
        self.put(object);
    }

    /// Writes an object that must still be at the revision it was read at.
    pub fn replace<R: Record>(&mut self, object: R) {
        let at = key(R::KIND, &object.metadata().name);
        self.txn.guards.push(Guard::Revision(at, Revision(object.metadata().revision)));
        self.put(object);
    }

    fn put<R: Record>(&mut self, mut object: R) {
        let unique = object.unique();
        object.metadata_mut().revision = 0;
        // The model's types are plain data with string keys: they always serialise.
        let value = serde_json::to_vec(&object).unwrap_or_default();
        let at = key(R::KIND, &object.metadata().name);
        self.txn.writes.push(Write::Put { key: at, value, unique });
        self.updates.push(Box::new(move |revision| {
            object.metadata_mut().revision = revision;
            Update::Put(Arc::new(object).entry())
        }));
    }

    /// Removes an object that must still be at the revision it was read at.
    pub fn remove<R: Record>(&mut self, object: &R) {
        let name = object.metadata().name.clone();
        let at = key(R::KIND, &name);
        self.txn.guards.push(Guard::Revision(at.clone(), Revision(object.metadata().revision)));
        self.txn.writes.push(Write::Delete(at));
        if R::KIND == Kind::TenantCluster {
            self.txn.writes.push(Write::Delete(turnstile(&object.metadata().uid)));
        }
        self.updates.push(Box::new(move |_| Update::Gone(R::KIND, name)));
    }

    /// Writes what is not an object, if a guard holds.
    pub fn beside(&mut self, (guard, write): (Guard, Write)) {
        self.txn.guards.push(guard);
        self.txn.writes.push(write);
    }

    /// Keeps a secret. It never leaves the store but to where it is used.
    pub fn secret(&mut self, name: String, value: impl Into<Vec<u8>>) {
        self.txn.writes.push(Write::put(Key::new(SECRETS, name), value));
    }

    /// Forgets a secret, if there is one.
    pub fn forget(&mut self, name: String) {
        self.txn.writes.push(Write::Delete(Key::new(SECRETS, name)));
    }

    /// Writes a value of the engine's own, which is no object, if it is still as it was read: at that revision, or not there.
    pub fn replace_value(&mut self, at: Key, read: Option<Revision>, value: impl Into<Vec<u8>>) {
        self.txn.guards.push(match read {
            Some(revision) => Guard::Revision(at.clone(), revision),
            None => Guard::Absent(at.clone()),
        });
        self.txn.writes.push(Write::put(at, value));
    }

    /// Puts remarks on an object's record.
    pub fn notes<R: Record>(&mut self, object: &R, now: Timestamp, notes: impl IntoIterator<Item = Note>) {
        for note in notes {
            let metadata = object.metadata();
            let event = Event {
                at: now,
                kind: R::KIND,
                name: metadata.name.clone(),
                uid: metadata.uid.clone(),
                severity: note.severity,
                reason: note.reason.to_owned(),
                message: note.message,
            };
            let value = serde_json::to_vec(&event).unwrap_or_default();
            self.txn.events.push(vmetal_store::EventRecord::new(key(R::KIND, &metadata.name), value));
            self.told.push(event);
        }
    }

    /// Makes the commit idempotent.
    pub fn request(&mut self, id: &str) {
        if !id.is_empty() {
            self.txn.request_id = Some(vmetal_store::RequestId(id.to_owned()));
        }
    }
}

/// The store, typed, with the fleet behind it.
pub struct Ledger {
    store: AnyStore,
    fleet: Arc<Fleet>,
    remarks: Mutex<Remarks>,
}

/// How many events were committed, by kind and reason.
pub type Remarks = BTreeMap<(Kind, String), u64>;

impl Ledger {
    /// Reads everything there is into the fleet.
    pub async fn open(store: AnyStore, fleet: Arc<Fleet>) -> Result<Self, ReadError> {
        let ledger = Ledger { store, fleet, remarks: Mutex::default() };
        ledger.read_all().await?;
        Ok(ledger)
    }

    /// Reads everything there is into the fleet, and forgets what is not there any more.
    pub async fn read_all(&self) -> Result<(), ReadError> {
        let Ledger { store, fleet, .. } = self;
        // Taken first: what is committed meanwhile is seen again, not missed.
        let settled = store.revision().await?.0;
        for kind in Kind::ALL {
            let list = store.list_all(&Selector::Kind(kind.as_str().into())).await?;
            let updates = list.items.iter().map(|stored| decode_entry(kind, stored).map(Update::Put));
            let updates = updates.collect::<Result<Vec<_>, _>>()?;
            let there: HashSet<&str> = list.items.iter().map(|stored| stored.key.name.as_str()).collect();
            let gone = fleet.entries(kind).into_iter().map(|entry| entry.metadata().name.clone());
            let gone: Vec<_> = gone.filter(|name| !there.contains(name.as_str())).collect();
            fleet.take(
                list.revision.0,
                updates.into_iter().chain(gone.into_iter().map(|name| Update::Gone(kind, name))),
            );
        }
        fleet.settle(settled);
        Ok(())
    }

    /// The store underneath, for reading histories.
    pub fn store(&self) -> &AnyStore {
        &self.store
    }

    /// Commits, durably, and brings the fleet up to date.
    pub async fn commit(&self, batch: Batch) -> Result<u64, CommitError> {
        let Batch { txn, updates, told } = batch;
        let what = txn.writes.first().map(|write| write.key().to_string()).unwrap_or_default();
        reached(Boundary::BeforeCommit, &what);
        let revision = match self.store.commit(txn).await {
            Ok(revision) => revision.0,
            Err(CommitError::Conflict { key, found }) => {
                self.catch_up(&key, found).await;
                return Err(CommitError::Conflict { key, found });
            }
            Err(error) => return Err(error),
        };
        reached(Boundary::AfterCommit, &what);
        // Not before: a batch that lost against another is decided anew, and the log would tell of what never was.
        for Event { kind, name, reason, message, .. } in told {
            tracing::info!(%kind, %name, reason, "{message}");
            *self.counted().entry((kind, reason)).or_default() += 1;
        }
        // A request that was answered before is not applied again, and its revision is the old one: what it would have written
        // now is not so, and may be about an object that is gone. The fleet ignores it, as everything that is settled.
        self.fleet.take(revision, updates.into_iter().map(|update| update(revision)));
        Ok(revision)
    }

    /// The events that this process committed, counted.
    pub fn remarks(&self) -> Remarks {
        self.counted().clone()
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Remarks> {
        // A count that a panic has left behind is a count.
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the fleet knows what a commit lost against, so that deciding again is on what is there now. Another
    /// engine's commits come in only with the store's changes.
    async fn catch_up(&self, at: &Key, found: Option<Revision>) {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == at.kind.as_str()) else { return };
        let known = || {
            let known = self.fleet.entry(kind, &at.name).map(|entry| entry.metadata().revision);
            match found {
                Some(found) => known >= Some(found.0) || self.fleet.revision() >= found.0,
                None => known.is_none(),
            }
        };
        let seen = async {
            loop {
                // Before the look: what comes in between counts.
                let changed = self.fleet.changed();
                if known() {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(CATCH_UP, seen).await;
    }

    /// A secret's value.
    pub async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.store.get(&Key::new(SECRETS, name)).await?.map(|stored| stored.value.to_vec()))
    }
}

/// Reads one stored object.
pub fn decode<R: Record>(stored: &Stored) -> Result<R, ReadError> {
    let mut object: R = serde_json::from_slice(&stored.value).map_err(|error| ReadError::Corrupt {
        what: format!("{} does not have the shape this engine knows: {error}", stored.key),
    })?;
    object.metadata_mut().revision = stored.revision.0;
    Ok(object)
}

/// Reads one stored object of a kind that is known at run time.
pub fn decode_entry(kind: Kind, stored: &Stored) -> Result<Entry, ReadError> {
    Ok(match kind {
        Kind::Host => Entry::Host(Arc::new(decode(stored)?)),
        Kind::NodeType => Entry::NodeType(Arc::new(decode(stored)?)),
        Kind::TenantNode => Entry::TenantNode(Arc::new(decode(stored)?)),
        Kind::TenantCluster => Entry::TenantCluster(Arc::new(decode(stored)?)),
        Kind::Image => Entry::Image(Arc::new(decode(stored)?)),
        Kind::Network => Entry::Network(Arc::new(decode(stored)?)),
        Kind::Policy => Entry::Policy(Arc::new(decode(stored)?)),
    })
}

/// Reads one change of a stored object; `None` for what is not an object (secrets).
pub fn decode_change(change: &ObjectChange) -> Result<Option<Update>, ReadError> {
    let at = change.key();
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == at.kind.as_str()) else { return Ok(None) };
    Ok(Some(match change {
        ObjectChange::Put(stored) => Update::Put(decode_entry(kind, stored)?),
        ObjectChange::Deleted(at) => Update::Gone(kind, at.name.clone()),
    }))
}

/// Reads the boot token out of one change of a stored object, if that is what it is: whose, and the token, `None` when it is
/// forgotten.
pub fn decode_token(change: &ObjectChange) -> Option<(Uid, Option<String>)> {
    let at = change.key();
    let uid = crate::secrets::whose_boot_token(&at.name).filter(|_| at.kind.as_str() == SECRETS)?;
    let token = match change {
        ObjectChange::Put(stored) => String::from_utf8(stored.value.to_vec()).ok(),
        ObjectChange::Deleted(_) => None,
    };
    Some((uid, token))
}

/// As [`decode_change`], for the one who follows the store. What the fleet knows already, because
/// this engine committed it, is not read again; where the fleet is ahead of the change, it is what the fleet knows.
pub fn decode_news(change: &ObjectChange, fleet: &Fleet) -> Result<Option<Update>, ReadError> {
    if let ObjectChange::Put(stored) = change
        && let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == stored.key.kind.as_str())
        && let Some(known) = fleet.entry(kind, &stored.key.name)
        && known.metadata().revision >= stored.revision.0
    {
        return Ok(Some(Update::Put(known)));
    }
    decode_change(change)
}

/// The frame of a new object.
pub fn new_metadata(name: &str, entropy: [u8; 16], now: Timestamp) -> vmetal_model::Metadata {
    vmetal_model::Metadata {
        name: name.to_owned(),
        uid: vmetal_model::Uid::from_random(entropy),
        generation: 1,
        revision: 0,
        labels: Default::default(),
        annotations: Default::default(),
        created: now,
        deleted: None,
    }
}

/// A new object.
pub fn new_object<S, T>(metadata: vmetal_model::Metadata, spec: S, status: T) -> Object<S, T> {
    Object { metadata, spec, status }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use vmetal_model::{ImageSpec, ImageStatus};
    use vmetal_store::StoreClock;

    #[tokio::test]
    async fn a_request_that_comes_again_after_its_object_is_gone_brings_nothing_back() {
        let fleet = Arc::new(Fleet::default());
        let ledger = Ledger::open(AnyStore::memory(StoreClock::system()), Arc::clone(&fleet)).await.unwrap();
        let declare = |uid: u8| {
            let spec = ImageSpec { source: "/i".to_owned(), checksum: None, format: None };
            let metadata = new_metadata("i", [uid; 16], Timestamp::UNIX_EPOCH);
            let mut batch = Batch::by(Author::Outside);
            batch.request("r");
            batch.create(new_object(metadata, spec, ImageStatus::default()));
            batch
        };
        ledger.commit(declare(1)).await.unwrap();
        let image = fleet.image("i").unwrap();
        let mut batch = Batch::by(Author::Outside);
        batch.remove(&*image);
        let removed = ledger.commit(batch).await.unwrap();
        fleet.settle(removed);
        assert!(ledger.commit(declare(2)).await.unwrap() < removed);
        assert!(fleet.image("i").is_none());
    }
}
