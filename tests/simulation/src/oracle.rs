//! Watches every commit, in order, and says what must never be.

mod groups;
mod orders;
mod quotas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use vmetal_model::host::BootAttempt;
use vmetal_model::{ClaimState, Event, Host, HostPhase, Kind, OperationState, TenantNode, TenantNodePhase, Uid};
use vmetal_store::{Change, Committed, ObjectChange, Revision, Selector, Store as _};
use vmetald::fleet::{Entry, Update};
use vmetald::ledger::decode_change;

use crate::world::World;

/// Whether a claim got a host in a commit.
#[derive(PartialEq, Eq)]
enum Seating {
    Fresh,
    Old,
}

/// What it has seen.
#[derive(Default)]
struct Seen {
    hosts: BTreeMap<String, Arc<Host>>,
    nodes: BTreeMap<String, Arc<TenantNode>>,
    revision: u64,
    /// Claims that lost a host without an erasure, by that host.
    lost: BTreeSet<(String, Uid)>,
    /// Values of the log of decisions.
    logged: BTreeSet<String>,
    quotas: quotas::Quotas,
}

/// The most values that one engine's log of decisions may have with the simulation's configuration: 8 decisions, the segment
/// that they are in, and a round that has many.
const LOGGED: usize = 24;

/// Watches until the simulation ends.
pub async fn watch(world: Arc<World>) {
    let mut seen = Seen::default();
    let mut changes = world.model.watch(Selector::All, Revision::ZERO);
    while let Some(change) = changes.next().await {
        match change {
            Ok(Change::Committed(committed)) => seen.take(&world, &committed),
            Ok(Change::Progress(_)) => {}
            Err(error) => return world.violated("store", format!("the oracle lost the store: {error}")),
        }
    }
}

impl Seen {
    fn take(&mut self, world: &World, committed: &Committed) {
        let revision = committed.revision.0;
        if revision != self.revision + 1 {
            world.violated("store", format!("revision {revision} follows {}", self.revision));
        }
        self.revision = revision;
        let mut events: Vec<Event> = Vec::new();
        for event in &committed.events {
            match serde_json::from_slice::<Event>(&event.value) {
                Ok(event) => {
                    world.say(&event.name, format!("{:?} {}: {}", event.severity, event.reason, event.message));
                    events.push(event);
                }
                Err(error) => world.violated("store", format!("an event cannot be read: {error}")),
            }
        }
        let (mut seated, mut claims) = (Vec::new(), false);
        for change in &committed.objects {
            self.log(world, change);
            match decode_change(change) {
                Ok(Some(Update::Put(Entry::Host(host)))) => {
                    let before = self.hosts.get(host.name());
                    let same = before.is_some_and(|before| {
                        before.status.claim == host.status.claim && before.status.unerased == host.status.unerased
                    });
                    claims |= !same;
                    self.host(world, host, &events, revision);
                }
                Ok(Some(Update::Put(Entry::TenantNode(node)))) => {
                    claims = true;
                    if self.node(world, Arc::clone(&node), &events) == Seating::Fresh {
                        seated.push(node);
                    }
                }
                Ok(Some(Update::Gone(Kind::Host, name))) => {
                    if let Some(host) = self.hosts.remove(&name) {
                        if host.status.claim.is_some() {
                            world.violated(&name, "removed while a claim holds it");
                        }
                        orders::removed(world, &host);
                    }
                    world.inner().intents.remove(&name);
                }
                Ok(Some(Update::Put(Entry::TenantCluster(cluster)))) => self.quotas.declared(cluster),
                Ok(Some(Update::Gone(Kind::TenantNode, name))) => {
                    self.nodes.remove(&name);
                    claims = true;
                }
                Ok(_) => {}
                Err(error) => world.violated("store", format!("revision {revision} cannot be read: {error}")),
            }
        }
        groups::seated(world, &self.nodes, &seated);
        if claims {
            self.quotas.judge(world, &self.nodes);
            self.claims(world);
        }
    }

