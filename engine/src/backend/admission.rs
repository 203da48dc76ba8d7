//! What is let in: the shape, the fields, and what only the engine can know (other objects, what is in use).

use std::sync::Arc;

use serde::de::DeserializeOwned;
use vmetal_api::types::{Precondition, Secrets};
use vmetal_api::{Apply, BackendError};
use vmetal_lifecycle::Note;
use vmetal_lifecycle::host::operator;
use vmetal_model::{
    FieldError, Host, Image, Kind, Network, NodeType, Object, OnDelete, Policy, TenantCluster, TenantNode,
    TenantNodePhase, TenantNodeSpec, Validate, validate,
};

use vmetal_policy::Quotas;
use vmetal_store::Key;

use super::reference;
use crate::engine::Engine;
use crate::fleet::Fleet;
use crate::ledger::Record;
use crate::secrets;

mod network;

/// Reads the spec and checks everything that can be checked without other objects.
pub(super) fn check<S: DeserializeOwned + Validate>(apply: &Apply) -> Result<S, BackendError> {
    let mut errors: Vec<FieldError> = validate::name(&apply.name).err().into_iter().collect();
    for (key, value) in &apply.labels {
        errors.extend(validate::label("metadata.labels", key, value).err());
    }
    match S::deserialize(&apply.spec) {
        Ok(spec) => {
            errors.extend(spec.validate());
            if errors.is_empty() {
                return Ok(spec);
            }
        }
        Err(error) => errors.push(FieldError::new("spec", error.to_string())),
    }
    Err(BackendError::Invalid { errors })
}

/// Checks what the caller says must be so.
pub(super) fn precondition<S, T>(apply: &Apply, current: Option<&Object<S, T>>) -> Result<(), BackendError> {
    let object = reference(apply.kind, &apply.name);
    match (&apply.precondition, current) {
        (Precondition::None, _) | (Precondition::MustNotExist, None) => Ok(()),
        (Precondition::MustNotExist, Some(_)) => Err(BackendError::AlreadyExists { object }),
        (_, None) => Err(BackendError::NotFound { object }),
        (Precondition::Revision(wanted), Some(current)) if *wanted != current.metadata.revision => {
            let (expected, found) = (format!("revision {wanted}"), format!("revision {}", current.metadata.revision));
            Err(BackendError::Conflict { object, expected, found })
        }
        (Precondition::Declared { uid, generation }, Some(current))
            if *uid == current.metadata.uid && *generation != current.metadata.generation =>
        {
            let found = format!("generation {}", current.metadata.generation);
            Err(BackendError::Conflict { object, expected: format!("generation {generation}"), found })
        }
        (Precondition::Uid(wanted) | Precondition::Declared { uid: wanted, .. }, Some(current))
            if *wanted != current.metadata.uid =>
        {
            let (expected, found) = (format!("uid {wanted}"), format!("uid {}", current.metadata.uid));
            Err(BackendError::Conflict { object, expected, found })
        }
        _ => Ok(()),
    }
}

/// Finds an object of a kind by name.
pub(super) trait Find: Sized {
    fn find(fleet: &Fleet, name: &str) -> Option<Arc<Self>>;
}

/// The rules of one kind.
pub(crate) trait Rules: Record {
    /// Whether a write-only value stays what it is once the object is there: one that is sent again counts as not sent.
    const SECRETS_STAY: bool = false;

