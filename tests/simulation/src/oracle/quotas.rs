//! A cluster is given no more than its quota allows.

use std::collections::BTreeMap;
use std::sync::Arc;

use vmetal_model::{Quota, TenantCluster, TenantNode};

use crate::scenario::quotas::CPUS;
use crate::world::World;

/// What clusters may hold, and how much they have held.
#[derive(Default)]
pub(super) struct Quotas {
    clusters: BTreeMap<String, Arc<TenantCluster>>,
    held: BTreeMap<String, usize>,
}

impl Quotas {
    /// A cluster is declared.
    pub(super) fn declared(&mut self, cluster: Arc<TenantCluster>) {
        self.clusters.insert(cluster.metadata.name.clone(), cluster);
    }

    /// Judges a commit after which these are all claims. What a cluster holds may be more than its quota after that was lowered;
    /// it may not become more then.
    pub(super) fn judge(&mut self, world: &World, nodes: &BTreeMap<String, Arc<TenantNode>>) {
        for (name, cluster) in &self.clusters {
            let holds = |node: &&Arc<TenantNode>| node.spec.cluster == *name && node.status.host.is_some();
            let held = nodes.values().filter(holds).count();
            let before = self.held.insert(name.clone(), held).unwrap_or_default();
            let most = most(&cluster.spec.quota);
            if held > before && most.is_some_and(|most| held as u64 > most) {
                let most = most.unwrap_or_default();
                world.violated(name, format!("was given its host number {held}, and its quota allows {most}"));
            }
        }
    }
}

/// As all hosts are of one class, each limit is one on hosts.
fn most(quota: &Quota) -> Option<u64> {
    let hosts = quota.hosts.iter().chain(quota.node_types.values()).map(|hosts| u64::from(*hosts));
    let cpus = quota.resources.get("cpu").map(|cpus| cpus.units_ceil() / CPUS);
    hosts.chain(cpus).min()
}