    /// The log of decisions does not grow without bound, whoever crashes.
    fn log(&mut self, world: &World, change: &ObjectChange) {
        let key = change.key();
        if key.kind.as_str() != vmetald::decisions::KIND {
            return;
        }
        match change {
            ObjectChange::Put(_) => self.logged.insert(key.name.clone()),
            ObjectChange::Deleted(_) => self.logged.remove(&key.name),
        };
        if self.logged.len() > LOGGED * world.scenario.engines {
            world.violated("log", format!("{} values are in the log of decisions", self.logged.len()));
        }
    }

    fn host(&mut self, world: &World, host: Arc<Host>, events: &[Event], revision: u64) {
        let name = host.name().to_owned();
        if let Some(operation) = &host.status.operation {
            let mut inner = world.inner();
            let known = inner.intents.get(&name).map(|(id, _)| *id);
            if known != Some(operation.id)
                && let Some(author) = inner.authors.get(&revision).copied()
            {
                inner.intents.insert(name.clone(), (operation.id, author));
            }
        }
        let before = self.hosts.insert(name.clone(), Arc::clone(&host));
        let Some(before) = before.filter(|before| before.metadata.uid == host.metadata.uid) else { return };
        told(world, &name, events, before.status.phase.as_str(), host.status.phase.as_str());
        self.operation(world, &before, &host);
        kept(world, &before, &host);
        self.tenancy(world, &before, &host);
    }

    /// Intents follow each other one by one, and none is written over: its outcome is told before the next, or with it.
    fn operation(&self, world: &World, before: &Host, host: &Host) {
        let id = |host: &Host| host.status.operation.as_ref().map_or(0, |operation| operation.id);
        let (old, new) = (id(before), id(host));
        if new < old || new > old + 1 {
            world.violated(host.name(), format!("operation {new} follows operation {old}"));
        }
        let open = before.status.operation.as_ref().is_some_and(|op| op.state == OperationState::Intended);
        let ended = host.status.previous_operation.as_ref();
        let ended =
            ended.is_some_and(|op| op.id == old && op.state != OperationState::Intended && op.finished.is_some());
        if new > old && open && !ended {
            world.violated(host.name(), format!("operation {new} was intended while {old} was open"));
        }
        if new > old {
            orders::intended(world, before, host);
        }
    }

    /// A claim leaves a host only with an erase record for it, and with truly empty disks.
    fn tenancy(&mut self, world: &World, before: &Host, host: &Host) {
        let claim = |host: &Host| host.status.claim.as_ref().map(|claim| claim.uid.clone());
        let (old, new) = (claim(before), claim(host));
        let Some(old) = old.filter(|old| Some(old) != new.as_ref()) else {
            if claim(before) != new {
                if !host.status.phase.is_claimable() {
                    world.violated(host.name(), format!("claimed while {}", host.status.phase.as_str()));
                }
                if before.is_deleted() {
                    world.violated(host.name(), "claimed though it goes");
                }
                let left = claims_on_disks(world, host.name());
                if !left.is_empty() {
                    world.violated(host.name(), format!("claimed with the data of {left:?} on its disks"));
                }
            }
            return;
        };
        if new.is_some() {
            world.violated(host.name(), "it went from one claim to another without the pool in between");
        }
        // Taken away from a claim that failed on it: kept out of the pool, and remembered as not erased.
        if host.status.phase == HostPhase::Quarantined && host.status.lost_by(&old).is_some() {
            self.lost.insert((host.name().to_owned(), old));
            return;
        }
        if host.status.erase.as_ref().is_none_or(|record| record.claim_uid != old) {
            world.violated(host.name(), format!("claim {old} left it without an erase record"));
        }
        let left = claims_on_disks(world, host.name());
        if left.contains(&old.0) {
            world.violated(host.name(), format!("claim {old} left it, and its data is still on the disks"));
        }
    }

    fn node(&mut self, world: &World, node: Arc<TenantNode>, events: &[Event]) -> Seating {
        let name = node.name().to_owned();
        let before = self.nodes.insert(name.clone(), Arc::clone(&node));
        let Some(before) = before.filter(|before| before.metadata.uid == node.metadata.uid) else {
            return Seating::Old;
        };
        told(world, &name, events, before.status.phase.as_str(), node.status.phase.as_str());
        let seated = |node: &TenantNode| node.status.phase != TenantNodePhase::Pending && node.status.host.is_some();
        if seated(&node) && !seated(&before) { Seating::Fresh } else { Seating::Old }
    }

