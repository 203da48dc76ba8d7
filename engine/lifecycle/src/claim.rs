//! Claims on hosts: who is decided on together, in which order, and what a reservation writes.
//!
//! A reservation is one transaction over N claims and N hosts. It writes all of them, each guarded by the revision it was
//! decided at, so that of two engines, or of a reservation and a release, or of a reservation and a deletion, one loses as
//! a whole and decides again. [`reserve`] makes what is to be written, and refuses what must never be written whatever a
//! policy says; that every write is guarded is the caller's part.

use std::collections::{BTreeMap, BTreeSet};

use vmetal_model::{
    Claim, ClaimState, Decision as Choice, GroupSpec, Host, HostPhase, Lease, StandbyWish, TenantNode,
    TenantNodePhase as Phase, Timestamp,
};

use crate::limits::Limits;
use crate::node::{self, Effect, Effected, View};
use crate::note::Note;

/// What is decided on as one.
#[derive(Debug, Clone, PartialEq)]
pub enum Unit<'a, N> {
    /// A claim that wants a host.
    One(&'a N),
    /// A failed claim that asks whether there is another host for it. Nothing is reserved.
    Elsewhere(&'a N),
    /// A group whose members may be placed: those without a host, and those that have one.
    Group {
        /// What the members say of the group.
        spec: &'a GroupSpec,
        /// Members without a host, oldest first.
        waiting: Vec<&'a N>,
        /// Members that have one.
        seated: Vec<&'a N>,
    },
    /// A group that may not be placed.
    Broken {
        /// Members without a host.
        waiting: Vec<&'a N>,
        /// Why: who is missing, or what the members disagree about.
        why: String,
    },
}

/// What [`units`] looks at: a claim, however it is kept.
pub trait AsNode {
    /// The claim.
    fn node(&self) -> &TenantNode;
}

impl AsNode for TenantNode {
    fn node(&self) -> &TenantNode {
        self
    }
}

impl AsNode for std::sync::Arc<TenantNode> {
    fn node(&self) -> &TenantNode {
        self
    }
}

/// Sorts the claims that ask for a decision into units, in the order in which they are served: oldest first, then by name.
/// A group is as old as its oldest waiting member, and is there if any of its members asks.
///
/// `nodes` are all claims; those that do not ask count as members of their groups.
pub fn units<'a, N: AsNode>(
    nodes: impl IntoIterator<Item = &'a N>,
    asks: impl Fn(&TenantNode) -> bool,
) -> Vec<Unit<'a, N>> {
    let mut groups: BTreeMap<(&str, &str), Vec<&'a N>> = BTreeMap::new();
    let mut found: Vec<((Timestamp, &str), Unit<'a, N>)> = Vec::new();
    for one in nodes {
        let node = one.node();
        if node.is_deleted() {
            continue;
        }
        match (&node.spec.group, node.status.phase) {
            (_, Phase::Failed) if asks(node) => found.push((age(node), Unit::Elsewhere(one))),
            (None, Phase::Pending) if asks(node) => found.push((age(node), Unit::One(one))),
            _ => {}
        }
        if let Some(group) = &node.spec.group {
            groups.entry((&node.spec.cluster, &group.name)).or_default().push(one);
        }
    }
    for members in groups.into_values() {
        let asked = members.iter().any(|one| one.node().status.phase == Phase::Pending && asks(one.node()));
        found.extend(asked.then(|| group(members)).flatten());
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.into_iter().map(|(_, unit)| unit).collect()
}

fn age(node: &TenantNode) -> (Timestamp, &str) {
    (node.metadata.created, node.name())
}

fn group<'a, N: AsNode>(mut members: Vec<&'a N>) -> Option<((Timestamp, &'a str), Unit<'a, N>)> {
    members.sort_by_key(|one| age(one.node()));
    let first = members.first()?.node().spec.group.as_ref()?;
    let names = |of: &[&N]| of.iter().map(|one| one.node().name()).collect::<Vec<_>>().join(", ");
    let other = members.iter().find(|one| one.node().spec.group.as_ref() != Some(first));
    let broken = if let Some(other) = other {
        let other = other.node();
        let theirs = other.spec.group.as_ref()?;
        let eldest = members.first()?.node().name();
        Some(format!(
            "the members of group {} disagree: {eldest} says {}, {} says {}",
            first.name,
            wish(first),
            other.name(),
            wish(theirs)
        ))
    } else {
        let there = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let missing = first.size.saturating_sub(there);
        (missing > 0).then(|| {
            format!(
                "{there} of the {} members of group {} are declared ({}); {missing} more to come",
                first.size,
                first.name,
                names(&members)
            )
        })
    };
    let (waiting, rest): (Vec<&N>, Vec<&N>) = members.iter().partition(|one| one.node().status.phase == Phase::Pending);
    let key = age(waiting.first()?.node());
    let seated = rest.into_iter().filter(|one| one.node().status.host.is_some()).collect();
    Some(match broken {
        Some(why) => (key, Unit::Broken { waiting, why }),
        None => (key, Unit::Group { spec: first, waiting, seated }),
    })
}

fn wish(group: &GroupSpec) -> String {
    match &group.same {
        Some(label) => format!("{} hosts of the same {label}", group.size),
        None => format!("{} hosts", group.size),
    }
}

/// One claim and the host that was chosen for it.
#[derive(Debug, Clone)]
pub struct Seat<'a> {
    /// The claim, as it is stored.
    pub node: &'a TenantNode,
    /// The host, as it is stored.
    pub host: &'a Host,
    /// How it was chosen.
    pub choice: Choice,
    /// The address that the host gets for the claim, where the claim is for a network.
    pub lease: Option<Lease>,
}

