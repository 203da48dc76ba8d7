//! Networks: which one a claim would get an address of, and whether it has any left.
//!
//! As with quotas, what a decision is told is plain data of its input: the networks that have too few addresses left for it, and
//! for which node types.
//! So a logged decision can be taken again without the networks of the time, and one whose networks all have addresses left is
//! told nothing.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vmetal_model::{NodeType, TenantCluster, TenantNode};

/// The addresses of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// How many there are.
    pub total: u64,
    /// How many nobody has.
    pub left: u64,
}

/// A network without addresses enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedUp {
    /// Its name.
    pub network: String,
    /// How many addresses it has.
    pub total: u64,
    /// How many of them nobody has.
    pub left: u64,
    /// How many are wanted at once: more than are left.
    pub wanted: u32,
    /// The node types with which the claim would get one of them.
    pub with: Which,
}

/// With which node types a claim would be on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// With any: the claim or its cluster names the network.
    Any,
    /// With these, which name it.
    These(Vec<String>),
}

impl UsedUp {
    /// Whether it keeps a node type from being chosen.
    pub(crate) fn bars(&self, node_type: &str) -> bool {
        match &self.with {
            Which::Any => true,
            Which::These(names) => names.iter().any(|name| name == node_type),
        }
    }

    /// That it has too few, in words.
    pub(crate) fn say(&self) -> String {
        let UsedUp { network, total, left, wanted, .. } = self;
        let more = if *wanted > 1 { format!(", {wanted} wanted") } else { String::new() };
        format!("{left} of {total} addresses left in network {network}{more}")
    }
}

/// The networks, what is left of them, and who names them.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    rooms: BTreeMap<String, Room>,
    by_cluster: BTreeMap<String, String>,
    by_type: BTreeMap<String, String>,
}