    /// Whether the object may be as it is wanted. `current` is what it is now.
    fn admit(&self, engine: &Engine, current: Option<&Self>, secrets: &Secrets) -> Result<(), BackendError>;
    /// What follows from the declaration at once, in the same commit; returns what there is to tell of it.
    fn settle(&mut self, _engine: &Engine, _current: Option<&Self>, _secrets: &Secrets) -> Vec<Note> {
        Vec::new()
    }
    /// What the object refers to: it must be there, and stay there, while the object is.
    fn refers(&self) -> Vec<(&'static str, Kind, &str)> {
        Vec::new()
    }
    /// The digest of the component that must be there, and stay there, while the object is.
    fn component(&self) -> Option<&str> {
        None
    }
    /// What every declaration of the kind writes, so that no two are judged on the same others.
    fn turnstile() -> Option<Key> {
        None
    }
    /// Whether the object may be deleted.
    fn may_go(&self, engine: &Engine) -> Result<(), BackendError>;
    /// Where a write-only field is kept.
    fn secret_name(&self, field: &str) -> String;
    /// The object as it is now.
    fn again(fleet: &Fleet, name: &str) -> Option<Arc<Self>>;
}

macro_rules! find {
    ($($type:ty => $method:ident),*) => {$(
        impl Find for $type {
            fn find(fleet: &Fleet, name: &str) -> Option<Arc<Self>> {
                fleet.$method(name)
            }
        }
    )*};
}

find!(
    Host => host, NodeType => node_type, TenantNode => node, TenantCluster => cluster, Image => image, Network => network,
    Policy => policy
);

fn invalid(path: &str, message: impl Into<String>) -> BackendError {
    BackendError::Invalid { errors: vec![FieldError::new(path, message)] }
}

/// Refuses write-only fields that the kind does not have, and a new object without those it needs.
fn secrets_of(secrets: &Secrets, known: &[&str], needed: Option<&str>) -> Result<(), BackendError> {
    if let Some(field) = secrets.keys().find(|field| !known.contains(&field.as_str())) {
        return Err(invalid(
            &format!("secrets.{field}"),
            format!("is not a write-only field of this kind; expected one of {known:?}"),
        ));
    }
    match needed.filter(|field| !secrets.contains_key(*field)) {
        Some(field) => Err(invalid(&format!("secrets.{field}"), "is missing; a new object needs it")),
        None => Ok(()),
    }
}

/// Refuses what refers to something that is not there. What is being deleted can only be kept, not be chosen anew.
fn exist<R: Rules>(engine: &Engine, current: Option<&R>, wanted: &R) -> Result<(), BackendError> {
    let kept: Vec<_> = current.map(Rules::refers).unwrap_or_default();
    for reference in wanted.refers() {
        let (path, kind, name) = reference;
        let what = match engine.fleet.entry(kind, name) {
            None => "which does not exist; apply it first",
            Some(entry) if entry.metadata().deleted.is_some() && !kept.contains(&reference) => {
                "which is being deleted; wait until it is gone and apply it again first"
            }
            Some(_) => continue,
        };
        return Err(invalid(path, format!("names the {kind} {name:?}, {what}")));
    }
    Ok(())
}

/// The network that is named, as a reference.
fn named_network(name: &Option<String>) -> impl Iterator<Item = (&'static str, Kind, &str)> {
    name.iter().map(|name| ("spec.network", Kind::Network, name.as_str()))
}

fn in_use(kind: Kind, name: &str, users: Vec<String>, what: &str, advice: &str) -> Result<(), BackendError> {
    if users.is_empty() {
        return Ok(());
    }
    let object = reference(kind, name);
    let message = format!("{object} is used by {what} {}", users.join(", "));
    Err(BackendError::Precondition { message, advice: advice.to_owned() })
}

/// Claims that are still about their nodes.
fn users(engine: &Engine, uses: impl Fn(&TenantNode) -> bool) -> Vec<String> {
    engine.fleet.nodes().iter().filter(|node| uses(node)).map(|node| node.name().to_owned()).collect()
}

/// Refuses a change of what says which server a held host is: a mistyped address would be somebody else's server, and would
/// be switched off.
fn same_server(current: &Host, wanted: &Host) -> Result<(), BackendError> {
    let Some(claim) = &current.status.claim else { return Ok(()) };
    let changed = if current.spec.boot_mac != wanted.spec.boot_mac {
        "boot MAC"
    } else if current.spec.bmc.address.identity() != wanted.spec.bmc.address.identity() {
        "BMC address"
    } else {
        return Ok(());
    };
    let (name, holder) = (wanted.name(), &claim.node);
    Err(BackendError::Precondition {
        message: format!("the {changed} of host {name} cannot change while tenant node {holder} holds it"),
        advice: "delete the tenant node first".to_owned(),
    })
}

