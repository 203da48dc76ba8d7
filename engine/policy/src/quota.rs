//! Quotas: what tenant clusters may hold, and what they hold.
//!
//! A decision is told the limits of its claim's cluster with what the cluster holds *besides the claim*: a claim that looks
//! for another host gives its own back. So a limit is plain data of the decision's input, and a logged decision can be
//! taken again without the clusters of the time.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vmetal_model::{NodeType, Quantity, Quota, Resources, TenantCluster, TenantNode};

use crate::feasibility::amount;
use crate::input::Offer;

/// What one limit is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// Hosts of all node types.
    Hosts,
    /// Hosts of one node type.
    NodeType(String),
    /// An amount of one resource, as the node types of the hosts declare it.
    Resource(String),
}

impl Limited {
    /// The number alone, as people write it.
    pub(crate) fn number(&self, quantity: Quantity) -> String {
        match self {
            Limited::Hosts | Limited::NodeType(_) => quantity.units_ceil().to_string(),
            Limited::Resource(name) => amount(name, quantity),
        }
    }

    /// The number with what it counts: `8 hosts`, `2 hosts of type h100`, `64 nvidia.com/gpu`.
    pub(crate) fn say(&self, quantity: Quantity) -> String {
        let number = self.number(quantity);
        let hosts = if quantity == Quantity::units(1) { "host" } else { "hosts" };
        match self {
            Limited::Hosts => format!("{number} {hosts}"),
            Limited::NodeType(name) => format!("{number} {hosts} of type {name}"),
            Limited::Resource(name) => format!("{number} {name}"),
        }
    }
}

/// One limit of a tenant cluster's quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What it is about.
    pub limited: Limited,
    /// The most of it that the cluster may hold.
    pub most: Quantity,
    /// What the cluster holds of it, besides the claim that is decided on.
    #[serde(default)]
    pub held: Quantity,
}

impl Limit {
    /// How much more of it the cluster would hold with so many hosts of a node type.
    pub(crate) fn more(&self, offer: &Offer, hosts: u32) -> Quantity {
        self.of(&offer.name, &offer.resources).times(u64::from(hosts))
    }

    fn of(&self, node_type: &str, resources: &Resources) -> Quantity {
        match &self.limited {
            Limited::Hosts => Quantity::units(1),
            Limited::NodeType(name) => Quantity::units(u64::from(name == node_type)),
            Limited::Resource(name) => resources.get(name).copied().unwrap_or_default(),
        }
    }

    /// Whether that much more is too much. What needs nothing of it is not limited by it, also where more is held than may be.
    pub(crate) fn exceeded_by(&self, more: Quantity) -> bool {
        !more.is_zero() && self.held.plus(more) > self.most
    }

    /// What the cluster holds of it, and that it would have to hold more.
    pub(crate) fn say(&self, cluster: &str, more: Quantity) -> String {
        let Limit { limited, most, held } = self;
        let holds = format!("tenant cluster {cluster} holds {} of its {}", limited.number(*held), limited.say(*most));
        // Where it holds all of it, or one more host is what is wanted, that says everything.
        match held >= most || more <= Quantity::units(1) {
            true => holds,
            false => format!("{holds}, {} more wanted", limited.number(more)),
        }
    }

