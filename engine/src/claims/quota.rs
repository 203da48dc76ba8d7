//! Quotas at the commit: no two reservations pass on the same count.
//!
//! A decision counts what a cluster holds as this engine knows it, and another engine may reserve for the same cluster at the
//! same time. So a cluster with a quota has a *turnstile*: a value in the store that every reservation for the cluster writes,
//! at the revision at which it was read. Whoever reserves reads it, waits until it knows everything up to that revision,
//! counts, and commits: if somebody has passed meanwhile, the commit fails and the claim is decided on again.
//!
//! That the count is never too small: every reservation since the quota was declared has written the turnstile, so it is at or
//! below the revision that was read; one from before was guarded by the cluster at an earlier revision than the one with
//! the quota, and everything up to that one is waited for too. What was given back since only makes the count too large.
//!
//! The claims of a cluster with a quota are therefore reserved one after the other; clusters without one pay nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use vmetal_model::{Kind, TenantCluster, Uid};
use vmetal_policy::Quotas;
use vmetal_store::{Key, ReadError, Store as _};

use super::{CATCH_UP, Place, Verdict};
use crate::engine::Engine;
use crate::fleet::Entry;
use crate::ledger::Batch;

/// The kind of turnstiles in the store.
const KIND: &str = "quota";

/// The turnstile of a cluster.
pub(crate) fn turnstile(cluster: &Uid) -> Key {
    Key::new(KIND, cluster.0.clone())
}

/// Why a reservation cannot be made now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Blocked {
    /// The quota would be exceeded: since the decision, others have got what was left of it.
    #[error("the quota is used up: {0}")]
    Exceeded(String),
    /// Since the decision, others have got what addresses were left.
    #[error("network {0} has no address left")]
    NoAddress(String),
    /// The network that the claim is for is not known.
    #[error("network {0} does not exist")]
    NoNetwork(String),
    /// What others have reserved is not known.
    #[error("the store did not tell of the changes up to revision {0} in time")]
    NoNews(u64),
    /// The turnstile cannot be read.
    #[error("the turnstile cannot be read")]
    Read(#[from] ReadError),
}

impl Engine {
    /// What clusters may hold and what they hold, as far as this engine knows.
    pub(crate) fn quotas(&self) -> Quotas {
        Quotas::of(&self.clusters(), &self.fleet.node_types(), &self.fleet.nodes())
    }

    pub(crate) fn clusters(&self) -> Vec<Arc<TenantCluster>> {
        let cluster = |entry| if let Entry::TenantCluster(cluster) = entry { Some(cluster) } else { None };
        self.fleet.entries(Kind::TenantCluster).into_iter().filter_map(cluster).collect()
    }

    /// Whether nothing up to a revision is missing, now or soon ([`Limits::news`](vmetal_lifecycle::Limits::news)).
    pub(crate) async fn hears_of(&self, revision: u64) -> bool {
        let all = async {
            loop {
                // Before the look: what comes in between counts.
                let changed = self.fleet.changed();
                if self.fleet.revision() >= revision {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(self.limits.news.unsigned_abs(), all).await.is_ok()
    }

    /// What can be committed at the same time: everything, but for the reservations of one cluster with a quota.
    pub(super) fn queues(&self, verdicts: Vec<Verdict>) -> Vec<Vec<Verdict>> {
        let limited = |verdict: &Verdict| match verdict {
            Verdict::Reserve(places) => {
                let cluster = &places.first()?.node.spec.cluster;
                let quota = &self.fleet.cluster(cluster)?.spec.quota;
                (!quota.is_unlimited()).then(|| cluster.clone())
            }
            Verdict::Told { .. } => None,
        };
        let mut queues: Vec<Vec<Verdict>> = Vec::new();
        let mut of_cluster: BTreeMap<String, usize> = BTreeMap::new();
        for verdict in verdicts {
            match limited(&verdict) {
                Some(cluster) => {
                    let queue = *of_cluster.entry(cluster).or_insert_with(|| {
                        queues.push(Vec::new());
                        queues.len() - 1
                    });
                    queues[queue].push(verdict);
                }
                None => queues.push(vec![verdict]),
            }
        }
        queues
    }

    /// Has a reservation pass its cluster's turnstile, in the same commit.
    pub(super) async fn pass(&self, places: &[Place], batch: &mut Batch) -> Result<(), Blocked> {
        let Some(name) = places.first().map(|place| &place.node.spec.cluster) else { return Ok(()) };
        // A cluster that is gone is noticed with everything else that the claims refer to.
        let Some(cluster) = self.fleet.cluster(name) else { return Ok(()) };
        batch.needs(Kind::TenantCluster, name, cluster.metadata.revision);
        if cluster.spec.quota.is_unlimited() {
            return Ok(());
        }
        let at = turnstile(&cluster.metadata.uid);
        let read = self.ledger.store().get(&at).await?.map(|stored| stored.revision);
        let known = cluster.metadata.revision.max(read.map_or(0, |revision| revision.0));
        if !self.hears_of(known).await {
            return Err(Blocked::NoNews(known));
        }
        let mut quotas = Quotas::of(&[cluster], &self.fleet.node_types(), &self.fleet.nodes());
        for place in places {
            quotas.admit(name, place.choice.node_type.as_deref().unwrap_or_default()).map_err(Blocked::Exceeded)?;
        }
        // The value is for people who look into the store.
        batch.replace_value(at, read, places[0].node.name().as_bytes());
        Ok(())
    }

    /// Has the claims of a reservation that cannot be made decided on again: on what is known then.
    pub(super) async fn blocked(&self, places: &[Place], blocked: Blocked) {
        match blocked {
            Blocked::Exceeded(_) => tracing::debug!(reason = %blocked, "a reservation was overtaken; deciding again"),
            Blocked::NoAddress(_) => {
                tracing::debug!(reason = %blocked, "a reservation was overtaken; deciding again");
                // Until it is known who has got them, deciding again would come to the same.
                let _ = tokio::time::timeout(CATCH_UP, self.fleet.changed()).await;
            }
            Blocked::NoNetwork(_) | Blocked::NoNews(_) | Blocked::Read(_) => {
                tracing::warn!(
                    error = &blocked as &dyn std::error::Error,
                    "a reservation was not made; deciding again"
                );
                tokio::time::sleep(CATCH_UP).await;
            }
        }
        places.iter().for_each(|place| self.questions.forget(&place.node.metadata.uid));
    }
}