impl Rules for Host {
    fn admit(&self, engine: &Engine, current: Option<&Self>, secrets: &Secrets) -> Result<(), BackendError> {
        secrets_of(secrets, &["bmc.password"], None)?;
        current.map_or(Ok(()), |current| same_server(current, self))?;
        let network = &engine.config.network;
        match self.spec.address {
            Some(address) if !(network.range_start..=network.range_end).contains(&address) => {
                let range = format!("{} to {}", network.range_start, network.range_end);
                Err(invalid("spec.address", format!("{address} is not on the provisioning network; expected {range}")))
            }
            _ => Ok(()),
        }
    }

    /// A host without a password is known and no more; with it, it is registered.
    fn settle(&mut self, engine: &Engine, current: Option<&Self>, secrets: &Secrets) -> Vec<Note> {
        let now = engine.now();
        match (current, secrets.contains_key("bmc.password")) {
            (None, false) => self.status = operator::discovered(self.name(), now),
            (Some(_), true) => {
                if let Some(change) = operator::introduced(self, &engine.limits, now) {
                    self.status = change.status;
                    return change.notes;
                }
            }
            (None, true) | (Some(_), false) => {}
        }
        Vec::new()
    }

    fn may_go(&self, _: &Engine) -> Result<(), BackendError> {
        if let (Some(ended), OnDelete::Clean) = (&self.status.unerased, self.spec.on_delete) {
            return Err(BackendError::Precondition {
                message: format!(
                    "what tenant node {} left on host {} is not erased, and the host is to be deleted clean",
                    ended.node,
                    self.name()
                ),
                advice: format!(
                    "`vmetal host unquarantine {0}` erases it; to leave disks and power as they are, set on_delete to orphan or \
                     `vmetal host detach {0}`",
                    self.name()
                ),
            });
        }
        let holder = self.status.claim.iter().map(|claim| claim.node.clone()).collect();
        in_use(
            Kind::Host,
            self.name(),
            holder,
            "tenant node",
            "delete the tenant node first; its host is then erased and can go",
        )
    }

    fn secret_name(&self, _: &str) -> String {
        secrets::bmc_password(&self.metadata.uid)
    }

    fn again(fleet: &Fleet, name: &str) -> Option<Arc<Self>> {
        fleet.host(name)
    }
}

impl Rules for NodeType {
    fn admit(&self, engine: &Engine, current: Option<&Self>, secrets: &Secrets) -> Result<(), BackendError> {
        secrets_of(secrets, &[], None)?;
        exist(engine, current, self)
    }

    fn refers(&self) -> Vec<(&'static str, Kind, &str)> {
        let image = self.spec.image.iter().map(|image| ("spec.image", Kind::Image, image.as_str()));
        image.chain(named_network(&self.spec.network)).collect()
    }

    fn may_go(&self, engine: &Engine) -> Result<(), BackendError> {
        let name = self.name();
        let uses = users(engine, |node| {
            node.spec.node_type.as_deref() == Some(name)
                || node.status.host.is_some()
                    && node.status.decision.as_ref().is_some_and(|decision| decision.node_type.as_deref() == Some(name))
        });
        in_use(Kind::NodeType, name, uses, "tenant nodes", "delete those first")
    }

    fn secret_name(&self, field: &str) -> String {
        format!("node_type/{}/{field}", self.metadata.uid)
    }

    fn again(fleet: &Fleet, name: &str) -> Option<Arc<Self>> {
        fleet.node_type(name)
    }
}

impl Rules for TenantNode {
    const SECRETS_STAY: bool = true;