impl Networks {
    /// The networks with what is left of them, as clusters and node types name them.
    pub fn new(
        rooms: BTreeMap<String, Room>,
        clusters: &[impl Borrow<TenantCluster>],
        node_types: &[impl Borrow<NodeType>],
    ) -> Self {
        let of_cluster = |one: &TenantCluster| Some((one.name().to_owned(), one.spec.network.clone()?));
        let of_type = |one: &NodeType| Some((one.name().to_owned(), one.spec.network.clone()?));
        Networks {
            rooms,
            by_cluster: clusters.iter().filter_map(|one| of_cluster(one.borrow())).collect(),
            by_type: node_types.iter().filter_map(|one| of_type(one.borrow())).collect(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// The network of a claim on a host of a node type: in the order of [`vmetal_model::network::chosen`].
    fn of<'a>(&'a self, node: &'a TenantNode, node_type: &str) -> Option<&'a str> {
        let named = self.named(node);
        named.or_else(|| self.by_type.get(node_type).map(String::as_str))
    }

    /// The network that the claim or its cluster names.
    fn named<'a>(&'a self, node: &'a TenantNode) -> Option<&'a str> {
        node.spec.network.as_deref().or_else(|| self.by_cluster.get(&node.spec.cluster).map(String::as_str))
    }

    /// The networks that so many claims may be on and that have not as many addresses left.
    pub(crate) fn used_up(&self, node: &TenantNode, wanted: u32) -> Vec<UsedUp> {
        let full = |name: &str| self.rooms.get(name).copied().filter(|room| room.left < u64::from(wanted));
        let of = |name: &str, with| {
            let Room { total, left } = full(name)?;
            Some(UsedUp { network: name.to_owned(), total, left, wanted, with })
        };
        if let Some(name) = self.named(node) {
            return of(name, Which::Any).into_iter().collect();
        }
        let mut types: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (node_type, network) in self.by_type.iter().filter(|(_, network)| full(network).is_some()) {
            types.entry(network).or_default().push(node_type.clone());
        }
        types.into_iter().filter_map(|(name, types)| of(name, Which::These(types))).collect()
    }

    /// A claim got an address with a host of this node type; gives the network, for [`Networks::give_back`].
    pub(crate) fn take(&mut self, node: &TenantNode, node_type: &str) -> Option<String> {
        let name = self.of(node, node_type)?.to_owned();
        let room = self.rooms.get_mut(&name)?;
        room.left = room.left.saturating_sub(1);
        Some(name)
    }

    /// An address that was taken is free again.
    pub(crate) fn give_back(&mut self, network: &str) {
        if let Some(room) = self.rooms.get_mut(network) {
            room.left = room.total.min(room.left + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use vmetal_model::{NodeTypeSpec, Object, TenantClusterSpec, TenantNodeSpec, TenantNodeStatus, Timestamp};

    use super::*;
    use crate::testing::metadata;

    fn object<S, T>(name: &str, spec: S, status: T) -> Object<S, T> {
        Object { metadata: metadata(name), spec, status }
    }

    fn node(cluster: &str, network: Option<&str>) -> TenantNode {
        let network = network.map(str::to_owned);
        let spec = TenantNodeSpec { cluster: cluster.to_owned(), network, ..Default::default() };
        object("n", spec, TenantNodeStatus::new(Timestamp::UNIX_EPOCH))
    }

    fn networks(left: u64) -> Networks {
        let room = |total, left| Room { total, left };
        let rooms = [("a", room(3, left)), ("b", room(9, 9)), ("empty", room(5, 0))];
        let rooms = rooms.map(|(name, room)| (name.to_owned(), room)).into();
        let cluster = TenantClusterSpec { network: Some("b".into()), ..Default::default() };
        let of_type = |name: &str, network: Option<&str>| -> NodeType {
            object(name, NodeTypeSpec { network: network.map(str::to_owned), ..Default::default() }, Default::default())
        };
        let types =
            [of_type("t1", Some("a")), of_type("t2", Some("a")), of_type("t3", Some("empty")), of_type("t4", None)];
        let cluster: TenantCluster = object("with", cluster, Default::default());
        Networks::new(rooms, &[cluster], &types)
    }

    #[test]
    fn only_what_is_used_up_is_told_and_only_where_it_matters() {
        let told = |left, node: &TenantNode| {
            let used_up = networks(left).used_up(node, 1);
            used_up.into_iter().map(|one| (one.say(), one.with)).collect::<Vec<_>>()
        };
        let these = |names: &[&str]| Which::These(names.iter().map(|name| (*name).to_owned()).collect());
        let empty = ("0 of 5 addresses left in network empty".to_owned(), these(&["t3"]));
        assert_eq!(told(1, &node("without", None)), std::slice::from_ref(&empty));
        let a = ("0 of 3 addresses left in network a".to_owned(), these(&["t1", "t2"]));
        assert_eq!(told(0, &node("without", None)), [a, empty]);
        assert_eq!(told(0, &node("with", None)), [], "the cluster's network has addresses, whatever the type's has");
        let own = ("0 of 3 addresses left in network a".to_owned(), Which::Any);
        assert_eq!(told(0, &node("with", Some("a"))), [own], "the claim's own word counts");
        let several = |wanted| networks(2).used_up(&node("with", Some("a")), wanted);
        assert_eq!(several(2), []);
        assert_eq!(several(3)[0].say(), "2 of 3 addresses left in network a, 3 wanted");
    }

    #[test]
    fn what_is_taken_is_missing_until_it_is_given_back() {
        let mut networks = networks(1);
        let claim = node("without", None);
        let bars = |networks: &Networks, name: &str| networks.used_up(&claim, 1).iter().any(|one| one.bars(name));
        assert!(!bars(&networks, "t1"));
        assert_eq!(networks.take(&claim, "t2").as_deref(), Some("a"));
        assert!(bars(&networks, "t1") && !bars(&networks, "t4"));
        networks.give_back("a");
        assert!(!bars(&networks, "t1"));
        assert_eq!(networks.take(&claim, "t4"), None);
    }
}
