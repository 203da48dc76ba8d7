//! Networks, as far as clients see them: an address for each tenant node, counts, and that what is in use stays.

use std::net::Ipv4Addr;

use vmetal_api::{BackendError, ObjectRef};
use vmetal_model::{Kind, Lease, Network, NetworkStatus, NodeType, TenantCluster, TenantNode, TenantNodeSpec, network};

use super::Inner;

impl Inner {
    fn leases(&self, network: &str) -> Vec<(String, Ipv4Addr)> {
        let lease = |node: TenantNode| {
            let lease = node.status.lease.filter(|lease| lease.network == network)?;
            Some((node.metadata.name, lease.address))
        };
        self.all::<TenantNode>().into_iter().filter_map(lease).collect()
    }

    /// The lowest address of the node's network that no other node has.
    pub(super) fn lease(&self, spec: &TenantNodeSpec, node_type: Option<&str>) -> Option<Lease> {
        let clusters = self.all::<TenantCluster>();
        let cluster = clusters.iter().find(|one| one.metadata.name == spec.cluster).map(|one| &one.spec);
        let types = self.all::<NodeType>();
        let node_type = types.iter().find(|one| Some(one.metadata.name.as_str()) == node_type).map(|one| &one.spec);
        let name = network::chosen(spec, cluster, node_type)?;
        let network = self.all::<Network>().into_iter().find(|one| one.metadata.name == name)?;
        let first = network.spec.ranges.first().copied().unwrap_or_else(|| network.spec.cidr.hosts()).first();
        let taken = self.leases(name);
        let free = |address: &Ipv4Addr| taken.iter().all(|(_, other)| other != address);
        let address = (u32::from(first)..).map(Ipv4Addr::from).find(free)?;
        Some(Lease { network: name.to_owned(), address })
    }

    pub(super) fn may_remove_network(&mut self, name: &str) -> Result<(), BackendError> {
        let Some((node, address)) = self.leases(name).into_iter().next() else { return Ok(()) };
        self.refusals += 1;
        let object = ObjectRef { kind: Kind::Network, name: name.to_owned() };
        let message = format!("{object} is used by tenant node {node} ({address})");
        Err(BackendError::Precondition { message, advice: "delete the tenant node first".into() })
    }

    pub(super) fn tick_networks(&mut self) {
        for mut network in self.moving::<Network>() {
            let whole = vec![network.spec.cidr.hosts()];
            let ranges = if network.spec.ranges.is_empty() { &whole } else { &network.spec.ranges };
            let size =
                |range: &vmetal_model::AddressRange| u64::from(u32::from(range.last()) - u32::from(range.first())) + 1;
            let status = NetworkStatus {
                addresses: ranges.iter().map(size).sum(),
                used: self.leases(&network.metadata.name).len() as u64,
                outside: Vec::new(),
                observed_generation: network.metadata.generation,
            };
            if network.metadata.deleted.is_some() {
                self.remove(Kind::Network, &network.metadata.name);
            } else if network.status != status {
                network.status = status;
                self.put(&network, "counted");
            }
        }
    }
}