/// What a reservation writes for one seat.
#[derive(Debug, Clone, PartialEq)]
pub struct Reserved {
    /// The claim with its host.
    pub node: TenantNode,
    /// Remarks on it.
    pub node_notes: Vec<Note>,
    /// The host with its claim.
    pub host: Host,
    /// Remarks on it.
    pub host_notes: Vec<Note>,
}

/// Why a reservation must not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host {host} must not be reserved for tenant node {node}: {why}")]
pub struct Unfit {
    /// The claim.
    pub node: String,
    /// The host.
    pub host: String,
    /// What stands in the way.
    pub why: &'static str,
}

/// Makes the reservation of all seats, to be committed as one with every object guarded by its revision.
///
/// # Errors
/// When one of the seats is not so: nothing must be reserved then, for none of them.
pub fn reserve(seats: Vec<Seat<'_>>, limits: &Limits, now: Timestamp) -> Result<Vec<Reserved>, Unfit> {
    let mut taken = BTreeSet::new();
    let mut given = BTreeSet::new();
    let mut reserved = Vec::with_capacity(seats.len());
    for Seat { node, host, choice, lease } in seats {
        let fresh = taken.insert(&host.metadata.uid) && given.insert(&node.metadata.uid);
        if let Some(why) = unfit(node, host).or((!fresh).then_some("it is in the same reservation twice")) {
            return Err(Unfit { node: node.name().to_owned(), host: host.name().to_owned(), why });
        }
        let seat = (host.name().to_owned(), host.metadata.uid.clone());
        let effected = Effected::Decided(choice, Some(seat));
        let decision = node::outcome(View { node, host: None }, limits, Effect::Decide, Ok(effected), now);
        let (mut node, mut host) = (node.clone(), host.clone());
        node.status = decision.status;
        node.status.lease.clone_from(&lease);
        host.status.claim = Some(Claim {
            node: node.name().to_owned(),
            uid: node.metadata.uid.clone(),
            state: ClaimState::Reserved,
            since: now,
            image: None,
            lease,
        });
        if host.status.phase == HostPhase::Available {
            // Ordered, and not begun: the claim comes first.
            host.status.standby = None;
        }
        host.status.tenancies.begin(&node.spec.cluster);
        let host_notes = vec![Note::info("claimed", format!("claimed by tenant node {}", node.name()))];
        reserved.push(Reserved { node, node_notes: decision.notes, host, host_notes });
    }
    Ok(reserved)
}

/// What no choice can excuse.
fn unfit(node: &TenantNode, host: &Host) -> Option<&'static str> {
    let rules = [
        (node.is_deleted(), "the tenant node is being deleted"),
        (node.status.phase != Phase::Pending || node.status.host.is_some(), "the tenant node has a host"),
        (host.is_deleted(), "the host is being deleted"),
        (host.status.claim.is_some(), "the host is claimed"),
        (!host.status.phase.is_claimable(), "the host is not available, nor on standby"),
        (gives_back(host), "the host is about to leave standby"),
        (node.status.has_tried(&host.metadata.uid), "the host was given up for this tenant node"),
    ];
    rules.into_iter().find_map(|(so, why)| so.then_some(why))
}

/// On its way from standby to the pool, though the step that begins it is yet to come.
fn gives_back(host: &Host) -> bool {
    let standby = host.status.standby.as_ref().filter(|_| host.status.phase == HostPhase::Standby);
    standby.is_some_and(|standby| standby.wish == StandbyWish::GiveBack)
}

#[cfg(test)]
mod tests;