    fn admit(&self, engine: &Engine, current: Option<&Self>, secrets: &Secrets) -> Result<(), BackendError> {
        secrets_of(secrets, &["user_data"], None)?;
        exist(engine, current, self)?;
        let Some(current) = current.filter(|node| node.status.phase != TenantNodePhase::Pending) else { return Ok(()) };
        // A node that exists can only change in how it is emptied: the rest is decided, installed and registered.
        let mut allowed = current.spec.clone();
        allowed.drain = self.spec.drain.clone();
        if allowed == self.spec && secrets.is_empty() {
            return Ok(());
        }
        Err(BackendError::Precondition {
            message: format!(
                "tenant node {} is {} already; only drain can still change",
                self.name(),
                current.status.phase.as_str()
            ),
            advice: "replace it: delete it and create it again".to_owned(),
        })
    }

    fn refers(&self) -> Vec<(&'static str, Kind, &str)> {
        let TenantNodeSpec { cluster, node_type, image, network, .. } = &self.spec;
        let cluster = Some(("spec.cluster", Kind::TenantCluster, cluster.as_str()));
        let node_type = node_type.as_ref().map(|name| ("spec.node_type", Kind::NodeType, name.as_str()));
        let image = image.as_ref().map(|name| ("spec.image", Kind::Image, name.as_str()));
        [cluster, node_type, image].into_iter().flatten().chain(named_network(network)).collect()
    }

    fn may_go(&self, _: &Engine) -> Result<(), BackendError> {
        Ok(())
    }

    fn secret_name(&self, _: &str) -> String {
        secrets::user_data(&self.metadata.uid)
    }

    fn again(fleet: &Fleet, name: &str) -> Option<Arc<Self>> {
        fleet.node(name)
    }
}

impl Rules for TenantCluster {
    fn admit(&self, engine: &Engine, current: Option<&Self>, secrets: &Secrets) -> Result<(), BackendError> {
        secrets_of(secrets, &["kubeconfig"], current.is_none().then_some("kubeconfig"))?;
        exist(engine, current, self)
    }

    fn refers(&self) -> Vec<(&'static str, Kind, &str)> {
        named_network(&self.spec.network).collect()
    }

    /// A quota below what the cluster holds is let in: what tenants have is not taken from them, and somebody is told.
    fn settle(&mut self, engine: &Engine, current: Option<&Self>, _: &Secrets) -> Vec<Note> {
        let changed = current.is_some_and(|current| current.spec.quota != self.spec.quota);
        let quotas = || Quotas::of(&[&*self], &engine.fleet.node_types(), &engine.fleet.nodes());
        let excess = changed.then(quotas).and_then(|quotas| quotas.excess(self.name()));
        let told = excess.map(|excess| {
            format!("{excess}: nothing is taken away, and nothing more is given until enough has been given back")
        });
        told.into_iter().map(|told| Note::warning("over_quota", told)).collect()
    }

    fn may_go(&self, engine: &Engine) -> Result<(), BackendError> {
        let uses = users(engine, |node| node.spec.cluster == self.name());
        in_use(Kind::TenantCluster, self.name(), uses, "tenant nodes", "delete those first")
    }

    fn secret_name(&self, _: &str) -> String {
        secrets::kubeconfig(&self.metadata.uid)
    }

    fn again(fleet: &Fleet, name: &str) -> Option<Arc<Self>> {
        fleet.cluster(name)
    }
}

impl Rules for Image {
    fn admit(&self, _: &Engine, _: Option<&Self>, secrets: &Secrets) -> Result<(), BackendError> {
        secrets_of(secrets, &[], None)
    }

    fn may_go(&self, engine: &Engine) -> Result<(), BackendError> {
        let name = self.name();
        let types = engine.fleet.node_types();
        let by_types = types.iter().filter(|t| t.spec.image.as_deref() == Some(name)).map(|t| t.name().to_owned());
        in_use(Kind::Image, name, by_types.collect(), "node types", "change or delete those first")?;
        let unbooted = |node: &TenantNode| {
            node.spec.image.as_deref() == Some(name)
                && matches!(
                    node.status.phase,
                    TenantNodePhase::Pending | TenantNodePhase::Scheduled | TenantNodePhase::Provisioning
                )
        };
        in_use(
            Kind::Image,
            name,
            users(engine, unbooted),
            "tenant nodes",
            "delete those first, or wait until they have booted",
        )
    }

