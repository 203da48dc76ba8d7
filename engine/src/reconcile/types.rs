//! Classes and clusters: what can be computed or observed about them.

use std::sync::Arc;

use jiff::SignedDuration;
use vmetal_model::node_type::Capacity;
use vmetal_model::tenant_cluster::TenantClusterStatus;
use vmetal_model::{HostPhase, Kind, NodeTypeStatus};
use vmetal_policy::Offer;
use vmetal_store::CommitError;

use crate::engine::{Engine, ObjectKey};
use crate::ledger::Batch;
use crate::ownership::{Author, Hold};
use crate::secrets;

/// How often a cluster is looked at when nothing else happens.
const CLUSTER_CHECK: SignedDuration = SignedDuration::from_mins(5);

impl Engine {
    pub(super) async fn reconcile_node_type(&self, name: &str) -> Result<(), CommitError> {
        let Some(hold) = self.ownership.hold(&ObjectKey::new(Kind::NodeType, name)) else { return Ok(()) };
        let Some(node_type) = self.fleet.node_type(name) else { return Ok(()) };
        let hosts = self.fleet.hosts();
        let standby = self.keep_standby(hold, &node_type, &hosts).await?;
        if node_type.is_deleted() {
            return self.remove_unused(hold, &*node_type, &[]).await.map(|_| ());
        }
        let selector = &node_type.spec.selector;
        let mut capacity = Capacity::default();
        for host in hosts.iter().filter(|h| selector.iter().all(|(k, v)| h.metadata.labels.get(k) == Some(v))) {
            capacity.total += 1;
            match &host.status.claim {
                Some(_) => capacity.claimed += 1,
                None if host.status.phase == HostPhase::Available && host.status.pause.is_none() => {
                    capacity.available += 1
                }
                None if host.status.phase == HostPhase::Standby && host.status.pause.is_none() => capacity.standby += 1,
                None => {}
            }
        }
        let offer = Offer::from_model(&node_type, &self.fleet.view());
        let seconds = u64::try_from(self.now().as_second()).unwrap_or(0);
        let known = (node_type.status.cost, node_type.status.cost_micros);
        let (cost, cost_micros) = match self.policies.prices(&[offer], seconds) {
            Ok(costs) => costs.first().map_or(known, |cost| (cost.units(), Some(cost.micro().unsigned_abs()))),
            Err(error) => {
                tracing::warn!(node_type = name, %error, "the cost policy gave no usable answer; the last cost is kept");
                known
            }
        };
        let observed_generation = node_type.metadata.generation;
        let status = NodeTypeStatus { cost, cost_micros, capacity, standby, observed_generation };
        if status == node_type.status {
            return Ok(());
        }
        let mut changed = (*node_type).clone();
        changed.status = status;
        let mut batch = Batch::by(Author::Owner(hold));
        batch.replace(changed);
        self.ledger.commit(batch).await.map(|_| ())
    }

    pub(super) async fn reconcile_cluster(self: &Arc<Self>, name: &str) -> Result<(), CommitError> {
        let key = ObjectKey::new(Kind::TenantCluster, name);
        if self.is_under_way(&key) {
            return Ok(());
        }
        let Some(hold) = self.ownership.hold(&key) else { return Ok(()) };
        let Some(cluster) = self.fleet.cluster(name) else { return Ok(()) };
        if cluster.is_deleted() {
            let uid = &cluster.metadata.uid;
            if self.remove_unused(hold, &*cluster, &[secrets::kubeconfig(uid)]).await? {
                self.tenants.forget(uid);
            }
            return Ok(());
        }
        let due = self.tenants.due(&cluster.metadata.uid, cluster.metadata.generation, self.now(), CLUSTER_CHECK);
        if let Some(due) = due {
            self.wake_at(key, due);
            return Ok(());
        }
        let grip = match self.ownership.grip(hold) {
            Ok(grip) => grip,
            Err(refusal) => {
                self.refused(key, &refusal);
                return Ok(());
            }
        };
        let engine = Arc::clone(self);
        self.run(key, grip, |grip| async move { engine.look_at_cluster(grip.hold(), cluster).await });
        Ok(())
    }

    async fn look_at_cluster(&self, hold: Hold, cluster: Arc<vmetal_model::TenantCluster>) {
        let facts = match self.tenant(&cluster).await {
            Ok(client) => client.facts().await.map_err(|error| error.to_failure(self.now())),
            Err(failure) => Err(failure),
        };
        self.tenants.looked(&cluster.metadata.uid, cluster.metadata.generation, self.now());
        let generation = cluster.metadata.generation;
        let status = match facts {
            Ok(facts) => TenantClusterStatus {
                reachable: true,
                version: Some(facts.version),
                endpoint: Some(facts.endpoint),
                failure: None,
                observed_generation: generation,
            },
            Err(mut failure) => {
                // The same failure again is not news.
                if let Some(old) = cluster.status.failure.as_ref().filter(|old| old.message == failure.message) {
                    failure.at = old.at;
                }
                TenantClusterStatus {
                    reachable: false,
                    failure: Some(failure),
                    observed_generation: generation,
                    ..cluster.status.clone()
                }
            }
        };
        let Some(current) = self.fleet.cluster(cluster.name()).filter(|now| now.metadata.uid == cluster.metadata.uid)
        else {
            return;
        };
        if current.status == status {
            return;
        }
        let mut changed = (*current).clone();
        changed.status = status;
        let mut batch = Batch::by(Author::Owner(hold));
        batch.replace(changed);
        if let Err(error) = self.ledger.commit(batch).await {
            tracing::warn!(cluster = cluster.name(), %error, "could not record what the cluster looks like; looking again");
        }
    }
}