    /// No claim has two hosts, and none believes in a host that another has.
    fn claims(&self, world: &World) {
        let mut held: BTreeMap<&str, &str> = BTreeMap::new();
        for host in self.hosts.values() {
            // A claim that has moved on to another host leaves behind one that is being erased.
            let wanted =
                |claim: &&vmetal_model::Claim| matches!(claim.state, ClaimState::Reserved | ClaimState::Install);
            let leaves = |claim: &&vmetal_model::Claim| {
                let node = self.nodes.get(&claim.node).filter(|node| node.metadata.uid == claim.uid);
                node.is_some_and(|node| node.status.host.as_deref() == Some(host.name()))
            };
            let claim = host.status.claim.as_ref().filter(|claim| wanted(claim) || leaves(claim));
            let Some(claim) = claim else { continue };
            if let Some(other) = held.insert(&claim.uid.0, host.name()) {
                world.violated(&claim.node, format!("holds {other} and {}", host.name()));
            }
        }
        for node in self.nodes.values() {
            use TenantNodePhase as P;
            let holds =
                matches!(node.status.phase, P::Scheduled | P::Provisioning | P::Joining | P::Ready | P::Draining);
            let (true, Some(host)) = (holds, &node.status.host) else { continue };
            // A host that failed for good ends the tenancy in one commit; the claim hears of it in the next.
            let uid = &node.metadata.uid;
            let lost = self.hosts.get(host).is_some_and(|host| host.status.lost_by(uid).is_some())
                // One that goes need not wait for what becomes of a host that it has lost.
                || node.status.phase == P::Draining && self.lost.contains(&(host.clone(), uid.clone()));
            if !lost && held.get(node.metadata.uid.0.as_str()) != Some(&host.as_str()) {
                let phase = node.status.phase.as_str();
                world.violated(node.name(), format!("is {phase} on {host}, which it does not hold"));
            }
        }
    }
}

/// Whose data is really on a host's disks.
fn claims_on_disks(world: &World, host: &str) -> Vec<String> {
    let inner = world.inner();
    let machine = inner.machines.iter().find(|machine| machine.name == host);
    machine.map_or_else(Vec::new, |machine| machine.claims().into_iter().map(str::to_owned).collect())
}

/// A change of phase has its events in the same commit, from the old phase to the new one without a gap.
fn told(world: &World, name: &str, events: &[Event], before: &str, now: &str) {
    let mut at = before.to_owned();
    for event in events.iter().filter(|event| event.name == name && event.reason == "phase_changed") {
        let Some((from, rest)) = event.message.split_once(" -> ") else { continue };
        let to = rest.split(':').next().unwrap_or_default();
        if from != at {
            world.violated(name, format!("an event tells of {from} -> {to}, but it was {at}"));
        }
        to.clone_into(&mut at);
    }
    if at != now {
        world.violated(name, format!("it went from {before} to {now}, and the events tell of {at}"));
    }
}

/// What is on record of an operation that has ended and of a network boot stays on record: nobody writes over what somebody else
/// has learnt.
fn kept(world: &World, before: &Host, host: &Host) {
    if let (Some(old), Some(new)) = (&before.status.operation, &host.status.operation)
        && old.id == new.id
        && old.state != OperationState::Intended
        && old != new
    {
        let text =
            format!("the outcome of operation {} was written over: {:?} became {:?}", old.id, old.state, new.state);
        world.violated(host.name(), text);
    }
    if let (Some(old), Some(new)) = (&before.status.boot, &host.status.boot)
        && old.id == new.id
    {
        let said = |boot: &BootAttempt| [boot.called_in, boot.work_done, boot.phoned_home];
        if said(old).iter().zip(said(new)).any(|(old, new)| old.is_some() && *old != new) {
            let text =
                format!("what was said in boot {} was written over: {:?} became {:?}", old.id, said(old), said(new));
            world.violated(host.name(), text);
        }
    }
}
