//! Addresses for claims: one for each, of the network that it is for, in the commit that reserves its host.
//!
//! What is chosen here is chosen by what this engine knows. That no two hosts ever have the same address is kept by the store:
//! the host's record holds its address in a unique index, so of two engines that chose the same one a commit fails, and that
//! claim is decided on again. A reservation also holds only while its network is as it was seen.
//!
//! The address goes where the claim goes on the host's record, and stays after a claim that ended with its data still there:
//! it is free again in the commit that says that the host is erased.

use std::collections::BTreeMap;

use vmetal_model::network::chosen;
use vmetal_model::{Lease, TenantNode};
use vmetal_network::Pool;
use vmetal_policy::{Networks, Room};

use super::Place;
use super::quota::Blocked;
use crate::engine::Engine;
use crate::fleet::AddressPromise;

impl AddressPromise {
    /// The address as a claim has it; none where it is one of the provisioning network.
    pub(super) fn lease(&self) -> Option<Lease> {
        Some(Lease { network: self.network()?.to_owned(), address: self.address })
    }
}

impl Engine {
    /// What is left of the networks, and which of them claims would be for, as far as this engine knows.
    pub(crate) fn networks(&self) -> Networks {
        let room = |network: &vmetal_model::Network| {
            let pool = Pool::of(&network.spec);
            let used = self.fleet.leased(network.name()).into_iter().filter(|address| pool.contains(*address)).count();
            let total = pool.size();
            (network.name().to_owned(), Room { total, left: total.saturating_sub(used as u64) })
        };
        let rooms: BTreeMap<String, Room> = self.fleet.networks().iter().map(|network| room(network)).collect();
        if rooms.is_empty() {
            return Networks::default();
        }
        Networks::new(rooms, &self.clusters(), &self.fleet.node_types())
    }

    /// The network that a claim on a host of a node type is for.
    pub(crate) fn network_for(&self, node: &TenantNode, node_type: Option<&str>) -> Option<String> {
        let cluster = self.fleet.cluster(&node.spec.cluster);
        let node_type = node_type.and_then(|name| self.fleet.node_type(name));
        let (cluster, node_type) = (cluster.as_ref().map(|one| &one.spec), node_type.as_ref().map(|one| &one.spec));
        chosen(&node.spec, cluster, node_type).map(str::to_owned)
    }

    /// An address for each place whose claim is for a network, promised until the reservation is committed or given up.
    pub(super) fn leases(&self, places: &[Place]) -> Result<Vec<Option<AddressPromise>>, Blocked> {
        let lease = |place: &Place| {
            let Some(name) = self.network_for(&place.node, place.choice.node_type.as_deref()) else { return Ok(None) };
            let network = self.fleet.network(&name).ok_or_else(|| Blocked::NoNetwork(name.clone()))?;
            self.fleet.promise_lease(&network).map(Some).ok_or(Blocked::NoAddress(name))
        };
        places.iter().map(lease).collect()
    }
}