    fn secret_name(&self, field: &str) -> String {
        format!("image/{}/{field}", self.metadata.uid)
    }

    fn again(fleet: &Fleet, name: &str) -> Option<Arc<Self>> {
        fleet.image(name)
    }
}

impl Rules for Policy {
    fn admit(&self, _: &Engine, _: Option<&Self>, secrets: &Secrets) -> Result<(), BackendError> {
        secrets_of(secrets, &[], None)
    }

    fn component(&self) -> Option<&str> {
        Some(&self.spec.sha256)
    }

    fn may_go(&self, _: &Engine) -> Result<(), BackendError> {
        Ok(())
    }

    fn secret_name(&self, field: &str) -> String {
        format!("policy/{}/{field}", self.metadata.uid)
    }

    fn again(fleet: &Fleet, name: &str) -> Option<Arc<Self>> {
        fleet.policy(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use vmetal_model::{Claim, ClaimState, HostStatus, Timestamp, Uid};

    use super::*;

    fn host(address: &str, mac: &str) -> Host {
        let now = Timestamp::UNIX_EPOCH;
        let spec = serde_json::json!({ "bmc": { "address": address, "username": "admin" }, "boot_mac": mac });
        let metadata = crate::ledger::new_metadata("h1", [7; 16], now);
        crate::ledger::new_object(metadata, serde_json::from_value(spec).unwrap(), HostStatus::new(now))
    }

    #[test]
    fn what_was_declared_anew_is_not_overwritten_by_who_has_not_seen_it() {
        let mut current = host("redfish://10.0.0.1", "52:54:00:00:00:01");
        let uid = current.metadata.uid.clone();
        let apply = |generation| {
            let apply = Apply::from_json(Kind::Host, "h1", serde_json::json!({}));
            apply.precondition(Precondition::Declared { uid: uid.clone(), generation })
        };
        assert_eq!(precondition(&apply(1), Some(&current)), Ok(()));
        current.metadata.revision += 7;
        assert_eq!(precondition(&apply(1), Some(&current)), Ok(()), "the engine's own writes do not count");
        current.metadata.generation = 2;
        assert!(matches!(precondition(&apply(1), Some(&current)), Err(BackendError::Conflict { .. })));
        current.metadata.uid = Uid("another".into());
        assert!(matches!(precondition(&apply(2), Some(&current)), Err(BackendError::Conflict { .. })));
        assert!(matches!(
            precondition::<_, ()>(&apply(2), None::<&Object<(), ()>>),
            Err(BackendError::NotFound { .. })
        ));
    }

    #[test]
    fn a_held_host_stays_the_server_it_is() {
        let mac = "52:54:00:00:00:01";
        let mut held = host("redfish://10.0.0.1", mac);
        let changes = [host("redfish://10.0.0.2", mac), host("redfish://10.0.0.1", "52:54:00:00:00:02")];
        assert!(changes.iter().all(|wanted| same_server(&held, wanted).is_ok()), "a free host may change");
        let (since, uid) = (Timestamp::UNIX_EPOCH, Uid("u".into()));
        held.status.claim =
            Some(Claim { node: "worker-1".into(), uid, state: ClaimState::Install, since, image: None, lease: None });
        for (wanted, what) in changes.iter().zip(["BMC address", "boot MAC"]) {
            let refusal = same_server(&held, wanted).unwrap_err().to_string();
            assert!(refusal.contains(what) && refusal.contains("worker-1"), "{refusal}");
        }
        // Another spelling of the same BMC is no change.
        assert_eq!(same_server(&held, &host("redfish+https://10.0.0.1:443/", mac)), Ok(()));
    }
}