    /// How many more hosts of a node type the cluster may hold; none where it needs nothing of what is limited.
    pub(crate) fn left(&self, offer: &Offer) -> Option<u64> {
        let each = self.more(offer, 1).milli();
        let left = self.most.minus(self.held).milli().checked_div(each)?;
        Some(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

/// The clusters that have a quota, and what each of them holds.
#[derive(Debug, Clone, Default)]
pub struct Quotas {
    clusters: BTreeMap<String, Vec<Limit>>,
    /// What one host of each node type has.
    amounts: BTreeMap<String, Resources>,
}

impl Quotas {
    /// Counts what clusters hold: the hosts of their tenant nodes. Where no cluster has a quota, nothing is counted.
    pub fn of(
        clusters: &[impl Borrow<TenantCluster>],
        node_types: &[impl Borrow<NodeType>],
        nodes: &[impl Borrow<TenantNode>],
    ) -> Self {
        let limited = clusters.iter().map(Borrow::borrow).filter(|cluster| !cluster.spec.quota.is_unlimited());
        let clusters: BTreeMap<String, Vec<Limit>> =
            limited.map(|cluster| (cluster.name().to_owned(), limits(&cluster.spec.quota))).collect();
        if clusters.is_empty() {
            return Quotas::default();
        }
        let amount = |one: &NodeType| (one.name().to_owned(), one.spec.resources.clone());
        let mut quotas = Quotas { clusters, amounts: node_types.iter().map(|one| amount(one.borrow())).collect() };
        for node in nodes.iter().map(Borrow::borrow).filter(|node| node.status.host.is_some()) {
            quotas.take(&node.spec.cluster, type_of(node));
        }
        quotas
    }

    /// Whether no cluster has a quota.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
    }

    /// The limits of a claim's cluster.
    pub fn limits(&self, node: &TenantNode) -> Vec<Limit> {
        let Some(limits) = self.clusters.get(&node.spec.cluster) else { return Vec::new() };
        let mut limits = limits.clone();
        if node.status.host.is_some() {
            change(&mut limits, &self.amounts, type_of(node), Quantity::minus);
        }
        limits
    }

    /// The cluster holds one more host, of this node type.
    pub fn take(&mut self, cluster: &str, node_type: &str) {
        self.changed(cluster, node_type, Quantity::plus);
    }

    /// The cluster holds one host of this node type less.
    pub fn give_back(&mut self, cluster: &str, node_type: &str) {
        self.changed(cluster, node_type, Quantity::minus);
    }

    /// Counts one more host of this node type for the cluster, if its quota allows that.
    ///
    /// # Errors
    /// The first limit that does not, in words.
    pub fn admit(&mut self, cluster: &str, node_type: &str) -> Result<(), String> {
        let nothing = Resources::new();
        let resources = self.amounts.get(node_type).unwrap_or(&nothing);
        let over = |limit: &Limit| {
            let more = limit.of(node_type, resources);
            limit.exceeded_by(more).then(|| limit.say(cluster, more))
        };
        match self.clusters.get(cluster).and_then(|limits| limits.iter().find_map(over)) {
            Some(why) => Err(why),
            None => {
                self.take(cluster, node_type);
                Ok(())
            }
        }
    }

    /// The first limit of which a cluster holds more than it may, as after its quota was lowered; in words.
    pub fn excess(&self, cluster: &str) -> Option<String> {
        let over = self.clusters.get(cluster)?.iter().find(|limit| limit.held > limit.most)?;
        Some(over.say(cluster, Quantity::default()))
    }

    /// What a cluster holds of what its quota limits, limit by limit: `3 of 8 hosts`, `16 of 64 nvidia.com/gpu`. Nothing for a
    /// cluster without a quota.
    pub fn held(&self, cluster: &str) -> Vec<String> {
        let say = |limit: &Limit| format!("{} of {}", limit.limited.number(limit.held), limit.limited.say(limit.most));
        self.clusters.get(cluster).map(|limits| limits.iter().map(say).collect()).unwrap_or_default()
    }

    fn changed(&mut self, cluster: &str, node_type: &str, by: fn(Quantity, Quantity) -> Quantity) {
        if let Some(limits) = self.clusters.get_mut(cluster) {
            change(limits, &self.amounts, node_type, by);
        }
    }
}

/// Counts a host of a node type in or out.
fn change(
    limits: &mut [Limit],
    amounts: &BTreeMap<String, Resources>,
    node_type: &str,
    by: fn(Quantity, Quantity) -> Quantity,
) {
    let nothing = Resources::new();
    let resources = amounts.get(node_type).unwrap_or(&nothing);
    for limit in limits {
        limit.held = by(limit.held, limit.of(node_type, resources));
    }
}

/// The node type by which a claim has its host.
fn type_of(node: &TenantNode) -> &str {
    node.status.decision.as_ref().and_then(|decision| decision.node_type.as_deref()).unwrap_or_default()
}

/// In a fixed order: hosts, node types, resources.
fn limits(quota: &Quota) -> Vec<Limit> {
    let limit = |limited, most| Limit { limited, most, held: Quantity::default() };
    let hosts = quota.hosts.map(|most| limit(Limited::Hosts, Quantity::units(u64::from(most))));
    let types = quota.node_types.iter().map(|(name, most)| (Limited::NodeType(name.clone()), u64::from(*most)));
    let types = types.map(|(limited, most)| limit(limited, Quantity::units(most)));
    let resources = quota.resources.iter().map(|(name, most)| limit(Limited::Resource(name.clone()), *most));
    hosts.into_iter().chain(types).chain(resources).collect()
}

#[cfg(test)]
#[path = "quota/tests.rs"]
mod tests;
